//! What a schedule says at a moment, as plain values, and what follows a failure.

use std::time::Duration;

use chrono::NaiveDate;
use millstream_engine::time::Timestamp;

use crate::catalog::model::Run;

/// A job's schedule at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The first date.
    pub start: NaiveDate,
    /// The last date; none: for ever.
    pub end: Option<NaiveDate>,
    /// The newest date that is old enough.
    pub newest: NaiveDate,
    /// When the next date will be.
    pub next_look: Timestamp,
    /// Dates wait for a marker.
    pub marker: bool,
    /// False: of the dates that have not begun only the newest is made.
    pub catch_up: bool,
    /// Dates that transform side by side.
    pub parallelism: usize,
    pub retry: Retry,
    /// How long a phase may take.
    pub timeout: Option<Duration>,
}

/// When a failure is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The wait after the first failure; doubles with each.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// A date that has failed for this long is given up.
    pub give_up_after: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            first: Duration::from_secs(300),
            longest: Duration::from_secs(3600),
            give_up_after: Duration::from_secs(86_400),
        }
    }
}

impl Retry {
    /// The wait after the n-th failure in a row, counted from 1.
    pub fn wait(&self, failures: u32) -> Duration {
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
        self.first.saturating_mul(doubled).min(self.longest)
    }

    /// Notes a failure of a run: when it is tried again, or that it is given up, at once where trying does not help.
    pub fn failed(&self, run: &mut Run, error: String, hopeless: bool, now: Timestamp) {
        run.failures += 1;
        run.error = Some(error);
        let since = *run.failing_since.get_or_insert(now);
        let next = now.plus(self.wait(run.failures));
        run.given_up = hopeless || next > since.plus(self.give_up_after);
        run.next_try_at = (!run.given_up).then_some(next);
    }

    /// Notes that a run's process is gone: tried again at once, but not for ever, as it may be the run that ends its
    /// process.
    pub fn lost(&self, run: &mut Run, now: Timestamp) {
        const AT_ONCE: u32 = 2;
        let error = "the process that had it in hand is gone".to_owned();
        self.failed(run, error, false, now);
        if run.failures <= AT_ONCE {
            run.next_try_at = Some(now);
        }
    }
}

/// Notes that a phase of a run went well.
pub fn recovered(run: &mut Run) {
    run.failures = 0;
    run.failing_since = None;
    run.next_try_at = None;
    run.given_up = false;
    run.error = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour_and_end_after_a_day() {
        let retry = Retry::default();
        let mut run = Run::new(NaiveDate::default());
        let begun = Timestamp(0);
        let mut now = begun;
        let mut minutes = Vec::new();
        loop {
            retry.failed(&mut run, "away".into(), false, now);
            let Some(next) = run.next_try_at else { break };
            minutes.push((next.0 - now.0) / 60_000_000);
            now = next;
        }
        assert_eq!(minutes[..6], [5, 10, 20, 40, 60, 60]);
        assert!(run.given_up);
        // Nothing is tried later than a day after the first failure.
        let hours = (now.0 - begun.0) as f64 / 3.6e9;
        assert!((23.0..=24.0).contains(&hours), "{hours}");
        recovered(&mut run);
        assert_eq!(run, Run::new(NaiveDate::default()));
    }

    #[test]
    fn what_cannot_help_is_not_tried_again() {
        let mut run = Run::new(NaiveDate::default());
        Retry::default().failed(&mut run, "no such column".into(), true, Timestamp(0));
        assert!(run.given_up && run.next_try_at.is_none());
    }

    #[test]
    fn a_lost_run_is_made_again_at_once_but_not_for_ever() {
        let mut run = Run::new(NaiveDate::default());
        let tries: Vec<i64> = (0..4)
            .map(|_| {
                Retry::default().lost(&mut run, Timestamp(0));
                run.next_try_at.map_or(-1, |at| at.0 / 1_000_000)
            })
            .collect();
        assert_eq!(tries, [0, 0, 1200, 2400]);
    }
}
