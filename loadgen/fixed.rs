//! Load by the number: `--rate` sends rows on a fixed schedule (open loop), `--closed-loop` as fast as answers
//! come back.
//!
//! Open loop: request *k* is due at `start + k × interval`, whatever the server does. Any free connection takes
//! the next due request, and its latency counts from the moment it was due, so a stall of the server is seen
//! by every request it delayed (no coordinated omission). Requests that found no free connection until the end
//! are reported as never sent. The schedule is kept by a thread of its own, because the timers of
//! tokio tick in milliseconds; the kernel's sleep is good to about 0.1 ms.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::ledger::Ticket;
use crate::reply::{self, Outcome};
use crate::report::{Sent, Tally};
use crate::rows::{Batch, Body, Row, Stream, Uuid, now_micros};
use crate::run::{Mode, Run};
use crate::wire::{Replies, push_head};

/// Several small requests go out in one write, up to about this many bytes.
const WRITE_BYTES: usize = 64 << 10;

/// Between attempts to connect: doubled from the first to the last.
const RECONNECT_FIRST: Duration = Duration::from_millis(20);
const RECONNECT_LAST: Duration = Duration::from_secs(1);

/// A server that does not accept within this is down; also bounds the end of a run.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A closed loop pauses this long after a 429 or 503, lest refusals become the load.
const BACKPRESSURE_PAUSE: Duration = Duration::from_millis(20);

/// Longest sleep of the schedule's thread, so that it sees the end of the run.
const PACER_NAP: Duration = Duration::from_millis(50);

/// Runs until the run stops and all answers are in. Also returns how many due requests were never sent.
pub async fn drive(run: Arc<Run>) -> anyhow::Result<(Tally, u64)> {
    let address = run.endpoint.resolve().await?;
    let pace = Arc::new(Pace::new(&run));
    let pacer = Pace::start(&pace, &run)?;
    let mut lanes = tokio::task::JoinSet::new();
    for index in 0..run.plan.connections {
        let lane = Lane {
            run: run.clone(),
            pace: pace.clone(),
            address,
            tally: Tally::default(),
        };
        lanes.spawn(lane.drive(Maker::new(&run, index)));
    }
    run.stopped().await;
    pace.due.close();
    let mut total = Tally::default();
    while let Some(tally) = lanes.join_next().await {
        total.merge(&tally?);
    }
    if let Some(pacer) = pacer {
        pacer
            .join()
            .map_err(|_| anyhow::anyhow!("the schedule's thread panicked"))?;
    }
    // A run that ended by --rows needed no more requests than it took.
    let never_sent = if run.all_rows_claimed() {
        0
    } else {
        pace.never_sent()
    };
    Ok((total, never_sent))
}

/// When requests are due.
struct Pace {
    start: Instant,
    interval: Option<Duration>,
    due: Semaphore,
    fallen_due: AtomicU64,
    taken: AtomicU64,
}

impl Pace {
    fn new(run: &Run) -> Pace {
        let interval = match run.plan.mode {
            Mode::Rate(rows) => Some(Duration::from_secs_f64(run.plan.batch as f64 / rows)),
            _ => None,
        };
        let zero = || AtomicU64::new(0);
        Pace {
            start: Instant::now(),
            interval,
            due: Semaphore::new(0),
            fallen_due: zero(),
            taken: zero(),
        }
    }

    /// The thread that lets requests fall due; none in a closed loop.
    fn start(pace: &Arc<Pace>, run: &Arc<Run>) -> io::Result<Option<std::thread::JoinHandle<()>>> {
        let Some(interval) = pace.interval else {
            return Ok(None);
        };
        let (pace, run) = (pace.clone(), run.clone());
        #[allow(clippy::disallowed_methods, reason = "the pacer has a thread of its own")]
        let keep = move || {
            while !run.stopping() {
                let given = pace.fallen_due.load(Relaxed);
                let elapsed = pace.start.elapsed();
                let due = (elapsed.as_nanos() / interval.as_nanos().max(1)) as u64 + 1;
                if due > given {
                    pace.fallen_due.store(due, Relaxed);
                    pace.due.add_permits((due - given) as usize);
                }
                std::thread::sleep(
                    pace.due_at(due)
                        .saturating_duration_since(Instant::now())
                        .min(PACER_NAP),
                );
            }
        };
        std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(keep)
            .map(Some)
    }

    fn due_at(&self, index: u64) -> Instant {
        self.start + self.interval.unwrap_or_default().mul_f64(index as f64)
    }

    /// Waits for a request to fall due and takes it: the moment it was due, or `None` at the end of the run.
    async fn next(&self, run: &Run) -> Option<Instant> {
        if self.interval.is_none() {
            return (!run.stopping()).then(Instant::now);
        }
        self.due.acquire().await.ok()?.forget();
        Some(self.due_at(self.taken.fetch_add(1, Relaxed)))
    }

