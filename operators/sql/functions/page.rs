//! `docs/functions.md` runs: every example through the planner, and every function of ours must have one.
//!
//! A line of a `sql` block is an expression and, behind ` -- `, its result as text. In a `sql window` block the
//! expression is asked of a tumbling window of one minute over events at 12:00:10 and 12:00:20.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::SessionStateBuilder;
use millstream_engine::operator::Output;
use millstream_engine::sql::{SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::time::{Timestamp, timestamp_type};
use millstream_engine::window::Window;

use super::{dialect, scalar_functions};
use crate::sql::DataFusionPlanner;

const PAGE: &str = include_str!("../../../docs/functions.md");
/// 2026-11-23T12:00:00Z.
const NOON: i64 = 1_795_435_200_000_000;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("occurred_at", timestamp_type(), false),
    ]))
}

fn tables() -> [SqlTable; 2] {
    let minute = Window::Tumbling {
        size: Duration::from_secs(60),
        offset: Duration::ZERO,
    };
    [("events", None), ("events_by_minute", Some(minute))].map(|(name, window)| SqlTable {
        name: name.to_owned(),
        schema: schema(),
        event_time: 1,
        window,
        lateness: None,
    })
}

/// What a query gives, a line per row.
pub(super) async fn answers(query: &str, texts: &[Option<&str>]) -> Result<Vec<String>, String> {
    let tables = tables();
    let request = SqlRequest {
        name: "example",
        query,
        emit_empty: false,
        tables: &tables,
    };
    let plan = DataFusionPlanner::new().plan(&request);
    let plan = plan.map_err(|errors| errors[0].message.clone())?;
    let times = (1..=texts.len() as i64).map(|n| NOON + n * 10_000_000);
    let rows = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(StringArray::from(texts.to_vec())),
            Arc::new(TimestampMicrosecondArray::from_iter_values(times)),
        ],
    );
    let rows = rows.expect("rows");
    let (mut below, mut above) = (Output::default(), Output::default());
    let mut local = plan.local(0).expect("local");
    let done = local.on_batch(0, rows.into(), &mut below);
    done.map_err(|e| e.to_string())?;
    local
        .on_watermark(Timestamp::MAX, &mut below)
        .await
        .expect("local");
    let Some(mut global) = plan.global().expect("global") else {
        return Ok(lines(&below));
    };
    for state in below.main {
        global.on_batch(0, state, &mut above).expect("global");
    }
    global
        .on_watermark(Timestamp::MAX, &mut above)
        .await
        .map_err(|e| e.to_string())?;
    Ok(lines(&above))
}

fn lines(of: &Output) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in &of.main {
        let column =
            ArrayFormatter::try_new(batch.rows.column(0), &options).expect("a column that can be shown");
        lines.extend((0..batch.rows.num_rows()).map(|row| column.value(row).to_string()));
    }
    lines
}

/// Blocks of the page: what stands behind the fence, and the lines.
fn blocks() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut blocks: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut inside = false;
    for line in PAGE.lines() {
        match (line.strip_prefix("```"), inside) {
            (Some(kind), false) => blocks.push((kind, Vec::new())),
            (None, true) if !line.trim().is_empty() => blocks.last_mut().expect("a block").1.push(line),
            _ => {}
        }
        inside ^= line.starts_with("```");
    }
    blocks
}

/// Kind of block, expression, result.
fn examples() -> Vec<(&'static str, &'static str, &'static str)> {
    let of_sql = blocks().into_iter().filter(|(kind, _)| kind.starts_with("sql"));
    let split = |(kind, lines): (&'static str, Vec<&'static str>)| {
        let example = move |line: &'static str| {
            let parts = line.rsplit_once(" -- ");
            let (expression, result) = parts.unwrap_or_else(|| panic!("no result is given: {line}"));
            (kind, expression.trim(), result.trim())
        };
        lines.into_iter().map(example)
    };
    of_sql.flat_map(split).collect()
}

#[tokio::test]
async fn examples_are_true() {
    let mut wrong = Vec::new();
    for (kind, expression, result) in examples() {
        let (query, texts) = match kind {
            "sql window" => (
                format!(
                    "SELECT {expression}, count(*) FROM events_by_minute GROUP BY TUMBLE(occurred_at, INTERVAL '1' MINUTE)"
                ),
                vec![Some("a"), Some("b")],
            ),
            _ => (format!("SELECT {expression} FROM events"), vec![Some("a")]),
        };
        let got = answers(&query, &texts).await;
        if got != Ok(vec![result.to_owned()]) {
            wrong.push(format!("{expression}: {got:?}, not {result}"));
        }
    }
    assert!(wrong.is_empty(), "docs/functions.md:\n{}", wrong.join("\n"));
}

#[test]
fn every_function_of_ours_has_an_example() {
    let mut names: BTreeSet<String> = dialect::names().map(str::to_owned).collect();
    for function in scalar_functions() {
        names.insert(function.name().to_owned());
        names.extend(function.aliases().iter().cloned());
    }
    let all = examples();
    let called = |name: &str| {
        let call = format!("{name}(");
        let calls = |text: &str| {
            let lower = text.to_lowercase();
            lower
                .match_indices(&call)
                .any(|(at, _)| !lower[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        all.iter().any(|(_, expression, _)| calls(expression))
    };
    // These stand in the GROUP BY of every windowed example, and are shown in the text.
    let grouping = [
        "tumble",
        "hop",
        "session",
        "hop_start",
        "hop_end",
        "session_start",
        "session_end",
    ];
    let mentioned =
        |name: &str| grouping.contains(&name) && PAGE.contains(&format!("`{}(", name.to_uppercase()));
    let without: Vec<&String> = names
        .iter()
        .filter(|name| !called(name) && !mentioned(name))
        .collect();
    assert!(
        without.is_empty(),
        "no example in docs/functions.md for {without:?}"
    );
}

#[test]
fn functions_of_datafusion_that_the_page_names_exist() {
    let (_, section) = PAGE
        .split_once("## DataFusion's own")
        .expect("a section about DataFusion's functions");
    let state = SessionStateBuilder::new().with_default_features().build();
    let known = |name: &str| {
        state.scalar_functions().contains_key(name)
            || state.aggregate_functions().contains_key(name)
            || state.window_functions().contains_key(name)
            || state.higher_order_functions().contains_key(name)
    };
    let named = section
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| !code.contains([' ', '(']));
    let unknown: Vec<&str> = named.filter(|name| !known(name)).collect();
    assert!(
        unknown.is_empty(),
        "docs/functions.md names what DataFusion does not have: {unknown:?}"
    );
}
