//! One try of a pipeline: recover, open, wire, run until done or until the first failure.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::changes::{fingerprints, reconcile};
use crate::checkpoint::coordinator::{Coordinator, REPORTS, Report};
use crate::checkpoint::disk::DiskStore;
use crate::checkpoint::manifest::{Manifest, TaskId};
use crate::checkpoint::store::{CheckpointStore, Restored};
use crate::error::{Error, Result};
use crate::message::Epoch;
use crate::plan::SourceNode;
use crate::runtime::Shared;
use crate::runtime::build::Builder;
use crate::runtime::chain::{Chain, FanId};
use crate::runtime::dated;
use crate::runtime::inbox::Inbox;
use crate::runtime::operator_task::OperatorTask;
use crate::runtime::rejected::Rejected;
use crate::runtime::sink_task::{Commit, Retry, SinkTask};
use crate::runtime::status::PipelineState;
use crate::runtime::tables;
use crate::sink::{Sink, SinkContext};
use crate::state::Snapshot;
use crate::window::Window;

type Tasks = JoinSet<(String, Result<()>)>;

/// A task whose chain is built: its node, what it is, the chain, and the stream that arrivals enter.
type Waiting = (String, TaskId, Chain, FanId);

/// Runs once. Ends well when every partition has drained and the last checkpoint is committed.
pub async fn run(shared: &Arc<Shared>) -> Result<()> {
    // Sources stop with the pipeline, and also when this try fails.
    let stop = shared.stop.child_token();
    let _stop_on_failure = stop.clone().drop_guard();
    tables::load(shared).await?;
    let _refresh = tables::refresh(shared);
    let mut attempt = Attempt::recover(shared, stop).await?;
    let coordinator = attempt.wire().await?;
    if !shared.stop.is_cancelled() {
        shared.progress.enter(PipelineState::Running);
    }
    shared.metrics.running.set(1);
    let outcome = attempt.drive(coordinator).await;
    // Nothing of a failed try may outlive it: the next one opens the same files.
    attempt.tasks.shutdown().await;
    outcome
}

/// Opens the sinks and makes the commits of a manifest, without running anything.
pub async fn commit(shared: &Arc<Shared>, manifest: &Manifest) -> Result<()> {
    let mut attempt = Attempt {
        shared,
        stop: CancellationToken::new(),
        store: None,
        epoch: manifest.epoch,
        restored: Some(Restored {
            manifest: manifest.clone(),
            states: Default::default(),
            newest: manifest.epoch,
        }),
        sinks: Vec::new(),
        tasks: JoinSet::new(),
    };
    attempt.open_sinks().await
}

/// Makes the checkpoint fit the pipeline, which may have been changed since. What is reset at the start of
/// the process is not reset again when the pipeline starts again after a failure.
fn fit(shared: &Shared, restored: &mut Restored) -> Result<()> {
    let until = *shared.reset_until.get_or_init(|| restored.newest);
    let now = fingerprints(&shared.plan, &shared.registry);
    let reset = match restored.manifest.epoch <= until {
        true => shared.reset.as_slice(),
        false => &[],
    };
    let pipeline = &shared.plan.name;
    for node in reconcile(restored, &now, reset)? {
        tracing::warn!(pipeline, node, "its state is dropped, as asked for by --reset");
    }
    Ok(())
}

pub(super) struct Attempt<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) stop: CancellationToken,
    store: Option<Arc<dyn CheckpointStore>>,
    epoch: Epoch,
    pub(super) restored: Option<Restored>,
    sinks: Vec<(String, String, Box<dyn Sink>)>,
    pub(super) tasks: Tasks,
}

