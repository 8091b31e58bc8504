//! What the oracle does not see: when results come, late rows, limits, and how rows are stored.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::util::display::array_value_to_string;
use millstream_engine::message::{Batch, Pane};
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::SqlPlan;
use millstream_engine::time::Timestamp;

use super::operator::{check_kept, check_made};
use super::oracle::{plan, schema, stored};

const SECOND: i64 = 1_000_000;

/// Pairs of a left row and the right rows up to a minute later, by what is joined.
fn query(kind: &str) -> Arc<dyn SqlPlan> {
    plan(&format!(
        "SELECT i.id, c.id AS click FROM impressions i {kind} JOIN clicks c ON i.ad_id = c.ad_id \
         AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '60 seconds'"
    ))
}

fn rows(of: &[(String, Option<&str>, i64)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(of.iter().map(|r| &r.0))),
        Arc::new(of.iter().map(|r| r.1).collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(of.iter().map(|_| "u"))),
        Arc::new(Float64Array::from(vec![None; of.len()])),
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            of.iter().map(|r| r.2),
        )),
    ];
    RecordBatch::try_new(schema(), columns).expect("rows")
}

/// Rows on their way to the join, through the lower half of their side.
fn arriving(plan: &dyn SqlPlan, side: usize, rows: RecordBatch) -> Vec<Batch> {
    let mut out = Output::default();
    let mut local = plan.local(side).expect("local");
    local.on_batch(0, rows.into(), &mut out).expect("local");
    out.main
}

fn join(plan: &dyn SqlPlan) -> Box<dyn Operator> {
    plan.global().expect("global").expect("a join")
}

/// `left a@100`: a row of the left side with key a at 100 s (key `-`: null); `w 120`: the watermark; `restore`:
/// a snapshot into a new join. Gives, step by step, what came out (pairs of the rows' times) and how many rows
/// were counted as behind the watermark.
async fn play(plan: &dyn SqlPlan, script: &str) -> String {
    let mut it = join(plan);
    let mut all = Vec::new();
    for step in script.split("; ") {
        let mut out = Output::default();
        match step.split_once(' ') {
            Some(("w", at)) => {
                let at = Timestamp(at.parse::<i64>().expect("seconds") * SECOND);
                it.on_watermark(at, &mut out).await.expect("a watermark");
            }
            Some((side, row)) => {
                let (key, at) = row.split_once('@').expect("key@seconds");
                let key = (key != "-").then_some(key);
                let row = (at.to_owned(), key, at.parse::<i64>().expect("seconds") * SECOND);
                for batch in arriving(plan, usize::from(side == "right"), rows(&[row])) {
                    it.on_batch(0, batch, &mut out).expect("rows");
                }
            }
            None => {
                let snapshot = stored(it.snapshot().expect("a snapshot"));
                it = join(plan);
                it.restore(snapshot).expect("restored");
            }
        }
        let behind: u64 = out.counts.iter().map(|(_, n)| n).sum();
        let mut said: Vec<String> = out.main.iter().flat_map(|b| pairs(&b.rows)).collect();
        said.sort();
        if behind > 0 {
            said.push(format!("{behind} behind"));
        }
        all.push(if said.is_empty() {
            "-".to_owned()
        } else {
            said.join(" ")
        });
    }
    all.join("; ")
}

fn pairs(rows: &RecordBatch) -> Vec<String> {
    let cell = |column: usize, row: usize| match rows.column(column).is_null(row) {
        true => "none".to_owned(),
        false => array_value_to_string(rows.column(column), row).expect("a value"),
    };
    (0..rows.num_rows())
        .map(|row| format!("{}+{}", cell(0, row), cell(1, row)))
        .collect()
}

