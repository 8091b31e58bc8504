//! Runs dates by the engine: plans the pipeline file for the date, looks for its marker, transforms and loads.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use chrono::NaiveDate;
use lru::LruCache;
use millstream_engine::config::Diagnostic;
use millstream_engine::plan::Plan;
use millstream_engine::registry::Registry;
use millstream_engine::run::DatedRun;
use millstream_engine::runtime::{self, RunOptions, dated};
use millstream_engine::schedule::Schedule;
use millstream_engine::time::Timestamp;
use millstream_operators::sources::objects::Marker;
use tokio::runtime::Handle;

use crate::catalog::Catalog;
use crate::catalog::model::{Job, JobKind};
use crate::pipelines::File;
use crate::scheduler::execute::{Counts, Execute, RunError, RunKey};
use crate::scheduler::loads::Load;
use crate::scheduler::remains;
use crate::scheduler::rules::{Retry, Rules};

/// Schedules of jobs and dates that are kept; each is some hundred bytes.
const KEPT: NonZeroUsize = NonZeroUsize::new(4096).expect("more than none");

/// The pipelines of this process that have a schedule, and what it takes to run them.
pub struct Engine {
    /// Their files, by the name of the pipeline.
    files: BTreeMap<String, File>,
    /// Where clusters and schemas of loads are.
    catalog: Catalog,
    /// Where connectors and operators come from.
    registry: Registry,
    /// Where runs keep what they prepare.
    data_dir: PathBuf,
    /// Where rows are worked on: not where requests are served.
    dataflow: Handle,
    schedules: Mutex<LruCache<(String, NaiveDate), Kept>>,
}

/// What a job's file said of a date's schedule. Planning takes milliseconds to seconds, and the scheduler looks at a job
/// whenever it changes, and for the marker of each date that waits.
struct Kept {
    /// Of what it was made.
    of: Planned,
    schedule: Schedule,
    /// What the date waits for.
    marker: Option<Marker>,
}

/// What a plan is made of.
#[derive(Clone, PartialEq)]
enum Planned {
    /// A pipeline file, as this process has read it.
    File(File),
    /// A load that was posted.
    Load(Box<Load>),
}

impl Planned {
    /// Whether they make the same plan. A file, and the variables of the process, never change.
    fn is_like(&self, other: &Planned) -> bool {
        match (self, other) {
            (Planned::File(_), Planned::File(_)) => true,
            _ => self == other,
        }
    }

    fn plan(&self, registry: &Registry, date: NaiveDate) -> Result<Plan, RunError> {
        match self {
            Planned::File(file) => planned(file.plan(registry, Some(date))),
            Planned::Load(load) => load.plan(registry, date),
        }
    }
}

impl Engine {
    /// Of the pipelines in `files`, by name, and of every load.
    pub fn new(
        files: BTreeMap<String, File>,
        catalog: Catalog,
        registry: Registry,
        data_dir: PathBuf,
        dataflow: Handle,
    ) -> Engine {
        Engine {
            files,
            catalog,
            registry,
            data_dir,
            dataflow,
            schedules: Mutex::new(LruCache::new(KEPT)),
        }
    }

    /// What the plans of a job are made of; none: this process was not given its pipeline.
    async fn of(&self, job: &Job) -> Result<Option<Planned>, RunError> {
        if job.kind == JobKind::Load {
            let load = Load::of(job, &self.catalog, &self.data_dir).await?;
            return Ok(Some(Planned::Load(Box::new(load))));
        }
        Ok(self.files.get(&job.log_name).cloned().map(Planned::File))
    }

    /// Plans where rows are worked on: it may read files, and keeps a core busy for as long as queries are optimised.
    async fn plan(&self, of: Planned, date: NaiveDate) -> Result<Arc<Plan>, RunError> {
        let registry = self.registry.clone();
        let planning = self
            .dataflow
            .spawn_blocking(move || of.plan(&registry, date).map(Arc::new));
        let planned = planning.await;
        planned.unwrap_or_else(|panic| Err(hopeless(format!("planning panicked: {panic}"))))
    }

    /// What the job's file says of its schedule and its marker, for a date; none: this process was not given its pipeline.
    async fn schedule(
        &self,
        job: &Job,
        date: NaiveDate,
    ) -> Result<Option<(Schedule, Option<Marker>)>, RunError> {
        let Some(of) = self.of(job).await? else {
            return Ok(None);
        };
        let key = (job.uuid.clone(), date);
        if let Some(known) = self.known(&key, &of) {
            return Ok(Some(known));
        }
        let plan = self.plan(of.clone(), date).await?;
        let schedule = plan.schedule.clone().ok_or_else(|| {
            hopeless(format!(
                "the pipeline {} has no [schedule] any longer",
                job.log_name
            ))
        })?;
        let sources = plan.sources.iter().map(|of| (of.kind.as_str(), &of.options));
        let marker = schedule.marker.as_deref();
        let marker = marker.map(|url| Marker::new(url, sources)).transpose()?;
        let kept = Kept {
            of,
            schedule: schedule.clone(),
            marker: marker.clone(),
        };
        self.kept().put(key, kept);
        Ok(Some((schedule, marker)))
    }

