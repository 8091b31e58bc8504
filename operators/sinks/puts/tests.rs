//! The sink in front of a service that refuses what it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use arrow::array::{AsArray, Int64Array, StringArray};
use arrow::datatypes::Schema;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::*;
use crate::sinks::test_context;

/// Puts that go wrong, in whole or in part; each costs a pause.
const BAD_PUTS: usize = 12;

/// A service in a mood, which remembers what it took.
struct Moody(Arc<Mutex<Memory>>);

struct Memory {
    dice: StdRng,
    bad: usize,
    /// By key, in order.
    taken: BTreeMap<String, Vec<i64>>,
    /// Keys of the puts that are being made.
    busy: BTreeSet<String>,
}

#[async_trait]
impl Service for Moody {
    const LIMITS: Limits = Limits {
        records: 10,
        put_bytes: 250,
        record_bytes: 60,
        made_key_bytes: 0,
        ends_lines: false,
    };

    fn place(&self) -> String {
        "a moody stream".into()
    }

    async fn put(&self, put: &Put) -> Result<Vec<Option<String>>> {
        let keys: Vec<String> = put
            .iter()
            .filter_map(|record| Some(record.key.as_ref()?.to_string()))
            .collect();
        let pause = {
            let mut memory = self.0.lock().unwrap();
            let bytes: usize = put.iter().map(|record| record.data(&Self::LIMITS).len()).sum();
            assert!(put.len() <= 10 && bytes <= 250, "{put:?}");
            for key in &keys {
                assert!(memory.busy.insert(key.clone()), "two puts with {key}");
            }
            memory.dice.random_range(0..3)
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let mut memory = self.0.lock().unwrap();
        memory.busy.retain(|key| !keys.contains(key));
        let bad = memory.bad < BAD_PUTS && memory.dice.random_bool(0.3);
        memory.bad += usize::from(bad);
        let lost = bad && memory.dice.random_bool(0.3);
        let mut answer = Vec::new();
        for record in put {
            if bad && !lost && memory.dice.random_bool(0.5) {
                answer.push(Some("Throttled".to_owned()));
                continue;
            }
            answer.push(None);
            for line in record.data(&Self::LIMITS).split(|b| *b == b'\n') {
                let row: serde_json::Value = serde_json::from_slice(line).unwrap();
                let key = row["key"].as_str().unwrap_or_default().to_owned();
                let number = row["n"].as_i64().unwrap();
                memory.taken.entry(key).or_default().push(number);
            }
        }
        match lost {
            // It was taken, and nobody hears of it.
            true => Err(Error::retry("the answer was lost")),
            false => Ok(answer),
        }
    }
}

fn memory(seed: u64) -> Arc<Mutex<Memory>> {
    Arc::new(Mutex::new(Memory {
        dice: StdRng::seed_from_u64(seed),
        bad: 0,
        taken: BTreeMap::new(),
        busy: BTreeSet::new(),
    }))
}

fn rows(numbers: std::ops::Range<i64>, dice: &mut StdRng) -> RecordBatch {
    let key = |dice: &mut StdRng| match dice.random_range(0..12) {
        0 => None,
        1 => Some(String::new()),
        key => Some(format!("k{key}")),
    };
    let keys: StringArray = numbers.clone().map(|_| key(dice)).collect();
    let schema = Schema::new(vec![
        Field::new("key", DataType::Utf8, true),
        Field::new("n", DataType::Int64, false),
    ]);
    let numbers = Int64Array::from_iter_values(numbers);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(keys), Arc::new(numbers)]).unwrap()
}

fn sink(of: Moody, schema: arrow::datatypes::SchemaRef, rows_per_record: usize) -> StreamSink<Moody> {
    let cx = test_context(schema, std::path::Path::new("/nowhere"), json!({}));
    let key = key_column(&cx, Some("key")).unwrap();
    let queueing = Queueing {
        rows_per_record,
        ordered: true,
    };
    StreamSink::new(&cx, of, key, queueing)
}

