//! A pipeline over generated rows that is killed on the way: it reads on from its checkpoint, and every row is there
//! once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use millstream_engine::config::{self, PipelineSource};
use millstream_engine::metrics::Metrics;
use millstream_engine::plan::Plan;
use millstream_engine::runtime::{self, PipelineHandle, RunOptions, timer};
use millstream_operators::Environment;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const ROWS: i64 = 30_000;

const PIPELINE: &str = r#"
name = "counted"
checkpoint = { interval = "100ms" }

[source.numbers]
type = "generate"
generator = "columns"
rows = 30000
rate = 10000
partitions = 2
event_time = "at"
[source.numbers.values]
id = { sequence = 0 }
[source.numbers.columns]
id = "bigint not null"
at = "timestamp not null"

[window.seconds]
input = "numbers"
type = "tumbling"
size = "1s"

[sql.counts]
query = "SELECT window_start() AS at, count(*) AS n, sum(id) AS total FROM seconds"

[sink.lake]
type = "parquet"
input = "numbers"
path = "${OUT}/lake"

[sink.counts]
type = "parquet"
input = "counts"
path = "${OUT}/counts"
"#;

#[test]
fn every_row_is_there_once_after_a_kill() {
    let dir = tempfile::tempdir().expect("a folder");
    let plan = Arc::new(plan(dir.path()));
    // Dropping the runtime ends every task where it stands.
    let killed = process();
    killed.block_on(async {
        let pipeline = launch(&plan, dir.path());
        while pipeline.status().epoch < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    killed.shutdown_timeout(Duration::from_secs(10));
    let process = process();
    process.block_on(async { launch(&plan, dir.path()).done().await.expect("it ends well") });
    let mut ids = numbers(&dir.path().join("lake"), 0);
    ids.sort();
    assert_eq!(ids, (0..ROWS).collect::<Vec<_>>());
    // Three seconds of event time, as many as the rate makes of the rows.
    let mut counts = numbers(&dir.path().join("counts"), 1);
    counts.sort();
    assert_eq!(counts, [10_000; 3]);
    let total: i64 = numbers(&dir.path().join("counts"), 2).iter().sum();
    assert_eq!(total, ROWS * (ROWS - 1) / 2);
}

fn process() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("threads")
}

fn plan(dir: &Path) -> Plan {
    let source = PipelineSource {
        file: "counted.toml",
        text: PIPELINE,
        vars: &|_| Some(dir.display().to_string()),
        date: None,
    };
    let ships = millstream_operators::registry(Environment::default());
    config::load(&source, &ships).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn launch(plan: &Arc<Plan>, dir: &Path) -> PipelineHandle {
    let options = RunOptions {
        data_dir: dir.join("data"),
        registry: millstream_operators::registry(Environment::default()),
        metrics: Arc::new(Metrics::new()),
        reset: Vec::new(),
        checkpoints: None,
        cores: runtime::cores(),
        timer: timer::real(),
        bounded: None,
        run: None,
    };
    runtime::start(plan.clone(), options)
}

/// The numbers in a column of all files under a folder.
fn numbers(dir: &Path, column: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            numbers.extend(self::numbers(&path, column));
        } else if path.extension().is_some_and(|e| e == "parquet") {
            let file = std::fs::File::open(&path).expect("a file");
            let rows = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|file| file.build());
            for batch in rows.expect("parquet") {
                let batch = batch.expect("rows");
                numbers.extend(batch.column(column).as_primitive::<Int64Type>().values());
            }
        }
    }
    numbers
}
