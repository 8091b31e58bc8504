//! Approximate percentiles of many values, where a t-digest forgets: the result depends on how the rows were
//! batched, in batch too, so it is measured against the exact ranks instead.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Float64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use millstream_engine::operator::Output;
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::time::{Timestamp, timestamp_type};
use millstream_engine::window::Window;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::DataFusionPlanner;

const ROWS: usize = 60_000;
const PARTITIONS: usize = 3;
/// How far the rank of a result may be from what was asked for. A t-digest of 100 centroids, DataFusion's,
/// lets a centroid at rank q hold up to 4·q·(1-q)/100 of the rows, one percent in the middle, and answers from
/// within one or next to it.
const RANK: f64 = 0.02;

#[tokio::test]
async fn percentiles_of_many_values_are_near() {
    let mut random = StdRng::seed_from_u64(5);
    // Long-tailed, as amounts and latencies are.
    let values: Vec<f64> = (0..ROWS)
        .map(|_| (random.random_range(0.0..6.0_f64)).exp())
        .collect();
    let asked = [0.01, 0.1, 0.5, 0.9, 0.99];
    let calls = asked.map(|p| format!("approx_percentile_cont({p}) WITHIN GROUP (ORDER BY x)"));
    let got = percentiles(&format!("SELECT {} FROM w", calls.join(", ")), &values).await;
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    for (asked, value) in asked.iter().zip(got) {
        let rank = sorted.partition_point(|v| *v <= value) as f64 / ROWS as f64;
        assert!(
            (rank - asked).abs() < RANK,
            "asked for {asked}, got {value} at rank {rank}"
        );
    }
}

/// The only row of the query over values that arrive in several partitions and batches, with a restore between.
async fn percentiles(query: &str, values: &[f64]) -> Vec<f64> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("x", DataType::Float64, false),
        Field::new("at", timestamp_type(), false),
    ]));
    let table = SqlTable {
        name: "w".to_owned(),
        schema: Arc::clone(&schema),
        event_time: 1,
        window: Some(Window::Tumbling {
            size: Duration::from_secs(60),
            offset: Duration::ZERO,
        }),
        lateness: None,
    };
    let request = SqlRequest {
        name: "case",
        query,
        emit_empty: false,
        state_limit: Bytes(1 << 30),
        tables: &[table],
    };
    let plan = DataFusionPlanner::new().plan(&request).expect("a query");
    let mut lower: Vec<_> = (0..PARTITIONS).map(|_| plan.local(0).expect("local")).collect();
    for (number, part) in values.chunks(1_000).enumerate() {
        let at = TimestampMicrosecondArray::from_value(number as i64, part.len());
        let columns = vec![
            Arc::new(Float64Array::from(part.to_vec())) as _,
            Arc::new(at) as _,
        ];
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns).expect("rows");
        let lane = &mut lower[number % PARTITIONS];
        lane.on_batch(0, rows.into(), &mut Output::default())
            .expect("rows");
        if number == 30 {
            let snapshot = lane.snapshot().expect("snapshot");
            *lane = plan.local(0).expect("local");
            lane.restore(snapshot).expect("restore");
        }
    }
    let mut upper = plan.global().expect("global").expect("windowed");
    let (mut state, mut out) = (Output::default(), Output::default());
    for lower in &mut lower {
        lower
            .watermark_to_end(Timestamp::MAX, &mut state)
            .await
            .expect("local");
    }
    for batch in state.main {
        upper.on_batch(0, batch, &mut out).expect("state");
    }
    upper
        .watermark_to_end(Timestamp::MAX, &mut out)
        .await
        .expect("global");
    let columns = out.main[0].rows.columns().iter();
    columns
        .map(|c| c.as_primitive::<Float64Type>().value(0))
        .collect()
}
