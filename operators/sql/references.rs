//! Queries that join reference tables, checked against DataFusion itself: `cases/references.sql`.
//!
//! Whatever batches a stream's rows come in, a query over it gives what DataFusion gives for all of them; a query
//! over a window gives, window by window, what DataFusion gives for the window's rows. Halfway the tables get
//! other rows, and from then on those count.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlError, SqlPlan, SqlPlanner, SqlRequest, SqlTable, WINDOW_END, WINDOW_START};
use millstream_engine::table::{ReferenceTable, SharedTable};
use millstream_engine::time::{Timestamp, timestamp_type};
use millstream_engine::window::Window;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::DataFusionPlanner;

const MINUTE: i64 = 60_000_000;
/// Windows that the tables are the same for; then they change.
const WINDOWS: i64 = 3;

fn clicks_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("ad_id", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
        Field::new("occurred_at", timestamp_type(), false),
    ]))
}

/// Clicks of one minute.
fn clicks(minute: i64, random: &mut StdRng) -> RecordBatch {
    let rows = random.random_range(5..40);
    let ids = (0..rows).map(|n| format!("c{minute}-{n}"));
    let ads: StringArray = (0..rows)
        .map(|_| (random.random_range(0..8) > 0).then(|| format!("a{}", random.random_range(1..6))))
        .collect();
    let amounts: Float64Array = (0..rows)
        .map(|_| (random.random_range(0..8) > 0).then(|| f64::from(random.random_range(0..16)) / 4.0))
        .collect();
    let times = (0..rows).map(|_| minute * MINUTE + random.random_range(0..MINUTE));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(ids)),
        Arc::new(ads),
        Arc::new(amounts),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times)),
    ];
    RecordBatch::try_new(clicks_schema(), columns).expect("rows")
}

/// The tables, without rows.
fn tables() -> Vec<ReferenceTable> {
    let table = |name: &str, fields: Vec<Field>| ReferenceTable {
        name: name.to_owned(),
        rows: SharedTable::new(Arc::new(Schema::new(fields))),
    };
    vec![
        table(
            "ads",
            vec![
                Field::new("ad_id", DataType::Utf8, false),
                Field::new("campaign_id", DataType::Utf8, true),
                Field::new("price", DataType::Float64, true),
            ],
        ),
        table(
            "campaigns",
            vec![
                Field::new("campaign_id", DataType::Utf8, false),
                Field::new("name", DataType::Utf8, false),
                Field::new("budget", DataType::Float64, false),
            ],
        ),
    ]
}

/// Gives the tables their first rows, or those after.
fn fill(tables: &[ReferenceTable], later: bool) {
    let text = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
    let number = |values: Vec<Option<f64>>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let (ads, campaigns): (Vec<ArrayRef>, Vec<ArrayRef>) = match later {
        false => (
            vec![
                text(vec![Some("a1"), Some("a2"), Some("a2"), Some("a3"), Some("zz")]),
                text(vec![Some("g1"), Some("g1"), Some("g2"), None, Some("g2")]),
                number(vec![Some(0.5), Some(1.5), Some(2.5), None, Some(3.5)]),
            ],
            vec![
                text(vec![Some("g1"), Some("g2"), Some("g3")]),
                text(vec![Some("one"), Some("two"), Some("three")]),
                number(vec![Some(10.0), Some(20.0), Some(5.0)]),
            ],
        ),
        true => (
            vec![
                text(vec![Some("a1"), Some("a4")]),
                text(vec![Some("g2"), Some("g1")]),
                number(vec![Some(1.25), Some(0.25)]),
            ],
            vec![
                text(vec![Some("g1"), Some("g2")]),
                text(vec![Some("first"), Some("second")]),
                number(vec![Some(1.0), Some(2.0)]),
            ],
        ),
    };
    for (table, columns) in tables.iter().zip([ads, campaigns]) {
        let rows = RecordBatch::try_new(Arc::clone(table.rows.schema()), columns).expect("rows");
        // Two batches, as a large file gives.
        let half = rows.num_rows() / 2;
        table.rows.replace(vec![
            rows.slice(0, half),
            rows.slice(half, rows.num_rows() - half),
        ]);
    }
}

