//! What the oracle does not reach: stateless queries, empty windows, explanations, event times, limits.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use millstream_engine::Error;
use millstream_engine::message::{Batch, Pane};
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlPlan, SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::time::{Timestamp, timestamp_type};
use millstream_engine::window::Window;

use super::planning::RULES_LEFT_OUT;
use super::{CONSECUTIVE_EMPTY_WINDOWS, DataFusionPlanner};

const CLICKTHROUGH: &str = "
    SELECT window_start() AS at, i.n AS impressions, c.n AS clicks,
           CASE WHEN i.n > 0 THEN c.n / CAST(i.n AS DOUBLE) END AS clickthrough
    FROM (SELECT count(*) AS n FROM impressions_by_minute) i
    CROSS JOIN (SELECT count(*) AS n FROM clicks_by_minute) c";

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ad", DataType::Int64, false),
        Field::new("at", timestamp_type(), false),
    ]))
}

/// Rows of (ad, second).
fn rows(rows: &[(i64, i64)]) -> Batch {
    let ads = Int64Array::from_iter_values(rows.iter().map(|r| r.0));
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1 * 1_000_000));
    RecordBatch::try_new(schema(), vec![Arc::new(ads), Arc::new(times)])
        .expect("rows")
        .into()
}

fn second(of: i64) -> Timestamp {
    Timestamp(of * 1_000_000)
}

fn plan(query: &str, emit_empty: bool) -> Arc<dyn SqlPlan> {
    let minute = Window::Tumbling {
        size: Duration::from_secs(60),
        offset: Duration::ZERO,
    };
    let table = |name: &str, window: Option<&Window>| SqlTable {
        name: name.to_owned(),
        schema: schema(),
        event_time: 1,
        window: window.cloned(),
        lateness: None,
    };
    let tables = [
        table("impressions", None),
        table("impressions_by_minute", Some(&minute)),
        table("clicks_by_minute", Some(&minute)),
    ];
    let request = SqlRequest {
        name: "case",
        query,
        emit_empty,
        state_limit: Bytes(1 << 30),
        tables: &tables,
    };
    DataFusionPlanner::new().plan(&request).expect("a good query")
}

fn text(out: &Output) -> Vec<String> {
    let cell = |column: &ArrayRef, row| array_value_to_string(column, row).expect("a printable value");
    let line = |rows: &RecordBatch, row| -> String {
        let cells: Vec<_> = rows.columns().iter().map(|c| cell(c, row)).collect();
        cells.join(" ")
    };
    let batches = out.main.iter().map(|b| &b.rows);
    batches
        .flat_map(|rows| (0..rows.num_rows()).map(move |row| line(rows, row)))
        .collect()
}

/// A query's halves, fed by hand.
struct Halves {
    local: Vec<Box<dyn Operator>>,
    global: Box<dyn Operator>,
}

impl Halves {
    fn of(plan: &dyn SqlPlan) -> Halves {
        Halves {
            local: (0..plan.inputs().len())
                .map(|i| plan.local(i).expect("local"))
                .collect(),
            global: plan.global().expect("global").expect("windowed"),
        }
    }

    fn feed(&mut self, input: usize, batch: Batch) {
        self.local[input]
            .on_batch(0, batch, &mut Output::default())
            .expect("rows");
    }

    async fn watermark(&mut self, at: Timestamp) -> Vec<String> {
        let (mut state, mut out) = (Output::default(), Output::default());
        for local in &mut self.local {
            local.watermark_to_end(at, &mut state).await.expect("local");
        }
        for batch in state.main {
            self.global.on_batch(0, batch, &mut out).expect("state");
        }
        self.global.watermark_to_end(at, &mut out).await.expect("global");
        text(&out)
    }
}

#[tokio::test]
async fn stateless_query_runs_batch_by_batch() {
    let plan = plan("SELECT at, ad * 2 AS twice FROM impressions WHERE ad > 1", false);
    assert_eq!(plan.inputs(), ["impressions"]);
    assert_eq!(plan.event_time(), Some(0));
    assert!(plan.global().expect("global").is_none());
    assert_eq!(plan.schema().field(1).name(), "twice");
    let mut out = Output::default();
    let mut local = plan.local(0).expect("local");
    local
        .on_batch(0, rows(&[(1, 0), (2, 1), (3, 2)]), &mut out)
        .expect("rows");
    local.on_batch(0, rows(&[(1, 3)]), &mut out).expect("rows");
    assert_eq!(text(&out), ["1970-01-01T00:00:01 4", "1970-01-01T00:00:02 6"]);
    assert_eq!(out.main[0].rows.schema(), plan.schema());
}

#[tokio::test]
async fn clickthrough_with_empty_windows() {
    let plan = plan(CLICKTHROUGH, true);
    assert_eq!(plan.inputs(), ["impressions_by_minute", "clicks_by_minute"]);
    let mut halves = Halves::of(plan.as_ref());
    assert!(
        halves.watermark(second(-30)).await.is_empty(),
        "nobody listened before the first watermark"
    );
    halves.feed(0, rows(&[(1, 10), (1, 20), (2, 190)]));
    halves.feed(1, rows(&[(1, 30)]));
    assert_eq!(halves.watermark(second(59)).await, ["1969-12-31T23:59:00 0 0 "]);
    assert_eq!(
        halves.watermark(second(60)).await,
        ["1970-01-01T00:00:00 2 1 0.5"]
    );
    assert_eq!(
        halves.watermark(Timestamp::MAX).await,
        [
            "1970-01-01T00:01:00 0 0 ",
            "1970-01-01T00:02:00 0 0 ",
            "1970-01-01T00:03:00 1 0 0.0"
        ],
        "the end of the stream fires what lies between, and nothing after"
    );
}