/// Everything is taken at least once, and the rows of a key for the first time in their order, whatever is refused.
#[tokio::test]
async fn a_moody_service_gets_everything_in_order() {
    for (seed, rows_per_record) in [(1, 1), (2, 3)] {
        let mut dice = StdRng::seed_from_u64(seed);
        let memory = memory(seed);
        let schema = rows(0..1, &mut dice).schema();
        let mut sink = sink(Moody(memory.clone()), schema, rows_per_record);
        let mut written = 0;
        for (number, size) in (0..).zip([1, 40, 0, 3, 200, 7, 90, 1]) {
            let batch = rows(written..written + size, &mut dice);
            written += size;
            // As the runtime does it.
            while let Err(e) = sink.write(batch.clone()).await {
                assert!(matches!(e.class(), ErrorClass::Retry { .. }), "{e}");
            }
            if number % 3 == 2 {
                let barrier = Barrier {
                    epoch: Epoch(number),
                    last: false,
                };
                while let Err(e) = sink.prepare(barrier).await {
                    assert!(matches!(e.class(), ErrorClass::Retry { .. }), "{e}");
                }
                let memory = memory.lock().unwrap();
                let all: BTreeSet<_> = memory.taken.values().flatten().copied().collect();
                assert_eq!(
                    all.len() as i64,
                    written,
                    "seed {seed}: a checkpoint covers what is taken"
                );
            }
        }
        while sink.puts.send(true).await.is_err() {}
        let memory = memory.lock().unwrap();
        assert!(memory.bad > 0, "seed {seed}: nothing went wrong");
        for (key, taken) in &memory.taken {
            let mut first: Vec<i64> = Vec::new();
            taken.iter().for_each(|n| {
                if !first.contains(n) {
                    first.push(*n)
                }
            });
            // Without a key there is no order.
            let ordered = key.is_empty() || first.is_sorted();
            assert!(ordered, "seed {seed}: {key}: {first:?}");
        }
        let all: BTreeSet<_> = memory.taken.values().flatten().copied().collect();
        assert_eq!(all, (0..written).collect(), "seed {seed}");
    }
}

/// What could not leave at once leaves as soon as it can, whether or not the sink is called again.
#[tokio::test]
async fn rows_leave_between_calls() {
    let memory = memory(3);
    let mut dice = StdRng::seed_from_u64(3);
    let schema = rows(0..1, &mut dice).schema();
    let mut sink = sink(Moody(memory.clone()), schema, 1);
    for from in [0, 20, 40] {
        sink.write(rows(from..from + 20, &mut dice))
            .await
            .expect("there is room");
    }
    let all_taken = || {
        let memory = memory.lock().unwrap();
        memory.taken.values().flatten().collect::<BTreeSet<_>>().len() == 60
    };
    // The test ends by the harness if they do not.
    while !all_taken() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_no_record_holds_is_refused_with_the_reason() {
    let schema = Arc::new(Schema::new(vec![Field::new("key", DataType::Utf8, true)]));
    let keys = StringArray::from(vec!["short".to_owned(), "long".repeat(20)]);
    let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(keys)]).unwrap();
    let mut sink = sink(Moody(memory(0)), schema, 1);
    sink.queue(&batch).unwrap();
    assert_eq!(sink.puts.shared.state().queue.rows(), 1);
    let rejected = sink.rejected().expect("a refused row");
    let reasons = rejected.column(2).as_string::<i32>();
    assert_eq!(
        reasons.value(0),
        "too_large: the row has 90 bytes, and a record takes 60"
    );
    assert_eq!((rejected.num_rows(), sink.rejected()), (1, None));
}

#[test]
fn long_keys_are_hashed() {
    assert_eq!(fitting("key"), "key");
    let umlauts = "ä".repeat(KEY_CHARS);
    assert_eq!(fitting(&umlauts), umlauts);
    let long = "k".repeat(KEY_CHARS + 1);
    assert_eq!(fitting(&long).len(), 64);
    assert_ne!(fitting(&long), fitting(&"l".repeat(KEY_CHARS + 1)));
}
