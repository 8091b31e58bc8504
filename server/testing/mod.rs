//! `[[test]]` blocks: rows in, rows out.
//!
//! A test runs the real plan with its sources replaced by the test's rows and its sinks taken off. Each row
//! is a batch of its own, in the order of the file, so that the watermark moves between rows and lateness
//! can be tested. At the end of the rows every window closes. What the named streams carried is compared
//! with what was expected: as multisets, on the columns that are named.

mod compare;
mod source;
pub mod table;
pub mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arrow::array::RecordBatch;
use millstream_engine::metrics::Counters;
use millstream_engine::pipeline::TestSpec;
use millstream_engine::plan::{Plan, SourceNode};
use millstream_engine::registry::Registry;
use millstream_engine::source::{Source, SourceContext};
use tokio_util::sync::CancellationToken;

use crate::bounded::{Bounded, Given};

/// How long one test may run. Its rows are in memory and few; only a bug takes longer.
const TEST_LIMIT: Duration = Duration::from_secs(30);

/// Runs one test of a plan; gives a readable difference per stream that is not as expected.
pub async fn run(plan: &Arc<Plan>, test: &TestSpec, registry: &Registry) -> anyhow::Result<Vec<String>> {
    check_names(plan, test)?;
    let given = Given {
        sources: sources(plan, test, registry)?,
        tables: tables(plan, test)?,
    };
    let streams = test.expect.keys().map(String::as_str);
    let run = Bounded::start(plan, registry, given, streams)?;
    match tokio::time::timeout(TEST_LIMIT, run.handle.done()).await {
        Ok(ended) => ended?,
        Err(_) => {
            run.handle.stop();
            bail!("not finished after {} s", TEST_LIMIT.as_secs());
        }
    }
    let mut differences = Vec::new();
    for ((stream, expected), came) in test.expect.iter().zip(run.take()) {
        let schema = &plan.streams[stream].schema;
        let found = compare::compare(schema, expected, &came)?;
        differences.extend(found.map(|d| format!("stream {stream}: {d}")));
    }
    Ok(differences)
}

/// Every source and stream that a test names must be there.
fn check_names(plan: &Plan, test: &TestSpec) -> anyhow::Result<()> {
    let sources: Vec<&str> = plan.sources.iter().map(|s| s.name.as_str()).collect();
    if let Some(name) = test.input.keys().find(|n| !sources.contains(&n.as_str())) {
        bail!("input: no source {name:?}; known: {}", sources.join(", "));
    }
    if let Some(name) = test.expect.keys().find(|n| !plan.streams.contains_key(*n)) {
        let streams: Vec<&str> = plan.streams.keys().map(String::as_str).collect();
        bail!("expect: no stream {name:?}; known: {}", streams.join(", "));
    }
    if let Some(name) = test.expect.keys().find(|n| plan.rejecting(n).is_some()) {
        bail!("expect: stream {name:?} is made by a sink, and tests run without sinks");
    }
    Ok(())
}

/// A source in memory for each of the plan's; without rows where the test gives none.
fn sources(
    plan: &Plan,
    test: &TestSpec,
    registry: &Registry,
) -> anyhow::Result<BTreeMap<String, Arc<dyn Source>>> {
    let mut sources: BTreeMap<String, Arc<dyn Source>> = BTreeMap::new();
    for node in &plan.sources {
        let rows = test.input.get(&node.name).map_or(&[][..], Vec::as_slice);
        let connector = registry.sources.get(node.kind.as_str());
        let rows = match connector.filter(|_| !node.tables.is_empty()) {
            Some(connector) => source::Rows::of_tables(&**connector, &context(plan, node), rows),
            None => source::Rows::new(node.schema.clone(), rows),
        };
        let rows = rows.with_context(|| format!("input of source {}", node.name))?;
        sources.insert(node.name.clone(), Arc::new(rows));
    }
    Ok(sources)
}

fn context(plan: &Plan, node: &SourceNode) -> SourceContext {
    SourceContext {
        run: None,
        pipeline: plan.name.clone(),
        name: node.name.clone(),
        schema: node.schema.clone(),
        event_time: node.event_time,
        options: node.options.clone(),
        data_dir: PathBuf::new(),
        stop: CancellationToken::new(),
        counters: Counters::detached(),
    }
}

/// The rows of every reference table; none where the test gives none, so that no test depends on a file.
fn tables(plan: &Plan, test: &TestSpec) -> anyhow::Result<BTreeMap<String, Vec<RecordBatch>>> {
    let mut tables = BTreeMap::new();
    for node in &plan.tables {
        let rows = test.table.get(&node.name).map_or(&[][..], Vec::as_slice);
        let rows = source::decode(node.rows.schema().clone(), rows)
            .with_context(|| format!("rows of table {}", node.name))?;
        tables.insert(node.name.clone(), vec![rows]);
    }
    Ok(tables)
}
