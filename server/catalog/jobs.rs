//! Jobs with their runs: made, listed, and changed as one.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use millstream_engine::time::Timestamp;
use rusqlite::Transaction;

use crate::catalog::model::{Dates, Event, Job, NewJob, Run};
use crate::catalog::state::{JobState, Request, RunState, request};
use crate::catalog::{Catalog, CatalogError, Changed, Result, outbox, overlap, rows, workers};

/// A job and its runs inside one transaction. What is changed here is written, and told, when it ends well.
pub struct Entry {
    pub job: Job,
    pub runs: BTreeMap<NaiveDate, Run>,
    /// The processes that are alive.
    pub alive: BTreeSet<String>,
    pub now: Timestamp,
    /// What people are to be told, with the job as it was then.
    notices: Vec<(Event, Job)>,
    removed: bool,
}

impl Entry {
    /// Outside of a transaction, for those who only look at what would be.
    pub fn new(job: Job, runs: Vec<Run>, alive: BTreeSet<String>, now: Timestamp) -> Entry {
        Entry {
            job,
            runs: runs.into_iter().map(|run| (run.date, run)).collect(),
            alive,
            now,
            notices: Vec::new(),
            removed: false,
        }
    }

    /// Takes the job to a state, over those between, and tells of it where people care.
    pub fn enter(&mut self, to: JobState) {
        for state in self.job.status.way_to(to) {
            self.job.status = state;
            self.job.status_since = self.now;
        }
    }

    /// As [`Entry::enter`], and people are told, with the dates as they are now.
    pub fn enter_and_tell(&mut self, to: JobState) {
        if self.job.status == to {
            return;
        }
        self.enter(to);
        if let Some(event) = Event::of(to) {
            self.tell(event);
        }
    }

    /// People are told.
    pub fn tell(&mut self, event: Event) {
        self.job.dates = Dates::of(self.runs.values());
        self.notices.push((event, self.job.clone()));
    }

    /// Takes a run to a state that may follow its own, and gives it. A date without a run gets one.
    pub fn advance(&mut self, date: NaiveDate, to: RunState) -> &mut Run {
        let run = self.runs.entry(date).or_insert_with(|| Run::new(date));
        if run.status != to {
            let from = run.status;
            assert!(
                from.next().contains(&to),
                "a run only takes steps that states.case lists, not {} to {}",
                from.name(),
                to.name()
            );
            run.status = to;
        }
        run
    }

    /// Does what a request does at once.
    pub fn request(&mut self, what: Request) -> Result<()> {
        let job = &mut self.job;
        let (state, asked) = request(job.status, job.requested(), what)
            .map_err(|why| CatalogError::Conflict(format!("the job {}: {why}", job.uuid)))?;
        job.pause_requested = asked.pause;
        job.cancel_requested = asked.cancel;
        job.delete_requested = asked.delete;
        let resumed = job.status != state || what == Request::Pause(false);
        if job.status == JobState::Cancelled && state == JobState::Null {
            self.revive();
        }
        let was_paused = self.job.status == JobState::Paused;
        self.enter(state);
        if resumed && was_paused {
            self.tell(Event::Resumed);
        }
        Ok(())
    }

    /// What was cancelled is to be done again.
    fn revive(&mut self) {
        let cancelled =
            |run: &&mut Run| matches!(run.status, RunState::EtCancelled | RunState::LoadCancelled);
        for run in self.runs.values_mut().filter(cancelled) {
            *run = Run {
                attempt: run.attempt,
                backfill: run.backfill,
                forced: run.forced,
                extent: run.extent,
                ..Run::new(run.date)
            };
        }
        self.job.error = None;
    }

    #[cfg(test)]
    pub fn notices(&self) -> Vec<Event> {
        self.notices.iter().map(|(event, _)| *event).collect()
    }

    #[cfg(test)]
    pub fn removed(&self) -> bool {
        self.removed
    }

