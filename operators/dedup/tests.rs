//! Dedup against a naive model, with restarts in between.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type};
use arrow::record_batch::RecordBatch;
use millstream_engine::Error;
use millstream_engine::time::timestamp_type;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// `within`; a slice is 10 long.
const WITHIN: i64 = 80;

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("at", timestamp_type(), false),
        Field::new("row", DataType::Int64, false),
    ])
}

fn dedup(limit: usize) -> Dedup {
    Dedup::new(&schema(), 1, &[0], Duration::from_micros(WITHIN as u64), limit)
}

/// Rows of an id and a time; `-` is null.
fn batch(rows: &[(String, i64)]) -> Batch {
    let ids = rows.iter().map(|(id, _)| (id != "-").then_some(id.as_str()));
    let at: Vec<i64> = rows.iter().map(|(_, at)| *at).collect();
    let numbers: Vec<i64> = (0..rows.len() as i64).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(ids)),
        Arc::new(TimestampMicrosecondArray::from(at)),
        Arc::new(Int64Array::from(numbers)),
    ];
    RecordBatch::try_new(Arc::new(schema()), columns)
        .expect("rows")
        .into()
}

/// Which rows of a batch pass, by their number.
fn passed(of: &mut Dedup, rows: &[(String, i64)]) -> Vec<i64> {
    let mut out = Output::default();
    of.on_batch(0, batch(rows), &mut out).expect("a batch");
    let dropped: u64 = out.counts.iter().map(|(_, n)| n).sum();
    let numbers = out.main.iter().flat_map(|b| {
        use arrow::array::AsArray;
        b.rows.column(2).as_primitive::<Int64Type>().values().to_vec()
    });
    let numbers: Vec<i64> = numbers.collect();
    assert_eq!(
        dropped as usize + numbers.len(),
        rows.len(),
        "each row passes or is counted"
    );
    numbers
}

fn restored(from: impl IntoIterator<Item = Snapshot>, limit: usize) -> Dedup {
    let mut it = dedup(limit);
    let parts = from.into_iter().flat_map(|s| s.parts).collect();
    it.restore(Snapshot { parts }).expect("a snapshot restores");
    it
}

/// `a@5 b@7` is a batch of rows with id and event time; `w 100` a watermark; `restart` a snapshot and its
/// restore. Expected: the ids that passed, batch by batch.
#[tokio::test]
async fn cases() {
    for (script, expect) in [
        ("a@5 b@5 a@5", "ab"),
        ("a@5; a@5; b@5; a@6", "a  b "),
        ("a@5; restart; a@5 b@5; restart; b@5", "a b "),
        // Within a batch the first row wins, whatever its time.
        ("a@9 a@5; a@1", "a "),
        // Null is no key; the empty text is one.
        ("-@5 -@5 @5 @5", "--."),
        // Until the watermark is `within` past the row, and no longer than a slice more.
        ("a@0; w 79; a@0 a@79", "a "),
        ("a@9; w 79; a@9; w 88; a@9", "a  "),
        ("a@0; w 90; a@0", "a a"),
        // Behind the watermark it is remembered from when it came.
        ("w 1000; a@0 a@0; w 1079; a@0; w 1090; a@0", "a  a"),
        // Far ahead it is remembered as if it stood 640 ahead: 720 and a slice from now.
        ("w 0; a@100000; w 719; a@100000; w 730; a@100000", "a  a"),
        (
            "a@100000; w 0; a@100000; w 719; a@100000; w 730; a@100000",
            "a   a",
        ),
        ("a@-5; w 74; a@-5; w 80; a@-5", "a  a"),
        // At the end of a bounded stream, and at both ends of time.
        ("a@5; w 9223372036854775807", "a"),
        (
            "a@9223372036854775807 b@-9223372036854775808; a@0 b@0; w 5; a@0 b@0",
            "ab  b",
        ),
    ] {
        let mut it = dedup(KEYS);
        let mut passes = Vec::new();
        for step in script.split("; ") {
            if step == "restart" {
                it = restored([it.snapshot().expect("a snapshot")], KEYS);
            } else if let Some(at) = step.strip_prefix("w ") {
                let at = Timestamp(at.parse().expect("a time"));
                it.on_watermark(at, &mut Output::default())
                    .await
                    .expect("a watermark");
            } else {
                let rows = step.split(' ').map(|row| {
                    let (id, at) = row.split_once('@').expect("id@time");
                    (id.to_owned(), at.parse().expect("a time"))
                });
                let rows: Vec<(String, i64)> = rows.collect();
                let ids = passed(&mut it, &rows)
                    .into_iter()
                    .map(|n| match &rows[n as usize].0 {
                        id if id.is_empty() => ".",
                        id => id,
                    });
                passes.push(ids.collect::<String>());
            }
        }
        assert_eq!(passes.join(" "), expect, "{script}");
    }
}