    /// The same without waiting.
    fn next_now(&self, run: &Run) -> Option<Instant> {
        if self.interval.is_none() {
            return (!run.stopping()).then(Instant::now);
        }
        self.due.try_acquire().ok()?.forget();
        Some(self.due_at(self.taken.fetch_add(1, Relaxed)))
    }

    fn never_sent(&self) -> u64 {
        self.fallen_due
            .load(Relaxed)
            .saturating_sub(self.taken.load(Relaxed))
    }
}

/// Makes the batches of one connection: impressions, and clicks on them once there are enough for a batch.
struct Maker {
    rng: SmallRng,
    ads: u64,
    clickthrough: f64,
    batch: usize,
    clicks: VecDeque<Row>,
    bodies: [Body; 2],
}

impl Maker {
    fn new(run: &Run, index: usize) -> Maker {
        Maker {
            // An odd multiplier keeps the lanes' seeds apart for every seed.
            rng: SmallRng::seed_from_u64(
                run.plan.seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ),
            ads: run.plan.config.ads.count,
            clickthrough: run.plan.config.users.clickthrough_probability,
            batch: run.plan.batch,
            clicks: VecDeque::new(),
            bodies: Stream::ALL.map(|stream| Body::new(stream, run.plan.batch)),
        }
    }

    /// Fills `into` with the next batch of at most `limit` rows.
    fn next(&mut self, into: &mut Batch, limit: usize) {
        let occurred_at = now_micros();
        into.rows.clear();
        if self.clicks.len() >= self.batch {
            into.stream = Stream::Clicks;
            into.rows.extend(
                self.clicks
                    .drain(..limit)
                    .map(|click| Row { occurred_at, ..click }),
            );
            return;
        }
        into.stream = Stream::Impressions;
        for _ in 0..limit {
            let id = Uuid::random(&mut self.rng);
            let ad = Uuid::of_ad(self.rng.random_range(0..self.ads));
            let row = Row {
                id,
                impression: id,
                ad,
                occurred_at,
            };
            if self.rng.random_bool(self.clickthrough) {
                self.clicks.push_back(Row {
                    id: Uuid::random(&mut self.rng),
                    ..row
                });
            }
            into.rows.push(row);
        }
    }
}

/// One connection, opened again whenever it is lost.
struct Lane {
    run: Arc<Run>,
    pace: Arc<Pace>,
    address: SocketAddr,
    tally: Tally,
}

/// A request on its way.
struct InFlight {
    due: Instant,
    sent: Instant,
    rows: usize,
    ticket: Option<Ticket>,
}

/// What the two sides of a connection share.
struct Exchange {
    waiting: Mutex<VecDeque<InFlight>>,
    room: Semaphore,
    all_written: AtomicBool,
    pause: AtomicBool,
}

impl Exchange {
    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<InFlight>> {
        self.waiting.lock().expect("no holder of the queue panics")
    }

    fn is_over(&self) -> bool {
        self.all_written.load(Relaxed) && self.waiting().is_empty()
    }
}

impl Lane {
    async fn drive(mut self, mut maker: Maker) -> Tally {
        let mut pause = RECONNECT_FIRST;
        while !self.run.stopping() {
            let acked = self.tally.acked;
            let result = match self.connect().await {
                Ok(socket) => self.exchange(socket, &mut maker).await,
                Err(error) => Err(error),
            };
            if self.tally.acked > acked {
                pause = RECONNECT_FIRST;
            }
            if let Err(error) = result {
                self.tally.note(&format!("connection: {error}"));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.run.stopped() => {}
                }
                pause = (pause * 2).min(RECONNECT_LAST);
            }
        }
        self.tally
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let why = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => error,
            Err(_) => io::Error::from(io::ErrorKind::TimedOut),
        };
        Err(io::Error::new(why.kind(), format!("cannot connect: {why}")))
    }

    /// Uses one connection until the run ends or it breaks; whatever is unanswered then is unknown.
    async fn exchange(&mut self, mut socket: TcpStream, maker: &mut Maker) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let (reader, writer) = socket.split();
        let exchange = Exchange {
            waiting: Mutex::default(),
            room: Semaphore::new(self.run.plan.pipeline),
            all_written: AtomicBool::new(false),
            pause: AtomicBool::new(false),
        };
        let (run, pace) = (self.run.clone(), self.pace.clone());
        let mut sent = Sent::default();
        let result = {
            let requests = Writer {
                run: &run,
                exchange: &exchange,
                maker,
                sent: &mut sent,
                paths: Stream::ALL.map(|stream| run.endpoint.path(stream)),
                batch: Batch {
                    stream: Stream::Impressions,
                    rows: Vec::new(),
                },
                out: Vec::with_capacity(2 * WRITE_BYTES),
            };
            let write = requests.write_requests(&pace, writer);
            let read = read_replies(&run, &exchange, &mut self.tally, reader);
            both(&run, &exchange, write, read).await
        };
        self.tally.sent.rows += sent.rows;
        self.tally.sent.requests += sent.requests;
        self.tally.sent.bytes += sent.bytes;
        self.give_up(&exchange, &result);
        result
    }

    fn give_up(&mut self, exchange: &Exchange, result: &io::Result<()>) {
        let why = result
            .as_ref()
            .err()
            .map_or_else(|| "unanswered".to_owned(), io::Error::to_string);
        let outcome = Outcome::unknown(format!("lost with its connection: {why}"));
        for request in std::mem::take(&mut *exchange.waiting()) {
            self.run.learned(request.ticket, &outcome);
            self.run.live.record(&outcome, request.rows);
            self.tally.record(&outcome, request.rows, request.due.elapsed());
        }
    }
}

