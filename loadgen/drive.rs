//! Drives the simulated users against a server: rows are collected for a moment, posted in batches, and
//! each answer is counted.
//!
//! At most `--connections` requests are in flight. When all are, the users wait (their virtual time stands
//! still), so a slow server is neither flooded nor met by a burst when it comes back.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::reply::{self, Outcome};
use crate::report::Tally;
use crate::rows::{Batch, Body, Row, Stream, now_micros};
use crate::run::Run;
use crate::users::Simulation;

/// An answer has about 20 bytes for each row; more than this is not an answer of ours.
const MAX_REPLY_BYTES: usize = 4 << 20;

/// Between retries: doubled from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// Runs until the run stops, then waits for what is in flight, retries included (at most the request timeout).
pub async fn drive(run: Arc<Run>) -> Tally {
    let sender = Arc::new(Sender {
        client: Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(run.plan.connections)
            .build_http(),
        tally: Mutex::default(),
        run: run.clone(),
    });
    let mut outbox = Outbox {
        pending: Stream::ALL.map(|stream| Batch {
            stream,
            rows: Vec::new(),
        }),
        room: Arc::new(Semaphore::new(run.plan.connections)),
        requests: JoinSet::new(),
        waited: Duration::ZERO,
        sender: sender.clone(),
    };
    let mut simulation = Simulation::new(&run.plan.config, run.plan.seed);
    let mut next_flush = run.plan.flush;
    while !run.stopping() {
        let now = outbox.virtual_now();
        while simulation.next_at() <= now && !run.stopping() {
            if let Some((stream, row)) = simulation.step(now_micros())
                && run.claim(1) == 1
            {
                outbox.push(stream, row).await;
            }
        }
        if now >= next_flush {
            outbox.flush().await;
            next_flush = now + run.plan.flush;
        }
        let next = simulation.next_at().min(next_flush);
        tokio::select! {
            () = tokio::time::sleep(next.saturating_sub(outbox.virtual_now())) => {}
            () = run.stopped() => {}
        }
    }
    outbox.flush().await;
    outbox.drain().await;
    sender.finish()
}

/// Rows waiting for their batch, and the requests in flight.
struct Outbox {
    pending: [Batch; 2],
    room: Arc<Semaphore>,
    requests: JoinSet<()>,
    waited: Duration,
    sender: Arc<Sender>,
}

impl Outbox {
    /// Time as the users feel it: the time spent waiting for a free connection does not pass for them.
    fn virtual_now(&self) -> Duration {
        self.sender.run.started.elapsed().saturating_sub(self.waited)
    }

    async fn push(&mut self, stream: Stream, row: Row) {
        let rows = &mut self.pending[stream as usize].rows;
        rows.push(row);
        if rows.len() >= self.sender.run.plan.batch {
            self.post(stream).await;
        }
    }

    async fn flush(&mut self) {
        for stream in Stream::ALL {
            if !self.pending[stream as usize].rows.is_empty() {
                self.post(stream).await;
            }
        }
    }

    async fn post(&mut self, stream: Stream) {
        let rows = std::mem::take(&mut self.pending[stream as usize].rows);
        let asked = Instant::now();
        let room = self
            .room
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore of the outbox is never closed");
        self.waited += asked.elapsed();
        while self.requests.try_join_next().is_some() {}
        self.requests
            .spawn(self.sender.clone().send(Batch { stream, rows }, room));
    }

    async fn drain(&mut self) {
        let limit = self.sender.run.plan.timeout;
        let _ = tokio::time::timeout(limit, async {
            while self.requests.join_next().await.is_some() {}
        })
        .await;
        self.requests.shutdown().await;
    }
}

struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    tally: Mutex<Tally>,
    run: Arc<Run>,
}

impl Sender {
    /// Sends a batch, again if asked to, and counts its final outcome.
    async fn send(self: Arc<Self>, batch: Batch, _room: OwnedSemaphorePermit) {
        let body = Bytes::copy_from_slice(Body::new(batch.stream, batch.rows.len()).render(&batch.rows));
        let begun = Instant::now();
        let mut pause = RETRY_FIRST;
        self.tally().sent.rows += batch.rows.len() as u64;
        self.run.live.sent.fetch_add(batch.rows.len() as u64, Relaxed);
        loop {
            let Some(outcome) = self.attempt(&batch, body.clone()).await else {
                return;
            };
            self.run.dot(&outcome);
            if !self.run.plan.retry || !outcome.may_retry() || self.run.aborted().is_some() {
                self.run.live.record(&outcome, batch.rows.len());
                self.tally().record(&outcome, batch.rows.len(), begun.elapsed());
                return;
            }
            self.tally().retries += 1;
            tokio::time::sleep(retry_pause(&outcome, pause)).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    /// One request; `None` when it was not sent because the ledger cannot be written.
    async fn attempt(&self, batch: &Batch, body: Bytes) -> Option<Outcome> {
        let ticket = self.run.about_to_send(batch).ok()?;
        {
            let mut tally = self.tally();
            tally.sent.requests += 1;
            tally.sent.bytes += body.len() as u64;
        }
        let exchange = self.exchange(batch, body);
        let outcome = match tokio::time::timeout(self.run.plan.timeout, exchange).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::unknown(format!("connection: {error:#}")),
            Err(_) => Outcome::unknown("no answer within the timeout"),
        };
        self.run.learned(ticket, &outcome);
        Some(outcome)
    }

    async fn exchange(&self, batch: &Batch, body: Bytes) -> anyhow::Result<Outcome> {
        let endpoint = &self.run.endpoint;
        let request = Request::post(format!(
            "http://{}{}",
            endpoint.authority,
            endpoint.path(batch.stream)
        ))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
        let (head, body) = self.client.request(request).await?.into_parts();
        let body = Limited::new(body, MAX_REPLY_BYTES).collect().await;
        let body = body
            .map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?
            .to_bytes();
        let retry_after = head
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        Ok(reply::read(
            head.status.as_u16(),
            retry_after,
            &body,
            batch.rows.len(),
        ))
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().expect("no holder of the tally panics")
    }

    /// The counts; rows whose request was given up while draining are unknown.
    fn finish(&self) -> Tally {
        let mut tally = std::mem::take(&mut *self.tally());
        let settled = tally.acked + tally.refused + tally.unknown;
        let given_up = tally.sent.rows.saturating_sub(settled);
        if given_up > 0 {
            tally.unknown += given_up;
            tally.note("still unanswered when the run ended");
        }
        tally
    }
}

fn retry_pause(outcome: &Outcome, pause: Duration) -> Duration {
    match outcome {
        Outcome::Refused {
            retry_after: Some(asked),
            ..
        } => (*asked).min(RETRY_LAST),
        _ => pause,
    }
}
