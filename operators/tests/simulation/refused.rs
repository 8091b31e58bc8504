//! A sink that refuses rows and one that takes them, under any schedule: each row is published exactly once, by the
//! one or the other, and a third sink behind both hears of the end.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use millstream_engine::source::invalid_schema;

use crate::keeps_its_promises;
use crate::oracle::published_of;
use crate::world::World;

/// Schedules of an ordinary run.
const SCHEDULES: u64 = 200;

const PIPELINE: &str = r#"
name = "refused"

[source.impressions]
type = "simulated"
event_time = "at"
[source.impressions.columns]
id = "bigint not null"
ad = "string not null"
at = "timestamp not null"

# Before the sink whose rows it takes.
[sink.refused]
type = "simulated"
input = "taken.rejected"
[sink.refused_too]
type = "simulated"
input = "taken.rejected"
[sink.taken]
type = "refusing"
input = "impressions"
"#;

#[test]
fn refused_rows_are_published_once_whatever_happens() {
    keeps_its_promises(PIPELINE, check, SCHEDULES);
}

fn check(world: &World, _: bool) -> Result<(), String> {
    let inputs: Vec<RecordBatch> = world.outside().inputs["impressions"].values().cloned().collect();
    let (odd, even): (Vec<i64>, Vec<i64>) = ids(&inputs).into_iter().partition(|id| id % 2 == 1);
    for (sink, expect, got) in [
        ("taken", &even, ids(&published_of(world, "taken"))),
        ("refused", &odd, ids_in_raw(&published_of(world, "refused"))),
        (
            "refused_too",
            &odd,
            ids_in_raw(&published_of(world, "refused_too")),
        ),
    ] {
        if *expect != got {
            return Err(format!("{sink}: expected\n{expect:?}\ngot\n{got:?}"));
        }
    }
    Ok(())
}

fn ids(of: &[RecordBatch]) -> Vec<i64> {
    let ids = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
    let mut all: Vec<i64> = of.iter().flat_map(ids).collect();
    all.sort_unstable();
    all
}

fn ids_in_raw(of: &[RecordBatch]) -> Vec<i64> {
    let id = |raw: &[u8]| -> i64 { std::str::from_utf8(raw).expect("text").parse().expect("an id") };
    let raw = of.iter().flat_map(|batch| batch.column(3).as_binary::<i32>());
    let mut all: Vec<i64> = raw.flatten().map(id).collect();
    all.sort_unstable();
    all
}

/// Refused rows, of which only the ids are left.
pub fn rows(ids: &[i64]) -> RecordBatch {
    let texts: Vec<String> = ids.iter().map(i64::to_string).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(vec![0; ids.len()])),
        Arc::new(StringArray::from(vec!["impressions"; ids.len()])),
        Arc::new(StringArray::from(vec!["odd"; ids.len()])),
        Arc::new(BinaryArray::from_iter_values(texts)),
    ];
    RecordBatch::try_new(invalid_schema(), columns).expect("the columns of refused rows")
}
