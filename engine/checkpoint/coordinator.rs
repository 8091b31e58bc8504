//! Decides when a checkpoint starts and when it is done.
//!
//! Barriers go into every partition task; tasks report their state as the barrier passes them, sinks report
//! what they prepared. When all have, the manifest is made durable; only then do sinks commit, and only when
//! all have committed may sources release what they hold. They release what the checkpoint *before* covers,
//! so that a newest manifest which can no longer be read is survived: the one before replays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::checkpoint::manifest::{FORMAT, Manifest, SourceState, TaskId};
use crate::checkpoint::store::{CheckpointStore, States};
use crate::error::{Error, ErrorClass, Result};
use crate::message::{Barrier, Epoch};
use crate::metrics::PipelineMetrics;
use crate::runtime::backoff::Backoff;
use crate::runtime::sink_task::Commit;
use crate::runtime::status::Progress;
use crate::runtime::timer::Timer;
use crate::sink::Committable;
use crate::source::{Offsets, Source};
use crate::state::Snapshot;
use crate::time::Timestamp;

/// Reports that may wait: a few per task of a large pipeline.
pub const REPORTS: usize = 1_024;

/// What tasks tell the coordinator.
#[derive(Debug)]
pub enum Report {
    /// A task of a source has nothing more to read.
    Drained,
    /// A barrier has entered at a partition.
    Source(Epoch, SourceReport),
    /// A barrier has passed an operator task.
    Operator(Epoch, OperatorReport),
    /// A barrier has reached a sink.
    Prepared(Epoch, String, Committable),
    /// A sink has published.
    Committed(Epoch, String),
}

/// A partition task at a barrier.
#[derive(Debug)]
pub struct SourceReport {
    /// The source.
    pub source: String,
    /// Names the task among those of the source.
    pub task: String,
    /// What to read next, in every partition of which something was read.
    pub offsets: Offsets,
    /// Offsets of partitions that perhaps no task of this run has.
    pub kept: Offsets,
    /// The watermark it had sent.
    pub watermark: Timestamp,
    /// Its operators' state.
    pub state: Vec<(String, Snapshot)>,
}

/// An operator task at a barrier.
#[derive(Debug)]
pub struct OperatorReport {
    /// The task.
    pub task: TaskId,
    /// Its operators' state.
    pub state: Vec<(String, Snapshot)>,
}

/// Runs the checkpoints of one pipeline.
pub struct Coordinator {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Time from one checkpoint to the next.
    pub interval: Duration,
    /// Where they go; none for a bounded run that nobody resumes.
    pub store: Option<Arc<dyn CheckpointStore>>,
    /// The last checkpoint there is.
    pub epoch: Epoch,
    /// A fingerprint of every node.
    pub nodes: BTreeMap<String, String>,
    /// The sources, to release what is covered.
    pub sources: BTreeMap<String, Arc<dyn Source>>,
    /// One per partition task.
    pub barriers: Vec<mpsc::Sender<Barrier>>,
    /// Number of operator tasks.
    pub operators: usize,
    /// One per sink.
    pub sinks: BTreeMap<String, mpsc::Sender<Commit>>,
    /// From all tasks.
    pub reports: mpsc::Receiver<Report>,
    /// For people.
    pub progress: Arc<Progress>,
    /// Counts of the pipeline.
    pub metrics: PipelineMetrics,
    /// The clocks.
    pub timer: Arc<dyn Timer>,
    /// How far each source had been read at the checkpoint before.
    pub covered: BTreeMap<String, Offsets>,
    /// Partition tasks that have drained.
    pub drained: usize,
    /// Whether committing is another phase's.
    pub prepares_only: bool,
}

impl Coordinator {
    /// Runs until the last checkpoint, which is taken when every partition has drained.
    pub async fn run(mut self) -> Result<()> {
        let mut tick = self.timer.sleep(self.interval);
        loop {
            if self.drained == self.barriers.len() {
                return self.checkpoint(true).await;
            }
            tokio::select! {
                biased;
                report = self.reports.recv() => match report.ok_or_else(gone)? {
                    Report::Drained => self.drained += 1,
                    other => return Err(Error::bug(format!("a report outside a checkpoint: {other:?}"))),
                },
                () = &mut tick => {
                    let started = self.timer.elapsed();
                    self.checkpoint(false).await?;
                    let took = self.timer.elapsed() - started;
                    tick = self.timer.sleep(self.interval.saturating_sub(took));
                }
            }
        }
    }

