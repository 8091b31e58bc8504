//! Golden pipelines, three ways: straight; checkpoint, kill, restore; restore at another parallelism. Every
//! stream of every file in `pipelines/` must carry the same rows each time.
//!
//! Where partitions run beside each other, how far the watermark has come when a row is read is chance. So
//! the rows that are late come after a gate: they are read only when everything before them is through. Where
//! two streams are joined, what a late row still finds of the other is chance all the same, so none is late.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_engine::config::{self, PipelineSource};
use millstream_engine::plan::{Plan, SinkNode, SourceNode, SqlNode, WindowNode};
use millstream_engine::runtime::PipelineHandle;
use millstream_engine::schedule::date_of;
use millstream_engine::window::Window;
use millstream_operators::Environment;

use crate::oracle::published_of;
use crate::store::newest;
use crate::world::{BEGINNING, Weather, World};
use crate::{launch, process};

/// The kind of every source and sink in a golden run.
const KIND: &str = "golden";
/// Rows of each source: half before the gate, half behind it.
const ROWS: usize = 200;
/// Every so many rows behind the gate one is late.
const LATE_EVERY: usize = 10;
/// So many rows right behind the gate are late: at least one for each partition.
const LATE_FIRST: usize = 3;

/// A row that is late is not late for windows that are open for longer: the rows lie within minutes.
const OUTLASTS: Duration = Duration::from_secs(12 * 3600);

#[test]
fn the_same_rows_three_ways() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines");
    let files = std::fs::read_dir(&dir).expect("pipelines/");
    let mut seen = 0;
    for file in files.map(|f| f.expect("pipelines/").path()) {
        if file.extension().is_some_and(|e| e == "toml") {
            three_ways(&file);
            seen += 1;
        }
    }
    assert!(seen > 0, "no pipeline in {}", dir.display());
}

fn three_ways(file: &Path) {
    let plan = golden_plan(file);
    let straight = run(&plan, 2, None);
    let name = file.display();
    for (stream, rows) in &straight {
        let no_late = joins(&plan) && stream.ends_with(".late");
        let may_be_empty = no_late || stream.ends_with(".invalid");
        match never_late(&plan, stream) {
            true => assert!(rows.is_empty(), "{name}: something in {stream}"),
            false => assert!(may_be_empty || !rows.is_empty(), "{name}: nothing in {stream}"),
        }
    }
    for partitions in [2, 3, 1] {
        let killed = run(&plan, 2, Some(partitions));
        for (stream, expect) in &straight {
            let got = &killed[stream];
            assert!(
                got == expect,
                "{name}: {stream}, restored with {partitions} partitions: expected\n{}\ngot\n{}",
                expect.join("\n"),
                got.join("\n")
            );
        }
    }
}

/// Whether a stream is the late rows of windows over the results of windows, which are never late, or of windows that
/// are open for longer than there are rows: whatever is in it is wrong.
fn never_late(plan: &Plan, stream: &str) -> bool {
    let window = plan.windows.iter().find(|w| stream == format!("{}.late", w.name));
    let of_windows = |w: &WindowNode| plan.queries.iter().any(|q| q.name == w.input && is_windowed(q));
    let outlasts = |w: &WindowNode| match w.window {
        Window::Tumbling { size, .. } | Window::Cumulative { size, .. } => size > OUTLASTS,
        _ => false,
    };
    window.is_some_and(|w| of_windows(w) || outlasts(w))
}

fn is_windowed(query: &SqlNode) -> bool {
    !query.plan.explain().global.is_empty()
}

/// The file's plan, with simulated sources and a simulated sink on every stream.
fn golden_plan(file: &Path) -> Plan {
    let text = std::fs::read_to_string(file).expect("a pipeline");
    let source = PipelineSource {
        file: &file.display().to_string(),
        text: &text,
        // The others have defaults.
        vars: &|name| match name {
            "LAKE_BUCKET" => Some("golden".into()),
            "LOG_SCHEMA" => Some(file.with_file_name("people.yaml").display().to_string()),
            _ => None,
        },
        date: Some(date_of(BEGINNING)),
    };
    let ships = millstream_operators::registry(Environment::default());
    let mut plan =
        config::load(&source, &ships).unwrap_or_else(|problems| panic!("{}: {problems:?}", file.display()));
    if plan.schedule.is_some() {
        // A dated run has one checkpoint, at its end; here it streams as the others do.
        plan.checkpoint_interval = Duration::from_secs(10);
    }
    for source in &mut plan.sources {
        source.kind = KIND.into();
        // No partition is idle: the wall clock would close windows.
        source.idle_after = Duration::from_secs(1_000_000);
    }
    let streams = plan.streams.keys().filter(|s| plan.rejecting(s).is_none());
    let sinks = streams.map(|stream| SinkNode {
        name: stream.clone(),
        kind: KIND.into(),
        input: stream.clone(),
        options: serde_json::Value::Null,
    });
    plan.sinks = sinks.collect();
    plan
}