    /// Forgets the job and its runs.
    pub fn remove(&mut self) {
        self.removed = true;
        self.tell(Event::Deleted);
    }
}

/// How many there are of what, by the name of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    pub jobs: BTreeMap<String, i64>,
    pub runs: BTreeMap<String, i64>,
}

impl Catalog {
    /// All jobs, the oldest first.
    pub async fn jobs(&self) -> Result<Vec<Job>> {
        self.call(rows::jobs).await
    }

    /// A job by its uuid or its key, or a pipeline's by its name.
    pub async fn job(&self, named: &str) -> Result<Job> {
        let named = named.to_owned();
        self.call(move |of| find(of, &named)).await
    }

    /// The runs of a job, by date.
    pub async fn runs(&self, uuid: &str) -> Result<Vec<Run>> {
        let uuid = uuid.to_owned();
        self.call(move |of| rows::runs(of, &uuid)).await
    }

    /// A job and its runs, as they were at one moment.
    #[cfg(test)]
    pub async fn entry(&self, uuid: &str, now: Timestamp) -> Result<Entry> {
        let uuid = uuid.to_owned();
        self.call(move |of| read(of, &uuid, now)).await
    }

    /// Makes a job; gives its uuid.
    ///
    /// # Errors
    /// There is one with the same key, or a load of the same dates into one of its tables.
    pub async fn post_job(&self, new: NewJob, now: Timestamp) -> Result<String> {
        let key = new.key();
        let job = Job::new(new, now);
        let uuid = job.uuid.clone();
        self.call(move |to| {
            if let Some(other) = rows::job_by_key(to, &key)? {
                return Err(CatalogError::Conflict(format!(
                    "there is a job for {key} already: {}",
                    other.uuid
                )));
            }
            overlap::refuse(to, &job, (job.start_date, job.end_date))?;
            rows::save_job(to, &job)
        })
        .await?;
        self.tell_job(&uuid);
        Ok(uuid)
    }

    /// The job of a pipeline that is given to `run`: as it was left, with `end_date` and arguments as they are now,
    /// or a new one. The first date stays what it was when the pipeline was first seen unless `start` names another.
    pub async fn register(&self, new: NewJob, start: Option<NaiveDate>, now: Timestamp) -> Result<Job> {
        let key = new.key();
        let registered = self
            .call(move |to| {
                let job = match rows::job_by_key(to, &key)? {
                    None => Job::new(new, now),
                    Some(known) => Job {
                        start_date: start.unwrap_or(known.start_date),
                        end_date: new.end_date,
                        additional_arguments: new.additional_arguments,
                        ..known
                    },
                };
                rows::save_job(to, &job)?;
                Ok(job)
            })
            .await?;
        self.tell_job(&registered.uuid);
        Ok(registered)
    }

    /// Asks something of a job.
    ///
    /// # Errors
    /// There is no such job, or it cannot be asked in its state.
    #[cfg(test)]
    pub async fn request(&self, named: &str, what: Request, now: Timestamp) -> Result<()> {
        self.change(named, now, move |entry| entry.request(what)).await
    }

