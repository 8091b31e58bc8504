//! What is found by hash is what sorting finds.

use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::planning::with_first_rows;
use super::*;

const SEEDS: u64 = 20;

/// Queries, and whether the sort goes, too.
const QUERIES: [(&str, bool); 9] = [
    ("SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY id) AS r FROM t) WHERE r = 1", true),
    ("SELECT id, x FROM (SELECT *, row_number() OVER (PARTITION BY k, s ORDER BY id DESC) AS r FROM t) WHERE r < 2", true),
    ("SELECT id, r FROM (SELECT *, row_number() OVER (PARTITION BY s ORDER BY x DESC NULLS LAST, id) AS r FROM t) WHERE r <= 3", false),
    ("SELECT id FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY at DESC, id DESC) AS r FROM t) WHERE 3 > r AND x > 2", false),
    ("SELECT k, count(*) AS n, sum(id) AS s FROM (SELECT *, row_number() OVER (PARTITION BY x, s ORDER BY s, id) AS r FROM t) WHERE r = 1 GROUP BY k", true),
    ("SELECT k, id FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY id) AS r FROM t) WHERE r = 1 ORDER BY k, id", false),
    ("SELECT k, s, r FROM (SELECT k, s, row_number() OVER (PARTITION BY k ORDER BY s DESC) AS r FROM t) WHERE r <= 7", false),
    ("SELECT a.id, b.id FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY id) AS r FROM t) a
      JOIN (SELECT *, row_number() OVER (PARTITION BY k ORDER BY id DESC) AS r FROM t) b ON a.k = b.k AND a.r = b.r WHERE a.r = 1", true),
    ("SELECT * FROM (SELECT id, k + 1 AS k, row_number() OVER (PARTITION BY k ORDER BY id) AS r FROM t) WHERE r = 2", false),
];

fn rows(random: &mut StdRng) -> Vec<RecordBatch> {
    let keys = random.random_range(1..60);
    let mut id = 0;
    let mut batch = |_| {
        let count = random.random_range(0..80);
        let ids: Vec<i64> = (id..id + count as i64)
            .map(|id| id.wrapping_mul(7_919) % 10_007)
            .collect();
        id += count as i64;
        let mut some = |most: i64, nulls: f64| -> Vec<Option<i64>> {
            let mut one = || (!random.random_bool(nulls)).then(|| random.random_range(0..most));
            (0..count).map(|_| one()).collect()
        };
        let words = |of: Vec<Option<i64>>| {
            of.into_iter()
                .map(|n| n.map(|n| format!("w{n}")))
                .collect::<Vec<_>>()
        };
        let times: Vec<i64> = some(5, 0.0).into_iter().flatten().collect();
        RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(Int64Array::from(ids)) as ArrayRef, false),
            ("k", Arc::new(Int64Array::from(some(keys, 0.1))) as ArrayRef, true),
            (
                "s",
                Arc::new(StringArray::from(words(some(4, 0.2)))) as ArrayRef,
                true,
            ),
            ("x", Arc::new(Int64Array::from(some(6, 0.3))) as ArrayRef, true),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from(times)) as ArrayRef,
                false,
            ),
        ])
        .expect("rows")
    };
    (0..5).map(&mut batch).collect()
}

async fn run(context: &SessionContext, rows: &[RecordBatch], query: &str) -> (Vec<String>, String) {
    let table = MemTable::try_new(rows[0].schema(), vec![rows.to_vec()]).expect("a table");
    context.deregister_table("t").expect("tables");
    context.register_table("t", Arc::new(table)).expect("tables");
    let frame = context.sql(query).await.expect("a good query");
    let plan = frame.clone().create_physical_plan().await.expect("a plan");
    let shown = displayable(plan.as_ref()).indent(false).to_string();
    let results = frame.collect().await.expect("results");
    let text = pretty_format_batches(&results).expect("text").to_string();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if !query.contains("ORDER BY k, id") {
        lines.sort_unstable();
    }
    (lines, shown)
}

#[tokio::test]
async fn gives_what_sorting_all_rows_gives() {
    let config = || SessionConfig::new().with_target_partitions(1);
    let sorting = SessionContext::new_with_config(config());
    let state = SessionStateBuilder::new()
        .with_config(config())
        .with_default_features();
    let rules = with_first_rows(datafusion::physical_optimizer::optimizer::PhysicalOptimizer::new().rules);
    let finding = SessionContext::new_with_state(state.with_physical_optimizer_rules(rules).build());
    for seed in 0..SEEDS {
        let rows = rows(&mut StdRng::seed_from_u64(seed));
        for (query, unsorted) in QUERIES {
            let (expected, _) = run(&sorting, &rows, query).await;
            let (found, plan) = run(&finding, &rows, query).await;
            assert!(plan.contains("TopPerKey"), "{query}\n{plan}");
            assert_eq!(!plan.contains("SortExec"), unsorted, "{query}\n{plan}");
            assert_eq!(found, expected, "seed {seed}: {query}\n{plan}");
        }
    }
}
