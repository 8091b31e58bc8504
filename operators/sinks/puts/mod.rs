//! What the sinks of streams share (`kinesis`, `firehose`): rows as JSON objects, put into a service that takes them by
//! the hundred and may refuse some of each hundred.
//!
//! A put leaves when it is full, or when none is on its way: under load the time of a put sets the size of the next by
//! itself, and a lone row waits for nobody, nor for the next call. `prepare` waits until the service has taken everything, so a checkpoint
//! covers no row that is not in the stream, and there is nothing to commit: **at least once**, as rows are put again
//! that were on their way when the process ended, and those behind the last checkpoint.
//!
//! How it fails:
//! - records that are refused in passing (throttling, an internal error) are put again, alone, after a pause that grows
//!   while nothing is taken; they go before all later rows of their key (`queue`);
//! - a put that fails as a whole is treated the same. When nothing has been taken for several puts, the runtime is told,
//!   which tries again with more patience;
//! - a row that no record can hold is refused, with the reason.

mod queue;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arrow::array::{Array, RecordBatch, StringArray};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use bytes::Bytes;
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::metrics::Counters;
use millstream_engine::sink::{Committable, Sink, SinkContext};
use millstream_engine::{Error, ErrorClass, Result};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use self::queue::Queue;
pub(super) use self::queue::{Limits, Put, Queueing, Record};
use super::rejected::RejectedRows;
use super::{column_of, write_ndjson};

/// Puts on their way at a time: at 20 ms each, 100,000 records/s, which is a hundred shards.
const IN_FLIGHT: usize = 4;
/// Rows wait beyond those on their way until they fill so many puts.
const WAITING_PUTS: usize = 2;
/// Keys are no longer than this in either service; a longer one is replaced by its hash.
const KEY_CHARS: usize = 256;
/// With rows of a hundred bytes, a record is full.
const MOST_ROWS_PER_RECORD: usize = 10_000;
/// The pause after records were refused: a shard's limits are per second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// After so many puts in a row of which nothing was taken, some three seconds, the runtime is told.
const FRUITLESS_PUTS: u32 = 5;

/// A service that takes puts.
#[async_trait]
pub(super) trait Service: Send + Sync + 'static {
    /// What it takes at a time.
    const LIMITS: Limits;

    /// The stream, for people, as in `stream "x"`.
    fn place(&self) -> String;

    /// Makes one put; gives for each of its records why it was refused in passing, or none if it was taken.
    async fn put(&self, put: &Put) -> Result<Vec<Option<String>>>;
}

/// Checks `partition_key`; gives its column.
pub(super) fn key_column(cx: &SinkContext, named: Option<&str>) -> Result<Option<usize>> {
    fn fits(field: &Field) -> bool {
        !field.data_type().is_nested() && can_cast_types(field.data_type(), &DataType::Utf8)
    }
    let column = named.map(|name| column_of(cx, "partition_key", name, "a value that can be text", fits));
    column.transpose()
}

/// Checks `rows_per_record`.
pub(super) fn check_rows_per_record(rows: usize) -> Result<()> {
    match (1..=MOST_ROWS_PER_RECORD).contains(&rows) {
        true => Ok(()),
        false => Err(Error::config(format!(
            "rows_per_record: must be from 1 to {MOST_ROWS_PER_RECORD}"
        ))),
    }
}

/// What a record holds unless more is asked for: what consumers expect.
pub(super) fn one() -> usize {
    1
}

/// The sink of a stream.
pub(super) struct StreamSink<S> {
    key: Option<usize>,
    puts: Puts<S>,
    rejected: RejectedRows,
    /// The rows of the call that is being made again are in the queue already.
    queued: bool,
}

impl<S: Service> StreamSink<S> {
    /// `key`: the column rows are spread by, and whose equal values keep their order.
    pub fn new(cx: &SinkContext, service: S, key: Option<usize>, queue: Queueing) -> StreamSink<S> {
        StreamSink {
            puts: Puts::new(service, queue, cx.counters.clone()),
            key,
            rejected: RejectedRows::new(cx),
            queued: false,
        }
    }

