//! Counting what happened, and the final report as text and JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cpu::Usage;
use crate::reply::Outcome;

/// Latencies are kept from 1 µs to one hour with three digits: about 200 kB for each connection.
const MAX_LATENCY_MICROS: u64 = 3_600_000_000;

/// Different reasons that are kept apart; the rest is one entry.
const MAX_REASONS: usize = 16;

/// What went out. Kept apart from [`Tally`], because one side of a connection sends and the other counts answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Rows, each counted once however often it was retried.
    pub rows: u64,
    /// Requests, retries included.
    pub requests: u64,
    /// Bytes of the bodies.
    pub bytes: u64,
}

impl Sent {
    /// Counts one request.
    pub fn add(&mut self, rows: usize, bytes: usize) {
        self.rows += rows as u64;
        self.requests += 1;
        self.bytes += bytes as u64;
    }
}

/// What came back.
pub struct Tally {
    /// What went out.
    pub sent: Sent,
    /// Rows the server took.
    pub acked: u64,
    /// Rows the server did not take.
    pub refused: u64,
    /// Rows nobody can say of.
    pub unknown: u64,
    /// Requests that were sent again.
    pub retries: u64,
    latency: Histogram<u64>,
    reasons: BTreeMap<String, u64>,
}

impl Default for Tally {
    fn default() -> Tally {
        let latency = Histogram::new_with_bounds(1, MAX_LATENCY_MICROS, 3)
            .expect("the bounds of the histogram are constants and valid");
        let reasons = BTreeMap::new();
        Tally {
            sent: Sent::default(),
            acked: 0,
            refused: 0,
            unknown: 0,
            retries: 0,
            latency,
            reasons,
        }
    }
}

impl Tally {
    /// Counts the final outcome of a request of `rows` rows. The latency of an answered 200 is kept.
    pub fn record(&mut self, outcome: &Outcome, rows: usize, latency: Duration) {
        let rows = rows as u64;
        match outcome {
            Outcome::Acked { refused } => {
                let failed = refused.len() as u64;
                self.acked += rows - failed;
                self.refused += failed;
                self.latency.saturating_record(latency.as_micros() as u64);
                if failed > 0 {
                    self.note("200 with failed rows");
                }
            }
            Outcome::Refused { reason, .. } => {
                self.refused += rows;
                self.note(reason);
            }
            Outcome::Unknown { reason } => {
                self.unknown += rows;
                self.note(reason);
            }
        }
    }

    /// Keeps the latency of a request that had waited so long when the run ended, and was never sent.
    pub fn waited(&mut self, at_least: Duration) {
        self.latency.saturating_record(at_least.as_micros() as u64);
    }

    /// Counts a reason for which something failed.
    pub fn note(&mut self, reason: &str) {
        let known = self.reasons.contains_key(reason) || self.reasons.len() < MAX_REASONS;
        let key = if known { reason } else { "other reasons" };
        *self.reasons.entry(key.to_owned()).or_default() += 1;
    }

    /// Adds the counts of another connection.
    pub fn merge(&mut self, other: &Tally) {
        self.sent.rows += other.sent.rows;
        self.sent.requests += other.sent.requests;
        self.sent.bytes += other.sent.bytes;
        self.acked += other.acked;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.retries += other.retries;
        self.latency
            .add(&other.latency)
            .expect("all histograms have the same bounds");
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
    }

    fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Counters anyone may read while the run goes on.
#[derive(Default)]
pub struct Live {
    /// Rows given to the network.
    pub sent: AtomicU64,
    /// Rows the server took.
    pub acked: AtomicU64,
    /// Rows refused or unknown.
    pub failed: AtomicU64,
}

impl Live {
    /// Counts an outcome of `rows` rows.
    pub fn record(&self, outcome: &Outcome, rows: usize) {
        let failed = match outcome {
            Outcome::Acked { refused } => refused.len(),
            _ => rows,
        };
        self.acked.fetch_add((rows - failed) as u64, Relaxed);
        self.failed.fetch_add(failed as u64, Relaxed);
    }
}

/// The end of a run. Field names are those of `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `users`, `rate` or `closed-loop`.
    pub mode: &'static str,
    /// Where the rows went.
    pub base_url: String,
    /// Repeats the run's choices (with the same flags).
    pub seed: u64,
    /// Wall clock from the first row to the last answer.
    pub seconds: f64,
    /// Rows given to the network, each counted once.
    pub rows_sent: u64,
    /// Rows the server took.
    pub rows_acked: u64,
    /// Refused plus unknown.
    pub rows_failed: u64,
    /// Rows the server said it did not take.
    pub rows_refused: u64,
    /// Rows without an answer.
    pub rows_unknown: u64,
    /// Acked rows by wall-clock second.
    pub rows_per_second: f64,
    /// Requests, retries included.
    pub requests: u64,
    /// Requests that repeated an earlier one.
    pub retries: u64,
    /// Requests that fell due in `--rate` but found no free connection until the end. They stand in `latency`, too.
    pub requests_never_sent: u64,
    /// Bytes of the bodies.
    pub body_bytes: u64,
    /// Latency of acked requests, and of those that were never sent: how long they had waited.
    pub latency: Latency,
    /// CPU time of loadgen itself, user plus system.
    pub cpu_seconds: Option<f64>,
    /// How busy loadgen was.
    pub client: Option<Usage>,
    /// How busy the process of `--server-pid` was.
    pub server: Option<Usage>,
    /// Why requests failed, with how often.
    pub reasons: BTreeMap<String, u64>,
    /// Why the run ended before its time, if it did.
    pub aborted: Option<String>,
}

