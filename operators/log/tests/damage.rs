//! Torn tails are cut, everything else that is not as it was written is refused until it is repaired.

use crate::log::{repair, verify};

use super::*;

/// A log of frames 1 to `frames`, and the offset and size of its last frame.
async fn written(options: &LogOptions, frames: u64) -> (u64, u64) {
    let log = open(options);
    append(&log, 1..=frames - 1).await;
    let before = fs::metadata(segments(options).last().unwrap()).unwrap().len();
    append(&log, frames..=frames).await;
    (
        before,
        fs::metadata(segments(options).last().unwrap()).unwrap().len() - before,
    )
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let (last, bytes) = written(&options, 3).await;
    let whole = fs::read(&segments(&options)[0]).unwrap();
    for left in 0..bytes {
        let path = &segments(&options)[0];
        fs::write(path, &whole[..(last + left) as usize]).unwrap();
        let report = verify(&options.dir).unwrap();
        assert!(
            report.is_sound() && report.torn_tail_bytes == left && report.frames == 2,
            "{left}: {report}"
        );
        let log = open(&options);
        assert_eq!(log.stats().torn_bytes, left);
        append(&log, 3..=3).await;
        assert_eq!(
            seqs(&drain(&log, None).await),
            [1, 2, 3],
            "torn after {left} bytes"
        );
        drop(log);
        assert_eq!(
            fs::read(path).unwrap(),
            whole,
            "the frame is written again where it was"
        );
    }
}

#[tokio::test]
async fn a_tail_of_the_right_length_is_cut_too() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let (last, bytes) = written(&options, 3).await;
    let path = &segments(&options)[0];
    let whole = fs::read(path).unwrap();
    // Pages that were never written read as zeros.
    for at in (0..bytes).step_by(7) {
        let mut torn = whole.clone();
        torn[(last + at) as usize..].fill(0);
        if torn == whole {
            continue;
        }
        fs::write(path, &torn).unwrap();
        assert_eq!(
            reopened(&options).await,
            [1, 2],
            "zeros from byte {at} of the last frame"
        );
    }
}

/// Flips one byte anywhere before the last frame: refused, named, repaired, and then every frame that was not
/// hit is read.
#[tokio::test]
async fn a_flipped_byte_is_refused_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        segment_bytes: 2 << 10,
        ..options(dir.path())
    };
    written(&options, 12).await;
    let pristine = dir.path().join("pristine");
    copy_dir(&options.dir, &pristine);
    let files = segments(&options);
    assert!(files.len() >= 3, "{files:?}");
    let last = files.len() - 1;
    let mut salvaged = 0;
    for (i, file) in files.iter().enumerate() {
        let bytes = fs::metadata(file).unwrap().len() as usize;
        let header = open_header(file);
        // The last segment's last frame would count as torn.
        let end = if i == last { header + 8 } else { bytes };
        for at in (0..end).step_by(37) {
            let mut damaged = fs::read(file).unwrap();
            damaged[at] ^= 0x10;
            fs::write(file, &damaged).unwrap();
            let only_frame = i == last && at >= header && segments_frames(&options, file) == 0;
            if !only_frame {
                salvaged += check_repair(&options, file, at, header).await;
            }
            fs::remove_dir_all(&options.dir).unwrap();
            copy_dir(&pristine, &options.dir);
        }
    }
    assert!(salvaged > 0, "no damaged header was ever made good");
}

async fn check_repair(options: &LogOptions, file: &Path, at: usize, header: usize) -> u64 {
    let why = message(Log::open(options.clone(), schema()).map(drop), ErrorClass::Config);
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(
        why.contains(name) && why.contains("offset") && why.contains("log repair"),
        "{why}"
    );

    let report = verify(&options.dir).unwrap();
    let [corruption] = report.corrupt.as_slice() else {
        panic!("byte {at} of {name}: {report}")
    };
    assert!(corruption.segment == file && corruption.offset <= at as u64);
    let repaired = repair(&options.dir).unwrap();
    assert!(repaired.to_string().contains(name));
    let lost: Vec<u64> = corruption
        .lost
        .map_or(vec![], |(first, last)| (first..=last).collect());
    let in_header = at < header;
    let lost = if in_header { vec![] } else { lost };
    assert!(in_header || lost.len() == 1, "byte {at} of {name} lost {lost:?}");
    let kept: Vec<u64> = (1..=12).filter(|seq| !lost.contains(seq)).collect();
    assert!(verify(&options.dir).unwrap().is_sound());
    assert_eq!(reopened(options).await, kept, "byte {at} of {name}");
    // A reader can resume in the hole, and appending goes on.
    let log = open(options);
    append(&log, 13..=13).await;
    let from = lost.first().copied().unwrap_or(5);
    let want: Vec<u64> = kept
        .iter()
        .copied()
        .chain([13])
        .filter(|seq| *seq >= from)
        .collect();
    assert_eq!(seqs(&drain(&log, Some(from)).await), want);
    u64::from(in_header)
}