    fn queue(&mut self, rows: &RecordBatch) -> Result<()> {
        let keys = self.key.map(|column| cast(rows.column(column), &DataType::Utf8));
        let keys = keys.transpose()?;
        let keys = keys
            .as_ref()
            .and_then(|k| k.as_any().downcast_ref::<StringArray>());
        let mut text = Vec::new();
        write_ndjson(rows, &mut text)?;
        let text = Bytes::from(text);
        let lines = text.split(|byte| *byte == b'\n').take(rows.num_rows());
        for (index, line) in lines.enumerate() {
            let row = text.slice_ref(line);
            let key = keys.filter(|k| k.is_valid(index)).map(|k| k.value(index));
            let key = key.filter(|key| !key.is_empty()).map(fitting);
            let bytes = row.len();
            if !self.puts.push(key.as_deref(), row) {
                let most = S::LIMITS.record_bytes;
                let reason = format!("too_large: the row has {bytes} bytes, and a record takes {most}");
                self.rejected.push(rows, index, &reason)?;
            }
        }
        Ok(())
    }
}

/// The key, or what stands for one that is too long.
fn fitting(key: &str) -> Cow<'_, str> {
    match key.len() > KEY_CHARS && key.chars().count() > KEY_CHARS {
        true => blake3::hash(key.as_bytes()).to_hex().to_string().into(),
        false => key.into(),
    }
}

#[async_trait]
impl<S: Service> Sink for StreamSink<S> {
    async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        if !self.queued {
            self.queue(&rows)?;
            self.queued = true;
        }
        self.puts.send(false).await?;
        self.queued = false;
        Ok(())
    }

    async fn prepare(&mut self, _: Barrier) -> Result<Committable> {
        self.puts.send(true).await?;
        Ok(Committable::default())
    }

    async fn commit(&mut self, _: Epoch, _: Committable) -> Result<()> {
        Ok(())
    }

    fn rejected(&mut self) -> Option<RecordBatch> {
        self.rejected.take()
    }
}

/// Rows on their way into a service.
struct Puts<S> {
    shared: Arc<Shared<S>>,
    /// Each has a put on its way, and takes the next when that is over. They work between calls, too.
    carriers: JoinSet<()>,
    most_rows: usize,
}

impl<S: Service> Puts<S> {
    fn new(service: S, queueing: Queueing, counters: Counters) -> Puts<S> {
        Puts {
            shared: Arc::new(Shared {
                service,
                counters,
                state: Mutex::new(State {
                    queue: Queue::new(S::LIMITS, queueing),
                    pace: Pace::default(),
                    carriers: 0,
                    failed: None,
                }),
                settled: Notify::new(),
            }),
            carriers: JoinSet::new(),
            most_rows: WAITING_PUTS * S::LIMITS.records * queueing.rows_per_record,
        }
    }

    /// Adds a row; false if no record could hold it.
    fn push(&self, key: Option<&str>, row: Bytes) -> bool {
        self.shared.state().queue.push(key, row)
    }

    /// Waits until few rows are left or, with `all`, until everything is taken. After an error everything that was not
    /// taken waits as before.
    async fn send(&mut self, all: bool) -> Result<()> {
        while let Some(ended) = self.carriers.try_join_next() {
            ended.map_err(broken)?;
        }
        while self.launch(all)? {
            tokio::select! {
                () = self.shared.settled.notified() => {}
                Some(ended) = self.carriers.join_next() => ended.map_err(broken)?,
            }
        }
        Ok(())
    }

    /// Starts carriers for what may leave; whether there is more to wait for.
    fn launch(&mut self, all: bool) -> Result<bool> {
        let mut state = self.shared.state();
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        while state.carriers < IN_FLIGHT && (all || state.is_due()) {
            let Some(put) = state.queue.next_put() else {
                break;
            };
            state.carriers += 1;
            self.carriers.spawn(self.shared.clone().carry(put));
        }
        let queue = &state.queue;
        Ok(match all {
            true => queue.rows() > 0 || state.carriers > 0,
            false => queue.rows() > self.most_rows || queue.bytes() > WAITING_PUTS * S::LIMITS.put_bytes,
        })
    }
}

