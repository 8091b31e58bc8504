//! The watermark of a source: one value shared by the tasks of its partitions.
//!
//! Every partition has a watermark of its own, `max_out_of_orderness` behind the largest event time it saw.
//! The source's watermark is their minimum over the partitions that are not idle, and *that* is what every
//! partition task sends down its edges, also an idle one. So fan-in downstream is a plain minimum over edges,
//! and a partition that wakes up cannot find its windows closed between the row and the watermark that
//! would have kept them open: it joins at the source's watermark, under the same lock.
//!
//! When all partitions are idle, wall-clock time moves the watermark on, so the last windows of a quiet
//! stream still close.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::time::Timestamp;

/// How often a partition looks whether it, or the whole source, has fallen idle; a small part of the
/// shortest sensible `idle_after`.
pub const IDLE_CHECK: Duration = Duration::from_millis(250);
/// A task that wakes up this much after it fell asleep was stopped, as a process can be: the idle check alone
/// would have woken it four times.
pub const HELD_UP: Duration = Duration::from_secs(1);

/// What a source's file section says about time.
#[derive(Clone, Copy, Debug)]
pub struct ClockSettings {
    /// The watermark is this far behind the largest event time seen.
    pub max_out_of_orderness: Duration,
    /// A partition without rows for this long is idle.
    pub idle_after: Duration,
}

/// The watermark of a source.
#[derive(Debug)]
pub struct SourceClock {
    settings: ClockSettings,
    partitions: Mutex<All>,
    watermark: watch::Sender<Timestamp>,
    moves: Mutex<Moves>,
}

#[derive(Debug)]
struct All {
    partitions: Vec<Partition>,
    /// Whether more partitions may come.
    more: bool,
    /// None has been there to listen to for so long that the source is idle.
    deserted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Partition {
    watermark: Timestamp,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Active,
    Idle,
    /// It has been read to its end.
    Exhausted,
    /// It stopped before its end.
    Stopped,
}

impl SourceClock {
    /// A clock that goes on from `resumed`, for partitions to be added.
    pub fn new(settings: ClockSettings, resumed: Timestamp) -> SourceClock {
        SourceClock {
            settings,
            partitions: Mutex::new(All {
                partitions: Vec::new(),
                more: true,
                deserted: false,
            }),
            watermark: watch::Sender::new(resumed),
            moves: Mutex::default(),
        }
    }

    /// Takes in a partition, which holds the watermark until it has seen rows or is idle, and says its number.
    pub fn add(&self) -> usize {
        let mut all = self.lock();
        all.deserted = false;
        let new = Partition {
            watermark: *self.watermark.borrow(),
            state: State::Active,
        };
        // Whoever read an exhausted partition has let go of its number.
        let free = all.partitions.iter().position(|p| p.state == State::Exhausted);
        let number = free.unwrap_or(all.partitions.len());
        match all.partitions.get_mut(number) {
            Some(it) => *it = new,
            None => all.partitions.push(new),
        }
        number
    }

    /// No more partitions will come.
    pub fn complete(&self, now: Timestamp) {
        let mut all = self.lock();
        all.more = false;
        self.advance(&all, now);
    }

    /// There has been no partition to listen to for `quiet`.
    pub fn tick_deserted(&self, quiet: Duration, now: Timestamp) {
        let mut all = self.lock();
        all.deserted = quiet >= self.settings.idle_after;
        self.advance(&all, now);
    }

    /// When the watermark first moved beyond `heard`.
    pub fn moved_beyond(&self, heard: Timestamp) -> Instant {
        let moves = self.moves.lock().expect("nothing panics while it holds them");
        moves.beyond(heard)
    }

    /// Follows the source's watermark.
    pub fn subscribe(&self) -> watch::Receiver<Timestamp> {
        self.watermark.subscribe()
    }

    /// A partition has seen rows, the newest stamped `newest` (none that counts: [`Timestamp::MIN`]).
    pub fn observe(&self, partition: usize, newest: Timestamp, now: Timestamp) -> Timestamp {
        let mut all = self.lock();
        let standing = *self.watermark.borrow();
        let it = &mut all.partitions[partition];
        if it.state == State::Idle {
            it.watermark = it.watermark.max(standing);
        }
        it.state = State::Active;
        if newest > Timestamp::MIN {
            it.watermark = it.watermark.max(newest.minus(self.settings.max_out_of_orderness));
        }
        self.advance(&all, now)
    }

