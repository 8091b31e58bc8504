//! Runs plans: one supervisor per pipeline, one task per source partition, dedup, windowed query and sink.
//!
//! ```text
//! partition task ─(edge)→ query task ─(edge)→ sink task
//!        └───────────────(edge)──────────────→ sink task
//!
//! partition task ─(edge)→ dedup task ─(edge)→ ...            a source with `dedup`
//! ... ─(edge)→ sink task ─(edge)→ sink task                  one that takes `<sink>.rejected`
//! ```
//!
//! A failure of any task ends all tasks of its pipeline; the supervisor starts it again from its last
//! checkpoint, after a growing wait, and says why. A configuration error is not tried again.

pub mod backoff;
mod build;
pub mod chain;
pub mod channel;
pub mod clock;
pub mod dated;
pub mod discovery;
pub mod inbox;
mod operator_task;
mod rejected;
mod run;
pub mod sink_task;
mod source_task;
mod sources;
pub mod status;
mod tables;
pub mod tap;
pub mod timer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::store::CheckpointStore;
use crate::error::{Error, ErrorClass, Result};
use crate::message::Epoch;
use crate::metrics::{Metrics, NodeMetrics, PipelineMetrics};
use crate::plan::Plan;
use crate::registry::Registry;
use crate::run::DatedRun;
use crate::runtime::status::{NodeStatus, PipelineState, PipelineStatus, Progress};
use crate::runtime::tap::Tap;
use crate::runtime::timer::Timer;
use crate::sink::Sink;
use crate::source::Source;

/// The first wait before a failed pipeline is started again; doubles up to [`LONGEST_RESTART_WAIT`].
const FIRST_RESTART_WAIT: Duration = Duration::from_secs(1);
/// The longest wait before a failed pipeline is started again.
const LONGEST_RESTART_WAIT: Duration = Duration::from_secs(60);
/// A pipeline that ran this long has recovered: its next failure waits as a first one does.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// How to run a plan.
pub struct RunOptions {
    /// Under which the pipeline's log, checkpoints and staged files live.
    pub data_dir: PathBuf,
    /// Where connectors and operators come from.
    pub registry: Registry,
    /// Where counts go.
    pub metrics: Arc<Metrics>,
    /// Nodes whose state is dropped at the start, such as `sql.clickthrough`, or
    /// [`ALL`](crate::checkpoint::changes::ALL).
    pub reset: Vec<String>,
    /// Where the pipeline's checkpoints go; none: under `data_dir`.
    pub checkpoints: Option<Arc<dyn CheckpointStore>>,
    /// Tasks that read a source whose partitions come and go: [`cores`], but in a simulation.
    pub cores: usize,
    /// The clocks: [`timer::real`], but in a simulation.
    pub timer: Arc<dyn Timer>,
    /// Set to run on given rows instead of the file's sources and sinks.
    pub bounded: Option<BoundedRun>,
    /// Set in a dated run, see [`dated`].
    pub run: Option<DatedRun>,
}

/// A run on given rows: no checkpoints are kept, and a failure is final.
pub struct BoundedRun {
    /// In place of the file's sources.
    pub sources: BTreeMap<String, Arc<dyn Source>>,
    /// In place of what the files of reference tables hold; a table that is not here is read from its file.
    pub tables: BTreeMap<String, Vec<RecordBatch>>,
    /// In place of the file's sinks: streams and what takes them.
    pub collect: Vec<(String, Box<dyn Sink>)>,
}

/// A running pipeline.
#[derive(Clone)]
pub struct PipelineHandle {
    shared: Arc<Shared>,
    done: watch::Receiver<Option<Outcome>>,
}

type Outcome = std::result::Result<(), String>;

/// What the supervisor, the tasks and the handle share.
struct Shared {
    plan: Arc<Plan>,
    registry: Registry,
    data_dir: PathBuf,
    reset: Vec<String>,
    /// The newest checkpoint at the start: what is later has been reset already.
    reset_until: OnceLock<Epoch>,
    checkpoints: Option<Arc<dyn CheckpointStore>>,
    cores: usize,
    timer: Arc<dyn Timer>,
    metrics: PipelineMetrics,
    nodes: BTreeMap<String, NodeMetrics>,
    taps: BTreeMap<String, Tap>,
    progress: Arc<Progress>,
    stop: CancellationToken,
    bounded: bool,
    run: Option<DatedRun>,
    bounded_run: Mutex<Option<BoundedRun>>,
}

/// The cores of this machine that the process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Starts a pipeline on the current tokio runtime.
pub fn start(plan: Arc<Plan>, options: RunOptions) -> PipelineHandle {
    let (tell, done) = watch::channel(None);
    let shared = Arc::new(Shared::new(plan, options));
    let supervised = shared.clone();
    tokio::spawn(async move {
        let outcome = supervise(&supervised).await;
        tell.send_replace(Some(outcome));
    });
    PipelineHandle { shared, done }
}