#[tokio::test]
async fn results_come_when_they_are_due() {
    for (kind, script, expect) in [
        ("", "left a@100; right a@130; right b@130", "-; 100+130; -"),
        ("", "right a@130; left a@100; left a@131", "-; 100+130; -"),
        (
            "",
            "left a@100; right a@160; right a@161; right a@99",
            "-; 100+160; -; -",
        ),
        ("", "left -@100; right -@100; w 200", "-; -; -"),
        // The last instant of a match has to be past.
        ("LEFT", "left a@100; w 160; w 161", "-; -; 100+none"),
        (
            "LEFT",
            "left a@100; right a@160; w 161; w 300",
            "-; 100+160; -; -",
        ),
        (
            "LEFT",
            "left a@100; right a@110; right a@120; w 161",
            "-; 100+110; 100+120; -",
        ),
        ("LEFT", "left a@100; restore; w 161", "-; -; 100+none"),
        (
            "LEFT",
            "left a@100; right a@110; restore; w 161",
            "-; 100+110; -; -",
        ),
        ("LEFT", "left a@100; w 161; restore; w 400", "-; 100+none; -; -"),
        ("LEFT", "left a@100; left a@100; w 161", "-; -; 100+none 100+none"),
        // In order, though they share a slice.
        (
            "LEFT",
            "left a@100; left a@104; left b@102; w 161; w 163; w 165",
            "-; -; -; 100+none; 102+none; 104+none",
        ),
        (
            "LEFT",
            "left a@100; left a@104; right a@105; w 161; left a@103; w 164",
            "-; -; 100+105 104+105; -; 1 behind; 103+none",
        ),
        // A null key waits for nobody.
        ("LEFT", "left -@100; right -@100; w 161", "100+none; -; -"),
        ("RIGHT", "right a@100; w 100; w 101", "-; -; none+100"),
        ("RIGHT", "right a@100; left a@90; w 101; w 300", "-; 90+100; -; -"),
        (
            "FULL",
            "left a@100; right b@120; w 121; w 161",
            "-; -; none+120; 100+none",
        ),
        (
            "FULL",
            "left a@100; right a@120; w 121; w 161",
            "-; 100+120; -; -",
        ),
        (
            "FULL",
            "left a@100; right a@120; restore; w 121; w 161",
            "-; 100+120; -; -; -",
        ),
    ] {
        assert_eq!(
            play(query(kind).as_ref(), script).await,
            expect,
            "{kind}: {script}"
        );
    }
}

#[tokio::test]
async fn late_rows_match_what_is_kept_and_are_not_lost() {
    for (kind, script, expect) in [
        // Behind the watermark, and its matches may still come.
        (
            "LEFT",
            "w 150; left a@100; right a@155; w 161",
            "-; 1 behind; 100+155; -",
        ),
        ("LEFT", "w 150; left a@100; w 161", "-; 1 behind; 100+none"),
        (
            "LEFT",
            "right a@152; w 150; left a@100; w 161",
            "-; -; 100+152 1 behind; -",
        ),
        // Its match has been dropped: nobody can tell any more.
        (
            "LEFT",
            "right a@110; w 150; left a@100; w 161",
            "-; -; 1 behind; 100+none",
        ),
        // Its time is over.
        ("LEFT", "w 161; left a@100", "-; 100+none 1 behind"),
        (
            "LEFT",
            "w 300; left a@100; left -@100",
            "-; 100+none 1 behind; 100+none 1 behind",
        ),
        ("", "w 300; left a@100", "-; 1 behind"),
        // A late right row finds the left rows that are kept, and only those.
        (
            "LEFT",
            "left a@100; w 150; right a@140; w 161",
            "-; -; 100+140 1 behind; -",
        ),
        (
            "LEFT",
            "left a@100; left b@161; w 161; right a@150",
            "-; -; 100+none; 1 behind",
        ),
        (
            "LEFT",
            "left a@100; w 161; restore; right a@150",
            "-; 100+none; -; 1 behind",
        ),
        (
            "RIGHT",
            "w 150; right a@140; left a@130",
            "-; none+140 1 behind; 1 behind",
        ),
    ] {
        assert_eq!(
            play(query(kind).as_ref(), script).await,
            expect,
            "{kind}: {script}"
        );
    }
}

/// The next batches of `count` rows with one key, a millisecond apart.
fn trickle(plan: &dyn SqlPlan, side: usize, count: i64) -> Vec<Batch> {
    let batch = |n: i64| rows(&[(n.to_string(), Some("a"), n * 1_000)]);
    (0..count).flat_map(|n| arriving(plan, side, batch(n))).collect()
}

