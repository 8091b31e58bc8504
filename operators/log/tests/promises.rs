//! What was acknowledged is read, once and in order, until it is released.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand_free::Xorshift;

use super::*;

/// A source of chance without a dependency; the seed is printed by the test that uses it.
mod rand_free {
    pub struct Xorshift(pub u64);

    impl Xorshift {
        pub fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }
    }
}

#[tokio::test]
async fn round_trip_and_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let log = open(&options);
    append(&log, 1..=3).await;
    assert_eq!(durable(log.append(rows(4, 0), Some(invalid("{")))).await, 4);
    let sliced = rows(5, 100).slice(0, 7);
    assert_eq!(
        durable(log.append(sliced, Some(invalid("{").slice(0, 0)))).await,
        5
    );

    let check = |frames: Vec<Frame>| {
        assert_eq!(seqs(&frames), [1, 2, 3, 4, 5]);
        assert_eq!(frames[3].invalid, Some(invalid("{")));
        assert!(
            frames[4].invalid.is_none(),
            "an empty batch of invalid rows is none"
        );
        assert_eq!(frames[4].rows.num_rows(), 7);
    };
    check(drain(&log, None).await);
    let stats = log.stats();
    assert_eq!(
        (stats.frames, stats.next_seq, stats.fsyncs, stats.torn_bytes),
        (5, 6, 5, 0)
    );
    drop(log);

    let log = open(&options);
    assert_eq!(log.stats().frames, 5);
    assert_eq!(durable(log.append(rows(6, 1), None)).await, 6);
    let mut frames = drain(&log, None).await;
    assert_eq!(seqs(&frames.split_off(5)), [6]);
    check(frames);
    assert_eq!(seqs(&drain(&log, Some(4)).await), [4, 5, 6]);
}

#[tokio::test]
async fn an_invalid_batch_costs_nothing_when_empty() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&options(dir.path()));
    let mut sizes = Vec::new();
    for empty in [None, Some(invalid("{").slice(0, 0)), None] {
        let before = log.stats().bytes;
        durable(log.append(rows(1, 1), empty)).await;
        sizes.push(log.stats().bytes - before);
    }
    assert_eq!(sizes[1], sizes[2]);
}

