//! A query's operators, driven by hand: windows, lower halves in several partitions, the upper half.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlError, SqlPlan, SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::state::Snapshot;
use millstream_engine::time::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::DataFusionPlanner;
use super::stream::{Stream, TABLES};
use crate::window::window_operator;

/// How a query is run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    partitions: usize,
    /// Restore somewhere on the way, to so many partitions.
    restore: Option<usize>,
}

pub const RUNS: [Run; 4] = [
    Run {
        partitions: 1,
        restore: None,
    },
    Run {
        partitions: 3,
        restore: None,
    },
    Run {
        partitions: 3,
        restore: Some(2),
    },
    Run {
        partitions: 1,
        restore: Some(3),
    },
];

/// The way in which windows without rows are fired too.
pub const WITH_EMPTY: Run = RUNS[2];

/// Plans a query over the stream's tables.
pub fn plan(query: &str, stream: &Stream, emit_empty: bool) -> Result<Arc<dyn SqlPlan>, Vec<SqlError>> {
    let tables = TABLES.iter().zip(&stream.tables).map(|(name, table)| SqlTable {
        name: (*name).to_owned(),
        schema: table.rows.schema(),
        event_time: table.event_time,
        window: Some(stream.window.clone()),
        lateness: None,
    });
    let tables: Vec<SqlTable> = tables.collect();
    DataFusionPlanner::new().plan(&SqlRequest {
        name: "case",
        query,
        emit_empty,
        state_limit: Bytes(1 << 30),
        tables: &tables,
    })
}

/// The operators of one query: per table and partition a window operator and a lower half, and the upper half.
struct Pipeline<'a> {
    plan: &'a dyn SqlPlan,
    stream: &'a Stream,
    chains: Vec<Chain>,
    upper: Box<dyn Operator>,
}

/// What runs in one partition: number of the table, window operator, lower half.
type Chain = (usize, Box<dyn Operator>, Box<dyn Operator>);

impl<'a> Pipeline<'a> {
    fn new(plan: &'a dyn SqlPlan, stream: &'a Stream, partitions: usize) -> Pipeline<'a> {
        let inputs = plan.inputs().iter().enumerate();
        let chains = inputs.flat_map(|(input, name)| {
            let table = TABLES.iter().position(|t| t == name).expect("a known table");
            (0..partitions).map(move |_| {
                let event_time = stream.tables[table].event_time;
                let late = window_operator(&stream.window, event_time).expect("window operator");
                (table, late, plan.local(input).expect("local"))
            })
        });
        Pipeline {
            plan,
            stream,
            chains: chains.collect(),
            upper: plan.global().expect("global").expect("windowed"),
        }
    }

    fn rows(&mut self, table: usize, lane: usize, rows: RecordBatch) {
        let mut chains: Vec<_> = self.chains.iter_mut().filter(|c| c.0 == table).collect();
        if chains.is_empty() {
            return;
        }
        let lane = lane % chains.len();
        let (_, late, lower) = &mut *chains[lane];
        let (mut passed, mut out) = (Output::default(), Output::default());
        late.on_batch(0, rows.into(), &mut passed)
            .expect("window operator");
        for batch in passed.main {
            lower.on_batch(0, batch, &mut out).expect("lower half");
        }
        assert!(out.main.is_empty(), "state leaves with the watermark only");
    }

    async fn watermark(&mut self, at: Timestamp) -> Vec<RecordBatch> {
        let mut out = Output::default();
        for (_, late, lower) in &mut self.chains {
            late.watermark_to_end(at, &mut Output::default())
                .await
                .expect("window operator");
            lower.watermark_to_end(at, &mut out).await.expect("lower half");
        }
        let mut result = Output::default();
        for batch in out.main {
            self.upper.on_batch(0, batch, &mut result).expect("upper half");
        }
        self.upper
            .watermark_to_end(at, &mut result)
            .await
            .expect("upper half");
        result.main.into_iter().map(|b| b.rows).collect()
    }

    /// The same state in another number of partitions. State of a partition that is gone goes to one that is
    /// there, and one that is new hears of the watermark, as the runtime does it.
    async fn restored(mut self, partitions: usize, watermark: Timestamp) -> Pipeline<'a> {
        let mut next = Pipeline::new(self.plan, self.stream, partitions);
        let mut parts: BTreeMap<(usize, usize), (Snapshot, Snapshot)> = BTreeMap::new();
        let mut seen = [0; TABLES.len()];
        for (table, late, lower) in &mut self.chains {
            let lane = seen[*table] % partitions;
            seen[*table] += 1;
            let into = parts.entry((*table, lane)).or_default();
            into.0
                .parts
                .extend(stored(late.snapshot().expect("snapshot")).parts);
            let first = lower.snapshot().expect("snapshot");
            let second = lower.snapshot().expect("snapshot");
            assert_eq!(
                first.parts.len(),
                second.parts.len(),
                "a snapshot must not disturb the state"
            );
            into.1.parts.extend(stored(second).parts);
        }
        let mut lanes = [0; TABLES.len()];
        for (table, late, lower) in &mut next.chains {
            let lane = lanes[*table];
            lanes[*table] += 1;
            if let Some((of_late, of_lower)) = parts.remove(&(*table, lane)) {
                late.restore(of_late).expect("restore");
                lower.restore(of_lower).expect("restore");
            }
        }
        next.upper
            .restore(stored(self.upper.snapshot().expect("snapshot")))
            .expect("restore");
        if watermark > Timestamp::MIN {
            let again = next.watermark(watermark).await;
            assert!(again.is_empty(), "a window fires again after a restore");
        }
        next
    }
}

