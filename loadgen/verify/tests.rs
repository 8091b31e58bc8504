//! Ledger and lake round trips: one sound world, and each way of breaking it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::*;
use crate::ledger::Ledger;
use crate::reply::Outcome;
use crate::rows::Batch;

const MINUTE: i64 = 60_000_000;
const START: i64 = 1_700_000_040_000_000;

/// What a server and its pipeline did with the rows that were sent.
struct World {
    lake: [Vec<Row>; 2],
    counts: Vec<String>,
}

fn row(stream: Stream, number: u128) -> Row {
    let id = Uuid((stream as u128 + 1) << 64 | number);
    let impression = Uuid(1 << 64 | number);
    Row {
        id,
        impression,
        ad: Uuid::of_ad(number as u64),
        occurred_at: START + number as i64 * MINUTE / 4,
    }
}

fn rows(stream: Stream, numbers: std::ops::Range<u128>) -> Vec<Row> {
    numbers.map(|number| row(stream, number)).collect()
}

/// Impressions 0..8 acked (3 failed in its batch), 8..10 refused, 10..12 unanswered; clicks 0..4 acked.
fn write_ledger(path: &Path) {
    let ledger = Ledger::open(path).expect("opens");
    let refused = Outcome::Refused {
        status: 503,
        reason: "busy".to_owned(),
        retry_after: None,
    };
    let requests = [
        (
            Stream::Impressions,
            0..8,
            Some(Outcome::Acked { refused: vec![3] }),
        ),
        (Stream::Impressions, 8..10, Some(refused)),
        (Stream::Impressions, 10..12, None),
        (Stream::Clicks, 0..4, Some(Outcome::Acked { refused: vec![] })),
    ];
    for (stream, numbers, outcome) in requests {
        let ticket = ledger
            .sent(&Batch {
                stream,
                rows: rows(stream, numbers),
            })
            .expect("written");
        if let Some(outcome) = outcome {
            ledger.outcome(ticket, &outcome).expect("written");
        }
    }
}

/// Row 10, which nobody answered, happens to be in.
fn sound() -> World {
    let mut impressions = rows(Stream::Impressions, 0..8);
    impressions.remove(3);
    impressions.push(row(Stream::Impressions, 10));
    let counts = [
        r#"{"at":"2023-11-14T22:14:00Z","impressions":3,"clicks":4,"clickthrough":1.3}"#,
        r#"{"at":"2023-11-14T22:15:00Z","impressions":4,"clicks":0,"clickthrough":0.0}"#,
        r#"{"at":"2023-11-14T22:16:00Z","impressions":1,"clicks":0,"clickthrough":0.0}"#,
    ];
    World {
        lake: [impressions, rows(Stream::Clicks, 0..4)],
        counts: counts.map(str::to_owned).to_vec(),
    }
}

fn write_parquet(path: &Path, stream: Stream, rows: &[Row], nanoseconds: bool) {
    let text = |of: fn(&Row) -> Uuid| -> ArrayRef {
        Arc::new(
            rows.iter()
                .map(|row| Some(of(row).to_string()))
                .collect::<StringArray>(),
        )
    };
    let times = rows.iter().map(|row| row.occurred_at);
    let times: ArrayRef = if nanoseconds {
        Arc::new(
            times
                .map(|micros| Some(micros * 1000))
                .collect::<TimestampNanosecondArray>(),
        )
    } else {
        Arc::new(
            times
                .map(Some)
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        )
    };
    let mut columns = vec![
        ("impression_id", text(|row| row.impression)),
        ("ad_id", text(|row| row.ad)),
    ];
    if stream == Stream::Clicks {
        columns.push(("click_id", text(|row| row.id)));
    }
    columns.push(("occurred_at", times));
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(Default::default()))
        .build();
    let file = File::create(path).expect("created");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

fn prove(world: &World, change: impl FnOnce(&mut VerifyArgs)) -> Proof {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let lake = dir.path().join("lake");
    for stream in Stream::ALL {
        let day = lake.join(stream.name()).join("year=2023/month=11/day=14");
        let (first, second) = world.lake[stream as usize].split_at(2);
        write_parquet(&day.join("a.parquet"), stream, first, false);
        write_parquet(&day.join("b.parquet"), stream, second, true);
        // What is still being written is not in the lake, whatever it holds.
        write_parquet(&day.join(".c.parquet"), stream, first, false);
        std::fs::write(day.join("d.parquet.inprogress"), b"PAR1 half").expect("written");
    }
    let ledger = dir.path().join("ledger.ndjson");
    write_ledger(&ledger);
    let counts = dir.path().join("counts.ndjson");
    std::fs::write(&counts, world.counts.join("\n")).expect("written");
    let window = Duration::from_secs(60);
    let mut args = VerifyArgs {
        ledger: vec![ledger],
        lake,
        counts: vec![counts],
        window,
        other_traffic: false,
    };
    change(&mut args);
    Proof::make(&args).expect("everything is readable")
}

