//! The open batch of one source in one lane: rows of many requests, written together, acknowledged
//! together.
//!
//! A lane is one thread, so nothing here is locked. A request appends its rows and waits. The batch is
//! written when the lane has run out of requests that are ready, and while it is on its way to disk the
//! next one fills: under load the time of an fsync sets the size of batches by itself. Without an fsync
//! to wait for (`ack = "memory"`) they stay as small as what comes at once; the source joins them again
//! before they cost anything (`coalesce`). If the log refuses a batch, its rows are dropped and every
//! waiting client is told to come again.
//!
//! With `ack = "delivered"` a written batch waits, beside the next ones, until the sinks have its rows.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_engine::source::PartitionId;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};
use tokio::sync::watch;
use tracing::error;

use super::endpoint::{BatchInFlight, Endpoint, partition_of};
use super::limits::Limits;
use super::options::Ack;
use super::request::Pairs;
use super::verdict::{Awaited, Judge, NotTaken, Verdict};
use crate::formats::json::{BodyError, Decoded, Decoder, RowError};
use crate::log::Appended;
use crate::sources::invalid::InvalidRows;

/// What a client is told to wait when the log names no time: long enough for a checkpoint to release
/// space at the default interval, short enough not to lose the client.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A request's rows: what became of each, and where to wait until the good ones are safe.
pub(super) struct Taken {
    pub decoded: Decoded,
    pub verdict: Awaited,
}

/// One source in one lane.
pub(super) struct LaneSource {
    pub endpoint: Arc<Endpoint>,
    partition: PartitionId,
    batch_rows: usize,
    batch_bytes: usize,
    /// How many requests may wait for delivery.
    awaiting_delivery: usize,
    backlog: Rc<Backlog>,
    open: RefCell<Open>,
}

/// What a lane still has to see through.
#[derive(Default)]
struct Backlog {
    /// Requests that have no answer yet.
    unanswered: Cell<usize>,
    /// A frame whose requests waited for its delivery in vain. Their clients send again, and would add to what waits
    /// for ever if they were let in before it.
    overdue: Cell<Option<u64>>,
}

struct Open {
    decoder: Decoder,
    invalid: InvalidRows,
    /// Tells the requests in it.
    judge: Judge,
    /// Requests so far, to see whether more came during a pause.
    requests: u64,
    /// Whether a task is there to write the batch.
    attended: bool,
}

impl LaneSource {
    pub fn new(endpoint: Arc<Endpoint>, lane: usize, limits: &Limits) -> Result<LaneSource> {
        let options = &endpoint.options;
        let decoder = Decoder::stamping_arrival(endpoint.schema.clone())?
            .enveloped(options.records.clone())
            .max_rows(options.max_rows);
        Ok(LaneSource {
            partition: partition_of(lane),
            endpoint,
            batch_rows: limits.batch_rows,
            batch_bytes: limits.batch_bytes,
            awaiting_delivery: limits.awaiting_delivery,
            backlog: Rc::default(),
            open: RefCell::new(Open {
                decoder,
                invalid: InvalidRows::default(),
                judge: Judge::default(),
                requests: 0,
                attended: false,
            }),
        })
    }

    /// Why no more requests are taken now, if so: too much waits for delivery.
    pub fn is_full(&self) -> Option<NotTaken> {
        let why = match self.is_overdue() {
            true => "the rows of earlier requests are still not delivered; send again later",
            false if self.backlog.unanswered.get() < self.awaiting_delivery => return None,
            false => "too many requests wait for their rows to be delivered; send again later",
        };
        let awaits = self.endpoint.options.ack == Ack::Delivered;
        awaits.then(|| NotTaken::Busy {
            message: why.into(),
            after: RETRY_AFTER,
        })
    }

    fn is_overdue(&self) -> bool {
        let Some(seq) = self.backlog.overdue.get() else {
            return false;
        };
        let delivery = self.endpoint.delivery(&self.partition);
        let overdue = delivery.is_some_and(|upto| *upto.borrow() <= seq);
        if !overdue {
            self.backlog.overdue.set(None);
        }
        overdue
    }

