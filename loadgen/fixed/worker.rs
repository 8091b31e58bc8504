//! One thread of the load: its connections, and the loop that serves them.
//!
//! A turn takes all answers that are there, then sends what is due to whom has room, then sleeps in epoll. (When it sent
//! right after each answer, a closed loop of 256 connections got 0.92 of wrk's requests from a saturated server, perhaps
//! because that had to wake us for each answer.) Nothing is allocated for a request, and each costs two calls of the kernel, one write and one
//! read, or less when several share them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token, Waker};

use super::lane::{InFlight, Lane, READ_BYTES};
use super::maker::Maker;
use super::pace::{Pace, Sleeper};
use crate::reply::{self, Outcome};
use crate::report::Tally;
use crate::run::Run;
use crate::wire::{Replies, Reply};

/// Several small requests go out in one write, up to about this many bytes.
const WRITE_BYTES: usize = 64 << 10;

/// A closed loop pauses this long after a 429 or 503, lest refusals become the load.
const BACKPRESSURE_PAUSE: Duration = Duration::from_millis(20);

/// Longest sleep, so that the end of the run is seen; also how often answers that are overdue are looked for.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);

/// Events of one turn; more come with the next.
const EVENTS: usize = 1024;

/// What wakes a sleeping thread; connections have their index.
const WAKE: Token = Token(usize::MAX);

/// One thread of the load.
pub struct Worker {
    run: Arc<Run>,
    pace: Arc<Pace>,
    address: SocketAddr,
    poll: Poll,
    sleeper: Arc<Sleeper>,
    lanes: Vec<Lane>,
    /// Connections that may send, longest first.
    with_room: VecDeque<usize>,
    /// When connections are to be looked at without an event.
    alarms: BinaryHeap<Reverse<(Instant, usize)>>,
    maker: Maker,
    replies: Replies,
    read: Vec<u8>,
    out: Vec<u8>,
    tally: Tally,
    looked_at: Instant,
    ends_at: Option<Instant>,
}

