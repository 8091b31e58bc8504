//! The arithmetic of windows that repeat: tumbling, hopping and cumulative.
//!
//! Time is cut into panes, the longest slices that no window boundary crosses. A row belongs to one pane, a
//! pane to one or more windows, so overlapping windows share what is computed per pane. Window ends repeat
//! every `every` microseconds, and for these three kinds a window is known by its end alone; that is what
//! lets one type serve all three.
//!
//! All numbers are microseconds since the Unix epoch, negative before it. Arithmetic saturates at the ends
//! of `i64`, some 292,000 years away.

use std::time::Duration;

use millstream_engine::time::{Timestamp, micros};
use millstream_engine::window::Window;
use millstream_engine::{Error, Result};

/// Most panes in one window. A hop of 7.001s over an hour is cut into millisecond panes, 3.6 million of
/// them, each with accumulators of its own; nobody means that.
const PANES_PER_WINDOW: i64 = 10_000;

/// A window's extent: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    /// First instant inside.
    pub start: Timestamp,
    /// First instant after.
    pub end: Timestamp,
}

/// How one `[window.x]` cuts time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panes {
    /// Length of a pane.
    pane: i64,
    /// From one window end to the next.
    every: i64,
    /// Length of a window; of the largest one when they grow.
    size: i64,
    /// Windows grow from a common start instead of sliding.
    grows: bool,
    /// Shift of window starts from the epoch.
    offset: i64,
    /// Shift of window ends from the epoch; another when a window is no whole number of slides.
    end_offset: i64,
}

impl Panes {
    /// The arithmetic of a window definition.
    pub fn new(window: &Window) -> Result<Panes> {
        let (size, every, offset, grows) = match window {
            Window::Tumbling { size, offset } => (size, size, offset, false),
            Window::Hopping { size, slide, offset } => (size, slide, offset, false),
            Window::Cumulative { size, step, offset } => (size, step, offset, true),
            Window::Session { .. } => {
                return Err(Error::bug("sessions do not repeat, so they have no panes"));
            }
        };
        Panes::checked(size, every, offset, grows)
    }

    fn checked(size: &Duration, every: &Duration, offset: &Duration, grows: bool) -> Result<Panes> {
        let (size, every, offset) = (micros(*size), micros(*every), micros(*offset));
        if size <= 0 || every <= 0 || every > size {
            return Err(Error::config(
                "a window needs a positive size, and a slide or step between 1us and its size",
            ));
        }
        let pane = greatest_common_divisor(size, every);
        if size / pane > PANES_PER_WINDOW {
            return Err(Error::config(format!(
                "a window of this size and slide is cut into {} slices, more than {PANES_PER_WINDOW}; choose a \
                 slide that divides the size",
                size / pane
            )));
        }
        Ok(Panes {
            pane,
            every,
            size,
            grows,
            offset,
            end_offset: offset.saturating_add(size % every),
        })
    }

    /// Length of a window; of the largest one when they grow.
    pub fn size(&self) -> Duration {
        Duration::from_micros(self.size.unsigned_abs())
    }

    /// Start of the pane a row at `at` falls into.
    pub fn pane_of(&self, at: i64) -> i64 {
        floor(at, self.pane, self.offset)
    }

    /// End of the pane that starts at `pane`.
    pub fn pane_end(&self, pane: i64) -> i64 {
        pane.saturating_add(self.pane)
    }

    /// Whether each window is one pane, so that a window's start and end are known where its rows arrive.
    pub fn pane_is_window(&self) -> bool {
        self.pane == self.size
    }

    /// The first window end after `at`.
    pub fn next_end(&self, at: i64) -> i64 {
        floor(at, self.every, self.end_offset).saturating_add(self.every)
    }

    /// The window that ends at `end`, which must be a window's end.
    pub fn ending(&self, end: i64) -> Interval {
        let start = if self.grows {
            floor(end.saturating_sub(1), self.size, self.offset)
        } else {
            end.saturating_sub(self.size)
        };
        Interval {
            start: Timestamp(start),
            end: Timestamp(end),
        }
    }

    /// End of the last window that holds the pane: when it has closed, the pane's rows are of no more use.
    pub fn last_end(&self, pane: i64) -> i64 {
        if self.grows {
            floor(pane, self.size, self.offset).saturating_add(self.size)
        } else {
            floor(pane.saturating_add(self.size), self.every, self.end_offset)
        }
    }

    /// Ends of all windows that hold the pane, ascending.
    pub fn ends_of(&self, pane: i64) -> impl Iterator<Item = i64> + use<> {
        let first = self.next_end(pane);
        let last = self.last_end(pane);
        let every = self.every;
        std::iter::successors(Some(first), move |end| end.checked_add(every))
            .take_while(move |end| *end <= last)
    }