/// Milliseconds; in `--rate` counted from the intended send time.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// The median.
    pub p50_ms: f64,
    /// 90 %.
    pub p90_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p99_9_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// What a report needs beside the counts.
pub struct About {
    /// `users`, `rate` or `closed-loop`.
    pub mode: &'static str,
    /// Where the rows went.
    pub base_url: String,
    /// The seed.
    pub seed: u64,
    /// How long it took.
    pub took: Duration,
    /// See [`Report::requests_never_sent`].
    pub never_sent: u64,
    /// See [`Report::aborted`].
    pub aborted: Option<String>,
    /// See [`Report::client`].
    pub client: Option<Usage>,
    /// See [`Report::server`].
    pub server: Option<Usage>,
}

impl Report {
    /// Sums up a run.
    pub fn new(tally: &Tally, about: About) -> Report {
        let seconds = about.took.as_secs_f64();
        Report {
            mode: about.mode,
            base_url: about.base_url,
            seed: about.seed,
            seconds,
            rows_sent: tally.sent.rows,
            rows_acked: tally.acked,
            rows_failed: tally.refused + tally.unknown,
            rows_refused: tally.refused,
            rows_unknown: tally.unknown,
            rows_per_second: tally.acked as f64 / seconds.max(1e-9),
            requests: tally.sent.requests,
            retries: tally.retries,
            requests_never_sent: about.never_sent,
            body_bytes: tally.sent.bytes,
            latency: Latency {
                p50_ms: tally.quantile_ms(0.5),
                p90_ms: tally.quantile_ms(0.9),
                p99_ms: tally.quantile_ms(0.99),
                p99_9_ms: tally.quantile_ms(0.999),
                max_ms: tally.latency.max() as f64 / 1000.0,
            },
            cpu_seconds: about.client.map(|client| client.cpu_seconds),
            client: about.client,
            server: about.server,
            reasons: tally.reasons.clone(),
            aborted: about.aborted,
        }
    }

    /// 0 when at least one row was sent and every row was acked, else 1.
    pub fn exit_code(&self) -> u8 {
        let complete = self.aborted.is_none() && self.rows_acked > 0 && self.rows_acked == self.rows_sent;
        if complete { 0 } else { 1 }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency {
            p50_ms,
            p90_ms,
            p99_ms,
            p99_9_ms,
            max_ms,
        } = self.latency;
        writeln!(
            f,
            "{} for {:.1} s against {} (seed {})",
            self.mode, self.seconds, self.base_url, self.seed
        )?;
        writeln!(
            f,
            "  rows      sent {}  acked {}  failed {} (refused {}, unknown {})",
            grouped(self.rows_sent),
            grouped(self.rows_acked),
            grouped(self.rows_failed),
            grouped(self.rows_refused),
            grouped(self.rows_unknown)
        )?;
        writeln!(
            f,
            "  rate      {} acked rows/s",
            grouped(self.rows_per_second.round() as u64)
        )?;
        write!(
            f,
            "  requests  {}  body bytes {}",
            grouped(self.requests),
            grouped(self.body_bytes)
        )?;
        if self.retries > 0 {
            write!(f, "  retries {}", grouped(self.retries))?;
        }
        if self.requests_never_sent > 0 {
            write!(f, "  due but never sent {}", grouped(self.requests_never_sent))?;
        }
        writeln!(f)?;
        let from = if self.mode == "rate" {
            "the intended send"
        } else {
            "the send"
        };
        writeln!(
            f,
            "  latency   p50 {p50_ms:.3}  p90 {p90_ms:.3}  p99 {p99_ms:.3}  p99.9 {p99_9_ms:.3}  max {max_ms:.3} ms, from {from}"
        )?;
        if let Some(client) = &self.client {
            write!(f, "  cpu       client {}", client.line())?;
            if let Some(server) = &self.server {
                write!(f, ", server {}", server.line())?;
            }
            writeln!(f)?;
        }
        for (reason, count) in &self.reasons {
            writeln!(f, "  failed    {} × {reason}", grouped(*count))?;
        }
        if let Some(why) = &self.aborted {
            writeln!(f, "  aborted   {why}")?;
        }
        Ok(())
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(tally: &Tally) -> Report {
        let base_url = "http://x/a".to_owned();
        let took = Duration::from_secs(2);
        Report::new(
            tally,
            About {
                mode: "users",
                base_url,
                seed: 1,
                took,
                never_sent: 0,
                aborted: None,
                client: None,
                server: None,
            },
        )
    }

    #[test]
    fn outcomes_become_counts_and_an_exit_code() {
        let mut tally = Tally::default();
        assert_eq!(report(&tally).exit_code(), 1, "nothing acked");
        tally.sent.add(10, 100);
        tally.record(&Outcome::Acked { refused: vec![] }, 10, Duration::from_millis(5));
        assert_eq!(report(&tally).exit_code(), 0);
        tally.sent.add(10, 100);
        tally.record(&Outcome::Acked { refused: vec![3] }, 10, Duration::from_millis(7));
        tally.sent.add(5, 50);
        tally.record(&Outcome::unknown("lost"), 5, Duration::from_secs(9));
        let report = report(&tally);
        assert_eq!(
            (report.rows_sent, report.rows_acked, report.rows_failed),
            (25, 19, 6)
        );
        assert_eq!((report.rows_refused, report.rows_unknown), (1, 5));
        assert_eq!(report.rows_per_second, 9.5);
        assert!(
            (6.9..7.1).contains(&report.latency.max_ms),
            "{:?}",
            report.latency
        );
        assert_eq!(report.reasons["lost"], 1);
        assert_eq!(report.exit_code(), 1);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