    /// Takes the rows of a body. A body that cannot be read goes to the invalid rows as a whole.
    pub fn take_body(self: &Rc<Self>, body: &[u8], peer: IpAddr) -> Result<Taken, BodyError> {
        let now = Timestamp::now();
        let path = &self.endpoint.options.path;
        let mut open = self.open.borrow_mut();
        let decoded = open.decoder.decode(body, now).inspect_err(|e| {
            let origin = format!("POST {path} from {peer}");
            open.invalid.push(now, &origin, &e.to_string(), body);
        });
        if let Ok(Decoded { failed, .. }) = &decoded {
            for row in failed {
                let origin = format!("POST {path} row {} from {peer}", row.index + 1);
                let raw = &body[row.span.clone()];
                open.invalid.push(now, &origin, &reason(&row.error), raw);
            }
        }
        drop(open);
        match decoded {
            Ok(decoded) => Ok(Taken {
                decoded,
                verdict: self.await_verdict(),
            }),
            Err(e) => {
                self.attend();
                Err(e)
            }
        }
    }

    /// Records a body that was refused before it could be decoded.
    pub fn refuse_body(self: &Rc<Self>, body: &[u8], reason: &str, peer: IpAddr) {
        let origin = format!("POST {} from {peer}", self.endpoint.options.path);
        let mut open = self.open.borrow_mut();
        open.invalid.push(Timestamp::now(), &origin, reason, body);
        drop(open);
        self.attend();
    }

    /// Takes the row that a query string writes.
    pub fn take_query(self: &Rc<Self>, query: &str, peer: IpAddr) -> Taken {
        let now = Timestamp::now();
        let mut open = self.open.borrow_mut();
        let row = Pairs::parse(query).and_then(|pairs| open.decoder.decode_pairs(&pairs.0, now));
        let mut decoded = Decoded {
            rows: 1,
            failed: Vec::new(),
        };
        if let Err(error) = row {
            let origin = format!("GET {}.gif from {peer}", self.endpoint.options.path);
            open.invalid.push(now, &origin, &reason(&error), query.as_bytes());
            let (index, span) = (0, 0..query.len());
            decoded
                .failed
                .push(crate::formats::json::FailedRow { index, error, span });
        }
        drop(open);
        let verdict = self.await_verdict();
        Taken { decoded, verdict }
    }

    fn await_verdict(self: &Rc<Self>) -> Awaited {
        let mut open = self.open.borrow_mut();
        let verdict = open.judge.admit();
        open.requests += 1;
        drop(open);
        let unanswered = &self.backlog.unanswered;
        unanswered.set(unanswered.get() + 1);
        self.attend();
        verdict
    }

    /// Sees to it that the open batch is written.
    fn attend(self: &Rc<Self>) {
        let mut open = self.open.borrow_mut();
        if open.decoder.len() >= self.batch_rows || open.bytes() >= self.batch_bytes {
            drop(open);
            let full = self.write();
            tokio::task::spawn_local(full.settle());
        } else if !open.attended {
            open.attended = true;
            drop(open);
            let in_flight = self.endpoint.begin_batch();
            tokio::task::spawn_local(self.clone().write_until_empty(in_flight));
        }
    }

    async fn write_until_empty(self: Rc<Self>, _in_flight: BatchInFlight) {
        while !self.is_empty() {
            self.gather().await;
            self.write().settle().await;
        }
        self.open.borrow_mut().attended = false;
    }

    fn is_empty(&self) -> bool {
        let open = self.open.borrow();
        open.decoder.is_empty() && open.invalid.is_empty() && open.judge.requests() == 0
    }

    /// Lets the requests that are ready join, as long as there are any and `commit_linger` allows.
    async fn gather(&self) {
        let deadline = Instant::now() + self.endpoint.options.commit_linger.0;
        let mut seen = 0;
        while seen != self.open.borrow().requests && Instant::now() < deadline {
            seen = self.open.borrow().requests;
            tokio::task::yield_now().await;
        }
    }