/// What the module doc promises, written down without slices, sets or chunks.
#[derive(Default)]
struct Model {
    /// Id, and where it stands.
    passed: Vec<(String, i64)>,
    watermark: Option<i64>,
}

impl Model {
    /// Whether the row must pass; none where the doc leaves it open.
    fn must_pass(&self, id: &str) -> Option<bool> {
        let last = self.passed.iter().rev().find(|(known, _)| known == id);
        let (Some((_, stands)), Some(now)) = (last, self.watermark) else {
            return Some(last.is_none());
        };
        match now - stands {
            ..WITHIN => Some(false),
            past if past > WITHIN + WITHIN / 8 => Some(true),
            _ => None,
        }
    }

    /// Rows that came before the first watermark may stand too far ahead of it.
    fn advance(&mut self, now: i64) {
        self.watermark = Some(now);
        for (_, stands) in &mut self.passed {
            *stands = (*stands).min(now + 8 * WITHIN);
        }
    }

    fn pass(&mut self, id: &str, at: i64) {
        let stands = self.watermark.map_or(at, |now| at.clamp(now, now + 8 * WITHIN));
        self.passed.push((id.to_owned(), stands));
    }
}

/// Random rows, watermarks and restarts, also from the snapshots of two tasks that shared the keys.
#[tokio::test]
async fn agrees_with_the_model() {
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut it, mut model) = (dedup(KEYS), Model::default());
        let (mut open, mut all) = (0, 0);
        for step in 0..300 {
            match random.random_range(0..10) {
                0 => it = restored([it.snapshot().expect("a snapshot")], KEYS),
                // What was remembered twice, and nothing, merge to the same.
                1 => {
                    let half = it.snapshot().expect("a snapshot");
                    it = restored([half.clone(), half], KEYS);
                }
                2 | 3 => {
                    let on = *[0, 1, 7, 30, 200]
                        .get(random.random_range(0..5))
                        .expect("one of five");
                    let now = model.watermark.unwrap_or(-500) + on;
                    model.advance(now);
                    it.on_watermark(Timestamp(now), &mut Output::default())
                        .await
                        .expect("a watermark");
                }
                _ => {
                    let now = model.watermark.unwrap_or(-500);
                    let rows = (0..random.random_range(1..20)).map(|_| {
                        let id = format!("k{}", random.random_range(0..60));
                        (id, now + random.random_range(-100..700))
                    });
                    let rows: Vec<(String, i64)> = rows.collect();
                    let passes = passed(&mut it, &rows);
                    for (n, (id, at)) in rows.iter().enumerate() {
                        let passes = passes.contains(&(n as i64));
                        all += 1;
                        match model.must_pass(id) {
                            Some(must) => assert_eq!(passes, must, "seed {seed}, step {step}, {id}@{at}"),
                            None => open += 1,
                        }
                        if passes {
                            model.pass(id, *at);
                        }
                    }
                }
            }
        }
        assert!(open * 4 < all, "seed {seed}: {open} of {all} rows prove nothing");
    }
}

