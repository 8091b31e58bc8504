//! Lines of a log to their tables, beside a plain decode of the same lines by arrow-json: on one core, in the same run,
//! in turns.
//!
//! `cargo bench --workspace --bench logs`; `ROWS` says how many lines. The first log is flat: both make the same columns.
//! The second is a session with a list of results, of which the mapper makes two tables and checks every width; arrow-json
//! makes one table with a list of structures.

use std::io::BufRead;
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use millstream_benches::median;
use millstream_engine::time::Timestamp;
use millstream_operators::formats::log::{Budget, LogMapper, LogSchema};

/// Runs of each, of which the median counts.
const RUNS: usize = 7;

/// Rows of one batch, in both.
const BATCH: usize = 8_192;

const FLAT: &str = "
version: 1
tables:
  requests:
    src: ''
    src_type: dict
    columns:
    - {log_key: request_id, sql_attr: varchar(36) not null distkey}
    - {log_key: path, sql_attr: varchar(256)}
    - {log_key: status, sql_attr: int2}
    - {log_key: bytes, sql_attr: int8}
    - {log_key: seconds, sql_attr: float8}
    - {log_key: cached, sql_attr: bool}
    - {log_key: agent, sql_attr: varchar(256)}
";

const SESSIONS: &str = "
version: 1
tables:
  sessions:
    src: session
    src_type: dict
    columns:
    - {log_key: id, sql_attr: varchar(36) not null distkey}
    - {log_key: place.city, name: city, sql_attr: varchar(64)}
    - {log_key: place.zip, name: zip, sql_attr: varchar(16)}
    - {log_key: start, sql_attr: int8}
    - {log_key: agent, is_foreign: true, sql_attr: varchar(256)}
  results:
    src: session.results
    src_type: list
    columns:
    - {log_key: index, sql_attr: int2 not null}
    - {log_key: session.id, name: session_id, is_foreign: true, sql_attr: varchar(36) distkey}
    - {log_key: ad_id, sql_attr: varchar(36)}
    - {log_key: score, sql_attr: float8}
";

const AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36";

fn main() -> anyhow::Result<()> {
    let rows = std::env::var("ROWS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(200_000);
    println!("| {rows} lines | MB | mapper, MB/s | arrow-json, MB/s | ratio |");
    println!("|---|---|---|---|---|");
    compare("flat, 7 columns", FLAT, flat_schema(), &flat_lines(rows), rows)?;
    compare(
        "nested, two tables",
        SESSIONS,
        session_schema(),
        &session_lines(rows),
        rows,
    )
}

fn compare(name: &str, yaml: &str, schema: SchemaRef, lines: &[u8], rows: usize) -> anyhow::Result<()> {
    let log = LogSchema::parse(name, yaml).map_err(|e| anyhow::anyhow!("{e}"))?;
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(timed(lines.len(), || mapped(&log, lines))?);
        plain.push(timed(lines.len(), || decoded(&schema, lines, rows))?);
    }
    let (mb, ours, plain) = (lines.len() as f64 / 1e6, median(ours), median(plain));
    println!(
        "| {name} | {mb:.1} | {ours:.0} | {plain:.0} | {:.2} |",
        ours / plain
    );
    Ok(())
}

/// Megabytes per second.
fn timed(bytes: usize, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let started = Instant::now();
    work()?;
    Ok(bytes as f64 / 1e6 / started.elapsed().as_secs_f64())
}

fn mapped(schema: &LogSchema, lines: &[u8]) -> anyhow::Result<()> {
    let budget = Arc::new(Budget::new(Some(0)));
    let mut mapper = LogMapper::new(schema, "a.log", Timestamp(0), budget);
    let (mut from, mut line) = (lines, Vec::new());
    for at in 1.. {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        mapper.push_line(&line)?;
        if at % BATCH == 0 {
            ensure!(!mapper.finish()?.is_empty(), "no rows");
        }
    }
    mapper.finish()?;
    Ok(())
}

fn decoded(schema: &SchemaRef, lines: &[u8], rows: usize) -> anyhow::Result<()> {
    let reader = arrow_json::ReaderBuilder::new(Arc::clone(schema)).with_batch_size(BATCH);
    let mut read = 0;
    for batch in reader.build(lines)? {
        read += batch?.num_rows();
    }
    ensure!(read == rows, "{read} rows, not {rows}");
    Ok(())
}

fn fields(of: &[(&str, DataType)]) -> Fields {
    of.iter()
        .map(|(name, of)| Field::new(*name, of.clone(), true))
        .collect()
}

fn flat_schema() -> SchemaRef {
    Arc::new(Schema::new(fields(&[
        ("request_id", DataType::Utf8),
        ("path", DataType::Utf8),
        ("status", DataType::Int16),
        ("bytes", DataType::Int64),
        ("seconds", DataType::Float64),
        ("cached", DataType::Boolean),
        ("agent", DataType::Utf8),
    ])))
}

fn session_schema() -> SchemaRef {
    let place = fields(&[("city", DataType::Utf8), ("zip", DataType::Utf8)]);
    let result = fields(&[("ad_id", DataType::Utf8), ("score", DataType::Float64)]);
    let results = Field::new_list_field(DataType::Struct(result), true);
    let session = fields(&[
        ("id", DataType::Utf8),
        ("place", DataType::Struct(place)),
        ("start", DataType::Int64),
        ("results", DataType::List(Arc::new(results))),
    ]);
    Arc::new(Schema::new(fields(&[
        ("session", DataType::Struct(session)),
        ("agent", DataType::Utf8),
    ])))
}

fn flat_lines(rows: usize) -> Vec<u8> {
    let line = |n: usize| {
        let (id, ms, bytes) = (id(n), n % 997, n * 31 % 65_521);
        let status = if n.is_multiple_of(50) { 404 } else { 200 };
        let cached = n.is_multiple_of(3);
        format!(
            r#"{{"request_id":"{id}","path":"/advertising/traffic/{id}?page={ms}","status":{status},"bytes":{bytes},"seconds":0.{ms:03},"cached":{cached},"host":"ads-{n}.example.org","trace":{{"span":"{ms:016x}","parent":null}},"agent":"{AGENT}"}}"#
        )
    };
    (0..rows).map(line).collect::<Vec<_>>().join("\n").into_bytes()
}

fn session_lines(rows: usize) -> Vec<u8> {
    let line = |n: usize| {
        let result = |k: usize| {
            format!(
                r#"{{"ad_id":"{}","score":0.{:06}}}"#,
                id(n + k),
                (n + k) * 7 % 999_983
            )
        };
        let results: Vec<String> = (0..n % 6).map(result).collect();
        let (id, start, results) = (id(n), 1_795_435_200 + n, results.join(","));
        format!(
            r#"{{"session":{{"id":"{id}","place":{{"city":"K\u00f6ln","zip":"{:05}"}},"start":{start},"results":[{results}]}},"agent":"{AGENT}"}}"#,
            n % 99_999
        )
    };
    (0..rows).map(line).collect::<Vec<_>>().join("\n").into_bytes()
}

fn id(n: usize) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}
