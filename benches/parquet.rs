//! The `parquet` sink, driven as the runtime drives it, beside a bare `ArrowWriter` for each partition with the same
//! settings on the same batches: rows/s, bytes of the files, and the most memory each took.
//!
//! Every measurement is a process of its own, in turns, on the cores the bench is given: `taskset -c 0` leaves the sink's
//! own thread no core that the bare writers do not have. Both write to a local directory and end with an fsync of every
//! file, eight at a time. The sink makes a checkpoint every [`CHECKPOINT_ROWS`] rows, which ends its row groups and syncs
//! them; the bare writers, which would not survive a crash, do neither. They cut the rows by the hour or the ad in a loop
//! over the column.
//!
//! `cargo bench --workspace --bench parquet [-- PART_OF_A_NAME]`; MILLSTREAM_BENCH_DIR names a directory on the disk to
//! measure (default: where temporary files go).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use arrow::array::{AsArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use millstream_benches::{START, median, memory, schema};
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::metrics::Counters;
use millstream_engine::sink::{SinkConnector, SinkContext};
use millstream_operators::sinks::parquet::ParquetConnector;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

const ROWS: usize = 4_000_000;
/// Rows of a batch, as sources make them.
const BATCH: usize = 8_192;
/// Five seconds of 400,000 rows/s.
const CHECKPOINT_ROWS: usize = 2_000_000;
const ADS: u64 = 1_000;
/// Processes per measurement, in turns.
const ROUNDS: usize = 3;

/// How the parent calls itself.
const MEASURE: &str = "--measure";
const WRITERS: [&str; 2] = ["sink", "bare"];

struct Case {
    name: &'static str,
    partition_by: &'static [&'static str],
    /// Over how long the event times of every batch are spread.
    hours: u64,
    /// The sink's key; the bare writers have no limit.
    memory: &'static str,
}

const CASES: [Case; 3] = [
    Case {
        name: "one partition",
        partition_by: &[],
        hours: 1,
        memory: "256MB",
    },
    Case {
        name: "24 hourly partitions",
        partition_by: &["year", "month", "day", "hour"],
        hours: 24,
        memory: "256MB",
    },
    Case {
        name: "1,000 partitions, by ad",
        partition_by: &["ad_id"],
        hours: 1,
        memory: "256MB",
    },
];

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [MEASURE, case, writer] => {
            let measured = measure(&CASES[case.parse::<usize>()?], writer)?;
            println!("{}", measured.map(|n| n.to_string()).join(" "));
            Ok(())
        }
        [] => compare_all(""),
        [part] => compare_all(part),
        _ => bail!("give at most one argument: part of the name of a case"),
    }
}

fn compare_all(part: &str) -> anyhow::Result<()> {
    println!(
        "| partitions | sink rows/s | bare rows/s | ratio | of {ROUNDS} | sink MB | bare MB | size | sink memory MB | bare memory MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (number, case) in CASES
        .iter()
        .enumerate()
        .filter(|(_, case)| case.name.contains(part))
    {
        let mut found = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (at, writer) in WRITERS.iter().enumerate() {
                let measured = in_a_process(number, writer);
                found[at].push(measured.with_context(|| format!("{}: {writer}", case.name))?);
            }
        }
        let of =
            |writer: usize, what: usize| median(found[writer].iter().map(|m: &Measured| m[what]).collect());
        let mut ratios: Vec<f64> = found[0].iter().zip(&found[1]).map(|(a, b)| b[0] / a[0]).collect();
        ratios.sort_by(f64::total_cmp);
        let rate = |writer| ROWS as f64 / of(writer, 0) / 1e6;
        println!(
            "| {} | {:.2} M | {:.2} M | {:.2} | {:.2} to {:.2} | {:.1} | {:.1} | {:+.1} % | {:.0} | {:.0} |",
            case.name,
            rate(0),
            rate(1),
            median(ratios.clone()),
            ratios[0],
            ratios[ROUNDS - 1],
            of(0, 1) / 1e6,
            of(1, 1) / 1e6,
            (of(0, 1) / of(1, 1) - 1.0) * 100.0,
            of(0, 2) / 1e6,
            of(1, 2) / 1e6
        );
    }
    Ok(())
}

/// Seconds, bytes of the files, bytes of memory at the most beside the rows.
type Measured = [f64; 3];

fn in_a_process(case: usize, writer: &str) -> anyhow::Result<Measured> {
    let mut again = Command::new(std::env::current_exe()?);
    let output = again.args([MEASURE, &case.to_string(), writer]).output()?;
    ensure!(
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned()
    );
    let text = String::from_utf8(output.stdout)?;
    let numbers: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
    numbers?
        .try_into()
        .map_err(|_| anyhow::anyhow!("not three numbers: {text}"))
}

