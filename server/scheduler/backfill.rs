//! Dates that are to be made again, or outside of the schedule: what a request for them changes. Pure.

use std::time::Duration;

use chrono::NaiveDate;
use millstream_engine::schedule::date_of;
use millstream_engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalog::model::{Extent, Job, Run};
use crate::catalog::state::{JobState, RunState};
use crate::catalog::{CatalogError, Entry, Result, text};

/// Dates in one request: ten years. More is a mistyped year.
const MOST_DATES: u64 = 3660;
/// How old a date must be where a job does not say.
const AVAILABLE_AFTER: Duration = Duration::from_secs(48 * 3600);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backfill {
    /// The first date.
    #[serde(with = "text::date")]
    pub from: NaiveDate,
    /// The last date, inclusive.
    #[serde(with = "text::date")]
    pub to: NaiveDate,
    /// Change nothing, only say which dates it would be.
    #[serde(default)]
    pub dry_run: bool,
    /// Stop before the load.
    #[serde(default)]
    pub transform_only: bool,
    /// Load again what was transformed last.
    #[serde(default)]
    pub load_only: bool,
    /// Only dates that failed or were cancelled; each goes on with the phase that failed.
    #[serde(default)]
    pub retry_errors: bool,
    /// Dates that transform side by side; none: as many as the schedule says.
    #[serde(default)]
    pub parallelism: Option<u32>,
    /// Whatever the dates' age, and without their markers.
    #[serde(default)]
    pub force: bool,
}

impl Backfill {
    /// Marks the dates to be made and gives them.
    ///
    /// # Errors
    /// What is asked for cannot be done, or not now; nothing is changed then.
    pub fn mark(&self, entry: &mut Entry) -> Result<Vec<NaiveDate>> {
        self.check(entry)?;
        let dates = self.dates(entry)?;
        if self.dry_run || dates.is_empty() {
            return Ok(dates);
        }
        for date in &dates {
            let run = entry.runs.entry(*date).or_insert_with(|| Run::new(*date));
            self.reset(run, &entry.job);
        }
        entry.job.backfill_parallelism = self.parallelism;
        if matches!(entry.job.status, JobState::Error | JobState::Complete) {
            entry.job.error = None;
            entry.enter(JobState::Null);
        }
        Ok(dates)
    }

    fn check(&self, entry: &Entry) -> Result<()> {
        let invalid = |what: String| Err(CatalogError::Invalid(what));
        if self.from > self.to {
            return invalid(format!("from ({}) lies after to ({})", self.from, self.to));
        }
        if (self.to - self.from).num_days() as u64 >= MOST_DATES {
            return invalid(format!("more than {MOST_DATES} dates at once; ask for fewer"));
        }
        if self.transform_only && self.load_only {
            return invalid("transform_only and load_only exclude one another".into());
        }
        if self.parallelism == Some(0) {
            return invalid("parallelism must be at least 1".into());
        }
        let newest = newest_eligible(entry.now, available_after(&entry.job));
        if !self.force && !self.retry_errors && self.to > newest {
            return invalid(format!(
                "{} is not old enough yet, the newest date that is is {newest}; force runs it all the same",
                self.to
            ));
        }
        let job = &entry.job;
        if job.status == JobState::Cancelled || job.cancel_requested {
            let uuid = &job.uuid;
            return Err(CatalogError::Conflict(format!(
                "the job {uuid} is cancelled; resume it first"
            )));
        }
        Ok(())
    }

    fn dates(&self, entry: &Entry) -> Result<Vec<NaiveDate>> {
        let all = self.from.iter_days().take_while(|date| *date <= self.to);
        let mut dates = Vec::new();
        for date in all {
            let run = entry.runs.get(&date);
            if self.retry_errors && !run.is_some_and(failed) {
                continue;
            }
            if run.is_some_and(|run| run.status.in_flight()) {
                return Err(CatalogError::Conflict(format!(
                    "{date} runs now; ask again when it is done"
                )));
            }
            if self.load_only && !run.is_some_and(transformed) {
                return Err(CatalogError::Conflict(format!(
                    "{date} has not been transformed, so there is nothing to load"
                )));
            }
            dates.push(date);
        }
        Ok(dates)
    }

    fn reset(&self, run: &mut Run, job: &Job) {
        let outside = run.date < job.start_date || job.end_date.is_some_and(|end| run.date > end);
        let loaded = run.status == RunState::LoadSuccess;
        run.backfill |= loaded || outside;
        run.forced |= self.force;
        run.extent = if self.transform_only {
            Extent::Transform
        } else {
            Extent::Full
        };
        run.given_up = false;
        run.failures = 0;
        run.failing_since = None;
        run.next_try_at = None;
        if self.load_only {
            run.status = RunState::EtSuccess;
            run.error = None;
        } else if !self.retry_errors || !tried_again(run.status) {
            run.status = RunState::Null;
            run.error = None;
        }
    }
}

/// How old a date must be to be looked for.
pub fn available_after(job: &Job) -> Duration {
    let said = job.additional_arguments.get("available_after");
    let said = said.and_then(|value| humantime::parse_duration(value.as_str()?).ok());
    said.unwrap_or(AVAILABLE_AFTER)
}

/// The newest date whose 00:00 UTC is `available_after` old.
pub fn newest_eligible(now: Timestamp, available_after: Duration) -> NaiveDate {
    date_of(now.minus(available_after))
}

fn failed(run: &Run) -> bool {
    use RunState::*;
    matches!(
        run.status,
        EtError | EtCancelled | EtUnknown | LoadError | LoadCancelled | LoadUnknown
    )
}

/// A phase that failed is tried again; what was cancelled begins anew.
fn tried_again(status: RunState) -> bool {
    use RunState::*;
    matches!(status, EtError | EtUnknown | LoadError | LoadUnknown)
}

fn transformed(run: &Run) -> bool {
    use RunState::*;
    matches!(
        run.status,
        EtSuccess | LoadSuccess | LoadError | LoadUnknown | LoadCancelled
    )
}