    /// A partition has listened for rows in vain for `quiet`. Only its own task knows: time it spent working,
    /// waiting for room downstream, or stopped, does not count, since rows may be waiting that it has not heard
    /// of. An idle partition that was held up has to listen anew.
    pub fn tick(&self, partition: usize, quiet: Duration, now: Timestamp) {
        let mut all = self.lock();
        let standing = *self.watermark.borrow();
        let it = &mut all.partitions[partition];
        let silent = quiet >= self.settings.idle_after;
        match it.state {
            State::Active if silent => it.state = State::Idle,
            State::Idle if !silent => {
                it.watermark = it.watermark.max(standing);
                it.state = State::Active;
            }
            _ => {}
        }
        self.advance(&all, now);
    }

    /// A partition yields nothing more: it is `exhausted`, or the pipeline stops.
    pub fn finish(&self, partition: usize, exhausted: bool, now: Timestamp) {
        let mut all = self.lock();
        all.partitions[partition].state = if exhausted {
            State::Exhausted
        } else {
            State::Stopped
        };
        self.advance(&all, now);
    }

    fn advance(&self, all: &All, now: Timestamp) -> Timestamp {
        let standing = *self.watermark.borrow();
        let with = |state: State| all.partitions.iter().filter(move |p| p.state == state);
        let to = if with(State::Stopped).next().is_some() {
            // Windows stay open for the next run; what was promised stays promised.
            standing
        } else if let Some(slowest) = with(State::Active).map(|p| p.watermark).min() {
            slowest
        } else if let Some(furthest) = with(State::Idle).map(|p| p.watermark).max() {
            // As if the others had fallen idle before the furthest: which of them was first is chance.
            furthest.max(now.minus(self.settings.max_out_of_orderness))
        } else if !all.more {
            Timestamp::MAX
        } else if all.deserted {
            now.minus(self.settings.max_out_of_orderness)
        } else {
            standing
        };
        if to > standing {
            let mut moves = self.moves.lock().expect("nothing panics while it holds them");
            moves.note(to, Instant::now());
            drop(moves);
            self.watermark.send_replace(to);
        }
        standing.max(to)
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.partitions
            .lock()
            .expect("no task panics while it holds a source's clock")
    }
}

/// The latest moves of the watermark, ascending: whoever hears of them late knows since when.
#[derive(Debug, Default)]
struct Moves(VecDeque<(Timestamp, Instant)>);

/// Moves that are closer than this are one, of the time of the first; and how many are remembered.
const ONE_MOVE: Duration = Duration::from_millis(1);
const MOST_MOVES: usize = 8_192;

impl Moves {
    fn note(&mut self, to: Timestamp, at: Instant) {
        match self.0.back_mut() {
            Some((last, since)) if at.duration_since(*since) < ONE_MOVE => *last = to,
            _ => {
                if self.0.len() == MOST_MOVES {
                    self.0.pop_front();
                }
                self.0.push_back((to, at));
            }
        }
    }

