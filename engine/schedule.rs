//! When the dates of a bounded pipeline are due: the checked `[schedule]` of its file. Pure.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use croner::Cron;

use crate::time::Timestamp;

/// When dates run, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// When due dates are looked for; none: every day, at 00:00 UTC and whenever one becomes old enough.
    pub cron: Option<String>,
    /// The first date; none: the newest date that is old enough when the pipeline is first seen.
    pub start: Option<NaiveDate>,
    /// The last date, inclusive; none: for ever.
    pub end: Option<NaiveDate>,
    /// A date is old enough this long after its 00:00 UTC.
    pub available_after: Duration,
    /// What has to exist before a date runs, of the date that the file was read for.
    pub marker: Option<String>,
    /// False: of the dates that have not begun only the newest runs.
    pub catch_up: bool,
    /// Dates that transform side by side.
    pub parallelism: u32,
    /// How failures are tried again.
    pub retry: Retry,
    /// How long a phase of a run may take.
    pub timeout: Duration,
}

/// How failures of a date are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The wait after the first failure; doubles with each.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// A date that has failed for this long is given up.
    pub give_up_after: Duration,
}

impl Schedule {
    /// The newest date that was old enough when due dates were looked for last.
    pub fn newest(&self, now: Timestamp) -> NaiveDate {
        let looked = self.cron().and_then(|cron| {
            let previous = cron.find_previous_occurrence(&time(now), true).ok()?;
            Some(Timestamp(previous.timestamp_micros()))
        });
        date_of(looked.unwrap_or(now).minus(self.available_after))
    }

    /// When due dates are looked for next.
    pub fn next_look(&self, now: Timestamp) -> Timestamp {
        let next = match self.cron() {
            Some(cron) => cron.find_next_occurrence(&time(now), false).ok(),
            None => {
                let newer = self.newest(now).succ_opt();
                newer.map(|date| date.and_time(NaiveTime::MIN).and_utc())
            }
        };
        let at = next.map_or(Timestamp::MAX, |at| Timestamp(at.timestamp_micros()));
        match self.cron {
            Some(_) => at,
            None => at.plus(self.available_after),
        }
    }

    fn cron(&self) -> Option<Cron> {
        self.cron.as_deref().and_then(|cron| cron.parse().ok())
    }
}

fn time(at: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at.0).unwrap_or(DateTime::UNIX_EPOCH)
}

/// The date of a time, in UTC.
pub fn date_of(at: Timestamp) -> NaiveDate {
    let at = DateTime::<Utc>::from_timestamp_micros(at.0);
    at.map_or(NaiveDate::MIN, |at| at.date_naive())
}

/// What `${date}` and its kin stand for in the file of a run: `date`, `date:%Y/%m/%d`, `date+1d:%d`, `date-7d`. None:
/// `name` is no such variable.
pub fn variable(name: &str, date: NaiveDate) -> Option<Result<String, String>> {
    let rest = name.strip_prefix("date")?;
    if !rest.is_empty() && !rest.starts_with([':', '+', '-']) {
        return None;
    }
    let (shift, format) = match rest.split_once(':') {
        Some((shift, format)) => (shift, format),
        None => (rest, "%Y-%m-%d"),
    };
    Some(shifted(shift, date).and_then(|date| formatted(date, format)))
}

fn shifted(shift: &str, date: NaiveDate) -> Result<NaiveDate, String> {
    if shift.is_empty() {
        return Ok(date);
    }
    let days = shift.strip_suffix('d').and_then(|days| days.parse::<i64>().ok());
    let to = days
        .and_then(TimeDelta::try_days)
        .and_then(|days| date.checked_add_signed(days));
    to.ok_or_else(|| {
        format!("{shift:?} is not a number of days; write for example `${{date+1d}}` or `${{date-7d}}`")
    })
}

fn formatted(date: NaiveDate, format: &str) -> Result<String, String> {
    use std::fmt::Write;
    let mut text = String::new();
    match write!(text, "{}", date.format(format)) {
        Ok(()) => Ok(text),
        Err(_) => Err(format!(
            "{format:?} is not a format of dates; write for example `${{date:%Y/%m/%d}}`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daily() -> Schedule {
        Schedule {
            cron: None,
            start: "2026-11-01".parse().ok(),
            end: "2026-11-24".parse().ok(),
            available_after: Duration::from_secs(49 * 3600),
            marker: None,
            catch_up: true,
            parallelism: 1,
            retry: Retry {
                first: Duration::ZERO,
                longest: Duration::ZERO,
                give_up_after: Duration::ZERO,
            },
            timeout: Duration::ZERO,
        }
    }

    #[test]
    fn variables() {
        let date = "2026-11-30".parse().unwrap();
        for (name, expect) in [
            ("date", Some(Ok("2026-11-30"))),
            ("date:%Y/%m/%d", Some(Ok("2026/11/30"))),
            ("date+1d", Some(Ok("2026-12-01"))),
            (
                "date+1d:year=%Y/month=%m/day=%d",
                Some(Ok("year=2026/month=12/day=01")),
            ),
            ("date-30d:%j", Some(Ok("304"))),
            ("date+1w", Some(Err("+1w"))),
            ("date:%Q!", Some(Err("%Q!"))),
            ("dates", None),
            ("LAKE", None),
        ] {
            match (variable(name, date), expect) {
                (Some(Ok(got)), Some(Ok(expect))) => assert_eq!(got, expect),
                (Some(Err(got)), Some(Err(expect))) => assert!(got.contains(expect), "{got}"),
                (None, None) => {}
                (got, expect) => panic!("{name}: {got:?}, not {expect:?}"),
            }
        }
    }

    #[test]
    fn a_cron_expression_says_when_dates_are_looked_for() {
        let mut schedule = daily();
        schedule.available_after = Duration::from_secs(24 * 3600);
        // 2026-11-25T01:00:00Z: the newest date is yesterday, or, until three, the one before.
        let now = Timestamp(1_795_568_400_000_000);
        let hours = |n: i64| n * 3_600_000_000;
        assert_eq!(schedule.newest(now).to_string(), "2026-11-24");
        assert_eq!(schedule.next_look(now), Timestamp(now.0 + hours(23)));
        schedule.cron = Some("0 3 * * *".into());
        assert_eq!(schedule.newest(now).to_string(), "2026-11-23");
        assert_eq!(schedule.next_look(now), Timestamp(now.0 + hours(2)));
        assert_eq!(
            schedule.newest(Timestamp(now.0 + hours(2))).to_string(),
            "2026-11-24"
        );
    }

    #[test]
    fn a_date_is_the_newest_from_the_moment_it_is_old_enough() {
        let schedule = daily();
        // 2026-11-25T01:00:00Z: 49 hours after the beginning of the 23rd.
        let now = Timestamp(1_795_568_400_000_000);
        for (now, newest, next) in [
            (now, "2026-11-23", now.0 + 24 * 3_600_000_000),
            (Timestamp(now.0 - 1), "2026-11-22", now.0),
        ] {
            assert_eq!(schedule.newest(now).to_string(), newest);
            assert_eq!(schedule.next_look(now), Timestamp(next), "{newest}");
        }
    }
}
