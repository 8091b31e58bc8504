//! What is to be done for a job now: a function of its schedule, its runs and the time.
//!
//! It changes the job and its runs to what they are once the decision is carried out, inside the transaction that read
//! them. So whoever decides has claimed what it starts. The order of dates:
//!
//! - *Regular* dates, those of the schedule that have never been loaded, load strictly in order: each waits until all
//!   before it are loaded, whether these wait for their marker, run, or have failed.
//! - *Backfilled* dates load in order among themselves; regular ones do not wait for them.
//! - One load of a job at a time; transforms side by side, up to the schedule's `parallelism`.
//!
//! What was transformed lies with the process that did it; another one has to transform again.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use millstream_engine::time::Timestamp;

use crate::catalog::Entry;
use crate::catalog::model::{Extent, Run};
use crate::catalog::state::{JobState, RunState};
use crate::scheduler::rules::Rules;

/// Dates of a job that are transformed and not loaded, at most: they lie on disk.
const MOST_STAGED: usize = 32;

/// What a process knows when it decides.
pub struct View<'a> {
    pub rules: &'a Rules,
    /// The process that decides.
    pub worker: &'a str,
    /// The dates it works on now.
    pub in_hand: &'a BTreeSet<NaiveDate>,
    /// Whether markers are there, as far as it is known.
    pub markers: &'a BTreeMap<NaiveDate, bool>,
    /// Transforms it may start now, over all its jobs.
    pub free: usize,
}

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Transform,
    Load,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Phases to begin.
    pub start: Vec<(NaiveDate, Phase, u32)>,
    /// Dates to let go of.
    pub stop: Vec<NaiveDate>,
    /// Dates whose marker is to be looked for.
    pub ask: Vec<NaiveDate>,
    /// More could be done, had the process a thread free, or an answer about a marker.
    pub held: bool,
    /// When to decide again, if nothing happens before.
    pub wake: Option<Timestamp>,
}

/// Decides.
pub fn decide(entry: &mut Entry, view: &View<'_>) -> Decision {
    let mut deciding = Deciding {
        entry,
        view,
        decision: Decision::default(),
    };
    deciding.all();
    deciding.decision
}

struct Deciding<'a, 'v> {
    entry: &'a mut Entry,
    view: &'a View<'v>,
    decision: Decision,
}

impl Deciding<'_, '_> {
    fn all(&mut self) {
        // Others may have taken over what was ours.
        if !self.entry.alive.contains(self.view.worker) {
            return;
        }
        self.lose();
        if self.entry.job.cancel_requested && self.entry.job.status != JobState::Cancelled {
            return self.cancel();
        }
        if matches!(self.entry.job.status, JobState::Cancelled | JobState::Complete)
            && self.entry.job.delete_requested
        {
            return self.entry.remove();
        }
        if matches!(self.entry.job.status, JobState::Cancelled | JobState::Paused) {
            return;
        }
        self.time_out();
        self.load();
        if !self.entry.job.pause_requested {
            self.transform();
        }
        self.settle();
        self.wake();
    }

    /// Runs whose process is gone, or is this one and knows nothing of them.
    fn lose(&mut self) {
        let (entry, view) = (&mut *self.entry, self.view);
        for run in entry.runs.values_mut().filter(|run| run.status.in_flight()) {
            let worker = run.worker.as_deref().unwrap_or_default();
            let lost = match worker == view.worker {
                true => !view.in_hand.contains(&run.date),
                false => !entry.alive.contains(worker),
            };
            if lost {
                run.status = run.status.lost();
                view.rules.retry.lost(run, entry.now);
            }
        }
    }

    /// Lets go of what is in hand, and ends once nobody has anything in hand.
    fn cancel(&mut self) {
        let worker = Some(self.view.worker);
        for run in self.entry.runs.values_mut() {
            if run.status.in_flight() {
                if run.worker.as_deref() != worker {
                    continue;
                }
                self.decision.stop.push(run.date);
            }
            run.status = run.status.cancelled();
            run.next_try_at = None;
        }
        if !self.in_flight() {
            self.entry.job.pause_requested = false;
            self.entry.enter_and_tell(JobState::Cancelled);
            self.entry.job.cancel_requested = false;
            if self.entry.job.delete_requested {
                self.entry.remove();
            }
        }
    }

    fn time_out(&mut self) {
        let Some(timeout) = self.view.rules.timeout else {
            return;
        };
        let now = self.entry.now;
        for run in self.entry.runs.values_mut() {
            let mine = run.worker.as_deref() == Some(self.view.worker);
            let late = begun(run).is_some_and(|at| at.plus(timeout) <= now);
            if mine && late {
                run.status = match run.status {
                    RunState::EtStarted => RunState::EtError,
                    _ => RunState::LoadError,
                };
                let error = format!("it took longer than {}", humantime::format_duration(timeout));
                self.view.rules.retry.failed(run, error, false, now);
                self.decision.stop.push(run.date);
            }
        }
    }