impl Worker {
    /// A thread with `connections` to `address`, which sends what `maker` makes.
    pub fn new(
        run: Arc<Run>,
        pace: Arc<Pace>,
        address: SocketAddr,
        connections: usize,
        maker: Maker,
    ) -> io::Result<Worker> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        Ok(Worker {
            run,
            pace,
            address,
            poll,
            sleeper: Arc::new(Sleeper::new(waker)),
            lanes: (0..connections).map(|_| Lane::new()).collect(),
            with_room: VecDeque::with_capacity(connections),
            alarms: BinaryHeap::new(),
            maker,
            replies: Replies::default(),
            read: vec![0; READ_BYTES],
            out: Vec::with_capacity(2 * WRITE_BYTES),
            tally: Tally::default(),
            looked_at: Instant::now(),
            ends_at: None,
        })
    }

    /// Who is to be woken when requests fall due.
    pub fn sleeper(&self) -> Arc<Sleeper> {
        self.sleeper.clone()
    }

    /// Works until the run stops and all answers are in.
    pub fn run(mut self) -> io::Result<Tally> {
        (0..self.lanes.len()).for_each(|index| self.connect(index));
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_over() {
            self.sleep(&mut events)?;
            for event in events.iter().filter(|event| event.token() != WAKE) {
                let index = event.token().0;
                if let Err(error) = self.serve(index, event) {
                    self.lost(index, &error);
                }
            }
            self.look_around();
            self.send_what_is_due();
        }
        self.give_up();
        Ok(self.tally)
    }

    fn is_over(&self) -> bool {
        let Some(ends_at) = self.ends_at else { return false };
        self.lanes.iter().all(|lane| lane.waiting.is_empty()) || Instant::now() >= ends_at
    }

    fn sleep(&mut self, events: &mut Events) -> io::Result<()> {
        let mut most = LONGEST_SLEEP;
        if let Some(Reverse((at, _))) = self.alarms.peek() {
            most = most.min(at.saturating_duration_since(Instant::now()));
        }
        if self.pace.is_open() && !self.with_room.is_empty() {
            self.sleeper.waits(true);
            // What fell due before that woke nobody.
            if self.pace.is_due() {
                most = Duration::ZERO;
            }
        }
        let woken = self.poll.poll(events, Some(most));
        self.sleeper.waits(false);
        match woken {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn serve(&mut self, index: usize, event: &Event) -> io::Result<()> {
        if event.is_writable() || event.is_error() {
            self.lanes[index].writable()?;
        }
        if event.is_readable() || event.is_read_closed() {
            self.take_replies(index, event.is_read_closed())?;
        }
        self.offer(index);
        Ok(())
    }

    /// Reads until the socket is empty, or to its end if the server has closed.
    fn take_replies(&mut self, index: usize, closed: bool) -> io::Result<()> {
        let mut read = std::mem::take(&mut self.read);
        let result = self.take_replies_through(&mut read, index, closed);
        self.read = read;
        result
    }

    fn take_replies_through(&mut self, read: &mut Vec<u8>, index: usize, closed: bool) -> io::Result<()> {
        loop {
            let (there, more) = self.lanes[index].read(read)?;
            if there > 0 {
                let (now, mut at) = (Instant::now(), 0);
                while let Some(reply) = self.replies.next(&read[at..there])? {
                    at += reply.bytes;
                    self.answered(index, &reply, now)?;
                }
                self.lanes[index].keep(&read[at..there]);
            }
            // A stream that gave less than was asked for is empty; what comes next is a new event (epoll(7)).
            if !more || (there < READ_BYTES && !closed) {
                return Ok(());
            }
        }
    }

    fn answered(&mut self, index: usize, reply: &Reply<'_>, now: Instant) -> io::Result<()> {
        let lane = &mut self.lanes[index];
        let Some(request) = lane.waiting.pop_front() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a reply without a request",
            ));
        };
        let outcome = reply::read(reply.status, reply.retry_after, reply.body, request.rows);
        let latency = now.saturating_duration_since(request.due);
        self.run.learned(request.ticket, &outcome);
        self.run.live.record(&outcome, request.rows);
        self.tally.record(&outcome, request.rows, latency);
        if matches!(outcome, Outcome::Acked { .. }) {
            lane.is_well();
            self.run.took(request.due, latency);
        }
        if outcome.is_backpressure() && !self.pace.is_open() {
            let until = now + BACKPRESSURE_PAUSE;
            lane.paused_until = Some(until);
            self.alarms.push(Reverse((until, index)));
        }
        Ok(())
    }

    /// Puts a connection that has room into the queue.
    fn offer(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if !lane.queued && lane.room(self.run.plan.pipeline) > 0 {
            lane.queued = true;
            self.with_room.push_back(index);
        }
    }

    fn send_what_is_due(&mut self) {
        while let Some(&index) = self.with_room.front() {
            let room = self.lanes[index].room(self.run.plan.pipeline);
            if room > 0 {
                let Some(due) = self.next_due() else { return };
                if let Err(error) = self.send(index, due, room) {
                    self.lost(index, &error);
                }
            }
            self.with_room.pop_front();
            self.lanes[index].queued = false;
            self.offer(index);
        }
    }

    fn next_due(&self) -> Option<Instant> {
        if self.ends_at.is_some() {
            None
        } else {
            self.pace.take()
        }
    }

    /// Sends the request that was due; in a closed loop as many as there is room for.
    fn send(&mut self, index: usize, due: Instant, room: usize) -> io::Result<()> {
        let (count, sent) = if self.pace.is_open() {
            (1, Instant::now())
        } else {
            (room, due)
        };
        let lane = &mut self.lanes[index];
        self.out.clear();
        for _ in 0..count {
            let Some(made) = self.maker.next(&self.run) else {
                self.ends_at = Some(Instant::now() + self.run.plan.timeout);
                break;
            };
            let (rows, ticket) = (made.rows, made.ticket);
            lane.waiting.push_back(InFlight {
                due,
                sent,
                rows,
                ticket,
            });
            self.tally.sent.add(rows, made.body_bytes);
            self.run.live.sent.fetch_add(rows as u64, Relaxed);
            if count == 1 {
                return lane.send(made.bytes);
            }
            self.out.extend_from_slice(made.bytes);
            if self.out.len() >= WRITE_BYTES {
                break;
            }
        }
        lane.send(&self.out)
    }

    /// Sees the end of the run, alarms, and what is overdue.
    fn look_around(&mut self) {
        let now = Instant::now();
        if self.ends_at.is_none() && self.run.stopping() {
            self.ends_at = Some(now + self.run.plan.timeout);
        }
        while let Some(Reverse((at, index))) = self.alarms.peek().copied()
            && at <= now
        {
            self.alarms.pop();
            self.rung(index, now);
        }
        if now >= self.looked_at + LONGEST_SLEEP {
            self.looked_at = now;
            for index in 0..self.lanes.len() {
                if let Some(error) = self.lanes[index].overdue(now, self.run.plan.timeout) {
                    self.lost(index, &error);
                }
            }
        }
    }

    fn rung(&mut self, index: usize, now: Instant) {
        let lane = &mut self.lanes[index];
        if lane.is_closed() && self.ends_at.is_none() {
            self.connect(index);
        } else if lane.paused_until.is_some_and(|until| until <= now) {
            lane.paused_until = None;
            self.offer(index);
        }
    }

    fn connect(&mut self, index: usize) {
        let connecting = self.lanes[index].connect(self.address, self.poll.registry(), Token(index));
        if let Err(error) = connecting {
            self.lost(index, &error);
        }
    }

    /// A connection is gone: what it carried is unknown. It is opened again after a pause.
    fn lost(&mut self, index: usize, why: &io::Error) {
        self.tally.note(&format!("connection: {why}"));
        let lane = &mut self.lanes[index];
        let outcome = Outcome::unknown(format!("lost with its connection: {why}"));
        for request in lane.waiting.drain(..) {
            self.run.learned(request.ticket, &outcome);
            self.run.live.record(&outcome, request.rows);
            self.tally.record(&outcome, request.rows, request.due.elapsed());
        }
        let again = Instant::now() + lane.close();
        self.alarms.push(Reverse((again, index)));
    }

    fn give_up(&mut self) {
        let why = io::Error::new(io::ErrorKind::TimedOut, "no answer before the end of the run");
        for index in 0..self.lanes.len() {
            if !self.lanes[index].waiting.is_empty() {
                self.lost(index, &why);
            }
        }
    }
}
