//! The arithmetic of session windows: per key, the sessions that are open.
//!
//! A row at `t` stands for `[t, t + gap)`. Rows of a key whose intervals overlap are one session, which lasts
//! from its first row to `gap` after its last; a row that comes exactly `gap` after the last one begins the
//! next. A session closes when the watermark reaches its end, and so all open sessions of a key lie behind all
//! closed ones.
//!
//! A row is late when it is earlier than the end of a closed session of its key (there it would have been, or
//! it would have prolonged it), or when what it stands for is over and no open session takes it in. An open
//! session takes in whatever falls between its first and its last row; what would make it begin earlier only if
//! that was not over already when its first row came. So a row that was late once stays late, and rows cannot
//! reach back without end, one by one.
//!
//! One time per key, the end of its last closed session, is all that has to be remembered for that, and only
//! while a row in time could still touch it: while the key has an open session, and until the watermark is
//! `gap` further on.
//!
//! A session is known by the numbers of its *parts*: a row that joins two sessions makes the parts of one
//! parts of the other, so that what was computed for either never has to be renamed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A session that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClosedSession {
    /// Time of the first row.
    pub start: i64,
    /// `gap` after the last row.
    pub end: i64,
    /// Numbers of its parts; the first one names it.
    pub parts: Vec<i64>,
}

impl ClosedSession {
    /// Stands for one part, wherever it belongs to.
    pub fn of_part(part: i64) -> ClosedSession {
        ClosedSession {
            start: 0,
            end: 0,
            parts: vec![part],
        }
    }
}

/// The sessions of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySessions {
    /// Open sessions in order; they do not touch.
    pub open: Vec<OpenSession>,
    /// End of the last closed session that still matters.
    pub closed_until: Option<i64>,
    /// When to look at the key again; an entry of the queue with another time is out of date.
    wake: Option<i64>,
}

/// A session that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenSession {
    /// Time of its first row.
    pub first: i64,
    /// Time of its last row.
    pub last: i64,
    /// Where the watermark stood when its first row came.
    pub began: i64,
    /// The part that new rows belong to.
    pub part: i64,
    /// Parts of sessions it has taken in.
    pub absorbed: Vec<i64>,
}

/// The sessions of all keys; a key is a small number that the caller gives out.
#[derive(Debug)]
pub(crate) struct Sessions {
    gap: i64,
    /// Number of the next part.
    pub next_part: i64,
    keys: Vec<KeySessions>,
    queue: BinaryHeap<Reverse<(i64, u32)>>,
}

impl Sessions {
    /// No sessions yet; `gap` is in microseconds and positive.
    pub fn new(gap: i64) -> Sessions {
        Sessions {
            gap,
            next_part: 0,
            keys: Vec::new(),
            queue: BinaryHeap::new(),
        }
    }

    /// Whether a row of a key without sessions is late.
    pub fn is_over(&self, at: i64, watermark: i64) -> bool {
        at.saturating_add(self.gap) <= watermark
    }

    /// Takes a row of `key`; gives the number of its part, or none when it is late.
    pub fn take(&mut self, key: u32, at: i64, watermark: i64) -> Option<i64> {
        let (gap, over) = (self.gap, self.is_over(at, watermark));
        let of = self.key(key);
        if of.closed_until.is_some_and(|until| at < until) {
            return None;
        }
        let from = of.open.partition_point(|s| at.saturating_sub(s.last) >= gap);
        let touched = of.open[from..].partition_point(|s| s.first.saturating_sub(at) < gap);
        if touched > 0 {
            let session = &of.open[from];
            let too_early = at < session.first && at.saturating_add(gap) <= session.began;
            return (!too_early).then(|| of.join(from, touched, at, watermark));
        }
        if over {
            return None;
        }
        let part = self.next_part;
        self.next_part += 1;
        let session = OpenSession {
            first: at,
            last: at,
            began: watermark,
            part,
            absorbed: Vec::new(),
        };
        self.key(key).open.insert(from, session);
        self.wake_at(key, at.saturating_add(gap));
        Some(part)
    }

    /// Closes what ends at or before `watermark`, in order of end and start; gives also the keys of which
    /// nothing is left to remember.
    pub fn close(&mut self, watermark: i64) -> (Vec<ClosedSession>, Vec<u32>) {
        let (mut closed, mut forgotten) = (Vec::new(), Vec::new());
        while let Some(Reverse((time, key))) = self.queue.peek().copied()
            && time <= watermark
        {
            self.queue.pop();
            let gap = self.gap;
            let of = self.key(key);
            if of.wake != Some(time) {
                continue;
            }
            of.wake = None;
            of.close(gap, watermark, &mut closed);
            match of.next_wake(gap) {
                Some(next) if next > watermark => self.wake_at(key, next),
                _ => {
                    *of = KeySessions::default();
                    forgotten.push(key);
                }
            }
        }
        closed.sort_by_key(|s| (s.end, s.start, s.parts.first().copied()));
        (closed, forgotten)
    }

    /// The sessions of all keys, by number.
    pub fn keys(&self) -> impl Iterator<Item = (u32, &KeySessions)> {
        (0..).zip(&self.keys)
    }

    /// Takes back a session of `key`.
    pub fn restore_open(&mut self, key: u32, session: OpenSession) {
        let end = session.last.saturating_add(self.gap);
        let open = &mut self.key(key).open;
        let at = open.partition_point(|s| s.first < session.first);
        open.insert(at, session);
        self.wake_at(key, end);
    }