    /// Starts the next load, if it is its turn.
    fn load(&mut self) {
        let loading = |run: &Run| run.status == RunState::LoadStarted;
        if self.entry.runs.values().any(loading) {
            return;
        }
        let (now, worker) = (self.entry.now, self.view.worker);
        let turns = [self.next_regular(), self.next_backfilled()];
        for date in turns.into_iter().flatten() {
            let run = self.entry.runs.get(&date);
            if !run.is_some_and(|run| loadable(run, worker, now)) {
                continue;
            }
            self.entry.enter(JobState::Running);
            let run = self.entry.advance(date, RunState::LoadStarted);
            run.load_started_at = Some(now);
            run.load_seconds = None;
            run.next_try_at = None;
            self.decision.start.push((date, Phase::Load, run.attempt));
            return;
        }
    }

    /// The first regular date that is not loaded.
    fn next_regular(&self) -> Option<NaiveDate> {
        let unloaded = |date: &NaiveDate| {
            let run = self.entry.runs.get(date);
            !run.is_some_and(|run| run.status == RunState::LoadSuccess || run.backfill)
        };
        self.regular().into_iter().find(unloaded)
    }

    /// The first backfilled date that is not done.
    fn next_backfilled(&self) -> Option<NaiveDate> {
        let mut all = self.entry.runs.values().filter(|run| run.backfill);
        all.find(|run| !done(run)).map(|run| run.date)
    }

    /// The dates of the schedule up to now, and those begun before their time.
    fn regular(&self) -> BTreeSet<NaiveDate> {
        let rules = self.view.rules;
        let last = rules.end.map_or(rules.newest, |end| end.min(rules.newest));
        let first = if rules.catch_up {
            rules.start
        } else {
            rules.start.max(last)
        };
        let scheduled = first.iter_days().take_while(|date| *date <= last);
        // Without catch-up a date whose marker has not come in its time is left out.
        let left_out = |run: &Run| !rules.catch_up && run.status == RunState::Waiting && !run.forced;
        let begun = self
            .entry
            .runs
            .values()
            .filter(|run| !run.backfill && !left_out(run));
        scheduled.chain(begun.map(|run| run.date)).collect()
    }

    /// Starts transforms, in the order of dates, as many as there may be.
    fn transform(&mut self) {
        let regular = self.regular();
        let backfilled: Vec<NaiveDate> = {
            let all = self.entry.runs.values().filter(|run| run.backfill);
            all.map(|run| run.date).collect()
        };
        let rules = self.view.rules;
        let of_backfill = self.entry.job.backfill_parallelism;
        let of_backfill = of_backfill.map_or(rules.parallelism, |n| n as usize);
        let mut free = self.view.free;
        let regular: Vec<NaiveDate> = regular.into_iter().filter(|d| !backfilled.contains(d)).collect();
        self.transform_some(&regular, rules.parallelism, &mut free);
        self.transform_some(&backfilled, of_backfill, &mut free);
    }

    fn transform_some(&mut self, dates: &[NaiveDate], parallelism: usize, free: &mut usize) {
        let runs = || dates.iter().filter_map(|date| self.entry.runs.get(date));
        let mut transforming = runs().filter(|run| run.status == RunState::EtStarted).count();
        let staged = runs().filter(|run| run.status == RunState::EtSuccess && !self.transformable(run));
        let staged = staged.count();
        let first = dates
            .iter()
            .find(|date| !self.entry.runs.get(date).is_some_and(done))
            .copied();
        for date in dates {
            let run = self.entry.runs.get(date);
            // Nothing after it loads before someone has looked.
            if run.is_some_and(|run| run.given_up) {
                return;
            }
            if run.is_some_and(|run| !self.transformable(run)) {
                continue;
            }
            // What is staged waits for the first, which therefore is never held up by it.
            let full = staged + transforming >= MOST_STAGED && Some(*date) != first;
            if transforming >= parallelism || *free == 0 || full {
                self.decision.held = true;
                return;
            }
            if self.waits(*date) {
                continue;
            }
            self.begin(*date);
            transforming += 1;
            *free -= 1;
        }
    }

    fn transformable(&self, run: &Run) -> bool {
        let due = run.next_try_at.is_none_or(|at| at <= self.entry.now);
        let elsewhere = || {
            // What another process has transformed is lost with it.
            let worker = run.worker.as_deref().unwrap_or_default();
            worker != self.view.worker && !self.entry.alive.contains(worker)
        };
        match run.status {
            RunState::Null | RunState::Waiting => true,
            RunState::EtError | RunState::EtUnknown => due,
            RunState::EtSuccess => run.extent == Extent::Full && elsewhere(),
            RunState::LoadError | RunState::LoadUnknown => due && elsewhere(),
            _ => false,
        }
    }

    /// Whether a date has to wait for its marker.
    fn waits(&mut self, date: NaiveDate) -> bool {
        let forced = self.entry.runs.get(&date).is_some_and(|run| run.forced);
        if !self.view.rules.marker || forced {
            return false;
        }
        match self.view.markers.get(&date) {
            Some(true) => return false,
            Some(false) => {
                let waiting = matches!(
                    self.entry.runs.get(&date).map(|run| run.status),
                    None | Some(RunState::Null)
                );
                if waiting {
                    self.entry.advance(date, RunState::Waiting);
                }
            }
            None => self.decision.held = true,
        }
        self.decision.ask.push(date);
        true
    }

