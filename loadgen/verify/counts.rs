//! The published window counts, as a console or http sink prints them: NDJSON.
//!
//! Two forms of a line are understood: one row of the clickthrough query, `{"at":…,"impressions":n,"clicks":n}`, and
//! one metric, `{"name":"Impressions","at":…,"value":n}`. `window_start` may stand for `at`; times may be text in UTC
//! or epoch numbers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use chrono::{DateTime, NaiveDateTime};
use serde_json::{Map, Value};

use crate::rows::Stream;

/// What was published for one window of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The sum of all lines for this window.
    pub count: u64,
    /// Number of those lines; exactly one is right.
    pub times: u32,
}

/// All published counts, by stream and window start in microseconds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Keyed by (stream, window start).
    pub windows: BTreeMap<(Stream, i64), Published>,
    /// Lines that look like JSON but do not parse or hold no count: torn by a kill, or not ours.
    pub unreadable: u64,
}

impl Counts {
    /// Adds a file. Lines that do not start with `{` are not counts and are passed over.
    pub fn read(&mut self, path: &Path) -> anyhow::Result<()> {
        let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .with_context(|| path.display().to_string())?
            > 0
        {
            self.add_line(&line);
            line.clear();
        }
        Ok(())
    }

    fn add_line(&mut self, line: &[u8]) {
        if line.trim_ascii_start().first() != Some(&b'{') {
            return;
        }
        let added = serde_json::from_slice::<Map<String, Value>>(line)
            .ok()
            .and_then(|row| self.add_row(&row));
        if added.is_none() {
            self.unreadable += 1;
        }
    }

    fn add_row(&mut self, row: &Map<String, Value>) -> Option<()> {
        let at = parse_time(row.get("at").or_else(|| row.get("window_start"))?)?;
        if let (Some(name), Some(value)) = (row.get("name"), row.get("value")) {
            let name = name.as_str()?.to_ascii_lowercase();
            let stream = Stream::ALL.into_iter().find(|stream| stream.name() == name)?;
            self.add(stream, at, whole(value)?);
            return Some(());
        }
        let mut found = None;
        for stream in Stream::ALL {
            if let Some(value) = row.get(stream.name()) {
                self.add(stream, at, whole(value)?);
                found = Some(());
            }
        }
        found
    }

    fn add(&mut self, stream: Stream, at: i64, count: u64) {
        let window = self.windows.entry((stream, at)).or_default();
        window.count += count;
        window.times += 1;
    }
}

/// A count; null stands for a window without rows.
fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Null => Some(0),
        Value::Number(number) => number.as_u64().or_else(|| {
            number
                .as_f64()
                .filter(|float| float.fract() == 0.0 && *float >= 0.0)
                .map(|float| float as u64)
        }),
        _ => None,
    }
}

/// Microseconds since the epoch.
fn parse_time(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => parse_text_time(text),
        Value::Number(number) => Some(scale_epoch(number.as_i64()?)),
        _ => None,
    }
}

fn parse_text_time(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    let text = text.trim_end_matches('Z').replacen('T', " ", 1);
    let time = NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.f").ok()?;
    Some(time.and_utc().timestamp_micros())
}

/// Seconds, milliseconds, microseconds or nanoseconds, told apart by size: right from 1973 to 5138.
fn scale_epoch(number: i64) -> i64 {
    match number.unsigned_abs() {
        0..100_000_000_000 => number * 1_000_000,
        100_000_000_000..100_000_000_000_000 => number * 1000,
        100_000_000_000_000..100_000_000_000_000_000 => number,
        _ => number / 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_form_are_summed() {
        let lines = [
            r#"{"at":"2026-01-01T00:00:00Z","impressions":10,"clicks":3,"clickthrough":0.3}"#,
            r#"{"at":"2026-01-01 00:01:00.000","impressions":5,"clicks":null,"clickthrough":null}"#,
            r#"{"at":"2026-01-01T00:01:00","impressions":2}"#,
            r#"{"name":"Clicks","at":1767225720000,"value":4.0,"namespace":"Warehouse/Advertising"}"#,
            "listening on 127.0.0.1:8080",
            "",
            r#"{"at":"2026-01-01T00:0"#,
            r#"{"level":"info"}"#,
        ];
        let mut counts = Counts::default();
        lines.iter().for_each(|line| counts.add_line(line.as_bytes()));
        let start = 1_767_225_600_000_000;
        let minute = 60_000_000;
        let want = [
            ((Stream::Impressions, start), Published { count: 10, times: 1 }),
            (
                (Stream::Impressions, start + minute),
                Published { count: 7, times: 2 },
            ),
            ((Stream::Clicks, start), Published { count: 3, times: 1 }),
            ((Stream::Clicks, start + minute), Published { count: 0, times: 1 }),
            (
                (Stream::Clicks, start + 2 * minute),
                Published { count: 4, times: 1 },
            ),
        ];
        assert_eq!(counts.windows, want.into());
        assert_eq!(counts.unreadable, 2);
    }
}
