//! An interval join, dedups before and behind it and a window over it, under any schedule: what is in time gives
//! exactly the pairs and the counts it must, and a row of the outer side comes out exactly once whatever
//! happens, late or not.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

use crate::keeps_its_promises;
use crate::oracle::published_of;
use crate::world::World;

/// Schedules of an ordinary run.
const SCHEDULES: u64 = 200;
/// Bound of the join.
const BOUND: i64 = 15_000_000;
/// Length of the window.
const SLICE: i64 = 10_000_000;

/// Ids are unique within a source, so there is at most one pair per impression.
const PIPELINE: &str = r#"
name = "joined"

[source.impressions]
type = "simulated"
event_time = "at"
max_out_of_orderness = "5s"
dedup = { key = ["id"], within = "10m" }
[source.impressions.columns]
id = "bigint not null"
ad = "string not null"
at = "timestamp not null"

[source.clicks]
type = "simulated"
event_time = "at"
max_out_of_orderness = "5s"
[source.clicks.columns]
id = "bigint not null"
ad = "string not null"
at = "timestamp not null"

[sql.pressed]
query = "SELECT id, ad AS on_ad, at AS pressed_at FROM clicks WHERE id > 0"

[sql.attributed]
query = """
SELECT i.id, c.id AS click, i.at FROM impressions i LEFT JOIN pressed c
  ON i.id = c.id AND c.pressed_at BETWEEN i.at AND i.at + INTERVAL '15 seconds'
"""

[dedup.once]
input = "attributed"
key = ["id"]
within = "10m"

[window.slices]
input = "once"
type = "tumbling"
size = "10s"

[sql.counts]
query = "SELECT window_start() AS at, count(*) AS n, count(click) AS clicked FROM slices"

[sink.clicks]
type = "simulated"
input = "clicks"
[sink.attributed]
type = "simulated"
input = "attributed"
[sink.once]
type = "simulated"
input = "once"
[sink.counts]
type = "simulated"
input = "counts"
[sink.late]
type = "simulated"
input = "slices.late"
"#;

#[test]
fn joins_keep_their_promises_whatever_happens() {
    keeps_its_promises(PIPELINE, check, SCHEDULES);
}

/// By impression: its click, if any, and its time.
type Joined = BTreeMap<i64, (Option<i64>, i64)>;

fn check(world: &World, strict: bool) -> Result<(), String> {
    let impressions = sent(world, "impressions");
    let clicks = sent(world, "clicks");
    let attributed = joined(&published_of(world, "attributed"))?;
    let times = |of: &Joined| {
        of.iter()
            .map(|(id, (_, at))| (*id, *at))
            .collect::<BTreeMap<_, _>>()
    };
    if times(&attributed) != impressions {
        return Err(format!("impressions {impressions:?}\ncame out as {attributed:?}"));
    }
    for (id, (click, at)) in &attributed {
        let matches = clicks
            .get(id)
            .is_some_and(|clicked| (*at..=at + BOUND).contains(clicked));
        if (strict || click.is_some()) && click.is_some() != matches {
            return Err(format!(
                "impression {id} at {at} has click {click:?}, of {:?}",
                clicks.get(id)
            ));
        }
    }
    let once = joined(&published_of(world, "once"))?;
    if once != attributed {
        return Err(format!("of {attributed:?}\nthe dedup let pass {once:?}"));
    }
    let late = joined(&published_of(world, "late"))?;
    if strict && !late.is_empty() {
        return Err(format!("late, but in time: {late:?}"));
    }
    let mut expect: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (_, (click, at)) in once.iter().filter(|(id, _)| !late.contains_key(*id)) {
        let counts = expect.entry(at / SLICE * SLICE).or_default();
        *counts = (counts.0 + 1, counts.1 + i64::from(click.is_some()));
    }
    let counted = counts(&published_of(world, "counts"))?;
    match counted == expect {
        true => Ok(()),
        false => Err(format!("counted {counted:?}\nnot {expect:?}")),
    }
}

/// The times of a source's rows, by id.
fn sent(world: &World, source: &str) -> BTreeMap<i64, i64> {
    let mut all = BTreeMap::new();
    for batch in world.outside().inputs[source].values() {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>();
        all.extend(ids.values().iter().copied().zip(times.values().iter().copied()));
    }
    all
}

fn joined(batches: &[RecordBatch]) -> Result<Joined, String> {
    let mut all = Joined::new();
    for batch in batches {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let clicks = batch.column(1).as_primitive::<Int64Type>();
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let click = clicks.is_valid(row).then(|| clicks.value(row));
            if all.insert(ids.value(row), (click, times.value(row))).is_some() {
                return Err(format!("impression {} came out twice", ids.value(row)));
            }
        }
    }
    Ok(all)
}

fn counts(batches: &[RecordBatch]) -> Result<BTreeMap<i64, (i64, i64)>, String> {
    let mut all = BTreeMap::new();
    for batch in batches {
        let at = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let [n, clicked] = [1, 2].map(|column| batch.column(column).as_primitive::<Int64Type>());
        for row in 0..batch.num_rows() {
            let counts = (n.value(row), clicked.value(row));
            if all.insert(at.value(row), counts).is_some() {
                return Err(format!("the window at {} was published twice", at.value(row)));
            }
        }
    }
    Ok(all)
}
