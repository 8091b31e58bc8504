//! The rows that the queries of these tests run over, and the order in which they come.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use millstream_engine::time::timestamp_type;
use rand::Rng;
use rand::rngs::StdRng;

use super::EVENT_TIME;

const ROWS: usize = 120;
/// Event times, in microseconds, begin and end here.
const TIMES: (i64, i64) = (-60, 400);

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("ad", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
        Field::new("at", timestamp_type(), false),
    ]))
}

/// What happens to the operators, in order.
#[derive(Clone, Debug)]
pub enum Step {
    /// Rows of a table arrive in a partition, by their numbers.
    Rows(usize, usize, Vec<u32>),
    Watermark(i64),
}

/// A seeded stream of rows.
pub struct Stream {
    rows: [RecordBatch; 2],
    pub steps: Vec<Step>,
}

impl Stream {
    pub fn new(random: &mut StdRng) -> Stream {
        let mut arrivals = Vec::new();
        let rows = [0, 1].map(|table| {
            let mut times: Vec<i64> = (0..ROWS).map(|_| random.random_range(TIMES.0..TIMES.1)).collect();
            // A hole, so that some windows are empty, or have late rows only.
            let hole = |at: &i64, random: &mut StdRng| (150..230).contains(at) && random.random_bool(0.9);
            times.retain(|at| !hole(at, random));
            for (row, at) in times.iter().enumerate() {
                let delay = [0..10, 0..60, 40..250][random.random_range(0..3)].clone();
                arrivals.push((at + random.random_range(delay), table, row as u32));
            }
            columns(&times, random)
        });
        arrivals.sort_unstable();
        let steps = steps(&arrivals, random);
        Stream { rows, steps }
    }

    pub fn at(&self, table: usize, row: u32) -> i64 {
        let times = self.rows[table].column(EVENT_TIME);
        times
            .as_primitive::<TimestampMicrosecondType>()
            .value(row as usize)
    }

    pub fn take(&self, table: usize, rows: &[u32]) -> RecordBatch {
        let rows = UInt32Array::from(rows.to_vec());
        take_record_batch(&self.rows[table], &rows).expect("rows")
    }
}

fn columns(times: &[i64], random: &mut StdRng) -> RecordBatch {
    let ads = times.iter().map(|_| {
        let ad = random.random_range(0..5);
        (ad > 0).then(|| format!("a{ad}"))
    });
    let ads: StringArray = ads.collect();
    // Quarters, so that sums are exact in whatever order they are made.
    let amounts = times.iter().map(|_| {
        let quarters = random.random_range(0..14);
        (quarters < 12).then(|| f64::from(quarters) / 4.0)
    });
    let amounts: Float64Array = amounts.collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..times.len() as i64)),
        Arc::new(ads),
        Arc::new(amounts),
        Arc::new(TimestampMicrosecondArray::from(times.to_vec())),
    ];
    RecordBatch::try_new(schema(), columns).expect("rows")
}

fn steps(arrivals: &[(i64, usize, u32)], random: &mut StdRng) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut watermark = i64::MIN;
    for some in arrivals.chunk_by(|a, b| a.1 == b.1 && a.0 / 7 == b.0 / 7) {
        let rows = some.iter().map(|a| a.2).collect();
        steps.push(Step::Rows(some[0].1, random.random_range(0..3), rows));
        let newest = some[some.len() - 1].0;
        if random.random_bool(0.4) && newest > watermark {
            watermark = newest;
            steps.push(Step::Watermark(newest));
        }
    }
    steps.push(Step::Watermark(i64::MAX));
    steps
}