/// Runs on `partitions` partitions: to the end, or, with `restored`, until a checkpoint has been made at the
/// gate. Then the process is killed, and the rest of the rows comes on as many other partitions as `restored`
/// says. Gives the rows of every stream, sorted.
fn run(plan: &Plan, partitions: usize, restored: Option<usize>) -> BTreeMap<String, Vec<String>> {
    let world = World::new(1, Weather::default());
    let plan = Arc::new(plan.clone());
    for source in &plan.sources {
        for (name, rows) in inputs(&plan, source) {
            let dealt = deal("p", partitions, &rows);
            let mut outside = world.outside();
            for (partition, rows) in dealt.iter().filter(|_| name == source.name) {
                let key = (name.clone(), partition.clone());
                outside.gates.insert(key, rows.num_rows() / 2);
            }
            outside.inputs.insert(name, dealt);
        }
    }
    process(&world).block_on(async {
        let handle = launch(&world, &plan, KIND, true);
        while !at_gate(&world) {
            world.wait(Duration::from_secs(1)).await;
        }
        if restored.is_none() {
            world.outside().gates.clear();
            through(&world, &handle).await;
        }
    });
    if let Some(partitions) = restored {
        for (name, rows) in plan.sources.iter().flat_map(|source| inputs(&plan, source)) {
            let dealt = deal("q", partitions, &rows.slice(ROWS / 2, ROWS / 2));
            world.outside().inputs.insert(name, dealt);
        }
        world.outside().gates.clear();
        process(&world).block_on(async {
            let handle = launch(&world, &plan, KIND, true);
            through(&world, &handle).await;
        });
    }
    assert!(world.outside().violations.is_empty(), "{}", world.trace());
    let lines = |sink: &SinkNode| (sink.name.clone(), lines(&published_of(&world, &sink.name)));
    plan.sinks.iter().map(lines).collect()
}

/// Waits until the pipeline has read everything; one that hangs fails here.
async fn through(world: &World, pipeline: &PipelineHandle) {
    tokio::select! {
        done = pipeline.done() => done.expect("it ends well"),
        () = world.crashed() => panic!("{}", world.trace()),
    }
}

/// Whether the newest checkpoint holds everything before the gates.
fn at_gate(world: &World) -> bool {
    let outside = world.outside();
    let Some((saved, _)) = newest(&outside) else {
        return false;
    };
    outside.gates.iter().all(|((source, partition), gate)| {
        let offsets = &saved.manifest.sources[source].offsets;
        offsets
            .iter()
            .any(|(p, at)| p.0 == *partition && at.0 == gate.to_string())
    })
}

/// Whether streams are joined.
fn joins(plan: &Plan) -> bool {
    let is_stream = |input: &String| plan.streams.contains_key(input);
    let mut queries = plan.queries.iter();
    queries.any(|q| q.plan.inputs().len() > 1 && q.plan.inputs().iter().all(is_stream))
}

/// What a source reads, and what comes with it for each of its tables, by the names of streams.
fn inputs(plan: &Plan, source: &SourceNode) -> Vec<(String, RecordBatch)> {
    let of_source = (source.name.clone(), rows(plan, source, &source.schema));
    let of_table = |table: &String| {
        let stream = format!("{}.{table}", source.name);
        let rows = rows(plan, source, &plan.streams[&stream].schema);
        (stream, rows)
    };
    let tables = source.tables.iter().map(of_table);
    std::iter::once(of_source).chain(tables).collect()
}

/// A row per second; behind the gate some come ten minutes late, among them the first of every partition.
fn rows(plan: &Plan, source: &SourceNode, schema: &SchemaRef) -> RecordBatch {
    let joins = joins(plan);
    let late =
        |n: usize| !joins && n >= ROWS / 2 && (n < ROWS / 2 + LATE_FIRST || n.is_multiple_of(LATE_EVERY));
    let of_source = plan.dedups.iter().filter(|it| it.input == source.name);
    let dedups: Vec<_> = of_source.map(|it| &it.dedup).chain(&source.dedup).collect();
    let at = |n: usize| BEGINNING.0 + 1_000_000 * (n as i64 - if late(n) { 600 } else { 0 });
    let column = |(number, field): (usize, &FieldRef)| -> ArrayRef {
        match field.data_type() {
            DataType::Timestamp(..) => Arc::new(
                (0..ROWS)
                    .map(|n| Some(at(n)))
                    .collect::<TimestampMicrosecondArray>(),
            ),
            DataType::Int16 => Arc::new((0..ROWS as i16).collect::<Int16Array>()),
            DataType::Int32 => Arc::new((0..ROWS as i32).collect::<Int32Array>()),
            DataType::Int64 => Arc::new((0..ROWS as i64).collect::<Int64Array>()),
            DataType::Float64 => Arc::new((0..ROWS).map(|n| Some(n as f64)).collect::<Float64Array>()),
            DataType::Utf8 => {
                // Every row has its own key, or dedup would leave seven.
                let key = dedups.iter().any(|dedup| dedup.key.contains(&number));
                let values = if number == 0 || key { ROWS } else { 7 };
                let text = (0..ROWS).map(|n| Some(format!("{}{}", field.name(), n % values)));
                Arc::new(text.collect::<StringArray>())
            }
            other => panic!("golden rows have no {other} yet; add it here"),
        }
    };
    let columns = schema.fields().iter().enumerate().map(column).collect();
    RecordBatch::try_new(schema.clone(), columns).expect("rows fit the schema")
}

/// Rows in turn to partitions called `prefix` and a number.
fn deal(prefix: &str, partitions: usize, rows: &RecordBatch) -> BTreeMap<String, RecordBatch> {
    let share = |n: usize| {
        let mine = (n..rows.num_rows()).step_by(partitions).map(|i| i as u64);
        let share = take_record_batch(rows, &mine.collect::<UInt64Array>()).expect("rows of a partition");
        (format!("{prefix}{n}"), share)
    };
    (0..partitions).map(share).collect()
}

/// Rows as text, sorted.
fn lines(of: &[RecordBatch]) -> Vec<String> {
    let mut lines: Vec<String> = of.iter().flat_map(lines_of).collect();
    lines.sort();
    lines
}

fn lines_of(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns = batch.columns().iter();
    let columns: Vec<ArrayFormatter<'_>> = columns
        .map(|c| ArrayFormatter::try_new(c, &options).expect("a column can be shown"))
        .collect();
    let line = |row: usize| {
        let values: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
        values.join(", ")
    };
    (0..batch.num_rows()).map(line).collect()
}
