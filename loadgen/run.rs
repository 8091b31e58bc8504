//! What every mode shares: the plan, the ledger, the live counters, and how a run ends.
//!
//! A run ends once, by `stop`: when its time is over, its rows are sent, a signal came, or the ledger could
//! not be written (then nothing more may be sent, because its outcome could not be proven).

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::watch;

use crate::config::Config;
use crate::cpu::Watched;
use crate::latencies::Latencies;
use crate::ledger::{Ledger, Ticket};
use crate::reply::Outcome;
use crate::report::{Live, grouped};
use crate::rows::{Batch, Stream};

/// How the load is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Simulated users.
    Users,
    /// This many rows per second on a fixed schedule.
    Rate(f64),
    /// As much as the server takes.
    ClosedLoop,
}

impl Mode {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Users => "users",
            Mode::Rate(_) => "rate",
            Mode::ClosedLoop => "closed-loop",
        }
    }
}

/// Everything that was asked for, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file with the flags laid over it.
    pub config: Config,
    /// How the load is made.
    pub mode: Mode,
    /// Where all choices come from.
    pub seed: u64,
    /// Longest time a row waits for its batch (users).
    pub flush: Duration,
    /// Most rows in a request.
    pub batch: usize,
    /// Connections (rate, closed loop) or requests in flight (users).
    pub connections: usize,
    /// Requests in flight on each connection (rate, closed loop).
    pub pipeline: usize,
    /// Worker threads.
    pub threads: usize,
    /// A request without an answer for this long is unknown.
    pub timeout: Duration,
    /// Whether failed requests are sent again with the same ids (users).
    pub retry: bool,
    /// Where outcomes are written down.
    pub ledger: Option<PathBuf>,
    /// Where latencies are written down.
    pub latencies: Option<PathBuf>,
    /// End after this many rows.
    pub rows: Option<u64>,
    /// Whether bodies are written before the run and repeated (rate, closed loop).
    pub prebuilt: bool,
    /// The server's process, if it is one of this machine.
    pub server_pid: Option<u32>,
}

/// Host and path of the server under load.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `host:port` as it goes into the `Host` header.
    pub authority: String,
    host: String,
    port: u16,
    base_path: String,
}

impl Endpoint {
    /// From a base URL that was checked before.
    pub fn parse(base_url: &str) -> anyhow::Result<Endpoint> {
        let uri: hyper::Uri = base_url
            .parse()
            .with_context(|| format!("BaseURL {base_url:?}"))?;
        let host = uri.host().context("BaseURL has no host")?.to_owned();
        let port = uri.port_u16().unwrap_or(80);
        let authority = uri
            .authority()
            .map_or_else(|| host.clone(), |authority| authority.to_string());
        let base_path = uri.path().trim_end_matches('/').to_owned();
        Ok(Endpoint {
            authority,
            host,
            port,
            base_path,
        })
    }

    /// The path of a stream.
    pub fn path(&self, stream: Stream) -> String {
        format!("{}/{stream}", self.base_path)
    }

    /// The address to connect to.
    pub async fn resolve(&self) -> anyhow::Result<SocketAddr> {
        let host = self.host.trim_matches(['[', ']']);
        let mut found = tokio::net::lookup_host((host, self.port))
            .await
            .with_context(|| format!("cannot resolve {host}"))?;
        found.next().with_context(|| format!("{host} has no address"))
    }
}

/// A run in progress.
pub struct Run {
    /// What was asked for.
    pub plan: Plan,
    /// Who is under load.
    pub endpoint: Endpoint,
    /// Counters for the progress line.
    pub live: Live,
    /// When it began.
    pub started: Instant,
    /// This process, as it was then.
    pub client: Option<Watched>,
    /// The server's.
    pub server: Option<Watched>,
    ledger: Option<Ledger>,
    latencies: Option<Latencies>,
    claimed: AtomicU64,
    stop: watch::Sender<bool>,
    aborted: OnceLock<String>,
    terminal: bool,
}

