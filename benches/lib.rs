//! What the benches share: the rows of the advertising pipeline, as Arrow and as JSON, what a pipeline reads and writes
//! in memory, a service to talk to, and the form of results.

pub mod in_memory;
pub mod memory;
pub mod service;
pub mod shapes;

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_engine::time::timestamp_type;

/// 2026-11-23T12:00:00Z, where the rows start.
pub const START: i64 = 1_795_435_200_000_000;
const SECOND: i64 = 1_000_000;

/// A Markdown table of what was measured beside something else: the form in which `benches/run` reads results.
pub struct Table;

impl Table {
    /// Prints the head. `unit` is that of both, `beside` what stands beside ours.
    pub fn new(what: &str, unit: &str, beside: &str) -> Table {
        println!("| {what} | Millstream {unit} | {beside} {unit} | ratio |\n|---|---|---|---|");
        Table
    }

    /// Prints a line: the medians, and the ratio of the rounds with its lowest and its highest. A round is what was
    /// measured one after the other.
    pub fn line(&self, name: &str, ours: &[f64], beside: &[f64]) {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(beside)
            .map(|(ours, beside)| ours / beside)
            .collect();
        println!(
            "| {name} | {:.0} | {:.0} | {} |",
            median(ours.to_vec()),
            median(beside.to_vec()),
            with_spread(&ratios)
        );
    }
}

/// Median, lowest and highest: `1.23 (1.10–1.31)`.
pub fn with_spread(of: &[f64]) -> String {
    let lowest = of.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = of.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.2} ({lowest:.2}–{highest:.2})", median(of.to_vec()))
}

/// The median of what was measured.
pub fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Columns of the impressions.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("impression_id", DataType::Utf8, false),
        Field::new("ad_id", DataType::Utf8, false),
        Field::new("occurred_at", timestamp_type(), false),
    ]))
}

/// `rows` impressions of `ads` ads, spread evenly and in order over `seconds`.
pub fn impressions(rows: usize, ads: usize, seconds: i64) -> RecordBatch {
    let ids = StringArray::from_iter_values((0..rows).map(impression_id));
    let ads = StringArray::from_iter_values((0..rows).map(|row| ad_id(row, ads)));
    let step = seconds * SECOND / rows.max(1) as i64;
    let times = TimestampMicrosecondArray::from_iter_values((0..rows).map(|row| START + row as i64 * step));
    let columns = vec![Arc::new(ids) as _, Arc::new(ads) as _, Arc::new(times) as _];
    RecordBatch::try_new(schema(), columns).expect("columns of the schema")
}

/// The same rows as a collector gets them: one envelope.
pub fn envelope(rows: usize) -> Vec<u8> {
    let mut body = String::from(r#"{"impressions":["#);
    write_rows(&mut body, rows, ",");
    body.push_str("]}");
    body.into_bytes()
}

/// The same rows, one per line.
pub fn lines(rows: usize) -> Vec<u8> {
    let mut body = String::new();
    write_rows(&mut body, rows, "\n");
    body.into_bytes()
}

fn write_rows(to: &mut String, rows: usize, between: &str) {
    for row in 0..rows {
        if row > 0 {
            to.push_str(between);
        }
        let (id, ad) = (impression_id(row), ad_id(row, 1_000));
        let (minute, second, millis) = (row / 60_000 % 60, row / 1_000 % 60, row % 1_000);
        write!(
            to,
            r#"{{"impression_id":"{id}","ad_id":"{ad}","occurred_at":"2026-11-23 12:{minute:02}:{second:02}.{millis:03}"}}"#
        )
        .expect("writing to a String");
    }
}

/// The id of an impression, in the form of a UUID.
pub fn impression_id(row: usize) -> String {
    format!("00000000-0000-4000-8000-{row:012x}")
}

/// Ads are visited in a scattered order, as in life.
pub fn ad_id(row: usize, ads: usize) -> String {
    let ad = row.wrapping_mul(2_654_435_761) % ads;
    format!("aaaaaaaa-0000-4000-8000-{ad:012x}")
}