fn measure(case: &Case, writer: &str) -> anyhow::Result<Measured> {
    let base = std::env::var_os("MILLSTREAM_BENCH_DIR").map_or(std::env::temp_dir(), PathBuf::from);
    let dir = base.join(format!("millstream-bench-parquet-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let batches = rows(case);
    let before = memory::forget_peak()?;
    let started = Instant::now();
    match writer {
        "sink" => tokio::runtime::Runtime::new()?.block_on(through_the_sink(case, &dir, &batches))?,
        _ => by_hand(case, &dir, &batches)?,
    }
    let seconds = started.elapsed().as_secs_f64();
    let peak = memory::peak()?.saturating_sub(before);
    let (mut rows, mut bytes) = (0, 0);
    for file in files(&dir.join("lake"))? {
        bytes += file.metadata()?.len();
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?;
        rows += reader.metadata().file_metadata().num_rows();
    }
    fs::remove_dir_all(&dir)?;
    ensure!(
        rows == ROWS as i64,
        "{rows} rows are in the files, {ROWS} were written"
    );
    Ok([seconds, bytes as f64, peak as f64])
}

/// The batches; ids are random, as in life.
fn rows(case: &Case) -> Vec<RecordBatch> {
    let mut random = Random(1);
    let micros = case.hours * 3_600_000_000;
    let batch = |from: usize| {
        let count = BATCH.min(ROWS - from);
        let ids = StringArray::from_iter_values((0..count).map(|_| random.uuid()));
        let ads = StringArray::from_iter_values((0..count).map(|_| ad(random.next() % ADS)));
        let times = (0..count).map(|row| match case.hours {
            1 => START + (from + row) as i64,
            _ => START - START % 86_400_000_000 + (random.next() % micros) as i64,
        });
        let times = TimestampMicrosecondArray::from_iter_values(times);
        let columns = vec![Arc::new(ids) as _, Arc::new(ads) as _, Arc::new(times) as _];
        RecordBatch::try_new(schema(), columns).expect("columns of the schema")
    };
    (0..ROWS).step_by(BATCH).map(batch).collect()
}

fn ad(number: u64) -> String {
    format!("aaaaaaaa-0000-4000-8000-{number:012x}")
}

/// splitmix64, after Sebastiano Vigna.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn uuid(&mut self) -> String {
        let (a, b) = (self.next(), self.next());
        let (d, e) = ((b >> 48 & 0x3fff) | 0x8000, b & 0xffff_ffff_ffff);
        format!(
            "{:08x}-{:04x}-4{:03x}-{d:04x}-{e:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff
        )
    }
}

async fn through_the_sink(case: &Case, dir: &Path, batches: &[RecordBatch]) -> anyhow::Result<()> {
    let options: Value =
        json!({ "path": dir.join("lake"), "partition_by": case.partition_by, "memory": case.memory });
    let cx = SinkContext {
        run: None,
        pipeline: "bench".into(),
        name: "lake".into(),
        input: "rows".into(),
        schema: schema(),
        event_time: Some(EVENT_TIME),
        options,
        data_dir: dir.join("data"),
        counters: Counters::detached(),
    };
    let mut sink = ParquetConnector.open(cx).await?;
    let mut epoch = Epoch(1);
    let mut written = 0;
    for batch in batches {
        sink.write(batch.clone()).await?;
        written += batch.num_rows();
        let last = written == ROWS;
        if last || written / CHECKPOINT_ROWS >= epoch.0 as usize {
            let what = sink.prepare(Barrier { epoch, last }).await?;
            sink.commit(epoch, what).await?;
            epoch = epoch.next();
        }
    }
    Ok(())
}

/// Index of the event-time column.
const EVENT_TIME: usize = 2;
/// Index of the column that names a directory and is left out of the files.
const AD_ID: usize = 1;

/// What somebody would write who has nothing but the crate.
fn by_hand(case: &Case, dir: &Path, batches: &[RecordBatch]) -> anyhow::Result<()> {
    let lake = dir.join("lake");
    let mut writers: BTreeMap<String, ArrowWriter<File>> = BTreeMap::new();
    for batch in batches {
        for (partition, rows) in cut(case, batch)? {
            let writer = match writers.get_mut(&partition) {
                Some(writer) => writer,
                None => {
                    fs::create_dir_all(lake.join(&partition))?;
                    let file = File::create(lake.join(&partition).join("rows.parquet"))?;
                    let writer = ArrowWriter::try_new(file, rows.schema(), Some(properties()?))?;
                    writers.entry(partition).or_insert(writer)
                }
            };
            writer.write(&rows)?;
        }
    }
    let files: Result<Vec<File>, _> = writers.into_values().map(ArrowWriter::into_inner).collect();
    let files = files?;
    std::thread::scope(|threads| {
        for share in files.chunks(files.len().div_ceil(8)) {
            threads.spawn(|| share.iter().for_each(|file| file.sync_all().expect("fsync")));
        }
    });
    Ok(())
}

/// As the sink's, see `operators/sinks/parquet/options.rs`.
fn properties() -> anyhow::Result<WriterProperties> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(1 << 20))
        .set_max_row_group_bytes(Some(16 << 20))
        .build())
}

fn cut(case: &Case, batch: &RecordBatch) -> anyhow::Result<Vec<(String, RecordBatch)>> {
    let mut parts: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    match case.partition_by {
        [] => return Ok(vec![(String::new(), batch.clone())]),
        ["ad_id"] => {
            let ads = batch.column(AD_ID).as_string::<i32>();
            for (row, ad) in (0..).zip(ads.iter().flatten()) {
                match parts.get_mut(ad) {
                    Some(rows) => rows.push(row),
                    None => drop(parts.insert(ad.into(), vec![row])),
                }
            }
        }
        _ => {
            let times = batch
                .column(EVENT_TIME)
                .as_primitive::<TimestampMicrosecondType>();
            let mut hours: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
            for (row, at) in (0..).zip(times.values()) {
                hours.entry(at / 3_600_000_000).or_default().push(row);
            }
            parts = hours
                .into_iter()
                .map(|(hour, rows)| (format!("hour={hour}"), rows))
                .collect();
        }
    }
    let by_ad = case.partition_by == ["ad_id"];
    let taken = parts.into_iter().map(|(partition, rows)| {
        let mut rows = take_record_batch(batch, &UInt32Array::from(rows))?;
        if by_ad {
            rows.remove_column(AD_ID);
        }
        anyhow::Ok((partition, rows))
    });
    taken.collect()
}

fn files(below: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}