#[tokio::test]
async fn first_state_counts_as_known_before_the_first_watermark() {
    let mut halves = Halves::of(plan(CLICKTHROUGH, true).as_ref());
    halves.feed(1, rows(&[(1, 61)]));
    assert_eq!(
        halves.watermark(second(190)).await,
        ["1970-01-01T00:01:00 0 1 ", "1970-01-01T00:02:00 0 0 "]
    );
}

#[tokio::test]
async fn empty_windows_in_a_row_are_limited() {
    let mut halves = Halves::of(plan("SELECT count(*) AS n FROM clicks_by_minute", true).as_ref());
    halves.feed(
        0,
        rows(&[(1, 0), (1, 60 * (CONSECUTIVE_EMPTY_WINDOWS as i64 + 500))]),
    );
    let fired = halves.watermark(Timestamp::MAX).await;
    assert_eq!(fired.len(), CONSECUTIVE_EMPTY_WINDOWS + 2);
    assert_eq!(fired.iter().filter(|n| *n == "1").count(), 2);
}

#[tokio::test]
async fn state_behind_the_watermark_is_our_bug() {
    let mut halves = Halves::of(plan("SELECT count(*) AS n FROM clicks_by_minute", false).as_ref());
    halves.watermark(second(60)).await;
    let late = Batch {
        rows: rows(&[(1, 0)]).rows,
        pane: Some(Pane {
            slot: 0,
            start: second(0),
        }),
        due: None,
    };
    let refused = halves.global.on_batch(0, late, &mut Output::default());
    assert!(matches!(refused, Err(Error::Bug(_))), "{refused:?}");
}

#[tokio::test]
async fn failure_names_the_query_and_the_window() {
    let plan = plan(
        "SELECT n / (n - 1) AS x FROM (SELECT count(*) AS n FROM clicks_by_minute)",
        false,
    );
    let mut halves = Halves::of(plan.as_ref());
    halves.feed(0, rows(&[(1, 0)]));
    let mut state = Output::default();
    halves.local[0]
        .on_watermark(second(60), &mut state)
        .await
        .expect("local");
    let mut out = Output::default();
    halves
        .global
        .on_batch(0, state.main.remove(0), &mut out)
        .expect("state");
    let failed = halves
        .global
        .on_watermark(second(60), &mut out)
        .await
        .expect_err("divides by zero");
    assert!(matches!(failed, Error::Data(_)), "{failed:?}");
    let message = failed.to_string();
    assert!(
        message.contains("\"case\"") && message.contains("1970-01-01T00:00:00"),
        "{message}"
    );
}

#[test]
fn explains_both_halves() {
    let explained = plan(CLICKTHROUGH, false).explain();
    assert_eq!(explained.local.len(), 2);
    assert_eq!(explained.local[0].0, "impressions_by_minute");
    assert!(
        explained.local[0].1[0].starts_with("Accumulate: groupBy=[], aggr=[count("),
        "{explained:#?}"
    );
    assert!(
        explained.local[0].1[1].starts_with("  Scan: impressions_by_minute"),
        "{explained:#?}"
    );
    let state = explained
        .global
        .iter()
        .filter(|line| line.contains("State: slot="));
    assert_eq!(state.count(), 2, "{explained:#?}");
    let by_ad = plan(
        "SELECT ad, count(*) AS n FROM clicks_by_minute WHERE ad > 1 GROUP BY ad",
        false,
    )
    .explain();
    let lines = &by_ad.local[0].1;
    assert!(
        lines[0].starts_with("Accumulate: groupBy=[ad], aggr=[count("),
        "{lines:#?}"
    );
    assert!(lines[1].starts_with("  Filter: ad@0 > 1"), "{lines:#?}");
    let rows = plan("SELECT ad FROM clicks_by_minute", false).explain();
    assert!(rows.local[0].1[0].starts_with("Keep rows"), "{rows:#?}");
}

#[test]
fn finds_the_event_time() {
    let cases = [
        ("SELECT count(*) AS n FROM clicks_by_minute", None),
        (
            "SELECT count(*) AS n, window_start() AS at FROM clicks_by_minute",
            Some(1),
        ),
        (
            "SELECT window_end() AS at, count(*) AS n FROM clicks_by_minute",
            None,
        ),
        ("SELECT window_start AS t, ad FROM clicks_by_minute", Some(0)),
        (
            "SELECT ad, window_start, count(*) FROM clicks_by_minute GROUP BY ad, window_start ORDER BY ad",
            Some(1),
        ),
        (
            "WITH c AS (SELECT window_start() AS w, count(*) AS n FROM clicks_by_minute) SELECT n, w FROM c",
            Some(1),
        ),
        (
            "SELECT window_start() + INTERVAL '1 second' AS w, 1 AS one FROM clicks_by_minute",
            None,
        ),
        ("SELECT ad, at FROM impressions", Some(1)),
        ("SELECT ad, at + INTERVAL '1 second' AS at FROM impressions", None),
    ];
    for (query, expected) in cases {
        let plan = plan(query, false);
        assert_eq!(plan.event_time(), expected, "{query}");
        if let Some(index) = plan.event_time() {
            let schema = plan.schema();
            assert_eq!(schema.field(index).data_type(), &timestamp_type(), "{query}");
            assert!(!schema.field(index).is_nullable(), "{query}");
        }
    }
}

#[test]
fn the_rules_left_out_exist() {
    let rules: Vec<String> = PhysicalOptimizer::new()
        .rules
        .iter()
        .map(|r| r.name().to_owned())
        .collect();
    for rule in RULES_LEFT_OUT {
        assert!(rules.iter().any(|r| r == rule), "{rule} is not among {rules:?}");
    }
}