impl Shared {
    fn new(plan: Arc<Plan>, options: RunOptions) -> Shared {
        let taps = plan
            .streams
            .iter()
            .map(|(name, s)| (name.clone(), Tap::new(s.schema.clone())));
        let data_dir = options.data_dir.join(&plan.name);
        Shared {
            registry: options.registry,
            data_dir: match &options.run {
                Some(run) => dated::directory(&data_dir, run),
                None => data_dir,
            },
            reset: options.reset,
            reset_until: OnceLock::new(),
            checkpoints: options.checkpoints,
            cores: options.cores,
            timer: options.timer,
            metrics: options.metrics.pipeline(&plan.name),
            nodes: nodes(&plan, &options.metrics, options.bounded.as_ref()),
            taps: taps.collect(),
            progress: Arc::default(),
            stop: CancellationToken::new(),
            bounded: options.bounded.is_some(),
            bounded_run: Mutex::new(options.bounded),
            run: options.run,
            plan,
        }
    }
}

fn nodes(plan: &Plan, metrics: &Metrics, bounded: Option<&BoundedRun>) -> BTreeMap<String, NodeMetrics> {
    let mut names: Vec<String> = Vec::new();
    names.extend(plan.sources.iter().map(|n| format!("source.{}", n.name)));
    names.extend(plan.dedups.iter().map(|n| format!("dedup.{}", n.name)));
    names.extend(plan.windows.iter().map(|n| format!("window.{}", n.name)));
    names.extend(plan.tables.iter().map(|n| format!("table.{}", n.name)));
    names.extend(plan.queries.iter().map(|n| format!("sql.{}", n.name)));
    match bounded {
        Some(run) => names.extend((0..run.collect.len()).map(|i| format!("sink.collect-{i}"))),
        None => names.extend(plan.sinks.iter().map(|n| format!("sink.{}", n.name))),
    }
    let named = names
        .into_iter()
        .map(|n| (n.clone(), metrics.node(&plan.name, &n)));
    named.collect()
}

impl PipelineHandle {
    /// The plan it runs.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.shared.plan
    }

    /// Its state now.
    pub fn status(&self) -> PipelineStatus {
        self.shared.progress.status()
    }

    /// Its nodes' counts now.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        self.shared
            .nodes
            .iter()
            .map(|(name, metrics)| NodeStatus::read(name, metrics))
            .collect()
    }

    /// The latest rows of a stream; `None` when there is no such stream.
    pub fn tap(&self, stream: &str) -> Option<Tap> {
        self.shared.taps.get(stream).cloned()
    }

    /// Asks it to take nothing new, finish what it has, and checkpoint.
    pub fn stop(&self) {
        if self.done.borrow().is_none() {
            self.shared.progress.enter(PipelineState::Stopping);
        }
        self.shared.stop.cancel();
    }

    /// Waits until it has stopped, finished or failed for good.
    pub async fn done(&self) -> Result<()> {
        let mut done = self.done.clone();
        let outcome = done.wait_for(Option::is_some).await;
        let outcome = outcome.map_err(|_| Error::bug("the supervisor is gone"))?.clone();
        outcome.unwrap_or(Ok(())).map_err(Error::Data)
    }
}

async fn supervise(shared: &Arc<Shared>) -> Outcome {
    let mut wait = FIRST_RESTART_WAIT;
    loop {
        let started = shared.timer.elapsed();
        let Err(error) = run::run(shared).await else {
            let stopped = shared.stop.is_cancelled();
            shared.progress.enter(if stopped {
                PipelineState::Stopped
            } else {
                PipelineState::Finished
            });
            shared.metrics.running.set(0);
            return Ok(());
        };
        shared.metrics.running.set(0);
        let pipeline = &shared.plan.name;
        let text = shared.plan.secrets.hide(&error.to_string());
        if shared.bounded || error.class() == ErrorClass::Config || shared.stop.is_cancelled() {
            tracing::error!(pipeline, error = text, "failed; it is not started again");
            shared.progress.failed(text.clone(), None);
            return Err(text);
        }
        if shared.timer.elapsed() - started > STABLE_AFTER {
            wait = FIRST_RESTART_WAIT;
        }
        tracing::error!(pipeline, error = text, ?wait, "failed; starting it again");
        shared.metrics.restarts.inc();
        shared.progress.failed(text, Some(wait));
        tokio::select! {
            () = shared.timer.sleep(wait) => {}
            () = shared.stop.cancelled() => {}
        }
        wait = (wait * 2).min(LONGEST_RESTART_WAIT);
        shared.progress.enter(PipelineState::Starting);
    }
}
