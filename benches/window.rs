//! Windowed aggregation as it runs in a partition and at the close, beside batch DataFusion on the same rows,
//! one core each, in the same run.
//!
//! Ours gets the rows batch by batch, cut into one-minute windows, and gives the result of each. Batch
//! DataFusion runs the query once over all rows with the minute as a group column.
//!
//! `cargo bench --bench window`

use std::sync::Arc;

use arrow::array::RecordBatch;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream_benches::{impressions, schema};
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlPlan, SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::time::Timestamp;
use millstream_engine::window::Window;
use millstream_operators::sql::DataFusionPlanner;

const ROWS: usize = 1_000_000;
const SECONDS: i64 = 300;
const ROWS_PER_BATCH: usize = 8_192;

/// Name, ads, the windowed query, the same in batch.
const CASES: [(&str, usize, &str, &str); 3] = [
    (
        "count per minute",
        1_000,
        "SELECT window_start() AS at, count(*) AS n FROM w",
        "SELECT date_trunc('minute', occurred_at) AS at, count(*) AS n FROM w GROUP BY 1",
    ),
    (
        "count per minute and ad, 1,000 ads",
        1_000,
        "SELECT ad_id, count(*) AS n FROM w GROUP BY ad_id",
        "SELECT date_trunc('minute', occurred_at) AS at, ad_id, count(*) AS n FROM w GROUP BY 1, 2",
    ),
    (
        "count per minute and ad, 1,000,000 ads",
        1_000_000,
        "SELECT ad_id, count(*) AS n FROM w GROUP BY ad_id",
        "SELECT date_trunc('minute', occurred_at) AS at, ad_id, count(*) AS n FROM w GROUP BY 1, 2",
    ),
];

fn window(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    for (name, ads, windowed, batch) in CASES {
        let rows = impressions(ROWS, ads, SECONDS);
        let batches: Vec<RecordBatch> = (0..ROWS.div_ceil(ROWS_PER_BATCH))
            .map(|n| rows.slice(n * ROWS_PER_BATCH, ROWS_PER_BATCH.min(ROWS - n * ROWS_PER_BATCH)))
            .collect();
        let plan = plan(windowed);
        let mut group = c.benchmark_group(format!("window/{name}"));
        group.throughput(Throughput::Elements(ROWS as u64));
        group.sample_size(10);
        group.bench_function("millstream", |b| {
            b.iter_batched(
                || Chain::new(&*plan),
                |mut chain| runtime.block_on(chain.run(&batches)),
                BatchSize::LargeInput,
            );
        });
        let context = context(&batches);
        group.bench_function("batch DataFusion", |b| {
            b.iter(|| {
                let done = async { context.sql(batch).await?.collect().await };
                runtime.block_on(done).expect("the query runs")
            });
        });
        group.finish();
    }
}

/// The operators of one partition and the global half, as the runtime chains them.
struct Chain {
    window: Box<dyn Operator>,
    local: Box<dyn Operator>,
    global: Box<dyn Operator>,
}

impl Chain {
    fn new(plan: &dyn SqlPlan) -> Chain {
        Chain {
            window: DataFusionPlanner::new().window(&minutes(), 2).expect("a window"),
            local: plan.local(0).expect("a lower half"),
            global: plan.global().expect("an upper half").expect("a windowed query"),
        }
    }

    async fn run(&mut self, batches: &[RecordBatch]) -> usize {
        let mut results = 0;
        for (n, rows) in batches.iter().enumerate() {
            let mut on_time = Output::default();
            self.window
                .on_batch(0, rows.clone().into(), &mut on_time)
                .expect("rows");
            for batch in on_time.main {
                self.local
                    .on_batch(0, batch, &mut Output::default())
                    .expect("rows");
            }
            // A batch is a few milliseconds of event time; the watermark follows it.
            let at = millstream_benches::START + SECONDS * 1_000_000 / batches.len() as i64 * n as i64;
            results += self.advance(Timestamp(at)).await;
        }
        results + self.advance(Timestamp::MAX).await
    }

    async fn advance(&mut self, at: Timestamp) -> usize {
        let (mut partial, mut out) = (Output::default(), Output::default());
        self.window
            .on_watermark(at, &mut Output::default())
            .await
            .expect("a watermark");
        self.local
            .watermark_to_end(at, &mut partial)
            .await
            .expect("a watermark");
        for batch in partial.main {
            self.global.on_batch(0, batch, &mut out).expect("partial rows");
        }
        self.global
            .watermark_to_end(at, &mut out)
            .await
            .expect("a watermark");
        out.main.iter().map(|batch| batch.rows.num_rows()).sum()
    }
}

fn minutes() -> Window {
    Window::Tumbling {
        size: std::time::Duration::from_secs(60),
        offset: std::time::Duration::ZERO,
    }
}

fn plan(query: &str) -> Arc<dyn SqlPlan> {
    let tables = [SqlTable {
        name: "w".into(),
        schema: schema(),
        event_time: 2,
        window: Some(minutes()),
    }];
    let request = SqlRequest {
        name: "bench",
        query,
        emit_empty: false,
        state_limit: Bytes(1 << 30),
        tables: &tables,
    };
    DataFusionPlanner::new().plan(&request).expect("the query plans")
}

fn context(batches: &[RecordBatch]) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let table = MemTable::try_new(schema(), vec![batches.to_vec()]).expect("batches of the schema");
    context.register_table("w", Arc::new(table)).expect("a new table");
    context
}

criterion_group!(benches, window);
criterion_main!(benches);