fn open_header(file: &Path) -> usize {
    let header = segment::Header::read(file, &fs::File::open(file).unwrap())
        .unwrap()
        .unwrap();
    header.len() as usize
}

fn segments_frames(options: &LogOptions, file: &Path) -> u64 {
    verify(&options.dir)
        .unwrap()
        .segments
        .iter()
        .find(|s| s.path == file)
        .map_or(0, |s| s.frames)
}

#[tokio::test]
async fn missing_files_are_refused_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        segment_bytes: 2 << 10,
        ..options(dir.path())
    };
    written(&options, 12).await;
    let files = segments(&options);
    let (first, second) = (
        segment::seq_of(&files[1]).unwrap(),
        segment::seq_of(&files[2]).unwrap(),
    );
    fs::remove_file(&files[0]).unwrap();
    let why = message(Log::open(options.clone(), schema()).map(drop), ErrorClass::Config);
    assert!(why.contains("frame 1 is the next"), "{why}");
    fs::remove_file(&files[1]).unwrap();
    let report = verify(&options.dir).unwrap();
    assert_eq!(report.corrupt[0].lost, Some((1, second - 1)));
    repair(&options.dir).unwrap();
    assert_eq!(reopened(&options).await, (second..=12).collect::<Vec<_>>());

    // What the ledger explains is not missing.
    let log = open(&options);
    log.release(second).unwrap();
    drop(log);
    assert!(first < second && verify(&options.dir).unwrap().is_sound());

    fs::write(options.dir.join("released"), "released 1").unwrap();
    let why = message(Log::open(options.clone(), schema()).map(drop), ErrorClass::Config);
    assert!(
        why.contains("ledger") && !verify(&options.dir).unwrap().is_sound(),
        "{why}"
    );
    assert_eq!(repair(&options.dir).unwrap().frames, 13 - second);
    assert_eq!(reopened(&options).await, (second..=12).collect::<Vec<_>>());
}

/// Without the disk in the way of acknowledgements, a power loss may take any page: the log keeps what comes
/// before the first hole and does not ask anybody to repair what was never promised.
#[tokio::test]
async fn a_log_acknowledged_from_memory_is_cut_at_the_first_bad_frame() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        sync: false,
        ..options(dir.path())
    };
    let (last, bytes) = written(&options, 5).await;
    let path = &segments(&options)[0];
    let mut damaged = fs::read(path).unwrap();
    let third = (last - 2 * bytes + bytes / 2) as usize;
    damaged[third..third + 9].fill(0);
    fs::write(path, &damaged).unwrap();
    assert_eq!(reopened(&options).await, [1, 2]);
}

#[tokio::test]
async fn repair_leaves_a_sound_or_used_log_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let (last, bytes) = written(&options, 3).await;
    let path = &segments(&options)[0];
    let log = open(&options);
    assert!(message(repair(&options.dir), ErrorClass::Config).contains("in use"));
    drop(log);
    let whole = fs::read(path).unwrap();
    let report = repair(&options.dir).unwrap();
    assert!(report.frames == 3 && report.repaired.is_empty());
    assert_eq!(fs::read(path).unwrap(), whole);

    fs::write(path, &whole[..(last + bytes / 2) as usize]).unwrap();
    assert_eq!(repair(&options.dir).unwrap().torn_tail_bytes, bytes / 2);
    assert_eq!(reopened(&options).await, [1, 2]);
    assert!(message(verify(&dir.path().join("nothing")), ErrorClass::Config).contains("nothing"));
}