    async fn checkpoint(&mut self, last: bool) -> Result<()> {
        let started = Instant::now();
        let epoch = self.epoch.next();
        for task in &self.barriers {
            task.send(Barrier { epoch, last }).await.map_err(|_| gone())?;
        }
        let collected = self.collect(epoch).await?;
        let offsets = collected.offsets();
        let committables = collected.prepared.clone();
        if let Some(store) = &self.store {
            let (mut manifest, states) =
                collected.into_manifest(&self.pipeline, epoch, last, self.timer.now());
            manifest.nodes = self.nodes.clone();
            save(store.as_ref(), self.timer.as_ref(), (manifest, states)).await?;
        }
        if self.prepares_only {
            return Ok(());
        }
        self.commit(epoch, committables, last).await?;
        self.delivered(&offsets).await?;
        let covered = std::mem::replace(&mut self.covered, offsets);
        for (name, source) in &self.sources {
            if let Some(done) = covered.get(name) {
                source.commit(done).await.map_err(|e| e.within(name))?;
            }
        }
        self.epoch = epoch;
        self.metrics.checkpoints.inc();
        self.metrics
            .checkpoint_seconds
            .set(started.elapsed().as_secs_f64());
        self.progress.checkpointed(epoch, started.elapsed());
        Ok(())
    }

    async fn collect(&mut self, epoch: Epoch) -> Result<Collected> {
        let mut collected = Collected::default();
        let wanted = self.barriers.len() + self.operators + self.sinks.len();
        let mut seen = 0;
        while seen < wanted {
            match self.reports.recv().await.ok_or_else(gone)? {
                Report::Drained => {
                    self.drained += 1;
                    continue;
                }
                Report::Source(of, report) if of == epoch => collected.sources.push(report),
                Report::Operator(of, report) if of == epoch => collected.operators.push(report),
                Report::Prepared(of, sink, what) if of == epoch => {
                    collected.prepared.insert(sink, what);
                }
                other => return Err(Error::bug(format!("a report out of order: {other:?}"))),
            }
            seen += 1;
        }
        Ok(collected)
    }

    async fn commit(
        &mut self,
        epoch: Epoch,
        mut what: BTreeMap<String, Committable>,
        last: bool,
    ) -> Result<()> {
        for (name, sink) in &self.sinks {
            let what = what.remove(name).unwrap_or_default();
            sink.send(Commit { epoch, what, last })
                .await
                .map_err(|_| gone())?;
        }
        let mut waiting = self.sinks.len();
        while waiting > 0 {
            match self.reports.recv().await.ok_or_else(gone)? {
                Report::Drained => self.drained += 1,
                Report::Committed(of, _) if of == epoch => waiting -= 1,
                other => return Err(Error::bug(format!("a report out of order: {other:?}"))),
            }
        }
        Ok(())
    }

    /// Before anything is released: clients may be waiting.
    async fn delivered(&self, offsets: &BTreeMap<String, Offsets>) -> Result<()> {
        for (name, source) in &self.sources {
            if let Some(done) = offsets.get(name) {
                source.delivered(done).await.map_err(|e| e.within(name))?;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Collected {
    sources: Vec<SourceReport>,
    operators: Vec<OperatorReport>,
    prepared: BTreeMap<String, Committable>,
}

impl Collected {
    fn offsets(&self) -> BTreeMap<String, Offsets> {
        let mut all: BTreeMap<String, Offsets> = BTreeMap::new();
        for report in &self.sources {
            let of = all.entry(report.source.clone()).or_default();
            of.extend(report.offsets.clone());
        }
        for report in &self.sources {
            let of = all.entry(report.source.clone()).or_default();
            for (partition, offset) in &report.kept {
                of.entry(partition.clone()).or_insert_with(|| offset.clone());
            }
        }
        all
    }

    fn into_manifest(self, pipeline: &str, epoch: Epoch, last: bool, at: Timestamp) -> (Manifest, States) {
        let mut sources: BTreeMap<String, SourceState> = BTreeMap::new();
        for (name, offsets) in self.offsets() {
            sources.entry(name).or_default().offsets = offsets;
        }
        let mut states = States::new();
        for report in self.sources {
            let of = sources.entry(report.source.clone()).or_default();
            of.watermark = Some(of.watermark.map_or(report.watermark, |w| w.min(report.watermark)));
            let task = TaskId::Partition {
                source: report.source,
                partition: report.task,
            };
            states.extend(report.state.into_iter().map(|(op, s)| (task.clone(), op, s)));
        }
        for report in self.operators {
            let task = report.task;
            states.extend(report.state.into_iter().map(|(op, s)| (task.clone(), op, s)));
        }
        let manifest = Manifest {
            format: FORMAT,
            pipeline: pipeline.into(),
            epoch,
            at,
            last,
            nodes: BTreeMap::new(),
            sources,
            state: Vec::new(),
            files: Vec::new(),
            sinks: self.prepared,
        };
        (manifest, states)
    }
}

/// Saving retries in place: what the tasks reported stays good, and a full disk may be emptied.
async fn save(
    store: &dyn CheckpointStore,
    timer: &dyn Timer,
    (manifest, states): (Manifest, States),
) -> Result<()> {
    let mut backoff = Backoff::default();
    loop {
        let Err(error) = store.save(manifest.clone(), states.clone()).await else {
            return Ok(());
        };
        let ErrorClass::Retry { after } = error.class() else {
            return Err(error);
        };
        let wait = backoff.next(after);
        tracing::warn!(%error, ?wait, "cannot save a checkpoint; trying again");
        timer.sleep(wait).await;
    }
}

fn gone() -> Error {
    Error::bug("a task is gone in the middle of a checkpoint")
}
