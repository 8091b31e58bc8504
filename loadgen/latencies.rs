//! The latency log: one line per acked request, `<when it was due, µs since 1970> <latency, µs>`, to see what a
//! histogram hides: which moments were slow.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::rows::now_micros;

/// An open log, shared by all connections; what is buffered is written when it is finished.
pub struct Latencies {
    file: Mutex<BufWriter<File>>,
    started: Instant,
    started_micros: i64,
}

impl Latencies {
    /// Creates `path`, or empties it.
    pub fn create(path: &Path) -> anyhow::Result<Latencies> {
        let file = File::create(path)
            .with_context(|| format!("cannot write the latencies to {}", path.display()))?;
        Ok(Latencies {
            file: Mutex::new(BufWriter::new(file)),
            started: Instant::now(),
            started_micros: now_micros(),
        })
    }

    /// A request that was due at `due` was acked after `latency`.
    pub fn add(&self, due: Instant, latency: Duration) -> anyhow::Result<()> {
        // What was due before the log was opened was due at that moment for all that matters.
        let due = self.started_micros + due.saturating_duration_since(self.started).as_micros() as i64;
        let mut file = self.file();
        writeln!(file, "{due} {}", latency.as_micros()).context("cannot write the latencies")
    }

    /// Writes what is buffered.
    pub fn finish(&self) -> anyhow::Result<()> {
        self.file().flush().context("cannot write the latencies")
    }

    fn file(&self) -> std::sync::MutexGuard<'_, BufWriter<File>> {
        self.file.lock().expect("no writer of the latencies panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_in_microseconds() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("latencies");
        let before = now_micros();
        let log = Latencies::create(&path).expect("creates");
        let due = log.started + Duration::from_millis(1500);
        log.add(due, Duration::from_micros(2340)).expect("writes");
        log.finish().expect("writes");
        let text = std::fs::read_to_string(&path).expect("reads");
        let line: Vec<i64> = text
            .split_whitespace()
            .map(|n| n.parse().expect("a number"))
            .collect();
        assert!(
            line[0] - 1_500_000 >= before && line[0] - 1_500_000 <= now_micros(),
            "{text}"
        );
        assert_eq!(line[1..], [2340]);
    }
}