/// Lets both sides work; at the end of the run the writer stops and the reader gets the timeout to finish.
async fn both(
    run: &Run,
    exchange: &Exchange,
    write: impl Future<Output = io::Result<()>>,
    read: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    tokio::pin!(write, read);
    let mut writing = true;
    let mut ends_at = None;
    loop {
        tokio::select! {
            result = &mut read => return result,
            result = &mut write, if writing => {
                result?;
                writing = false;
                exchange.all_written.store(true, Relaxed);
                if exchange.is_over() {
                    return Ok(());
                }
            }
            () = run.stopped(), if ends_at.is_none() => {
                exchange.room.close();
                ends_at = Some(tokio::time::Instant::now() + run.plan.timeout);
            }
            () = tokio::time::sleep_until(ends_at.unwrap_or_else(tokio::time::Instant::now)), if ends_at.is_some() => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer before the end of the run"));
            }
        }
    }
}

/// The sending side of a connection.
struct Writer<'a> {
    run: &'a Run,
    exchange: &'a Exchange,
    maker: &'a mut Maker,
    sent: &'a mut Sent,
    paths: [String; 2],
    batch: Batch,
    out: Vec<u8>,
}

impl Writer<'_> {
    async fn write_requests(mut self, pace: &Pace, mut socket: impl AsyncWrite + Unpin) -> io::Result<()> {
        while let Ok(room) = self.exchange.room.acquire().await {
            room.forget();
            if self.exchange.pause.swap(false, Relaxed) {
                tokio::time::sleep(BACKPRESSURE_PAUSE).await;
            }
            let mut due = pace.next(self.run).await;
            self.out.clear();
            while let Some(at) = due {
                if !self.add_request(at) || self.out.len() >= WRITE_BYTES {
                    break;
                }
                due = self.next_now(pace);
            }
            socket.write_all(&self.out).await?;
            if self.run.stopping() {
                break;
            }
        }
        Ok(())
    }

    /// Appends one request to what is written next; false when the run has no more rows or must not send.
    fn add_request(&mut self, due: Instant) -> bool {
        let limit = self.run.claim(self.run.plan.batch);
        if limit == 0 {
            return false;
        }
        self.maker.next(&mut self.batch, limit);
        let Ok(ticket) = self.run.about_to_send(&self.batch) else {
            return false;
        };
        let stream = self.batch.stream as usize;
        let rows = self.batch.rows.len();
        let body = self.maker.bodies[stream].render(&self.batch.rows);
        push_head(
            &mut self.out,
            &self.run.endpoint.authority,
            &self.paths[stream],
            body.len(),
        );
        self.out.extend_from_slice(body);
        self.sent.add(rows, body.len());
        self.run.live.sent.fetch_add(rows as u64, Relaxed);
        self.exchange.waiting().push_back(InFlight {
            due,
            sent: Instant::now(),
            rows,
            ticket,
        });
        true
    }

    /// Another due request, if there is one and the pipeline has room.
    fn next_now(&self, pace: &Pace) -> Option<Instant> {
        let room = self.exchange.room.try_acquire().ok()?;
        let due = pace.next_now(self.run)?;
        room.forget();
        Some(due)
    }
}

async fn read_replies(
    run: &Run,
    exchange: &Exchange,
    tally: &mut Tally,
    reader: impl AsyncRead + Unpin,
) -> io::Result<()> {
    let mut replies = Replies::new(reader);
    loop {
        let reply = match tokio::time::timeout(run.plan.timeout, replies.next()).await {
            Ok(reply) => reply?,
            Err(_)
                if exchange
                    .waiting()
                    .front()
                    .is_some_and(|first| first.sent.elapsed() >= run.plan.timeout) =>
            {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no answer within the timeout",
                ));
            }
            Err(_) => continue,
        };
        let answered = Instant::now();
        let Some(request) = exchange.waiting().pop_front() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a reply without a request",
            ));
        };
        let outcome = reply::read(reply.status, reply.retry_after, reply.body, request.rows);
        run.learned(request.ticket, &outcome);
        run.live.record(&outcome, request.rows);
        tally.record(&outcome, request.rows, answered - request.due);
        if matches!(outcome, Outcome::Acked { .. }) {
            run.took(request.due, answered - request.due);
        }
        if outcome.is_backpressure() && run.plan.mode == Mode::ClosedLoop {
            exchange.pause.store(true, Relaxed);
        }
        exchange.room.add_permits(1);
        if exchange.is_over() {
            return Ok(());
        }
    }
}