impl Run {
    /// Opens the ledger and starts the clock.
    pub fn new(plan: Plan) -> anyhow::Result<Run> {
        Ok(Run {
            endpoint: Endpoint::parse(&plan.config.base_url)?,
            ledger: plan.ledger.as_deref().map(Ledger::open).transpose()?,
            latencies: plan.latencies.as_deref().map(Latencies::create).transpose()?,
            live: Live::default(),
            started: Instant::now(),
            client: Watched::me(),
            server: plan.server_pid.map(Watched::process).transpose()?,
            claimed: AtomicU64::new(0),
            stop: watch::Sender::new(false),
            aborted: OnceLock::new(),
            terminal: std::io::stderr().is_terminal(),
            plan,
        })
    }

    /// How many of `want` rows may still be made under `--rows`; at 0 the run stops.
    pub fn claim(&self, want: usize) -> usize {
        let Some(limit) = self.plan.rows else { return want };
        let want = want as u64;
        let before = self.claimed.fetch_add(want, Relaxed);
        let granted = limit.saturating_sub(before).min(want);
        if before + want >= limit {
            self.stop();
        }
        granted as usize
    }

    /// True when the run ended, or is about to end, by `--rows`.
    pub fn all_rows_claimed(&self) -> bool {
        self.plan
            .rows
            .is_some_and(|limit| self.claimed.load(Relaxed) >= limit)
    }

    /// Ends the run: nothing new is sent, what is in flight is waited for.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// True once the run ends.
    pub fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits for the end.
    pub async fn stopped(&self) {
        // The sender lives in self, so the wait cannot fail while anyone waits.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// Ends the run because going on would be a lie.
    pub fn abort(&self, why: &anyhow::Error) {
        let _ = self.aborted.set(format!("{why:#}"));
        self.stop();
    }

    /// Why the run ended before its time.
    pub fn aborted(&self) -> Option<String> {
        self.aborted.get().cloned()
    }

    /// Writes a batch into the ledger before it is sent; `Err` (the run is aborted) means: do not send it.
    pub fn about_to_send(&self, batch: &Batch) -> Result<Option<Ticket>, ()> {
        let Some(ledger) = &self.ledger else {
            return Ok(None);
        };
        ledger.sent(batch).map(Some).map_err(|error| self.abort(&error))
    }

    /// Writes down one attempt's outcome.
    pub fn learned(&self, ticket: Option<Ticket>, outcome: &Outcome) {
        if let (Some(ledger), Some(ticket)) = (&self.ledger, ticket)
            && let Err(error) = ledger.outcome(ticket, outcome)
        {
            self.abort(&error);
        }
    }

    /// Writes down how long an acked request took.
    pub fn took(&self, due: Instant, latency: Duration) {
        if let Some(Err(error)) = self.latencies.as_ref().map(|log| log.add(due, latency)) {
            self.abort(&error);
        }
    }

    /// Nothing more is written down.
    pub fn close_files(&self) {
        if let Some(Err(error)) = self.latencies.as_ref().map(Latencies::finish) {
            self.abort(&error);
        }
    }

    /// One character for a batch: `.` taken, `F` some rows failed, `E` error. Nothing on a terminal, which has a line.
    pub fn dot(&self, outcome: &Outcome) {
        if self.terminal {
            return;
        }
        let dot: &[u8] = match outcome {
            Outcome::Acked { refused } if refused.is_empty() => b".",
            Outcome::Acked { .. } => b"F",
            _ => b"E",
        };
        // Progress is for people: when nobody can read it any more, the run goes on.
        let _ = std::io::stderr().write_all(dot);
    }

    /// Ends the line of dots or of progress.
    pub fn end_progress(&self) {
        if self.terminal || self.plan.mode == Mode::Users {
            eprintln!();
        }
    }

    /// Repaints the progress line once a second, on a terminal only, until the run ends.
    pub async fn show_progress(&self) {
        let mut acked_before = 0;
        while self.terminal && !self.stopping() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let acked = self.live.acked.load(Relaxed);
            eprint!(
                "\r\x1b[K{:>6.0} s  sent {}  acked {} ({}/s)  failed {}",
                self.started.elapsed().as_secs_f64(),
                grouped(self.live.sent.load(Relaxed)),
                grouped(acked),
                grouped(acked - acked_before),
                grouped(self.live.failed.load(Relaxed)),
            );
            acked_before = acked;
        }
    }
}
