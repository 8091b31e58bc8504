//! Starts the tasks of a source: one per partition, or, where partitions come and go, one per core and a discovery
//! that hands partitions to them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::checkpoint::coordinator::Report;
use crate::checkpoint::manifest::TaskId;
use crate::error::{Error, Result};
use crate::message::Barrier;
use crate::plan::SourceNode;
use crate::runtime::build::Builder;
use crate::runtime::chain::Chain;
use crate::runtime::clock::{ClockSettings, SourceClock};
use crate::runtime::discovery::{ASSIGNMENTS, Assignment, Discovery, Ended, Ends, Reader, Reading};
use crate::runtime::run::Attempt;
use crate::runtime::source_task::SourceTask;
use crate::source::{Offsets, Partitions, Source, SourceContext};
use crate::time::Timestamp;

/// What the tasks of one source share.
struct Common<'s> {
    node: &'s SourceNode,
    source: Arc<dyn Source>,
    clock: Arc<SourceClock>,
    reports: mpsc::Sender<Report>,
    ended: Option<mpsc::Sender<Ended>>,
}

impl Attempt<'_> {
    /// Opens a source.
    pub(super) fn open_source(&self, node: &SourceNode) -> Result<Arc<dyn Source>> {
        let shared = self.shared;
        if shared.bounded {
            let given = shared.bounded_run.lock().expect("only this task locks it");
            let source = given.as_ref().and_then(|b| b.sources.get(&node.name).cloned());
            return source
                .ok_or_else(|| Error::config(format!("no rows were given for source {}", node.name)));
        }
        let place = format!("source.{}", node.name);
        let connector = shared.registry.sources.get(node.kind.as_str());
        let connector =
            connector.ok_or_else(|| Error::config(format!("{place}: no source type {:?}", node.kind)))?;
        let cx = SourceContext {
            run: shared.run.clone(),
            pipeline: shared.plan.name.clone(),
            name: node.name.clone(),
            schema: node.schema.clone(),
            event_time: node.event_time,
            options: node.options.clone(),
            data_dir: shared.data_dir.join("sources").join(&node.name),
            stop: self.stop.clone(),
            counters: shared.nodes[&place].counters.clone(),
        };
        connector.open(cx).map_err(|e| e.within(place))
    }

    /// Starts the tasks of a source; barriers enter there.
    pub(super) async fn start_source(
        &mut self,
        node: &SourceNode,
        source: &Arc<dyn Source>,
        builder: &mut Builder<'_>,
        reports: &mpsc::Sender<Report>,
    ) -> Result<Vec<mpsc::Sender<Barrier>>> {
        let place = format!("source.{}", node.name);
        let saved = self.restored.as_ref();
        let saved = saved.and_then(|r| r.manifest.sources.get(&node.name));
        let resumed = saved.and_then(|s| s.watermark).unwrap_or(Timestamp::MIN);
        let known = saved.map(|s| s.offsets.clone()).unwrap_or_default();
        let found = source.partitions(&known).await.map_err(|e| e.within(&place))?;
        let settings = match self.shared.run {
            None => ClockSettings {
                max_out_of_orderness: node.max_out_of_orderness,
                idle_after: node.idle_after,
            },
            // The watermark stands still until everything is read.
            Some(_) => ClockSettings {
                max_out_of_orderness: Duration::MAX,
                idle_after: Duration::MAX,
            },
        };
        let clock = Arc::new(SourceClock::new(settings, resumed));
        let (ended, ends) = mpsc::channel(ASSIGNMENTS);
        let common = Common {
            node,
            source: source.clone(),
            clock: clock.clone(),
            reports: reports.clone(),
            ended: found.again.map(|_| ended),
        };
        let names = task_names(&found, self.shared.cores);
        let (mut barriers, mut readers) = (Vec::new(), Vec::new());
        for number in 0..names.len() {
            // What no task reads stands in the checkpoints of the first.
            let keeps = number == 0 && (found.again.is_some() || found.open.is_empty());
            let kept = if keeps { known.clone() } else { Offsets::new() };
            let (barrier, reader) = self.start_task(&common, builder, (&names, number), kept)?;
            barriers.push(barrier);
            readers.push(reader);
        }
        if found.again.is_none() {
            assign(found, &clock, readers).await;
            clock.complete(self.shared.timer.now());
            return Ok(barriers);
        }
        let discovery = Discovery {
            name: node.name.clone(),
            source: source.clone(),
            clock,
            timer: self.shared.timer.clone(),
            stop: self.stop.clone(),
            known,
            tasks: readers,
            ends: Ends {
                arriving: ends,
                waiting: Vec::new(),
            },
            assigned: HashSet::new(),
            leaving: BTreeMap::new(),
            progress: self.shared.progress.clone(),
            deserted: Duration::ZERO,
        };
        self.tasks
            .spawn(async move { (place, discovery.run(found).await) });
        Ok(barriers)
    }

    fn start_task(
        &mut self,
        common: &Common<'_>,
        builder: &mut Builder<'_>,
        (names, number): (&[String], usize),
        kept: Offsets,
    ) -> Result<(mpsc::Sender<Barrier>, Reader)> {
        let node = common.node;
        let (mut chain, streams) = builder.source_chain(node)?;
        self.restore_partition(&mut chain, &node.name, names, number)?;
        let (inject, barriers) = mpsc::channel(1);
        let (assign, assignments) = mpsc::channel(ASSIGNMENTS);
        let place = format!("source.{}", node.name);
        let task = SourceTask {
            name: node.name.clone(),
            task: names[number].clone(),
            source: common.source.clone(),
            assignments,
            ended: common.ended.clone(),
            offsets: Offsets::new(),
            kept,
            clock: common.clock.clone(),
            event_time: node.event_time,
            max_future: node.max_future,
            sent: Timestamp::MIN,
            chain,
            streams,
            metrics: self.shared.nodes[&place].clone(),
            timer: self.shared.timer.clone(),
            counts_out: node.dedup.is_none(),
            barriers,
            reports: common.reports.clone(),
            stop: self.stop.clone(),
        };
        let name = format!("{place}[{}]", names[number]);
        self.tasks.spawn(async move { (name, task.run().await) });
        let reader = Reader {
            assignments: assign,
            reading: HashSet::new(),
        };
        Ok((inject, reader))
    }

    /// State goes back to the task it came from; that of a partition which is gone, or of a dedup task which
    /// is gone, goes to one that is there, since partial aggregates merge anywhere.
    fn restore_partition(
        &self,
        chain: &mut Chain,
        source: &str,
        names: &[String],
        number: usize,
    ) -> Result<()> {
        self.restore(chain, |of, _| {
            let (s, home) = match of {
                TaskId::Partition { source, partition } => {
                    (source, names.iter().position(|name| name == partition))
                }
                TaskId::Source(source) => (source, None),
                TaskId::Window(_) | TaskId::Query(_) | TaskId::Dedup(_) => return false,
            };
            s == source && home.unwrap_or(0) == number
        })
    }
}

/// Names the tasks of a source: a partition's where each has its own. Also a source without anything to read has one,
/// which sends watermarks and barriers.
fn task_names(found: &Partitions, cores: usize) -> Vec<String> {
    let numbers = |n: usize| (0..n).map(|number| number.to_string()).collect();
    match found.again {
        Some(_) => numbers(cores),
        None if found.open.is_empty() => numbers(1),
        None => found.open.iter().map(|(id, _)| id.0.clone()).collect(),
    }
}

/// Gives each task its partition, when all of them hold the watermark.
async fn assign(found: Partitions, clock: &SourceClock, readers: Vec<Reader>) {
    let reading = |(partition, from)| Reading {
        number: clock.add(),
        partition,
        from,
    };
    let all: Vec<Reading> = found.open.into_iter().map(reading).collect();
    for (reader, it) in readers.iter().zip(all) {
        let sent = reader.assignments.send(Assignment::Read(it)).await;
        // A task that is gone has failed, and with it this try of the pipeline.
        sent.ok();
    }
}