    /// Takes back the end of the last closed session of `key`.
    pub fn restore_closed(&mut self, key: u32, until: i64) {
        let gap = self.gap;
        let of = self.key(key);
        of.closed_until = of.closed_until.max(Some(until));
        self.wake_at(key, until.saturating_add(gap));
    }

    fn key(&mut self, key: u32) -> &mut KeySessions {
        let index = key as usize;
        if index >= self.keys.len() {
            self.keys.resize_with(index + 1, KeySessions::default);
        }
        &mut self.keys[index]
    }

    fn wake_at(&mut self, key: u32, time: i64) {
        let wake = &mut self.key(key).wake;
        if wake.is_none_or(|earlier| time < earlier) {
            *wake = Some(time);
            self.queue.push(Reverse((time, key)));
        }
    }
}

impl KeySessions {
    /// Lets the `touched` sessions from `from` on, one or two, and a row at `at` be one session.
    fn join(&mut self, from: usize, touched: usize, at: i64, watermark: i64) -> i64 {
        let joined: Vec<OpenSession> = self.open.drain(from + 1..from + touched).collect();
        let session = &mut self.open[from];
        if at < session.first {
            session.first = at;
            session.began = watermark;
        }
        session.last = session.last.max(at);
        for other in joined {
            session.last = session.last.max(other.last);
            session.absorbed.push(other.part);
            session.absorbed.extend(other.absorbed);
        }
        session.part
    }

    fn close(&mut self, gap: i64, watermark: i64, closed: &mut Vec<ClosedSession>) {
        let over = self
            .open
            .partition_point(|s| s.last.saturating_add(gap) <= watermark);
        for session in self.open.drain(..over) {
            let end = session.last.saturating_add(gap);
            self.closed_until = Some(end);
            let mut parts = vec![session.part];
            parts.extend(session.absorbed);
            let start = session.first;
            closed.push(ClosedSession { start, end, parts });
        }
    }

    fn next_wake(&self, gap: i64) -> Option<i64> {
        let end = self.open.first().map(|s| s.last.saturating_add(gap));
        end.or(self.closed_until.map(|until| until.saturating_add(gap)))
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::super::session_model::SessionModel;
    use super::*;

    const GAP: i64 = 10;

    fn bounds(closed: &[ClosedSession]) -> Vec<(i64, i64)> {
        closed.iter().map(|s| (s.start, s.end)).collect()
    }

    #[test]
    fn rows_join_and_part_at_the_gap() {
        let mut sessions = Sessions::new(GAP);
        let first = sessions.take(0, 100, i64::MIN).expect("in time");
        assert_eq!(sessions.take(0, 109, i64::MIN), Some(first));
        let second = sessions.take(0, 119, i64::MIN).expect("in time");
        assert_ne!(first, second, "exactly a gap later is another session");
        assert_ne!(Some(first), sessions.take(1, 109, i64::MIN), "another key");
        assert_eq!(sessions.take(0, 118, 118), Some(first), "joins the two");
        let (closed, _) = sessions.close(128);
        assert_eq!(bounds(&closed), [(109, 119)], "that of the other key");
        let (closed, _) = sessions.close(129);
        assert_eq!(bounds(&closed), [(100, 129)]);
        assert_eq!(closed[0].parts, [first, second]);
    }

    #[test]
    fn remembers_what_is_closed_for_as_long_as_a_row_could_touch_it() {
        let mut sessions = Sessions::new(GAP);
        sessions.take(0, 100, i64::MIN);
        assert_eq!(bounds(&sessions.close(110).0), [(100, 110)]);
        assert_eq!(sessions.take(0, 109, 110), None, "would have prolonged it");
        assert!(sessions.take(0, 110, 110).is_some());
        // The key has an open session now, which takes in rows of any age that reach it.
        assert_eq!(sessions.close(119).1, [] as [u32; 0]);
        assert!(sessions.take(0, 118, 119).is_some());
        assert_eq!(sessions.take(0, 108, 119), None);
        let (closed, forgotten) = sessions.close(200);
        assert_eq!((bounds(&closed), forgotten), (vec![(110, 128)], vec![0]));
        assert_eq!(sessions.take(0, 190, 200), None, "over, and nothing takes it in");
        assert!(sessions.take(0, 191, 200).is_some());
    }

    #[test]
    fn agrees_with_the_definition() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut fast, mut slow) = (Sessions::new(GAP), SessionModel::new(GAP));
            let mut watermark = 0;
            let in_order = |all: Vec<(i64, i64, Vec<u32>)>| -> Vec<(i64, i64)> {
                all.into_iter().map(|(start, end, _)| (start, end)).collect()
            };
            for step in 0..300 {
                let at = watermark + random.random_range(-40..30);
                let key = random.random_range(0..3);
                let taken = fast.take(key, at, watermark).is_some();
                assert_eq!(
                    taken,
                    slow.take(&key, at, step, watermark),
                    "seed {seed} step {step} key {key} at {at} watermark {watermark}"
                );
                if random.random_range(0..4) == 0 {
                    watermark += random.random_range(0..25);
                    let (closed, _) = fast.close(watermark);
                    let expected = in_order(slow.close(watermark));
                    assert_eq!(bounds(&closed), expected, "seed {seed} step {step}");
                }
            }
            let (closed, _) = fast.close(i64::MAX);
            assert_eq!(
                bounds(&closed),
                in_order(slow.close(i64::MAX)),
                "seed {seed} at the end"
            );
            assert!(fast.keys().all(|(_, of)| *of == KeySessions::default()));
        }
    }
}