#[tokio::test]
async fn single_rows_become_few_batches_and_every_pair_is_made() {
    let plan = query("LEFT");
    let mut it = join(plan.as_ref());
    let mut out = Output::default();
    for batch in trickle(plan.as_ref(), 0, 20_000) {
        it.on_batch(0, batch, &mut out).expect("rows");
    }
    assert!(out.main.is_empty());
    let snapshot = stored(it.snapshot().expect("a snapshot"));
    let kept: usize = snapshot.parts[1..].iter().map(|p| p.rows.num_rows()).sum();
    assert_eq!(kept, 20_000);
    assert!(snapshot.parts.len() < 50, "{} batches", snapshot.parts.len());
    let mut it = join(plan.as_ref());
    it.restore(snapshot).expect("restored");
    let one = rows(&[("click".to_owned(), Some("a"), 20 * SECOND)]);
    for batch in arriving(plan.as_ref(), 1, one) {
        it.on_batch(0, batch, &mut out).expect("rows");
    }
    let made: Vec<usize> = out.main.iter().map(|b| b.rows.num_rows()).collect();
    assert_eq!(made.iter().sum::<usize>(), 20_000);
    assert!(
        made.len() > 1 && made.iter().all(|rows| *rows <= 8_192),
        "{made:?}"
    );
    let ids = out
        .main
        .iter()
        .flat_map(|b| b.rows.column(0).as_string::<i32>().iter().flatten());
    let ids: std::collections::BTreeSet<&str> = ids.collect();
    assert_eq!(ids.len(), 20_000, "each once");
    let mut last = Output::default();
    it.on_watermark(Timestamp(90 * SECOND), &mut last)
        .await
        .expect("a watermark");
    assert!(last.main.is_empty(), "all have found a match");
    assert_eq!(
        it.snapshot().expect("a snapshot").parts.len(),
        1,
        "nothing is kept"
    );
}

#[test]
fn what_is_kept_and_made_is_limited() {
    const LIMIT: Bytes = Bytes(1 << 20);
    assert!(check_kept("case", 1 << 20, LIMIT).is_ok() && check_made("case", 1 << 20, LIMIT).is_ok());
    let refused = check_kept("case", (1 << 20) + 1, LIMIT)
        .expect_err("too much")
        .to_string();
    assert!(
        refused.contains("\"case\"") && refused.contains("time bound shorter"),
        "{refused}"
    );
    let refused = check_made("case", (1 << 20) + 1, LIMIT)
        .expect_err("too much")
        .to_string();
    assert!(
        refused.contains("\"case\"") && refused.contains("more columns"),
        "{refused}"
    );
}

#[test]
fn rows_of_no_side_are_our_bug() {
    let plan = query("");
    let batch = Batch {
        rows: rows(&[]),
        pane: Some(Pane {
            slot: 2,
            start: Timestamp(0),
        }),
        due: None,
    };
    let refused = join(plan.as_ref()).on_batch(0, batch, &mut Output::default());
    assert!(
        matches!(refused, Err(millstream_engine::Error::Bug(_))),
        "{refused:?}"
    );
}

#[test]
fn explains_both_halves() {
    let plan = plan(
        "SELECT i.id, upper(c.id) AS click FROM (SELECT * FROM impressions WHERE amount > 1) i LEFT JOIN clicks c \
         ON i.ad_id = c.ad_id AND i.amount < c.amount AND c.occurred_at <= i.occurred_at + INTERVAL '90 minutes' \
         AND c.occurred_at >= i.occurred_at - INTERVAL '1.5 seconds'",
    );
    let explain = plan.explain();
    assert_eq!(plan.inputs(), ["impressions", "clicks"]);
    assert_eq!(
        explain.local,
        [
            (
                "impressions".to_owned(),
                vec![
                    "Filter: amount@2 > 1".to_owned(),
                    "  Scan: impressions [id, ad_id, amount, occurred_at]".to_owned(),
                ]
            ),
            (
                "clicks".to_owned(),
                vec!["Scan: clicks [id, ad_id, amount, occurred_at]".to_owned()]
            ),
        ]
    );
    assert_eq!(
        explain.global,
        [
            "Project: id, upper(id@1) AS click",
            "  Interval join (Left): ad_id@1 = ad_id@1, clicks from -1s 500ms to 1h 30m after impressions",
            "    Where: amount@0 < amount@2",
        ]
    );
}
