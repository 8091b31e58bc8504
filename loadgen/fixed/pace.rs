//! When requests are due: a schedule (open loop), or whenever there is room for one (closed loop).
//!
//! The schedule is arithmetic on the clock, so it cannot fall behind: request *k* is due at `start + k × interval`,
//! and whoever takes it late knows by how much. Its thread only wakes those who have room and sleep, because epoll
//! sleeps in milliseconds; a sleep of the kernel is good to about 0.1 ms.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use mio::Waker;

use crate::run::{Mode, Run};

/// Longest sleep of the schedule's thread, so that it sees the end of the run.
const LONGEST_NAP: Duration = Duration::from_millis(50);

/// Shortest: while every connection is busy, requests are overdue and nobody is to be woken.
const SHORTEST_NAP: Duration = Duration::from_micros(50);

/// The requests of a run, shared by its threads.
pub struct Pace {
    start: Instant,
    interval: Option<Duration>,
    taken: AtomicU64,
}

/// A thread that waits for requests to fall due.
pub struct Sleeper {
    waker: Waker,
    waits: AtomicBool,
}

impl Sleeper {
    /// Wakes through `waker`.
    pub fn new(waker: Waker) -> Sleeper {
        Sleeper {
            waker,
            waits: AtomicBool::new(false),
        }
    }

    /// The thread has room for a request and goes to sleep; from now on it is woken. It must look once more before.
    pub fn waits(&self, waits: bool) {
        self.waits.store(waits, SeqCst);
    }

    fn wake(&self) {
        if self.waits.swap(false, SeqCst) {
            // The thread is there as long as the run; if it is not woken it looks by itself after LONGEST_SLEEP.
            let _ = self.waker.wake();
        }
    }
}

impl Pace {
    /// Starts the clock.
    pub fn new(mode: Mode, batch: usize) -> Pace {
        let interval = match mode {
            Mode::Rate(rows) => Some(Duration::from_secs_f64(batch as f64 / rows)),
            _ => None,
        };
        Pace {
            start: Instant::now(),
            interval,
            taken: AtomicU64::new(0),
        }
    }

    /// True when requests are due by the clock.
    pub fn is_open(&self) -> bool {
        self.interval.is_some()
    }

    /// Takes a request that is due, if there is one: the moment it was due.
    pub fn take(&self) -> Option<Instant> {
        let now = Instant::now();
        if self.interval.is_none() {
            return Some(now);
        }
        let mut next = self.taken.load(SeqCst);
        loop {
            let due = self.due_at(next);
            if due > now {
                return None;
            }
            match self.taken.compare_exchange(next, next + 1, SeqCst, SeqCst) {
                Ok(_) => return Some(due),
                Err(other) => next = other,
            }
        }
    }

    /// True when a request could be taken.
    pub fn is_due(&self) -> bool {
        self.due_at(self.taken.load(SeqCst)) <= Instant::now()
    }

    /// When the requests were due that nobody had taken by `end`.
    pub fn left(&self, end: Instant) -> impl Iterator<Item = Instant> {
        let taken = self.taken.load(SeqCst);
        let left = self
            .interval
            .map(|_| (taken..).map(move |index| self.due_at(index)));
        left.into_iter().flatten().take_while(move |due| *due <= end)
    }

    fn due_at(&self, index: u64) -> Instant {
        let interval = self.interval.unwrap_or_default();
        self.start + Duration::from_nanos((interval.as_nanos() * u128::from(index)) as u64)
    }

    /// Starts the thread that wakes `sleepers`; none in a closed loop.
    pub fn start(
        self: &Arc<Pace>,
        run: &Arc<Run>,
        sleepers: Vec<Arc<Sleeper>>,
    ) -> io::Result<Option<std::thread::JoinHandle<()>>> {
        if !self.is_open() {
            return Ok(None);
        }
        let (pace, run) = (self.clone(), run.clone());
        let keep = move || {
            while !run.stopping() {
                pace.nap();
                if pace.is_due() {
                    sleepers.iter().for_each(|sleeper| sleeper.wake());
                }
            }
        };
        std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(keep)
            .map(Some)
    }

    #[allow(clippy::disallowed_methods, reason = "the pacer has a thread of its own")]
    fn nap(&self) {
        let due = self.due_at(self.taken.load(SeqCst));
        let nap = due.saturating_duration_since(Instant::now());
        std::thread::sleep(nap.clamp(SHORTEST_NAP, LONGEST_NAP));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the clock does meanwhile: every request is taken once, in order, at its moment, and what is left is
    /// what was due and not taken.
    #[test]
    fn the_schedule_is_the_clock() {
        let pace = Pace::new(Mode::Rate(20_000.0), 10);
        let mut taken = Vec::new();
        while taken.len() < 40 {
            taken.extend(pace.take());
        }
        for (index, due) in taken.iter().enumerate() {
            assert_eq!(*due - pace.start, Duration::from_micros(500) * index as u32);
        }
        let end = pace.start + Duration::from_micros(500 * 49 + 100);
        let left: Vec<_> = pace.left(end).collect();
        assert_eq!(left.len(), 10);
        assert_eq!(left[0] - taken[39], Duration::from_micros(500));
    }

    #[test]
    fn a_closed_loop_is_always_due_and_leaves_nothing() {
        let pace = Pace::new(Mode::ClosedLoop, 10);
        assert!(pace.take().is_some() && pace.take().is_some());
        assert_eq!(pace.left(Instant::now()).count(), 0);
    }
}