    fn known(&self, key: &(String, NaiveDate), of: &Planned) -> Option<(Schedule, Option<Marker>)> {
        let mut kept = self.kept();
        let kept = kept.get(key).filter(|kept| kept.of.is_like(of))?;
        Some((kept.schedule.clone(), kept.marker.clone()))
    }

    fn kept(&self) -> MutexGuard<'_, LruCache<(String, NaiveDate), Kept>> {
        self.schedules.lock().expect("nothing panics while it holds this")
    }

    /// The plan of a run that begins. It is made anew, as files that it reads may have changed.
    async fn given(&self, job: &Job, date: NaiveDate) -> Result<Arc<Plan>, RunError> {
        match self.of(job).await? {
            Some(of) => self.plan(of, date).await,
            None => Err(not_given(job)),
        }
    }

    fn options(&self, run: &RunKey) -> RunOptions {
        RunOptions {
            data_dir: self.data_dir.clone(),
            registry: self.registry.clone(),
            metrics: Arc::default(),
            reset: Vec::new(),
            checkpoints: None,
            cores: runtime::cores(),
            timer: runtime::timer::real(),
            bounded: None,
            run: Some(DatedRun {
                date: run.date,
                attempt: run.attempt,
            }),
        }
    }

    /// Does work of the dataflow where it belongs. Dropping stops it.
    async fn there<T: Send + 'static>(
        &self,
        work: impl Future<Output = millstream_engine::Result<T>> + Send + 'static,
        plan: &Plan,
    ) -> Result<T, RunError> {
        let mut task = Dropped(self.dataflow.spawn(work));
        let outcome = (&mut task.0).await;
        match outcome {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                let mut error = RunError::from(error);
                error.message = plan.secrets.hide(&error.message);
                Err(error)
            }
            Err(error) => Err(hopeless(format!("a task panicked: {error}"))),
        }
    }
}

/// A task that stops when this is dropped.
struct Dropped<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Dropped<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A plan, or everything that is wrong with its file. What only was away when it was planned is tried again.
pub fn planned(plan: Result<Plan, Vec<Diagnostic>>) -> Result<Plan, RunError> {
    plan.map_err(|wrong| {
        let all: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        RunError {
            message: all.join("\n"),
            hopeless: !wrong.iter().any(|one| one.passing),
        }
    })
}

fn hopeless(message: String) -> RunError {
    RunError {
        message,
        hopeless: true,
    }
}

fn not_given(job: &Job) -> RunError {
    hopeless(format!(
        "this process was not given the pipeline {}",
        job.log_name
    ))
}

#[async_trait]
impl Execute for Engine {
    async fn rules(&self, job: &Job, now: Timestamp) -> Result<Option<Rules>, RunError> {
        let Some((schedule, _)) = self.schedule(job, job.start_date).await? else {
            return Ok(None);
        };
        let newest = schedule.newest(now);
        let retry = schedule.retry;
        Ok(Some(Rules {
            start: job.start_date,
            end: schedule.end,
            newest,
            next_look: schedule.next_look(now),
            marker: schedule.marker.is_some(),
            catch_up: schedule.catch_up,
            parallelism: schedule.parallelism as usize,
            retry: Retry {
                first: retry.first,
                longest: retry.longest,
                give_up_after: retry.give_up_after,
            },
            timeout: Some(schedule.timeout),
        }))
    }

    async fn ready(&self, job: &Job, date: NaiveDate) -> Result<bool, RunError> {
        let schedule = self.schedule(job, date).await?;
        let (_, marker) = schedule.ok_or_else(|| not_given(job))?;
        match marker {
            Some(marker) => Ok(marker.exists().await?),
            None => Ok(true),
        }
    }

    async fn transform(&self, job: &Job, run: &RunKey) -> Result<Counts, RunError> {
        let plan = self.given(job, run.date).await?;
        let counts = self
            .there(dated::transform(plan.clone(), self.options(run)), &plan)
            .await?;
        Ok(Counts {
            rows: counts.written,
            invalid: counts.invalid.values().sum(),
        })
    }

    async fn load(&self, job: &Job, run: &RunKey) -> Result<(), RunError> {
        let plan = self.given(job, run.date).await?;
        self.there(dated::load(plan.clone(), self.options(run)), &plan)
            .await
    }

    async fn forget(&self, job: &Job) {
        if let Err(error) = remains::remove(job, &self.catalog, &self.data_dir).await {
            let uuid = &job.uuid;
            tracing::warn!("files of the job {uuid}, which is gone, stay behind: {error:#}");
        }
    }
}