    fn beyond(&self, heard: Timestamp) -> Instant {
        let next = self.0.partition_point(|(to, _)| *to <= heard);
        self.0.get(next).map_or_else(Instant::now, |(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    #[test]
    fn who_hears_late_knows_since_when() {
        let mut moves = Moves::default();
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        for (to, ms) in [(10, 0), (20, 5), (21, 5), (30, 10)] {
            moves.note(at(to), after(ms));
        }
        for (heard, ms) in [(0, 0), (9, 0), (10, 5), (20, 5), (21, 10), (29, 10)] {
            assert_eq!(moves.beyond(at(heard)), after(ms), "heard {heard}");
        }
        assert!(moves.beyond(at(30)) >= start);
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * S)
    }

    /// `p0 row 100 @50` = partition 0 sees a row stamped 100 s when the wall clock is at 50 s; then the
    /// watermark in seconds, `-` for none, `end` for all ended.
    #[test]
    fn watermarks() {
        for (script, expect) in [
            ("p0 row 100 @0", "-"),
            ("p0 row 100 @0; p1 row 90 @0", "85"),
            ("p0 row 100 @0; p1 row 90 @0; p1 row 80 @1", "85"),
            ("p0 row 100 @0; tick @9", "-"),
            ("p0 row 100 @9; tick @10", "95"),
            // Both idle: the wall clock moves it on.
            ("p0 row 100 @0; tick @200", "195"),
            ("tick @10", "5"),
            ("p0 row 300 @0; tick @10", "295"),
            // A partition that wakes up joins at the source's watermark and then holds it.
            ("p0 row 100 @9; tick @10; p1 row 50 @11; p0 row 200 @12", "95"),
            ("p0 row 100 @9; tick @10; p1 row 150 @11; p0 row 200 @12", "145"),
            // Rows that do not count keep a partition awake but promise nothing.
            ("p0 row 100 @9; p1 far @9; tick @15", "-"),
            ("p0 row 100 @0; p1 row 90 @0; p1 ends @1", "95"),
            // A stopped process: nobody listened, so nobody is idle. Ten seconds later, they are.
            ("p0 row 100 @0; p1 row 90 @0; wake @200", "85"),
            ("p0 row 100 @0; p1 row 90 @0; wake @200; tick @209", "85"),
            ("p0 row 100 @0; p1 row 90 @0; wake @200; tick @210", "205"),
            ("p0 row 5 @0; tick @20; wake @200", "15"),
            // Backpressure: p1 cannot listen, and holds the watermark.
            ("p0 row 100 @0; p1 row 90 @0; p0 tick @99", "85"),
            ("p0 ends @0; p1 ends @1", "end"),
            ("p0 row 100 @0; p1 stops @1", "-"),
            ("p0 row 100 @0; p1 row 100 @0; p0 stops @1; tick @99", "95"),
            // A partition that is new holds the watermark, also in the place of one that has ended.
            (
                "p0 row 100 @0; p1 row 90 @0; add @0; p0 row 200 @1; p1 row 200 @1",
                "85",
            ),
            (
                "p0 row 100 @0; p1 row 90 @0; p0 ends @0; add @0; p1 row 200 @1",
                "85",
            ),
            (
                "p0 row 100 @0; p1 row 90 @0; p0 ends @0; add @0; p1 row 200 @1; p0 row 150 @2",
                "145",
            ),
            // All have ended, but more may come: the wall clock moves it on once that has lasted.
            (
                "p0 row 100 @0; p1 row 90 @0; add @0; p1 ends @0; p0 ends @0; p2 ends @0",
                "85",
            ),
            (
                "p0 row 100 @0; p1 row 90 @0; add @0; p1 ends @0; p0 ends @0; p2 ends @0; deserted @200",
                "195",
            ),
            (
                "p0 row 100 @0; add @0; p1 ends @0; p0 ends @0; p2 ends @0; complete @1",
                "end",
            ),
        ] {
            assert_eq!(run(script), expect, "{script}");
        }
    }

    fn run(script: &str) -> String {
        let settings = ClockSettings {
            max_out_of_orderness: Duration::from_secs(5),
            idle_after: Duration::from_secs(10),
        };
        let clock = SourceClock::new(settings, Timestamp::MIN);
        assert_eq!((clock.add(), clock.add()), (0, 1));
        if !script.contains("add") {
            clock.complete(at(0));
        }
        let mut heard = [at(0); 2];
        for step in script.split("; ") {
            let (what, now) = step.split_once('@').expect("a step ends with @seconds");
            let now = at(now.parse().expect("seconds"));
            let words: Vec<&str> = what.split_whitespace().collect();
            if let [p, "row" | "far", ..] = words[..] {
                heard[(p == "p1") as usize] = now;
            }
            match words[..] {
                ["p0", "row", t] => drop(clock.observe(0, at(t.parse().unwrap()), now)),
                ["p1", "row", t] => drop(clock.observe(1, at(t.parse().unwrap()), now)),
                ["p1", "far"] => drop(clock.observe(1, Timestamp::MIN, now)),
                [p, "ends"] => clock.finish(p[1..].parse().unwrap(), true, now),
                [p, "stops"] => clock.finish((p == "p1") as usize, false, now),
                ["p0", "tick"] => tick(&clock, 0, heard[0], now),
                ["add"] => drop(clock.add()),
                ["complete"] => clock.complete(now),
                ["deserted"] => clock.tick_deserted(Duration::from_secs(10), now),
                ["wake"] => {
                    heard = [now; 2];
                    (0..2).for_each(|p| tick(&clock, p, now, now));
                }
                _ => (0..2).for_each(|p| tick(&clock, p, heard[p], now)),
            }
        }
        match *clock.subscribe().borrow() {
            Timestamp::MIN => "-".into(),
            Timestamp::MAX => "end".into(),
            Timestamp(t) => (t / S).to_string(),
        }
    }
    fn tick(clock: &SourceClock, partition: usize, heard: Timestamp, now: Timestamp) {
        clock.tick(partition, Duration::from_micros((now.0 - heard.0) as u64), now);
    }
}