fn plan(query: &str, tables: &[ReferenceTable]) -> Result<Arc<dyn SqlPlan>, Vec<SqlError>> {
    let table = |name: &str, window: Option<Window>| SqlTable {
        name: name.to_owned(),
        schema: clicks_schema(),
        event_time: 3,
        window,
        lateness: None,
    };
    let minute = Window::Tumbling {
        size: Duration::from_secs(60),
        offset: Duration::ZERO,
    };
    let streams = [table("clicks", None), table("clicks_by_minute", Some(minute))];
    let planner = DataFusionPlanner::new().with_tables(tables.to_vec());
    planner.plan(&SqlRequest {
        name: "case",
        query,
        emit_empty: false,
        state_limit: Bytes(1 << 30),
        tables: &streams,
    })
}

/// What DataFusion gives for these rows of one minute.
async fn batch(query: &str, rows: &[RecordBatch], minute: i64, tables: &[ReferenceTable]) -> Vec<String> {
    let context = SessionContext::new();
    let bounds = [
        (WINDOW_START, minute * MINUTE),
        (WINDOW_END, (minute + 1) * MINUTE),
    ];
    for (name, at) in bounds {
        let value = ScalarValue::TimestampMicrosecond(Some(at), None);
        let constant = Arc::new(move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone())));
        let volatility = Volatility::Immutable;
        context.register_udf(create_udf(name, vec![], timestamp_type(), volatility, constant));
    }
    let windowed: Vec<RecordBatch> = rows
        .iter()
        .map(|rows| {
            let mut fields = rows.schema().fields().to_vec();
            let mut columns = rows.columns().to_vec();
            for (name, at) in bounds {
                fields.push(Arc::new(Field::new(name, timestamp_type(), false)));
                columns.push(Arc::new(TimestampMicrosecondArray::from_value(
                    at,
                    rows.num_rows(),
                )));
            }
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("rows")
        })
        .collect();
    let register = |name: &str, rows: Vec<RecordBatch>| {
        let table = MemTable::try_new(rows[0].schema(), vec![rows]).expect("table");
        context.register_table(name, Arc::new(table)).expect("register");
    };
    register("clicks", rows.to_vec());
    register("clicks_by_minute", windowed);
    for table in tables {
        register(&table.name, table.rows.rows().expect("filled").to_vec());
    }
    let frame = context
        .sql(query)
        .await
        .unwrap_or_else(|e| panic!("{query}\n{e}"));
    let results = frame.collect().await.unwrap_or_else(|e| panic!("{query}\n{e}"));
    text(results.iter())
}

/// Rows as sorted text; floating point to nine digits.
fn text<'b>(batches: impl Iterator<Item = &'b RecordBatch>) -> Vec<String> {
    let mut lines = Vec::new();
    for rows in batches {
        for row in 0..rows.num_rows() {
            let mut line = String::new();
            for column in rows.columns() {
                let cell = array_value_to_string(column, row).expect("a printable value");
                let cell = match (column.data_type(), cell.parse::<f64>()) {
                    (DataType::Float64, Ok(number)) => format!("{number:.9}"),
                    _ => cell,
                };
                write!(line, "{cell} | ").expect("a string");
            }
            lines.push(line);
        }
    }
    lines.sort();
    lines
}

/// Cuts rows at random places.
fn cut(rows: &RecordBatch, random: &mut StdRng) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    let mut from = 0;
    while from < rows.num_rows() {
        let length = random.random_range(1..8).min(rows.num_rows() - from);
        batches.push(rows.slice(from, length));
        from += length;
    }
    batches
}

/// The results for one minute's rows: of each batch alone, or of the window that they make.
async fn results(
    locals: &mut [Box<dyn Operator>],
    global: &mut Option<Box<dyn Operator>>,
    batches: Vec<RecordBatch>,
    end: Timestamp,
) -> Vec<RecordBatch> {
    let mut partial = Output::default();
    for (n, rows) in batches.into_iter().enumerate() {
        let lane = n % locals.len();
        locals[lane].on_batch(0, rows.into(), &mut partial).expect("rows");
    }
    let mut out = Output::default();
    if let Some(global) = global {
        for local in locals {
            local.on_watermark(end, &mut partial).await.expect("local");
        }
        for rows in partial.main.drain(..) {
            global.on_batch(0, rows, &mut out).expect("state");
        }
        global.on_watermark(end, &mut out).await.expect("global");
    }
    partial.main.into_iter().chain(out.main).map(|b| b.rows).collect()
}

fn cases(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let blocks = text.split("-- case: ").skip(1);
    blocks.map(|block| block.split_once('\n').expect("a name and a query"))
}