/// A snapshot after its way through a checkpoint: written and read as Arrow IPC.
fn stored(snapshot: Snapshot) -> Snapshot {
    let mut read = Snapshot::default();
    for part in snapshot.parts {
        let mut writer = StreamWriter::try_new(Vec::new(), &part.rows.schema()).expect("writer");
        writer.write(&part.rows).expect("write");
        let bytes = writer.into_inner().expect("bytes");
        let mut reader = StreamReader::try_new(bytes.as_slice(), None).expect("reader");
        read.push(part.label, reader.next().expect("a batch").expect("rows"));
    }
    read
}

/// Runs the stream through the query; the result rows by window end.
pub async fn run(
    plan: &dyn SqlPlan,
    stream: &Stream,
    how: Run,
    seed: u64,
) -> BTreeMap<i64, Vec<RecordBatch>> {
    let panes = stream.panes();
    let mut random = StdRng::seed_from_u64(seed);
    let mut pipeline = Pipeline::new(plan, stream, how.partitions);
    let mut results: BTreeMap<i64, Vec<RecordBatch>> = BTreeMap::new();
    let steps = (stream.last - stream.first) / stream.step;
    let restore_at = stream.first + stream.step * random.random_range(1..steps);
    let (mut next, mut now, mut watermark) = (0, stream.first, Timestamp::MIN);
    while watermark.0 < stream.last_watermark() {
        now += stream.step;
        while next < stream.arrivals.len() && stream.arrivals[next].arrives < now {
            let (table, rows, after) = arriving(stream, next, now, &mut random);
            pipeline.rows(table, random.random_range(0..3), rows);
            next = after;
        }
        if let (Some(partitions), true) = (how.restore, now == restore_at) {
            pipeline = pipeline.restored(partitions, watermark).await;
        }
        let to = Timestamp(now - stream.behind);
        let fired = pipeline.watermark(to).await;
        if !fired.is_empty() {
            let end = panes.next_end(watermark.0.max(to.0 - stream.step));
            assert!(end <= to.0, "results without a window to fire at {to}");
            results.entry(end).or_default().extend(fired);
        }
        watermark = to;
    }
    let rest = pipeline.watermark(Timestamp::MAX).await;
    assert!(rest.is_empty(), "everything has fired before");
    results
}

/// The next few rows of one table that arrive before `now`, and where the stream goes on.
fn arriving(stream: &Stream, from: usize, now: i64, random: &mut StdRng) -> (usize, RecordBatch, usize) {
    let table = stream.arrivals[from].table;
    let most = random.random_range(1..12);
    let rows: Vec<u32> = stream.arrivals[from..]
        .iter()
        .take(most)
        .take_while(|a| a.table == table && a.arrives < now)
        .map(|a| a.row)
        .collect();
    let after = from + rows.len();
    let batch = take_record_batch(&stream.tables[table].rows, &UInt32Array::from(rows)).expect("rows");
    (table, batch, after)
}