#[test]
fn a_sound_world_is_proven() {
    let proof = prove(&sound(), |_| {});
    assert!(proof.holds(), "{proof}");
    let [impressions, clicks] = &proof.streams;
    assert_eq!(
        (impressions.acked, impressions.refused, impressions.unknown),
        (7, 3, 2)
    );
    assert_eq!(
        (
            impressions.unknown_found,
            impressions.in_lake,
            impressions.windows
        ),
        (1, 8, 3)
    );
    assert_eq!(
        (clicks.acked, clicks.in_lake, clicks.files, clicks.windows),
        (4, 4, 2, 3)
    );
}

/// Breaks one thing in the world.
type Break = fn(&mut World);

/// Picks a number out of the finding.
type Count = fn(&Found) -> u64;

/// Each broken promise is found, is the only thing found, and is shown.
#[test]
fn every_broken_promise_is_detected() {
    let cases: [(&str, Break, Count, usize); 9] = [
        (
            "acked and is not in",
            |w| w.lake[0].retain(|row| row.id.0 as u64 != 5),
            |f| f.missing,
            0,
        ),
        ("acked and is not in", |w| w.lake[1].truncate(3), |f| f.missing, 1),
        (
            "more than once",
            |w| w.lake[0].push(row(Stream::Impressions, 5)),
            |f| f.repeated,
            0,
        ),
        (
            "more than once",
            |w| w.lake[0].push(row(Stream::Impressions, 10)),
            |f| f.repeated,
            0,
        ),
        (
            "was refused and is in",
            |w| w.lake[0].push(row(Stream::Impressions, 9)),
            |f| f.refused_found,
            0,
        ),
        (
            "was refused and is in",
            |w| w.lake[0].push(row(Stream::Impressions, 3)),
            |f| f.refused_found,
            0,
        ),
        (
            "not in the ledger",
            |w| w.lake[1].push(row(Stream::Clicks, 77)),
            |f| f.foreign,
            1,
        ),
        (
            "differs from what was sent",
            |w| w.lake[0][0].ad = Uuid::of_ad(999),
            |f| f.altered,
            0,
        ),
        (
            "differs from what was sent",
            |w| w.lake[1][3].occurred_at += 1000,
            |f| f.altered,
            1,
        ),
    ];
    for (text, damage, count, stream) in cases {
        let mut world = sound();
        damage(&mut world);
        let proof = prove(&world, |args| args.counts.clear());
        assert!(!proof.holds(), "{text}");
        assert_eq!(count(&proof.streams[stream]), 1, "{text}: {proof}");
        let broken: u64 = proof.streams.iter().map(|found| proof.broken(found)).sum();
        assert_eq!(broken, 1, "{text}: {proof}");
        assert!(proof.to_string().contains(text), "{text}: {proof}");
    }
}

#[test]
fn published_counts_must_be_those_of_the_lake_once() {
    let cases: [(&str, Break, u64, u64); 4] = [
        (
            "a window published twice",
            |w| w.counts.push(w.counts[1].clone()),
            1,
            2,
        ),
        ("a window never published", |w| drop(w.counts.remove(0)), 2, 0),
        (
            "a wrong count",
            |w| w.counts[0] = w.counts[0].replace("\"impressions\":3", "\"impressions\":4"),
            1,
            0,
        ),
        (
            "a window of rows nobody sent",
            |w| w.counts[2] = w.counts[2].replace("22:16", "22:17"),
            2,
            0,
        ),
    ];
    for (name, damage, wrong, repeated) in cases {
        let mut world = sound();
        damage(&mut world);
        let proof = prove(&world, |_| {});
        assert!(!proof.holds(), "{name}");
        let sum = |of: fn(&Found) -> u64| proof.streams.iter().map(of).sum::<u64>();
        assert_eq!(sum(|found| found.windows_wrong), wrong, "{name}: {proof}");
        assert_eq!(sum(|found| found.windows_repeated), repeated, "{name}: {proof}");
    }
}

#[test]
fn rows_of_others_may_be_allowed_but_not_twice() {
    let mut world = sound();
    world.lake[0].push(row(Stream::Impressions, 77));
    let allow = |args: &mut VerifyArgs| {
        args.counts.clear();
        args.other_traffic = true;
    };
    assert!(prove(&world, allow).holds());
    world.lake[0].push(row(Stream::Impressions, 77));
    assert!(!prove(&world, allow).holds());
}

#[test]
fn a_ledger_without_acked_rows_proves_nothing() {
    let proof = prove(
        &World {
            lake: [vec![], vec![]].map(|_: Vec<Row>| rows(Stream::Clicks, 0..2)),
            counts: vec![],
        },
        |args| {
            std::fs::write(&args.ledger[0], "").expect("written");
            args.counts.clear();
            args.other_traffic = true;
        },
    );
    assert!(!proof.holds());
    assert!(proof.to_string().contains("proves nothing"));
}
