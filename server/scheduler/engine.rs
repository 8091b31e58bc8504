//! Runs dates by the engine: plans the pipeline file for the date, looks for its marker, transforms and loads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use chrono::NaiveDate;
use millstream_engine::config::Diagnostic;
use millstream_engine::plan::Plan;
use millstream_engine::registry::Registry;
use millstream_engine::run::DatedRun;
use millstream_engine::runtime::{self, RunOptions, dated};
use millstream_engine::time::Timestamp;
use millstream_operators::sources::objects;
use tokio::runtime::Handle;

use crate::catalog::Catalog;
use crate::catalog::model::{Job, JobKind};
use crate::pipelines::File;
use crate::scheduler::execute::{Counts, Execute, RunError, RunKey};
use crate::scheduler::loads::Loads;
use crate::scheduler::rules::{Retry, Rules};

/// The pipelines of this process that have a schedule, and what it takes to run them.
pub struct Engine {
    /// Their files, by the name of the pipeline.
    pub files: BTreeMap<String, File>,
    /// Where clusters and schemas of loads are.
    pub catalog: Catalog,
    /// Where connectors and operators come from.
    pub registry: Registry,
    /// Where runs keep what they prepare.
    pub data_dir: PathBuf,
    /// Where rows are worked on: not where requests are served.
    pub dataflow: Handle,
}

impl Engine {
    /// The plan of a job for a date; none: this process was not given its pipeline.
    async fn plan(&self, job: &Job, date: NaiveDate) -> anyhow::Result<Option<Arc<Plan>>> {
        if job.kind == JobKind::Load {
            let loads = Loads {
                catalog: &self.catalog,
                registry: &self.registry,
                data_dir: &self.data_dir,
            };
            return loads.plan(job, date).await.map(Some);
        }
        let Some(file) = self.files.get(&job.log_name) else {
            return Ok(None);
        };
        planned(file.plan(&self.registry, Some(date))).map(Some)
    }

    async fn given(&self, job: &Job, date: NaiveDate) -> Result<Arc<Plan>, RunError> {
        let plan = self.plan(job, date).await.map_err(|error| hopeless(&error))?;
        plan.ok_or_else(|| {
            hopeless(&anyhow!(
                "this process was not given the pipeline {}",
                job.log_name
            ))
        })
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
            Err(error) => Err(hopeless(&anyhow!("a task panicked: {error}"))),
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

/// A plan, or everything that is wrong with its file.
pub fn planned(plan: Result<Plan, Vec<Diagnostic>>) -> anyhow::Result<Arc<Plan>> {
    let plan = plan.map_err(|wrong| {
        let all: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        anyhow!("{}", all.join("\n"))
    })?;
    Ok(Arc::new(plan))
}

fn hopeless(error: &anyhow::Error) -> RunError {
    RunError {
        message: format!("{error:#}"),
        hopeless: true,
    }
}

#[async_trait]
impl Execute for Engine {
    async fn rules(&self, job: &Job, now: Timestamp) -> anyhow::Result<Option<Rules>> {
        let Some(plan) = self.plan(job, job.start_date).await? else {
            return Ok(None);
        };
        let schedule = plan
            .schedule
            .as_ref()
            .with_context(|| format!("the pipeline {} has no [schedule] any longer", job.log_name))?;
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

    async fn ready(&self, job: &Job, date: NaiveDate) -> anyhow::Result<bool> {
        let plan = self
            .plan(job, date)
            .await?
            .context("this process was not given the pipeline")?;
        let marker = plan
            .schedule
            .as_ref()
            .and_then(|schedule| schedule.marker.clone());
        match marker {
            Some(marker) => Ok(objects::exists(&marker).await?),
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
}