impl<'a> Attempt<'a> {
    /// Reads the last checkpoint, opens the sinks and makes the commits it promised.
    async fn recover(shared: &'a Arc<Shared>, stop: CancellationToken) -> Result<Attempt<'a>> {
        let mut attempt = Attempt {
            shared,
            stop,
            store: None,
            epoch: Epoch(0),
            restored: None,
            sinks: Vec::new(),
            tasks: JoinSet::new(),
        };
        let given = shared
            .bounded_run
            .lock()
            .expect("only this task locks it")
            .as_mut()
            .map(|b| std::mem::take(&mut b.collect));
        if let Some(given) = given {
            let named = given.into_iter().enumerate();
            attempt.sinks = named
                .map(|(i, (stream, sink))| (format!("collect-{i}"), stream, sink))
                .collect();
            return Ok(attempt);
        }
        if shared.run.is_some() {
            let manifest = dated::manifest(&shared.data_dir);
            attempt.store = Some(Arc::new(DiskStore::open(manifest)?));
            attempt.open_sinks().await?;
            return Ok(attempt);
        }
        let store: Arc<dyn CheckpointStore> = match &shared.checkpoints {
            Some(given) => given.clone(),
            None => Arc::new(DiskStore::open(shared.data_dir.join("checkpoints"))?),
        };
        attempt.restored = store.latest().await?;
        if let Some(restored) = &mut attempt.restored {
            attempt.epoch = restored.newest;
            fit(shared, restored)?;
        }
        attempt.store = Some(store);
        attempt.open_sinks().await?;
        Ok(attempt)
    }

    /// Opens the sinks, each of which makes the commit of what was restored.
    async fn open_sinks(&mut self) -> Result<()> {
        let shared = self.shared;
        for node in &shared.plan.sinks {
            let place = format!("sink.{}", node.name);
            let stream = &shared.plan.streams[&node.input];
            let metrics = &shared.nodes[&place];
            let cx = SinkContext {
                run: shared.run.clone(),
                pipeline: shared.plan.name.clone(),
                name: node.name.clone(),
                input: node.input.clone(),
                schema: stream.schema.clone(),
                event_time: stream.event_time,
                options: node.options.clone(),
                data_dir: shared.data_dir.join("sinks").join(&node.name),
                counters: metrics.counters.clone(),
            };
            let connector = shared.registry.sinks.get(node.kind.as_str());
            let connector =
                connector.ok_or_else(|| Error::config(format!("{place}: no sink type {:?}", node.kind)))?;
            let mut sink = connector.open(cx).await.map_err(|e| e.within(&place))?;
            if let Some(restored) = &self.restored {
                let epoch = restored.manifest.epoch;
                if let Some(what) = restored.manifest.sinks.get(&node.name) {
                    let mut retry = Retry::new(&node.name, metrics, shared.timer.as_ref());
                    while let Err(e) = sink.commit(epoch, what.clone()).await {
                        retry.after(e).await.map_err(|e| e.within(&place))?;
                    }
                }
            }
            self.sinks.push((node.name.clone(), node.input.clone(), sink));
        }
        Ok(())
    }

    /// Opens the sources and starts every task.
    async fn wire(&mut self) -> Result<Coordinator> {
        let shared = self.shared;
        let (reports, reported) = mpsc::channel(REPORTS);
        let named: Vec<(String, String)> = self
            .sinks
            .iter()
            .map(|(n, s, _)| (n.clone(), s.clone()))
            .collect();
        let mut builder = Builder {
            plan: &shared.plan,
            registry: &shared.registry,
            taps: &shared.taps,
            nodes: &shared.nodes,
            sinks: &named,
            into_dedup: BTreeMap::new(),
            into_window: BTreeMap::new(),
            into_query: BTreeMap::new(),
            into_sink: BTreeMap::new(),
        };
        let mut sources = BTreeMap::new();
        let mut barriers = Vec::new();
        for node in &shared.plan.sources {
            let source = self.open_source(node)?;
            barriers.extend(self.start_source(node, &source, &mut builder, &reports).await?);
            sources.insert(node.name.clone(), source);
        }
        // Dedups and queries feed one another, so edges are complete when all chains are built.
        let dedups = self.dedup_chains(&mut builder)?;
        let operators =
            self.start_once(&mut builder, &reports)? + self.start_dedups(dedups, &mut builder, &reports);
        let commits = self.start_sinks(&mut builder, &reports)?;
        Ok(Coordinator {
            pipeline: shared.plan.name.clone(),
            interval: shared.plan.checkpoint_interval,
            store: self.store.clone(),
            epoch: self.epoch,
            nodes: fingerprints(&shared.plan, &shared.registry),
            sources,
            barriers,
            operators,
            sinks: commits,
            reports: reported,
            progress: shared.progress.clone(),
            metrics: shared.metrics.clone(),
            timer: shared.timer.clone(),
            covered: BTreeMap::new(),
            drained: 0,
            prepares_only: shared.run.is_some(),
        })
    }

    fn dedup_chains(&mut self, builder: &mut Builder<'_>) -> Result<Vec<Waiting>> {
        let mut waiting = Vec::new();
        let plan = &self.shared.plan;
        for it in plan.sources.iter().filter_map(SourceNode::dedup_node) {
            let node = format!("source.{}", it.name);
            let (mut chain, entry) = builder.dedup_chain(&node, &it)?;
            // What ran in the partitions before the source had a dedup runs here now.
            self.restore(&mut chain, |of, _| match of {
                TaskId::Source(s) | TaskId::Partition { source: s, .. } => *s == it.name,
                TaskId::Window(_) | TaskId::Query(_) | TaskId::Dedup(_) => false,
            })?;
            waiting.push((node, TaskId::Source(it.name), chain, entry));
        }
        for it in &plan.dedups {
            let node = format!("dedup.{}", it.name);
            let task = TaskId::Dedup(it.name.clone());
            let (mut chain, entry) = builder.dedup_chain(&node, it)?;
            self.restore(&mut chain, |of, _| *of == task)?;
            waiting.push((node, task, chain, entry));
        }
        Ok(waiting)
    }

    fn start_dedups(
        &mut self,
        waiting: Vec<Waiting>,
        builder: &mut Builder<'_>,
        reports: &mpsc::Sender<Report>,
    ) -> usize {
        let count = waiting.len();
        for (node, task, chain, entry) in waiting {
            let task = OperatorTask {
                inbox: Inbox::new(builder.into_dedup.remove(&node).unwrap_or_default()),
                chain,
                entry,
                reports: reports.clone(),
                task,
            };
            let name = format!("{node}/dedup");
            self.tasks.spawn(async move { (name, task.run().await) });
        }
        count
    }

    /// Starts the tasks of session windows and of queries' global halves.
    fn start_once(&mut self, builder: &mut Builder<'_>, reports: &mpsc::Sender<Report>) -> Result<usize> {
        let mut count = 0;
        let mut waiting = Vec::new();
        for window in &self.shared.plan.windows {
            let Window::Session { gap, key } = &window.window else {
                continue;
            };
            let (mut chain, entry) = builder.session_chain(window, *gap, key)?;
            let task = TaskId::Window(window.name.clone());
            self.restore(&mut chain, |of, _| *of == task)?;
            waiting.push((task, format!("window.{}", window.name), chain, entry));
        }
        for query in &self.shared.plan.queries {
            let place = format!("sql.{}", query.name);
            let Some(global) = query.plan.global().map_err(|e| e.within(&place))? else {
                continue;
            };
            let (mut chain, entry) = builder.query_chain(query, global)?;
            let task = TaskId::Query(query.name.clone());
            self.restore(&mut chain, |of, _| *of == task)?;
            waiting.push((task, place, chain, entry));
        }
        // Each may feed another, so edges are complete only now.
        for (task, place, chain, entry) in waiting {
            let edges = match &task {
                TaskId::Window(name) => builder.into_window.remove(name),
                TaskId::Query(name) => builder.into_query.remove(name),
                TaskId::Source(_) | TaskId::Dedup(_) | TaskId::Partition { .. } => None,
            };
            let task = OperatorTask {
                inbox: Inbox::new(edges.unwrap_or_default()),
                chain,
                entry,
                reports: reports.clone(),
                task,
            };
            self.tasks.spawn(async move { (place, task.run().await) });
            count += 1;
        }
        Ok(count)
    }

    /// Starts the sinks' tasks; gives what tells each to commit.
    fn start_sinks(
        &mut self,
        builder: &mut Builder<'_>,
        reports: &mpsc::Sender<Report>,
    ) -> Result<BTreeMap<String, mpsc::Sender<Commit>>> {
        let mut waiting = Vec::new();
        for (name, _, sink) in self.sinks.drain(..) {
            let rejected = builder.rejected_chain(&name)?;
            waiting.push((name, sink, rejected));
        }
        // Sinks take what others refuse, so edges are complete only now.
        let mut commits = BTreeMap::new();
        for (name, sink, (chain, refused)) in waiting {
            let (commit, committed) = mpsc::channel(1);
            commits.insert(name.clone(), commit);
            let place = format!("sink.{name}");
            let metrics = self.shared.nodes[&place].clone();
            let timer = self.shared.timer.clone();
            let task = SinkTask {
                inbox: Inbox::new(builder.into_sink.remove(&name).unwrap_or_default()),
                sink,
                rejected: Rejected::new(&name, chain, refused, metrics.clone(), timer.clone()),
                commits: committed,
                reports: reports.clone(),
                metrics,
                timer,
                name,
            };
            self.tasks.spawn(async move { (place, task.run().await) });
        }
        Ok(commits)
    }

    /// Gives a chain the state that is its own.
    pub(super) fn restore(&self, chain: &mut Chain, mine: impl Fn(&TaskId, &str) -> bool) -> Result<()> {
        let Some(restored) = &self.restored else {
            return Ok(());
        };
        for it in &mut chain.operators {
            let mut state = Snapshot::default();
            for ((task, name), saved) in &restored.states {
                if *name == it.state_name && mine(task, name) {
                    state.parts.extend(saved.parts.iter().cloned());
                }
            }
            if !state.is_empty() {
                it.operator.restore(state).map_err(|e| e.within(&it.state_name))?;
            }
        }
        Ok(())
    }

    /// Waits for the last checkpoint or the first failure.
    async fn drive(&mut self, coordinator: Coordinator) -> Result<()> {
        let mut coordinator = Box::pin(coordinator.run());
        loop {
            tokio::select! {
                biased;
                ended = self.tasks.join_next() => match ended {
                    // The last sink has committed; the coordinator only has to notice.
                    None => return coordinator.await,
                    Some(Ok((_, Ok(())))) => {}
                    Some(Ok((name, Err(e)))) => return Err(e.within(name)),
                    Some(Err(panic)) => return Err(Error::bug(format!("a task panicked: {panic}"))),
                },
                done = &mut coordinator => return done,
            }
        }
    }
}
