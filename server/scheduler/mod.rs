//! Runs the dates of jobs: a loop over the catalog that decides ([`decide`]), has it done ([`Execute`]) and notes how
//! it ended.
//!
//! Several processes may share a catalog. Each says every [`BEAT`] that it is alive; one that is silent for [`LEASE`]
//! has lost what it had in hand, and others make it again. Whoever decides has claimed, as both are one transaction.
//! A process that could not say that it is alive for that long lets go of everything before it goes on.
//!
//! How it fails: while the catalog cannot be written nothing is begun, and how a phase ended is noted once it can be
//! again. A process that ends at any point leaves its runs `…_started`; when it is back, or when it has been silent for
//! long enough, they are made again.

pub mod backfill;
pub mod decide;
pub mod engine;
pub mod execute;
mod hands;
mod loads;
mod markers;
mod record;
mod remains;
pub mod rules;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use millstream_engine::runtime::timer::Timer;
use millstream_engine::time::Timestamp;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::catalog::model::{Job, JobKind};
use crate::catalog::state::JobState;
use crate::catalog::{Catalog, CatalogError, Changed, Entry, Result};
use crate::scheduler::decide::{Decision, Phase, View, decide};
use crate::scheduler::execute::{Execute, RunError, RunKey};
use crate::scheduler::hands::{Done, Ended, Hands};
use crate::scheduler::markers::Markers;
use crate::scheduler::rules::{Retry, Rules};

/// How long a process that is silent is thought to be alive.
const LEASE: Duration = Duration::from_secs(60);
/// How often it says that it is.
const BEAT: Duration = Duration::from_secs(10);
/// How often what others have changed is looked for.
const POLL: Duration = Duration::from_secs(2);
/// When a job whose pipeline cannot be planned is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Transforms of all jobs that run side by side: each holds a pipeline's tasks and memory.
const MOST_TRANSFORMS: usize = 8;
/// Phases that have ended and are not noted yet.
const ENDED: usize = 64;

/// The loop.
pub struct Scheduler {
    catalog: Catalog,
    execute: Arc<dyn Execute>,
    timer: Arc<dyn Timer>,
    worker: String,
    jobs: BTreeMap<String, Known>,
    /// Removing what jobs that are gone have left behind.
    forgetting: JoinSet<()>,
    hands: Hands,
    markers: Markers,
    /// How phases ended that could not be noted yet.
    unnoted: Vec<Ended>,
    ended: mpsc::Receiver<Done>,
    alive_until: Timestamp,
    /// When what is done now and then is done next: saying that we are alive, looking for changes of others, looking
    /// at every job for runs whose process is gone.
    beat_at: Timestamp,
    poll_at: Timestamp,
    sweep_at: Timestamp,
}

/// What the loop knows of a job.
struct Known {
    /// When to look at it; none: when it has changed.
    due: Option<Timestamp>,
    revision: i64,
    /// It was changed by this process since others' changes were looked for.
    by_us: bool,
    held: bool,
    retry: Retry,
    /// As it was seen last.
    job: Option<Job>,
}

impl Scheduler {
    /// One that works under a name that no other process has, and that is the same after a restart.
    pub fn new(
        catalog: Catalog,
        execute: Arc<dyn Execute>,
        timer: Arc<dyn Timer>,
        worker: String,
    ) -> Scheduler {
        let (end, ended) = mpsc::channel(ENDED);
        let now = timer.now();
        Scheduler {
            hands: Hands::new(execute.clone(), end.clone()),
            markers: Markers::new(execute.clone(), end),
            catalog,
            execute,
            timer,
            worker,
            jobs: BTreeMap::new(),
            forgetting: JoinSet::new(),
            unnoted: Vec::new(),
            ended,
            alive_until: now.plus(LEASE),
            beat_at: now,
            poll_at: now,
            sweep_at: now,
        }
    }