#[tokio::test]
async fn segments_roll_and_are_released_whole() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        segment_bytes: 4 << 10,
        ..options(dir.path())
    };
    let log = open(&options);
    append(&log, 1..=40).await;
    let before = segments(&options);
    assert!(before.len() > 3, "{before:?}");
    let second = segment::seq_of(&before[1]).unwrap();

    log.release(second - 1).unwrap();
    assert_eq!(
        segments(&options),
        before,
        "the first segment still has an unreleased frame"
    );
    log.release(second).unwrap();
    assert_eq!(segments(&options), before[1..]);
    log.release(second - 1).unwrap();
    assert!(log.release(42).is_err(), "frame 41 was never read");
    log.release(20).unwrap();
    let on_disk: u64 = segments(&options)
        .iter()
        .map(|p| fs::metadata(p).unwrap().len())
        .sum();
    assert_eq!(log.stats().bytes, on_disk);
    assert_eq!(log.stats().oldest_seq, 20);
    drop(log);

    assert_eq!(reopened(&options).await, (20..=40).collect::<Vec<_>>());
    let log = open(&options);
    let first_kept = segment::seq_of(&segments(&options)[0]).unwrap();
    assert!(first_kept < 20, "the segment of frame 20 starts before it");
    assert_eq!(
        seqs(&drain(&log, Some(first_kept)).await)[0],
        first_kept,
        "an older checkpoint can still resume"
    );
    let gone = log.read(Some(first_kept - 1)).next().await.unwrap();
    assert!(message(gone, ErrorClass::Config).contains("was released"));
    drop(log);

    // Everything released, everything unlinked by the next open: numbers go on rising.
    let log = open(&options);
    log.release(41).unwrap();
    drop(log);
    let log = open(&options);
    assert!(segments(&options).is_empty());
    append(&log, 41..=42).await;
    drop(log);
    assert_eq!(reopened(&options).await, [41, 42]);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_appenders_are_read_once_and_in_order() {
    const APPENDERS: u64 = 8;
    const EACH: u64 = 200;
    for sync in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let log = open(&LogOptions {
            segment_bytes: 64 << 10,
            sync,
            ..options(dir.path())
        });
        let read = |log: &Log| {
            let frames = log.read(None);
            tokio::spawn(frames.map(|f| f.unwrap()).collect::<Vec<Frame>>())
        };
        let early = read(&log);
        let appenders: Vec<_> = (0..APPENDERS)
            .map(|appender| {
                let log = log.clone();
                tokio::spawn(async move {
                    let mut mine = Vec::new();
                    for i in 0..EACH {
                        let tag = appender * EACH + i;
                        mine.push((durable(log.append(rows(tag, 3), None)).await, tag));
                    }
                    mine
                })
            })
            .collect();
        let mut written = Vec::new();
        for appender in appenders {
            written.extend(appender.await.unwrap());
        }
        // Starts when nothing is in memory but the tail, and is served from the files before it.
        let late = read(&log);
        log.close();
        written.sort();
        for frames in [early.await.unwrap(), late.await.unwrap()] {
            let tagged: Vec<_> = frames.iter().map(|f| f.seq).zip(&written).collect();
            assert_eq!(frames.len() as u64, APPENDERS * EACH);
            for (frame, (seq, (appended_as, tag))) in frames.iter().zip(tagged) {
                assert_eq!((frame.seq, seq), (*appended_as, *appended_as));
                assert_eq!(frame.rows, rows(*tag, 3));
            }
        }
        let stats = log.stats();
        assert_eq!(stats.appended, APPENDERS * EACH);
        assert!(stats.groups < stats.appended, "no two frames ever shared a sync");
    }
}

/// What a kill leaves is what the files held at some moment. Copies them at such moments and opens the copies:
/// whatever was acknowledged before the copy began, and was not released, is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_at_any_moment_has_every_acknowledged_frame() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut chance = Xorshift(seed);
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        segment_bytes: 16 << 10,
        ..options(dir.path())
    };
    let log = open(&options);
    let (acked, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let appender = {
        let (log, acked, stop) = (log.clone(), acked.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let first = log.stats().next_seq;
                let group: Vec<_> = (first..first + 7)
                    .map(|b| log.append(rows(b, 20), None))
                    .collect();
                for appended in group {
                    acked.store(durable(appended).await, Ordering::SeqCst);
                }
            }
        })
    };
    let mut torn = 0;
    for round in 0..60 {
        tokio::time::sleep(Duration::from_micros(chance.below(3000))).await;
        let copy = LogOptions {
            dir: dir.path().join(format!("copy{round}")),
            ..options.clone()
        };
        let released = acked.load(Ordering::SeqCst).saturating_sub(chance.below(500));
        if round % 3 == 0 && released > log.stats().oldest_seq {
            log.release(released).unwrap();
        }
        let acked = acked.load(Ordering::SeqCst);
        copy_dir(&options.dir, &copy.dir);
        let copied = open(&copy);
        torn += copied.stats().torn_bytes;
        let oldest = log.stats().oldest_seq;
        let have: BTreeSet<u64> = seqs(&drain(&copied, None).await).into_iter().collect();
        let want: BTreeSet<u64> = (oldest..=acked).collect();
        assert!(
            have.is_superset(&want),
            "round {round}: {:?} are missing",
            want.difference(&have)
        );
        drop(copied);
        fs::remove_dir_all(&copy.dir).unwrap();
    }
    println!(
        "{torn} torn bytes in all, {} frames",
        acked.load(Ordering::SeqCst)
    );
    stop.store(true, Ordering::Relaxed);
    appender.await.unwrap();
}