    fn begin(&mut self, date: NaiveDate) {
        let now = self.entry.now;
        self.entry.enter(JobState::Running);
        let run = self.entry.advance(date, RunState::EtStarted);
        run.attempt += 1;
        run.worker = Some(self.view.worker.to_owned());
        run.et_started_at = Some(now);
        run.et_seconds = None;
        run.load_started_at = None;
        run.load_seconds = None;
        run.next_try_at = None;
        self.decision.start.push((date, Phase::Transform, run.attempt));
    }

    fn in_flight(&self) -> bool {
        self.entry.runs.values().any(|run| run.status.in_flight())
    }

    /// Takes the job to where its runs are.
    fn settle(&mut self) {
        let failing = |run: &&Run| run.error.is_some() && run.failures > 0;
        let trying = |run: &&Run| failing(run) && !run.given_up && !run.status.in_flight();
        let runs = || self.entry.runs.values();
        let failed = runs().find(|run| run.given_up).or_else(|| runs().find(failing));
        let error = failed.map(|run| {
            let why = run.error.as_deref().unwrap_or_default();
            format!("{}: {why}", run.date)
        });
        let given_up = runs().any(|run| run.given_up);
        let was = self.entry.job.status;
        let busy = self.in_flight() || self.others_turn() || (self.decision.held && was == JobState::Running);
        let trying = runs().any(|run| trying(&run));
        let loaded = runs().any(|run| run.status == RunState::LoadSuccess);
        let unloaded = self.transformed_only();
        let waits = |date: NaiveDate| {
            format!(
                "{date} was only transformed, as it was asked for; it and later dates wait for a backfill of it with load_only"
            )
        };
        self.entry.job.error = error.or(unloaded.map(waits));
        let to = if busy || (trying && !self.entry.job.pause_requested) {
            JobState::Running
        } else if self.entry.job.pause_requested {
            JobState::Paused
        } else if given_up {
            JobState::Error
        } else if self.complete() {
            JobState::Complete
        } else if unloaded.is_some() || was == JobState::Error {
            JobState::Null
        } else if was == JobState::Running {
            if loaded { JobState::Success } else { JobState::Null }
        } else {
            return;
        };
        self.entry.enter_and_tell(to);
    }

    /// Whether the next load is for another process that is alive.
    fn others_turn(&self) -> bool {
        let turns = [self.next_regular(), self.next_backfilled()];
        let runs = turns
            .into_iter()
            .flatten()
            .filter_map(|date| self.entry.runs.get(&date));
        let mut staged = runs.filter(|run| run.status == RunState::EtSuccess && run.extent == Extent::Full);
        staged.any(|run| {
            let worker = run.worker.as_deref().unwrap_or_default();
            worker != self.view.worker && self.entry.alive.contains(worker)
        })
    }

    /// The date whose load is next, if someone asked that it be transformed and no more.
    fn transformed_only(&self) -> Option<NaiveDate> {
        let run = self.entry.runs.get(&self.next_regular()?)?;
        done(run).then_some(run.date)
    }

    /// Whether the last date is loaded, and nothing is left to be made again.
    fn complete(&self) -> bool {
        let rules = self.view.rules;
        let over = rules.end.is_some_and(|end| end <= rules.newest);
        over && self.next_regular().is_none() && self.next_backfilled().is_none()
    }

    fn wake(&mut self) {
        let rules = self.view.rules;
        let now = self.entry.now;
        let tries = self.entry.runs.values().filter_map(|run| run.next_try_at);
        let tries = tries.filter(|at| *at > now);
        let limits = self.entry.runs.values().filter_map(|run| {
            let mine = run.worker.as_deref() == Some(self.view.worker);
            begun(run)
                .filter(|_| mine)
                .and_then(|at| Some(at.plus(rules.timeout?)))
        });
        let more = rules.end.is_none_or(|end| end > rules.newest);
        let look = more.then_some(rules.next_look);
        self.decision.wake = tries.chain(limits).chain(look).min();
    }
}

/// When the phase that is in flight began.
fn begun(run: &Run) -> Option<Timestamp> {
    match run.status {
        RunState::EtStarted => run.et_started_at,
        RunState::LoadStarted => run.load_started_at,
        _ => None,
    }
}

/// Whether what this process transformed can be loaded now.
fn loadable(run: &Run, worker: &str, now: Timestamp) -> bool {
    let mine = run.worker.as_deref() == Some(worker);
    let due = !run.given_up && run.next_try_at.is_none_or(|at| at <= now);
    match run.status {
        RunState::EtSuccess => mine && run.extent == Extent::Full,
        RunState::LoadError | RunState::LoadUnknown => mine && due,
        _ => false,
    }
}

/// Whether a backfilled date has nothing left to do.
fn done(run: &Run) -> bool {
    run.status == RunState::LoadSuccess
        || (run.status == RunState::EtSuccess && run.extent == Extent::Transform)
}

#[cfg(test)]
mod tests;
