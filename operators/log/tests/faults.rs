//! Disks that are full or broken.

use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use super::*;
use crate::log::disk::{Disk, OsDisk};

/// A disk that breaks when it is told to.
#[derive(Default)]
struct Faults {
    /// Bytes that can still be written; less than 0: no limit.
    room: AtomicI64,
    broken_write: AtomicBool,
    broken_sync: AtomicBool,
    free: AtomicU64,
}

struct FaultyDisk(Arc<Faults>);

impl Disk for FaultyDisk {
    fn write(&self, file: &File, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.0.broken_write.load(Ordering::SeqCst) {
            return Err(io::Error::other("input/output error"));
        }
        let room = self.0.room.load(Ordering::SeqCst);
        if room < 0 {
            return OsDisk.write(file, slices);
        }
        let bytes: Vec<u8> = slices
            .iter()
            .flat_map(|s| s.iter().copied())
            .take(room as usize)
            .collect();
        if bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = OsDisk.write(file, &[IoSlice::new(&bytes)])?;
        self.0.room.fetch_sub(written as i64, Ordering::SeqCst);
        Ok(written)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        match self.0.broken_sync.load(Ordering::SeqCst) {
            true => Err(io::Error::other("input/output error")),
            false => OsDisk.sync(file),
        }
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.0.free.load(Ordering::SeqCst))
    }
}

fn faulty(options: &LogOptions) -> (Log, Arc<Faults>) {
    let faults = Arc::new(Faults {
        room: AtomicI64::new(-1),
        ..Faults::default()
    });
    let log = Log::open_on(options.clone(), schema(), Box::new(FaultyDisk(faults.clone()))).unwrap();
    (log, faults)
}

/// However much of a group fits, nothing of what is refused stays, and its numbers go to frames that do fit.
#[tokio::test]
async fn a_full_disk_loses_nothing_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let (log, faults) = faulty(&options);
    append(&log, 1..=2).await;
    let mut read = log.read(None);
    let (mut next, mut refused) = (3, 0);
    for room in (0..1200).step_by(43) {
        faults.room.store(room, Ordering::SeqCst);
        let group: Vec<_> = (next..next + 3)
            .map(|b| log.append(rows(b, 5), None).unwrap())
            .collect();
        for Appended { seq, durable } in group {
            match durable.await.unwrap() {
                Ok(()) => {
                    assert_eq!(
                        seq, next,
                        "room for {room} bytes: a frame is kept behind one that is refused"
                    );
                    next += 1;
                }
                Err(e) => {
                    assert!(message(Err::<(), _>(e), RETRY).contains("full"));
                    refused += 1;
                }
            }
        }
        let on_disk: u64 = segments(&options)
            .iter()
            .map(|p| fs::metadata(p).unwrap().len())
            .sum();
        assert_eq!(
            on_disk,
            log.stats().bytes,
            "room for {room} bytes: something of a refused frame stays"
        );
        faults.room.store(-1, Ordering::SeqCst);
        append(&log, next..=next).await;
        next += 1;
    }
    log.close();
    for seq in 1..next {
        assert_eq!(seqs(&[read.next().await.unwrap().unwrap()]), [seq]);
    }
    assert!(read.next().await.is_none());
    assert!(refused > 30 && log.stats().refused == refused);
    drop((log, read));
    assert_eq!(reopened(&options).await, (1..next).collect::<Vec<_>>());
}

/// After a failed sync nobody knows what is on the disk: nothing is ever acknowledged by that log again, and
/// another can be opened in its place while the first is still held.
#[tokio::test]
async fn a_broken_disk_ends_the_log() {
    for sync in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        let (log, faults) = faulty(&options);
        append(&log, 1..=2).await;
        let mut read = log.read(None);
        let fault = if sync {
            &faults.broken_sync
        } else {
            &faults.broken_write
        };
        fault.store(true, Ordering::SeqCst);
        let group: Vec<_> = (3..6).map(|b| log.append(rows(b, 5), None)).collect();
        for appended in group.into_iter().flatten() {
            let why = message(appended.durable.await.unwrap(), RETRY);
            assert!(why.contains("input/output error"), "{why}");
        }
        fault.store(false, Ordering::SeqCst);
        assert!(message(log.append(rows(3, 5), None), RETRY).contains("restarted"));
        for seq in 1..=2 {
            assert_eq!(read.next().await.unwrap().unwrap().seq, seq);
        }
        assert!(message(read.next().await.unwrap(), RETRY).contains("input/output error"));
        assert!(read.next().await.is_none());
        assert!(log.stats().failed.is_some());

        let again = open(&options);
        assert!(
            message(log.release(2), RETRY).contains("restarted"),
            "the directory is no longer its own"
        );
        let next = again.stats().next_seq;
        assert!(next >= 3);
        append(&again, next..=next).await;
    }
}

#[tokio::test]
async fn low_disk_refuses_until_space_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (log, faults) = faulty(&LogOptions {
        min_free_bytes: 1000,
        ..options(dir.path())
    });
    assert!(message(log.append(rows(1, 5), None), RETRY).contains("free"));
    faults.free.store(1000, Ordering::SeqCst);
    while log.append(rows(1, 5), None).is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.stats().next_seq, 2);
}

/// On a real file system that is really full: point MILLSTREAM_SMALL_DISK at a tmpfs of a few MiB.
#[tokio::test]
#[ignore = "needs a small file system in MILLSTREAM_SMALL_DISK"]
async fn a_really_full_disk_loses_nothing_and_passes() {
    let dir = PathBuf::from(std::env::var("MILLSTREAM_SMALL_DISK").unwrap());
    let options = LogOptions {
        segment_bytes: 256 << 10,
        ..options(&dir)
    };
    let log = open(&options);
    let (mut next, mut refusals) = (1, 0);
    while refusals < 5 {
        let Appended { seq, durable } = log.append(rows(next, 200), None).unwrap();
        assert_eq!(seq, next);
        match durable.await.unwrap() {
            Ok(()) => next += 1,
            Err(e) => {
                assert!(message(Err::<(), _>(e), RETRY).contains("full"));
                refusals += 1;
                log.read(Some(next - 1)).next().await.unwrap().unwrap();
                log.release(next - 50).unwrap();
            }
        }
    }
    println!("{next} frames, {refusals} refusals");
    drop(log);
    assert_eq!(reopened(&options).await, (next - 50..next).collect::<Vec<_>>());
}