    /// Appends the open batch to the log and opens the next.
    fn write(&self) -> Written {
        let mut open = self.open.borrow_mut();
        let in_flight = self.endpoint.begin_batch();
        let judge = std::mem::take(&mut open.judge);
        // Both are taken whatever happens, so that one failing does not shift the rows of the next batch.
        let (rows, invalid) = (open.decoder.finish(), open.invalid.finish());
        let appended = match (rows, invalid) {
            (Ok(rows), Ok(None)) if rows.num_rows() == 0 => Ok(None),
            (Ok(rows), Ok(invalid)) => self
                .endpoint
                .with_log(&self.partition, |log| log.append(rows, invalid))
                .map(Some),
            (Err(e), _) | (_, Err(e)) => Err(e),
        };
        Written {
            appended,
            waiting: Waiting {
                judge,
                backlog: self.backlog.clone(),
            },
            wait: self.endpoint.options.ack != Ack::Memory,
            delivery: self.delivery(),
            in_flight,
        }
    }

    /// Where the requests of a batch must wait further once it is written.
    fn delivery(&self) -> Option<Delivery> {
        let options = &self.endpoint.options;
        (options.ack == Ack::Delivered).then(|| Delivery {
            upto: self.endpoint.delivery(&self.partition),
            within: options.delivery_timeout.0,
            backlog: self.backlog.clone(),
        })
    }
}

impl Open {
    fn bytes(&self) -> usize {
        self.decoder.bytes() + self.invalid.bytes()
    }
}

/// A batch on its way to disk.
struct Written {
    appended: Result<Option<Appended>>,
    waiting: Waiting,
    wait: bool,
    delivery: Option<Delivery>,
    in_flight: BatchInFlight,
}

impl Written {
    /// Waits until the batch is in the log, and tells every waiting request what became of it; or leaves that to a
    /// task that waits for its delivery.
    async fn settle(self) {
        let (seq, outcome) = match self.appended {
            Ok(Some(appended)) if self.wait => match appended.durable.await {
                Ok(outcome) => (Some(appended.seq), outcome),
                Err(_) => (
                    None,
                    Err(Error::retry("the log closed before the rows were on disk")),
                ),
            },
            Ok(_) => (None, Ok(())),
            Err(e) => (None, Err(e)),
        };
        let outcome = outcome.map_err(|e| not_taken(e, self.in_flight.path()));
        // What is in the log is read from it to the end, so an orderly stop need not wait for its delivery here.
        drop(self.in_flight);
        match (outcome, seq, self.delivery) {
            (Ok(()), Some(seq), Some(delivery)) => {
                tokio::task::spawn_local(async move { self.waiting.tell(delivery.of(seq).await) });
            }
            (outcome, _, _) => self.waiting.tell(outcome),
        }
    }
}

/// The requests of a batch.
struct Waiting {
    judge: Judge,
    backlog: Rc<Backlog>,
}

impl Waiting {
    fn tell(self, verdict: Verdict) {
        let unanswered = &self.backlog.unanswered;
        unanswered.set(unanswered.get() - self.judge.requests());
        self.judge.tell(verdict);
    }
}

/// Follows what the sinks have of a lane's log.
struct Delivery {
    /// They have the frames before this one; none when the source is gone.
    upto: Option<watch::Receiver<u64>>,
    within: Duration,
    backlog: Rc<Backlog>,
}

impl Delivery {
    /// Waits until the sinks have a frame.
    async fn of(self, seq: u64) -> Verdict {
        let busy = |message: String| NotTaken::Busy {
            message,
            after: RETRY_AFTER,
        };
        let gone = || busy("the pipeline of this path is restarting; send again later".into());
        let mut upto = self.upto.ok_or_else(gone)?;
        match tokio::time::timeout(self.within, upto.wait_for(|upto| *upto > seq)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(gone()),
            Err(_) => {
                self.backlog.overdue.set(Some(seq));
                let within = self.within;
                Err(busy(format!(
                    "the rows were not delivered within {within:?}; send them again"
                )))
            }
        }
    }
}

fn not_taken(e: Error, path: &str) -> NotTaken {
    match e {
        Error::Retry { message, after } => NotTaken::Busy {
            message,
            after: after.unwrap_or(RETRY_AFTER),
        },
        e => {
            error!(path, error = %e, "rows could not be written to the ingest log");
            NotTaken::Failed
        }
    }
}

fn reason(e: &RowError) -> String {
    format!("{}: {}", e.code, e.message)
}