#[tokio::test]
async fn refuses_when_full_closed_or_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let small = LogOptions {
        max_bytes: 16 << 10,
        ..options(dir.path())
    };
    let log = open(&small);
    let mut batch = 0;
    let why = loop {
        batch += 1;
        match log.append(rows(batch, 5), None) {
            Ok(appended) => drop(durable(Ok(appended)).await),
            refused => break message(refused, RETRY),
        }
    };
    assert!(
        why.contains("full") && log.stats().bytes > small.max_bytes / 2,
        "{why}"
    );
    assert!(log.stats().bytes <= small.max_bytes);
    assert_eq!(
        log.read(Some(batch - 1)).next().await.unwrap().unwrap().seq,
        batch - 1
    );
    log.release(batch).unwrap();
    assert_eq!(
        durable(log.append(rows(batch, 5), None)).await,
        batch,
        "releasing makes room"
    );

    let second = message(Log::open(small.clone(), schema()).map(drop), ErrorClass::Config);
    assert!(second.contains("in use"), "{second}");
    log.close();
    assert!(message(log.append(rows(0, 1), None), RETRY).contains("closed"));
    drop(log);

    let low = open(&LogOptions {
        min_free_bytes: u64::MAX,
        ..small.clone()
    });
    assert!(message(low.append(rows(0, 1), None), RETRY).contains("free"));
    assert_eq!(low.stats().refused, 1);
    drop(low);
    assert!(message(open(&small).append(invalid("{"), None), ErrorClass::Bug).contains("columns"));
}

#[tokio::test]
async fn rows_of_an_older_schema_are_adapted_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let log = open(&options);
    append(&log, 1..=2).await;
    drop(log);
    let field = |name: &str, kind: DataType, null| Field::new(name, kind, null);
    let wanted = |fields: Vec<Field>| Arc::new(Schema::new(fields));

    for (fields, says) in [
        (
            vec![field("id", DataType::Int64, false)],
            "was Utf8 and now is Int64",
        ),
        (vec![field("other", DataType::Utf8, false)], "must not be null"),
    ] {
        let why = message(
            Log::open(options.clone(), wanted(fields)).map(drop),
            ErrorClass::Config,
        );
        assert!(why.contains(says), "{why}");
    }
    let narrower = wanted(vec![
        field("id", DataType::Utf8, false),
        field("n", DataType::Int64, false),
    ]);
    let why = message(
        Log::open(options.clone(), narrower.clone())
            .unwrap()
            .read(None)
            .next()
            .await
            .unwrap(),
        ErrorClass::Config,
    );
    assert!(why.contains("do not fit"), "{why}");
    let encoded = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let why = message(
        Log::open(options.clone(), wanted(vec![field("id", encoded, true)])).map(drop),
        ErrorClass::Config,
    );
    assert!(why.contains("cannot keep"), "{why}");

    let wider = wanted(vec![
        field("added", DataType::Float64, true),
        field("id", DataType::Utf8, false),
    ]);
    let log = Log::open(options.clone(), wider.clone()).unwrap();
    let mut read = log.read(None);
    let frame = read.next().await.unwrap().unwrap();
    assert_eq!(frame.rows.schema(), wider);
    assert_eq!(frame.rows.column(0).null_count(), 5);
    assert_eq!(frame.rows.column(1), rows(1, 5).column(0));
    durable(log.append(frame.rows.clone(), None)).await;
    assert_eq!(segments(&options).len(), 2, "other columns begin another segment");
}

/// A checkpoint may be ahead of the log: frames acknowledged from memory are lost with the power, and a
/// directory can be deleted. New frames must not hide behind it.
#[tokio::test]
async fn an_untouched_log_goes_on_where_the_checkpoint_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let log = open(&options);
    append(&log, 1..=3).await;
    drop(log);
    let log = open(&options);
    let mut read = log.read(Some(10));
    append(&log, 10..=11).await;
    assert_eq!(read.next().await.unwrap().unwrap().seq, 10);
    let why = message(log.read(Some(20)).next().await.unwrap(), ErrorClass::Config);
    assert!(why.contains("not the log"), "{why}");
    drop((log, read));
    assert_eq!(reopened(&options).await, [10, 11]);
}