fn broken(e: JoinError) -> Error {
    Error::bug(format!("a put: {e}"))
}

/// What the sink and its carriers share.
struct Shared<S> {
    service: S,
    counters: Counters,
    state: Mutex<State>,
    /// Rung when a put is over.
    settled: Notify,
}

struct State {
    queue: Queue,
    pace: Pace,
    /// Carriers at work.
    carriers: usize,
    /// What the next call must tell the runtime; carriers stop meanwhile.
    failed: Option<Error>,
}

impl State {
    /// Whether the next put may leave: it is full, or none is on its way.
    fn is_due(&self) -> bool {
        self.carriers == 0 || self.queue.fills_put()
    }
}

impl<S: Service> Shared<S> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nobody panics who holds a queue of rows")
    }

    /// Makes a put, and those that are due after it.
    async fn carry(self: Arc<Self>, put: Put) {
        let mut next = Some(put);
        while let Some(put) = next {
            let hold = self.state().pace.hold;
            tokio::time::sleep_until(hold).await;
            let answer = self.service.put(&put).await;
            next = self.settle(put, answer);
        }
    }

    /// Takes what was answered to a put; gives the next for this carrier.
    fn settle(&self, put: Put, answer: Result<Vec<Option<String>>>) -> Option<Put> {
        let mut state = self.state();
        if let Err(e) = self.take(&mut state, put, answer) {
            state.failed = Some(e);
        }
        state.carriers -= 1;
        let go_on = state.failed.is_none() && state.is_due();
        let next = go_on.then(|| state.queue.next_put()).flatten();
        state.carriers += usize::from(next.is_some());
        drop(state);
        self.settled.notify_one();
        next
    }

    fn take(&self, state: &mut State, put: Put, answer: Result<Vec<Option<String>>>) -> Result<()> {
        let (records, place) = (put.len(), self.service.place());
        let State { queue, pace, .. } = state;
        let why = match answer {
            Ok(refused) if refused.len() == records => {
                queue.settle(put, |index| refused[index].is_some());
                let count = refused.iter().flatten().count();
                if count < records {
                    self.counters.add("records_taken", (records - count) as u64);
                    pace.took();
                }
                let Some(why) = refused.into_iter().flatten().next() else {
                    return Ok(());
                };
                self.counters.add("records_put_again", count as u64);
                Error::retry(format!(
                    "{place}: {count} of {records} records were refused: {why}"
                ))
            }
            Ok(of) => {
                queue.settle(put, |_| true);
                let of = of.len();
                Error::retry(format!(
                    "{place}: the answer to a put of {records} records is about {of}"
                ))
            }
            Err(e) => {
                queue.settle(put, |_| true);
                e
            }
        };
        pace.refused(why)
    }
}

/// When the next put may leave.
struct Pace {
    /// Not before.
    hold: Instant,
    pause: Duration,
    /// Puts in a row of which nothing was taken.
    fruitless: u32,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            hold: Instant::now(),
            pause: FIRST_PAUSE,
            fruitless: 0,
        }
    }
}

impl Pace {
    fn holds(&self) -> bool {
        self.hold > Instant::now()
    }

    /// Some of a put was taken.
    fn took(&mut self) {
        (self.pause, self.fruitless) = (FIRST_PAUSE, 0);
    }

    /// Some or all of a put was refused, or it failed: an error that the runtime must know, if it is one.
    fn refused(&mut self, why: Error) -> Result<()> {
        let ErrorClass::Retry { after } = why.class() else {
            return Err(why);
        };
        // Puts that were on their way together fail together, and count once.
        if !self.holds() {
            self.hold = Instant::now() + self.pause.max(after.unwrap_or_default());
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            self.fruitless += 1;
        }
        match self.fruitless < FRUITLESS_PUTS {
            true => Ok(()),
            false => Err(why),
        }
    }
}