#[tokio::test]
async fn joins_with_tables_give_what_batch_gives() {
    let only = std::env::var("CASE").ok();
    let mut wrong = Vec::new();
    for (name, query) in cases(include_str!("cases/references.sql")) {
        if only.as_deref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let tables = tables();
        let plan = plan(query, &tables).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let mut random = StdRng::seed_from_u64(7);
        let mut locals: Vec<_> = (0..2).map(|_| plan.local(0).expect("local")).collect();
        let mut global = plan.global().expect("global");
        assert_eq!(global.is_some(), name.starts_with("window"), "{name}");
        let mut rows_seen = 0;
        for minute in 0..2 * WINDOWS {
            if minute % WINDOWS == 0 {
                fill(&tables, minute > 0);
            }
            let rows = clicks(minute, &mut random);
            let batches = cut(&rows, &mut random);
            let end = Timestamp((minute + 1) * MINUTE);
            let got = results(&mut locals, &mut global, batches, end).await;
            for batch in &got {
                assert_eq!(batch.schema(), plan.schema(), "{name}");
            }
            let expected = batch(query, &[rows], minute, &tables).await;
            rows_seen += expected.len();
            if text(got.iter()) != expected {
                wrong.push(format!(
                    "{name}, minute {minute}:\n  got      {:?}\n  expected {expected:?}",
                    text(got.iter())
                ));
                break;
            }
        }
        assert!(rows_seen > 0, "{name}: nothing to compare");
    }
    assert!(
        wrong.is_empty(),
        "{} cases differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn refused_queries() {
    let tables = tables();
    let mut wrong = Vec::new();
    for (name, rest) in cases(include_str!("cases/references_refused.sql")) {
        let (marked, says) = rest.split_once("-- says: ").expect("what is said");
        let start = marked.find('«');
        let plain = marked.trim_end().replace('«', "");
        let at = start.zip(plain.find('»')).map(|(start, end)| start..end);
        let query = plain.replace('»', "");
        match plan(&query, &tables) {
            Ok(_) => wrong.push(format!("{name}: was not refused")),
            Err(errors) => {
                let first = &errors[0];
                if !first.message.contains(says.trim()) || first.at != at {
                    wrong.push(format!(
                        "{name}: {:?} at {:?}, not at {at:?}",
                        first.message, first.at
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Otherwise every batch would hash the whole table.
#[test]
fn hash_tables_are_built_from_tables() {
    for query in [
        "SELECT c.id, a.price FROM clicks c JOIN ads a ON c.ad_id = a.ad_id",
        "SELECT c.id, a.price FROM clicks c LEFT JOIN ads a ON c.ad_id = a.ad_id WHERE c.amount > 1",
        "SELECT id FROM clicks WHERE ad_id IN (SELECT ad_id FROM ads)",
        "SELECT c.id, g.name FROM clicks c JOIN ads a ON c.ad_id = a.ad_id JOIN campaigns g ON g.campaign_id = a.campaign_id",
    ] {
        let plan = plan(query, &tables()).expect("a good query");
        let lines = &plan.explain().local[0].1;
        let place = |what: &str| lines.iter().position(|line| line.contains(what));
        assert!(place("Table: ads") < place("Scan: clicks"), "{lines:#?}");
        assert_eq!(plan.references()[0], "ads");
    }
}

#[test]
fn the_event_time_of_the_stream_passes_through() {
    for (query, expected) in [
        (
            "SELECT c.id, c.occurred_at FROM clicks c JOIN ads a ON c.ad_id = a.ad_id",
            Some(1),
        ),
        (
            "SELECT a.price, c.occurred_at AS at FROM ads a RIGHT JOIN clicks c ON c.ad_id = a.ad_id",
            Some(1),
        ),
        (
            "SELECT at, id FROM (SELECT id, occurred_at AS at FROM clicks) WHERE id IN (SELECT ad_id FROM ads)",
            Some(0),
        ),
        ("SELECT c.id FROM clicks c JOIN ads a ON c.ad_id = a.ad_id", None),
        (
            "SELECT c.occurred_at + INTERVAL '1 second' AS occurred_at FROM clicks c JOIN ads a ON c.ad_id = a.ad_id",
            None,
        ),
    ] {
        let plan = plan(query, &tables()).expect("a good query");
        assert_eq!(plan.event_time(), expected, "{query}");
        if let Some(index) = plan.event_time() {
            assert!(!plan.schema().field(index).is_nullable(), "{query}");
        }
    }
}