    /// The earliest event time that is still in time when the watermark stands at `watermark`: every window
    /// of an earlier row has closed.
    pub fn open_from(&self, watermark: Timestamp) -> i64 {
        match watermark {
            Timestamp::MIN => i64::MIN,
            Timestamp::MAX => i64::MAX,
            Timestamp(at) if self.grows => floor(at, self.size, self.offset),
            Timestamp(at) => self.next_end(at).saturating_sub(self.size),
        }
    }

    /// As [`Panes::open_from`], when windows take rows until `lateness` after their end.
    pub fn takes_from(&self, watermark: Timestamp, lateness: Duration) -> i64 {
        match watermark {
            Timestamp::MAX => i64::MAX,
            at => self.open_from(at.minus(lateness)),
        }
    }
}

/// The largest `offset + k * step` that is not after `at`.
fn floor(at: i64, step: i64, offset: i64) -> i64 {
    at.saturating_sub(at.saturating_sub(offset).rem_euclid(step))
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(of: u64) -> Duration {
        Duration::from_micros(of)
    }

    fn tumbling(size: u64, offset: u64) -> Panes {
        let (size, offset) = (us(size), us(offset));
        Panes::new(&Window::Tumbling { size, offset }).expect("valid")
    }

    fn hopping(size: u64, slide: u64, offset: u64) -> Panes {
        let (size, slide, offset) = (us(size), us(slide), us(offset));
        Panes::new(&Window::Hopping { size, slide, offset }).expect("valid")
    }

    fn cumulative(size: u64, step: u64, offset: u64) -> Panes {
        let (size, step, offset) = (us(size), us(step), us(offset));
        Panes::new(&Window::Cumulative { size, step, offset }).expect("valid")
    }

    /// The definition, slowly: every window of the shape near a time, as (start, end).
    fn windows(of: Panes) -> Vec<(i64, i64)> {
        let mut all = Vec::new();
        for k in -100..100 {
            if of.grows {
                let start = of.offset + k * of.size;
                all.extend((1..=of.size / of.every).map(|n| (start, start + n * of.every)));
            } else {
                let start = of.offset + k * of.every;
                all.push((start, start + of.size));
            }
        }
        all
    }

    #[test]
    fn agrees_with_the_definition() {
        let shapes = [
            tumbling(10, 0),
            tumbling(10, 3),
            hopping(12, 4, 0),
            hopping(10, 4, 1),
            hopping(10, 10, 7),
            cumulative(12, 3, 0),
            cumulative(12, 12, 5),
            cumulative(12, 4, 5),
        ];
        for panes in shapes {
            let windows = windows(panes);
            for at in -50..50 {
                let of: Vec<_> = windows
                    .iter()
                    .filter(|w| w.0 <= at && at < w.1)
                    .copied()
                    .collect();
                let pane = panes.pane_of(at);
                assert!(pane <= at && at < panes.pane_end(pane), "{panes:?} {at}");
                let mut expected: Vec<_> = of.iter().map(|w| w.1).collect();
                expected.sort_unstable();
                assert_eq!(
                    panes.ends_of(pane).collect::<Vec<_>>(),
                    expected,
                    "{panes:?} {at}"
                );
                assert_eq!(Some(&panes.last_end(pane)), expected.last(), "{panes:?} {at}");
                for (start, end) in of {
                    let found = panes.ending(end);
                    assert_eq!((found.start.0, found.end.0), (start, end), "{panes:?}");
                    assert!(start <= pane && panes.pane_end(pane) <= end, "{panes:?}");
                }
                for watermark in -50..50 {
                    let closed = windows
                        .iter()
                        .all(|w| !(w.0 <= at && at < w.1) || w.1 <= watermark);
                    let late = at < panes.open_from(Timestamp(watermark));
                    assert_eq!(late, closed, "{panes:?} row {at} watermark {watermark}");
                }
                let next = windows.iter().map(|w| w.1).filter(|end| *end > at).min();
                assert_eq!(Some(panes.next_end(at)), next, "{panes:?} {at}");
            }
        }
    }

    #[test]
    fn ends_of_time() {
        let panes = tumbling(60_000_000, 0);
        assert_eq!(panes.open_from(Timestamp::MIN), i64::MIN);
        assert_eq!(panes.open_from(Timestamp::MAX), i64::MAX);
        assert!(panes.pane_of(i64::MIN) <= panes.pane_of(i64::MIN + 1));
        assert!(panes.last_end(panes.pane_of(i64::MAX)) > 0);
    }

    #[test]
    fn refuses_what_cannot_work() {
        let refused = |window: Window| Panes::new(&window).expect_err("refused").to_string();
        let session = Window::Session {
            gap: us(1),
            key: vec![],
        };
        assert!(refused(session).contains("session"));
        let fine = Window::Hopping {
            size: Duration::from_secs(3600),
            slide: Duration::from_millis(7001),
            offset: Duration::ZERO,
        };
        assert!(refused(fine).contains("slices"));
        let gaps = Window::Hopping {
            size: us(5),
            slide: us(6),
            offset: us(0),
        };
        assert!(refused(gaps).contains("between"));
    }
}