    /// Works until it is told to stop; then lets transforms go, finishes loads and says good-bye.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.catalog.changes();
        while !stop.is_cancelled() {
            if let Err(error) = self.turn().await {
                tracing::warn!("{error}; trying again in {} s", POLL.as_secs());
            }
            self.rest(&mut changes, &stop).await;
        }
        self.finish().await;
    }

    /// Does everything that is due.
    async fn turn(&mut self) -> Result<()> {
        let now = self.timer.now();
        // Whatever fails is tried again then.
        self.note_ends().await?;
        if now >= self.beat_at {
            self.beat(now).await?;
        }
        if now >= self.poll_at {
            self.poll(now).await?;
        }
        let due: Vec<String> = {
            let due = self
                .jobs
                .iter()
                .filter(|(_, job)| job.due.is_some_and(|at| at <= now));
            due.map(|(uuid, _)| uuid.clone()).collect()
        };
        for uuid in due {
            self.look_at(&uuid).await?;
        }
        Ok(())
    }

    /// Waits until something has happened or is due.
    async fn rest(&mut self, changes: &mut broadcast::Receiver<Changed>, stop: &CancellationToken) {
        let now = self.timer.now();
        let due = self
            .jobs
            .values()
            .filter_map(|job| job.due)
            .filter(|at| *at > now);
        let next = due.chain([self.poll_at, self.beat_at]).min().unwrap_or(now);
        // At least a moment, so that what fails at once does not spin.
        let wait = Duration::from_micros((next.0 - now.0).max(1000) as u64);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            Some(done) = self.ended.recv() => self.take(done),
            changed = changes.recv() => self.heard(changed),
            () = self.timer.sleep(wait.min(POLL)) => {}
        }
        while let Ok(done) = self.ended.try_recv() {
            self.take(done);
        }
        loop {
            match changes.try_recv() {
                Ok(changed) => self.heard(Ok(changed)),
                Err(TryRecvError::Lagged(_)) => self.poll_at = self.timer.now(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn heard(&mut self, changed: Result<Changed, RecvError>) {
        let now = self.timer.now();
        let Ok(Changed { job, .. }) = changed else {
            // Some were missed; looking for changes finds them.
            self.poll_at = now;
            return;
        };
        match self.jobs.get_mut(&job) {
            Some(known) => {
                known.due = Some(now);
                known.by_us = true;
            }
            None => self.poll_at = now,
        }
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Phase(ended) => self.unnoted.push(ended),
            Done::Marker { job, date, there } => {
                let now = self.timer.now();
                self.markers.answered(&job, date, there, now);
                self.look_soon(&job, now);
            }
        }
    }

    fn look_soon(&mut self, job: &str, at: Timestamp) {
        if let Some(known) = self.jobs.get_mut(job) {
            known.due = Some(known.due.map_or(at, |due| due.min(at)));
        }
    }

    /// Says that this process is alive. If it was too late to say so, others may have taken over what it had in hand.
    async fn beat(&mut self, now: Timestamp) -> Result<()> {
        if now >= self.alive_until {
            tracing::warn!(
                "this process was silent for longer than {} s; its runs begin anew",
                LEASE.as_secs()
            );
            self.hands.drop_all();
            self.unnoted.clear();
        }
        let until = now.plus(LEASE);
        self.catalog.alive(&self.worker, until).await?;
        self.alive_until = until;
        self.beat_at = now.plus(BEAT);
        Ok(())
    }

    /// Sees what others have changed, and now and then looks at everything.
    async fn poll(&mut self, now: Timestamp) -> Result<()> {
        let revisions = self.catalog.revisions().await?;
        let sweep = now >= self.sweep_at;
        let gone = self.jobs.extract_if(.., |uuid, _| !revisions.contains_key(uuid));
        let gone: Vec<Known> = gone.map(|(_, known)| known).collect();
        gone.into_iter().for_each(|known| self.forget(known));
        for (uuid, revision) in revisions {
            let known = self.jobs.entry(uuid.clone()).or_insert(Known {
                due: Some(now),
                revision,
                by_us: false,
                held: false,
                retry: Retry::default(),
                job: None,
            });
            if known.revision != revision && !known.by_us {
                self.catalog.tell(Changed {
                    job: uuid,
                    date: None,
                });
                known.due = Some(now);
            }
            known.by_us = false;
            known.revision = revision;
            if sweep {
                known.due = Some(now);
            }
        }
        if sweep {
            self.sweep_at = now.plus(LEASE / 2);
        }
        self.poll_at = now.plus(POLL);
        Ok(())
    }

    /// Decides what is to be done for a job, and has it done.
    async fn look_at(&mut self, uuid: &str) -> Result<()> {
        let now = self.timer.now();
        let job = match self.catalog.job(uuid).await {
            Ok(job) => job,
            Err(CatalogError::Missing(_)) => {
                if let Some(known) = self.jobs.remove(uuid) {
                    self.forget(known);
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Some(known) = self.jobs.get_mut(uuid) {
            known.job = Some(job.clone());
        }
        let over = job.cancel_requested || job.delete_requested;
        if is_done_with(&job) && !over {
            self.look_later(uuid, None);
            return Ok(());
        }
        let rules = match self.execute.rules(&job, now).await {
            Ok(Some(rules)) => rules,
            // A job that nobody can run can be ended all the same.
            _ if over => nothing(&job),
            Ok(None) => {
                self.look_later(uuid, None);
                return Ok(());
            }
            Err(error) => {
                self.cannot_run(uuid, error, now).await?;
                self.look_later(uuid, Some(now.plus(LOOK_AGAIN)));
                return Ok(());
            }
        };
        let decision = self.decide(uuid, &rules, now).await?;
        self.carry_out(&job, decision, &rules, now).await;
        Ok(())
    }

    /// Removes what a job that is gone has left behind.
    fn forget(&mut self, known: Known) {
        while self.forgetting.try_join_next().is_some() {}
        if let Some(job) = known.job {
            let execute = self.execute.clone();
            self.forgetting.spawn(async move { execute.forget(&job).await });
        }
    }

    fn look_later(&mut self, uuid: &str, due: Option<Timestamp>) {
        if let Some(known) = self.jobs.get_mut(uuid) {
            known.due = due;
        }
    }

    /// Shows why a job cannot be planned. Only what someone has to mend stops it.
    async fn cannot_run(&self, uuid: &str, error: RunError, now: Timestamp) -> Result<()> {
        let changed = self.catalog.change(uuid, now, move |entry| {
            use JobState::{Cancelled, Complete, Error, Paused};
            let is_over = matches!(entry.job.status, Cancelled | Complete);
            if is_over {
                return Ok(());
            }
            let busy = entry.runs.values().any(|run| run.status.in_flight());
            let stops = error.hopeless && !busy && !matches!(entry.job.status, Paused | Error);
            // The first reason stays: one with the id of a request in it would be another with each look, and each
            // change of a job has it looked at again.
            if stops || entry.job.error.is_none() {
                entry.job.error = Some(error.message);
            }
            if stops {
                entry.enter_and_tell(Error);
            }
            Ok(())
        });
        changed.await
    }

    async fn decide(&self, uuid: &str, rules: &Rules, now: Timestamp) -> Result<Decision> {
        let rules = rules.clone();
        let worker = self.worker.clone();
        let in_hand = self.hands.of(uuid);
        let markers = self.markers.known(uuid);
        let errors = self.markers.errors(uuid);
        let free = MOST_TRANSFORMS.saturating_sub(self.hands.transforming());
        let decided = self.catalog.change(uuid, now, move |entry: &mut Entry| {
            let view = View {
                rules: &rules,
                worker: &worker,
                in_hand: &in_hand,
                markers: &markers,
                free,
            };
            let decision = decide(entry, &view);
            for (date, error) in errors {
                markers::note(entry, date, error);
            }
            Ok(decision)
        });
        decided.await
    }

    async fn carry_out(&mut self, job: &Job, decision: Decision, rules: &Rules, now: Timestamp) {
        for date in &decision.stop {
            self.hands.stop(&job.uuid, *date).await;
            self.unnoted
                .retain(|ended| (&ended.job, ended.key.date) != (&job.uuid, *date));
        }
        for (date, phase, attempt) in decision.start {
            if phase == Phase::Transform {
                self.markers.forget(&job.uuid, date);
            }
            self.hands.begin(job, RunKey { date, attempt }, phase);
        }
        let asked: BTreeSet<NaiveDate> = decision.ask.into_iter().collect();
        let ask_again = self.markers.ask(job, &asked, now);
        if let Some(known) = self.jobs.get_mut(&job.uuid) {
            known.due = [decision.wake, ask_again].into_iter().flatten().min();
            known.held = decision.held;
            known.retry = rules.retry;
        }
    }

    /// Notes how phases ended.
    async fn note_ends(&mut self) -> Result<()> {
        while let Some(ended) = self.unnoted.first().cloned() {
            let now = self.timer.now();
            let worker = self.worker.clone();
            let retry = self.jobs.get(&ended.job).map(|job| job.retry).unwrap_or_default();
            let note = ended.clone();
            let noted = self.catalog.change(&ended.job, now, move |entry| {
                record::note(entry, &worker, &note, &retry);
                Ok(())
            });
            match noted.await {
                // A job that was deleted has no use for it.
                Ok(()) | Err(CatalogError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
            self.unnoted.remove(0);
            self.hands.let_go(&ended);
            self.look_soon(&ended.job, now);
            let held: Vec<String> = {
                let held = self.jobs.iter().filter(|(_, job)| job.held);
                held.map(|(uuid, _)| uuid.clone()).collect()
            };
            held.iter().for_each(|uuid| self.look_soon(uuid, now));
        }
        Ok(())
    }

    /// Lets transforms go, as if they had not begun; waits for loads.
    async fn finish(mut self) {
        for (job, date) in self.hands.transforms() {
            self.hands.stop(&job, date).await;
            let worker = self.worker.clone();
            let now = self.timer.now();
            let given_back = self.catalog.change(&job, now, move |entry| {
                record::give_back(entry, &worker, date);
                Ok(())
            });
            if let Err(error) = given_back.await {
                tracing::warn!("{date} of the job {job} was not given back, and begins anew: {error}");
            }
        }
        while !self.hands.is_empty() {
            if self.unnoted.is_empty() {
                match self.ended.recv().await {
                    Some(done) => self.take(done),
                    None => break,
                }
            }
            if let Err(error) = self.note_ends().await {
                tracing::warn!("how a load ended is not noted, it is made again: {error}");
                break;
            }
        }
        if let Err(error) = self.catalog.gone(&self.worker).await {
            tracing::warn!("{error}");
        }
    }
}

/// Whether nothing becomes of a job unless someone asks for it. Its cluster may be gone. A pipeline's file, as against a
/// load, may be given a later end.
fn is_done_with(job: &Job) -> bool {
    job.kind == JobKind::Load && matches!(job.status, JobState::Cancelled | JobState::Complete)
}

/// The schedule of a job that nobody can run: enough to end it.
fn nothing(job: &Job) -> Rules {
    Rules {
        start: job.start_date,
        end: job.end_date,
        newest: NaiveDate::MIN,
        next_look: Timestamp::MAX,
        marker: false,
        catch_up: true,
        parallelism: 1,
        retry: Retry::default(),
        timeout: None,
    }
}
