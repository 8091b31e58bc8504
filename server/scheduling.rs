//! The scheduler of a process: makes jobs of the pipelines that have a schedule, and keeps the loop that runs them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use millstream_engine::registry::Registry;
use millstream_engine::runtime::timer;
use millstream_engine::schedule::Schedule;
use millstream_engine::time::Timestamp;
use serde_json::{Map, json};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::catalog::Catalog;
use crate::catalog::model::{JobKind, NewJob};
use crate::pipelines::Checked;
use crate::scheduler::Scheduler;
use crate::scheduler::engine::Engine;

/// Holds the name under which this process works on runs: the same after a restart, so that what it had in hand is its
/// own again at once.
const WORKER: &str = "worker";

/// What the scheduler needs.
pub struct Options<'a> {
    /// Jobs and their runs.
    pub catalog: Catalog,
    /// Pipelines with a schedule.
    pub scheduled: &'a [Checked],
    /// Where connectors and operators come from.
    pub registry: Registry,
    /// Where runs keep what they prepare.
    pub data_dir: &'a Path,
    /// Where rows are worked on.
    pub dataflow: Handle,
}

/// The loop, as long as the process runs.
pub struct Scheduling {
    stop: CancellationToken,
    running: AbortHandle,
    ended: Mutex<Option<JoinHandle<()>>>,
    has_dates: bool,
}

impl Scheduling {
    /// Registers the pipelines and starts the loop on the current runtime.
    pub async fn start(options: Options<'_>) -> anyhow::Result<Scheduling> {
        let mut files = BTreeMap::new();
        for one in options.scheduled {
            let Some(schedule) = &one.plan.schedule else {
                continue;
            };
            register(&options.catalog, &one.plan.name, schedule).await?;
            files.insert(one.plan.name.clone(), one.file.clone());
        }
        let engine = Engine::new(
            files,
            options.catalog.clone(),
            options.registry,
            options.data_dir.to_path_buf(),
            options.dataflow,
        );
        let worker = worker(options.data_dir)?;
        let scheduler = Scheduler::new(options.catalog, Arc::new(engine), timer::real(), worker);
        let stop = CancellationToken::new();
        let ended = tokio::spawn(scheduler.run(stop.clone()));
        Ok(Scheduling {
            stop,
            running: ended.abort_handle(),
            ended: Mutex::new(Some(ended)),
            has_dates: !options.scheduled.is_empty(),
        })
    }

    /// Whether the process has pipelines that never end.
    pub fn has_dates(&self) -> bool {
        self.has_dates
    }

    /// Knows whether the loop still runs.
    pub fn running(&self) -> AbortHandle {
        self.running.clone()
    }

    /// Lets transforms go and waits for loads.
    pub async fn stop(&self) {
        self.stop.cancel();
        let ended = self
            .ended
            .lock()
            .expect("nothing panics while it holds this")
            .take();
        if let Some(ended) = ended {
            // One that panicked has said so.
            ended.await.ok();
        }
    }
}

/// Makes a pipeline a job, or finds the one it is.
async fn register(catalog: &Catalog, pipeline: &str, schedule: &Schedule) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let available_after = humantime::format_duration(schedule.available_after).to_string();
    let mut arguments = Map::new();
    arguments.insert("available_after".into(), json!(available_after));
    let job = NewJob {
        kind: JobKind::Pipeline,
        log_name: pipeline.into(),
        log_schema_version: String::new(),
        s3_path: String::new(),
        start_date: schedule.start.unwrap_or_else(|| schedule.newest(now)),
        end_date: schedule.end,
        contact_emails: Vec::new(),
        log_format: String::new(),
        redshift_id: String::new(),
        additional_arguments: arguments,
    };
    let registered = catalog.register(job, schedule.start, now).await;
    registered.with_context(|| format!("cannot note the pipeline {pipeline} in the catalog"))?;
    Ok(())
}

/// The name of this process in the catalog.
fn worker(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join(WORKER);
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().into()),
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot read {}", path.display()));
        }
        _ => {}
    }
    let name = Uuid::new_v4().to_string();
    std::fs::write(&path, &name).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(name)
}