/// Chunks fill, are shared with the snapshot, and come back; forgetting empties everything.
#[tokio::test]
async fn many_keys_survive_a_restart_and_are_forgotten() {
    let rows: Vec<(String, i64)> = (0..200_000).map(|n| (format!("id-{n}"), n % 20)).collect();
    let mut it = dedup(KEYS);
    assert_eq!(passed(&mut it, &rows).len(), rows.len());
    let snapshot = it.snapshot().expect("a snapshot");
    assert_eq!(
        snapshot.parts.len(),
        1 + 2 * 2,
        "the watermark, and two chunks of each of two slices"
    );
    let bytes: usize = snapshot.parts.iter().map(|p| p.rows.num_rows() * 16).sum();
    assert_eq!(bytes, 16 * (rows.len() + 1), "16 bytes per key");
    let mut it = restored([snapshot], KEYS);
    assert_eq!(passed(&mut it, &rows), [0i64; 0]);
    it.on_watermark(Timestamp(20 + WITHIN), &mut Output::default())
        .await
        .expect("a watermark");
    assert_eq!(
        it.snapshot().expect("a snapshot").parts.len(),
        1,
        "only the watermark"
    );
    assert_eq!(passed(&mut it, &rows).len(), rows.len());
}

#[test]
fn too_many_keys_are_an_error_that_says_what_to_do() {
    let mut it = dedup(2);
    let rows = |ids: &[&str]| batch(&ids.iter().map(|id| (id.to_string(), 0)).collect::<Vec<_>>());
    it.on_batch(0, rows(&["a", "b", "a"]), &mut Output::default())
        .expect("as many as there may be");
    let refused = it.on_batch(0, rows(&["c"]), &mut Output::default());
    let Err(Error::Data(text)) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        text.contains("more than 2 keys within 80µs") && text.contains("shorter `within`"),
        "{text}"
    );
}

/// Hashes are in checkpoints: these never change. Keys are equal only in all columns, by name, type and value.
#[test]
fn hashes_are_stable_and_tell_keys_apart() {
    let columns: [(&str, ArrayRef); 7] = [
        ("text", Arc::new(StringArray::from(vec!["ab", "a", "ab"]))),
        ("more", Arc::new(StringArray::from(vec!["c", "bc", "c"]))),
        ("flag", Arc::new(BooleanArray::from(vec![true, false, true]))),
        ("int", Arc::new(Int32Array::from(vec![1, 256, 1]))),
        ("bigint", Arc::new(Int64Array::from(vec![1, 256, 1]))),
        ("double", Arc::new(Float64Array::from(vec![0.5, -0.5, 0.5]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![1, 256, 1]))),
    ];
    let fields = columns
        .iter()
        .map(|(name, c)| Field::new(*name, c.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = columns.iter().map(|(_, c)| c.clone()).collect();
    let rows = RecordBatch::try_new(schema.clone(), columns).expect("rows");
    let hash = |key: &[usize], row: usize| {
        // A slice has offsets; its hashes are those of the whole.
        let mut hashing = KeyHash::new(&schema, key);
        let sliced = rows.slice(row, 1);
        let alone = hashing.of(&sliced).expect("key types").row(0).expect("no null");
        assert_eq!(hashing.of(&rows).expect("key types").row(row), Some(alone));
        alone
    };
    let mut all = vec![hash(&[0, 1], 0), hash(&[0, 1], 1), hash(&[1, 0], 0)];
    for column in 0..7 {
        assert_eq!(hash(&[column], 0), hash(&[column], 2), "column {column}");
        all.extend([hash(&[column], 0), hash(&[column], 1)]);
    }
    let distinct: std::collections::BTreeSet<u128> = all.iter().copied().collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(
        format!("{:032x}", hash(&[0], 0)),
        "a0759541db14aa2f72c4b0731982f629"
    );
    assert_eq!(
        format!("{:032x}", hash(&[0, 1, 2, 3, 4, 5, 6], 0)),
        "93a2d828828a9315bae52e8d9e8b3594"
    );
}