    /// Changes a job and its runs in one transaction: `decide` sees them as they are, and nobody else changes them
    /// meanwhile. An error of it changes nothing.
    pub async fn change<R: Send + 'static>(
        &self,
        named: &str,
        now: Timestamp,
        decide: impl FnOnce(&mut Entry) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let named = named.to_owned();
        let (result, changed) = self
            .call(move |to| {
                let mut entry = read(to, &named, now)?;
                let before = (entry.job.clone(), entry.runs.clone());
                let result = decide(&mut entry)?;
                let changed = write(to, &entry, &before.0, &before.1)?;
                Ok((result, changed))
            })
            .await?;
        changed.into_iter().for_each(|one| self.tell(one));
        Ok(result)
    }

    /// How many jobs, and how many of their dates, are in which state; states that have none are left out of dates.
    pub async fn state_counts(&self) -> Result<StateCounts> {
        self.call(|of| {
            let count = |sql: &str| -> Result<BTreeMap<String, i64>> {
                let mut counts = of.prepare_cached(sql)?;
                let counts = counts.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(counts.collect::<rusqlite::Result<_>>()?)
            };
            let counted = count("SELECT status, count(*) FROM jobs GROUP BY status")?;
            let jobs = JobState::ALL.map(JobState::name);
            Ok(StateCounts {
                // An alarm on errors wants a zero.
                jobs: jobs
                    .map(|name| (name.to_owned(), counted.get(name).copied().unwrap_or(0)))
                    .into(),
                runs: count("SELECT status, count(*) FROM runs GROUP BY status")?,
            })
        })
        .await
    }

    /// How often each job has been changed, by uuid: whoever shares the catalog sees by it what others did.
    pub async fn revisions(&self) -> Result<BTreeMap<String, i64>> {
        self.call(|of| {
            let mut all = of.prepare_cached("SELECT uuid, revision FROM jobs")?;
            let all = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(all.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    fn tell_job(&self, uuid: &str) {
        self.tell(Changed {
            job: uuid.to_owned(),
            date: None,
        });
    }
}

fn find(of: &Transaction<'_>, named: &str) -> Result<Job> {
    let found = match rows::job_by_uuid(of, named)? {
        Some(job) => Some(job),
        None => match rows::job_by_key(of, named)? {
            Some(job) => Some(job),
            None => rows::job_by_key(of, &format!("pipeline:{named}"))?,
        },
    };
    found.ok_or_else(|| {
        CatalogError::Missing(format!(
            "no job {named:?}; `millstream runs list` shows those there are"
        ))
    })
}

fn read(of: &Transaction<'_>, named: &str, now: Timestamp) -> Result<Entry> {
    let job = find(of, named)?;
    let runs = rows::runs(of, &job.uuid)?;
    Ok(Entry::new(job, runs, workers::alive(of, now)?, now))
}

/// Refuses dates that another load has: those of a job that is taken up again, and those outside of its own.
fn refuse_overlaps(
    of: &Transaction<'_>,
    entry: &Entry,
    before: &Job,
    runs: &BTreeMap<NaiveDate, Run>,
) -> Result<()> {
    let job = &entry.job;
    if before.status == JobState::Cancelled && job.status != JobState::Cancelled {
        overlap::refuse(of, job, (job.start_date, job.end_date))?;
    }
    let outside = |date: &&NaiveDate| **date < job.start_date || job.end_date.is_some_and(|end| **date > end);
    let new = entry.runs.keys().filter(|date| !runs.contains_key(date));
    for date in new.filter(outside) {
        overlap::refuse(of, job, (*date, Some(*date)))?;
    }
    Ok(())
}

/// Writes what is different; gives what to tell.
fn write(
    to: &Transaction<'_>,
    entry: &Entry,
    job: &Job,
    runs: &BTreeMap<NaiveDate, Run>,
) -> Result<Vec<Changed>> {
    let uuid = &entry.job.uuid;
    let changed = |date| Changed {
        job: uuid.clone(),
        date,
    };
    refuse_overlaps(to, entry, job, runs)?;
    for (event, job) in &entry.notices {
        outbox::post(to, entry.now, *event, job)?;
    }
    if entry.removed {
        to.execute("DELETE FROM jobs WHERE uuid = ?1", [uuid])?;
        return Ok(vec![changed(None)]);
    }
    let mut told = Vec::new();
    if entry.job != *job {
        rows::save_job(to, &entry.job)?;
        told.push(changed(None));
    }
    for (date, run) in entry
        .runs
        .iter()
        .filter(|(date, run)| runs.get(date) != Some(run))
    {
        rows::save_run(to, uuid, run)?;
        told.push(changed(Some(*date)));
    }
    Ok(told)
}
