//! The two ends of a simulated pipeline: a source that forgets what it released, and a sink that publishes
//! what it staged. Both check that the runtime calls them as their traits promise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::sink::{Committable, Sink, SinkConnector, SinkContext};
use millstream_engine::source::{
    Offset, Offsets, PartitionId, Partitions, Source, SourceBatch, SourceConnector, SourceContext, Tables,
};
use millstream_engine::{Error, Result};

use crate::refused;
use crate::store::newest;
use crate::world::World;

/// `type = "simulated"` has no keys of its own.
#[derive(schemars::JsonSchema)]
struct NoOptions {}

/// A kind of source that reads a world's inputs.
pub struct SimSources {
    /// The value of `type`.
    pub kind: &'static str,
    /// Where the rows are.
    pub world: Arc<World>,
    /// Rows per batch: one, or as chance has it.
    pub row_by_row: bool,
}

impl SourceConnector for SimSources {
    fn name(&self) -> &'static str {
        self.kind
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(NoOptions)
    }

    fn open(&self, cx: SourceContext) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(SimSource {
            world: self.world.clone(),
            row_by_row: self.row_by_row,
            cx,
        }))
    }
}

/// Stands between the names of a partition and of one that follows it.
pub const BRANCH: char = '/';
/// Stands behind the last offset of a partition.
const ENDED: &str = " end";

/// Partitions that follow others: one is read when the one before it has ended, which is then forgotten.
fn branches(ids: &[PartitionId], read: &Offsets) -> Partitions {
    let ended = |id: &str| {
        read.get(&PartitionId(id.into()))
            .is_some_and(|o| o.0.ends_with(ENDED))
    };
    let begun_after = |id: &str| read.keys().any(|it| it.0.starts_with(&format!("{id}{BRANCH}")));
    let mut found = Partitions::default();
    for id in ids {
        let follows_ended = id.0.rsplit_once(BRANCH).is_none_or(|(before, _)| ended(before));
        let known = read.get(id).cloned();
        if begun_after(&id.0) {
            found.forget.extend(known.map(|_| id.clone()));
        } else if !ended(&id.0) && (known.is_some() || follows_ended) {
            found
                .open
                .push((id.clone(), known.or_else(|| Some(Offset("0".into())))));
        }
    }
    let leaf = |id: &&PartitionId| {
        !ids.iter()
            .any(|it| it.0.starts_with(&format!("{}{BRANCH}", id.0)))
    };
    let all_ended = ids.iter().filter(leaf).all(|id| ended(&id.0));
    found.again = (!all_ended).then_some(Duration::from_secs(5));
    found
}

#[derive(Clone)]
struct SimSource {
    world: Arc<World>,
    row_by_row: bool,
    cx: SourceContext,
}

#[async_trait]
impl Source for SimSource {
    fn schema(&self) -> SchemaRef {
        self.cx.schema.clone()
    }

    async fn partitions(&self, read: &Offsets) -> Result<Partitions> {
        let world = &self.world;
        world.call("source.partitions", false, || Ok(())).await?;
        let outside = world.outside();
        let ids = outside.inputs.get(&self.cx.name).into_iter().flatten();
        let ids: Vec<PartitionId> = ids.map(|(name, _)| PartitionId(name.clone())).collect();
        Ok(match ids.iter().any(|id| id.0.contains(BRANCH)) {
            true => branches(&ids, read),
            false => Partitions::fixed(ids, read),
        })
    }

    fn read(&self, partition: &PartitionId, from: Option<Offset>) -> BoxStream<'static, Result<SourceBatch>> {
        let key = (self.cx.name.clone(), partition.0.clone());
        let from = from.map_or(0, |o| row(&o));
        let released = self.world.outside().released.get(&key).copied().unwrap_or(0);
        if from < released {
            let world = &self.world;
            world.violation(format!(
                "{key:?} is read from {from}, but released up to {released}"
            ));
        }
        let state = (self.clone(), key, Some(from));
        stream::try_unfold(state, |(source, key, at)| async move {
            let Some(at) = at else { return Ok(None) };
            let batch = source.next(&key, at).await?;
            Ok(batch.map(|b| {
                let next = (!b.offset.0.ends_with(ENDED)).then(|| row(&b.offset));
                (b, (source, key, next))
            }))
        })
        .boxed()
    }

    async fn commit(&self, done: &Offsets) -> Result<()> {
        let world = &self.world;
        let name = &self.cx.name;
        let effect = || {
            self.check_release(done);
            let mut outside = world.outside();
            for (partition, offset) in done {
                let key = (name.clone(), partition.0.clone());
                let released = outside.released.entry(key).or_default();
                *released = (*released).max(row(offset));
            }
            Ok(())
        };
        world.call("source.commit", true, effect).await
    }
}

impl SimSource {
    async fn next(&self, key: &(String, String), at: usize) -> Result<Option<SourceBatch>> {
        let rows = self.world.outside().inputs[&key.0][&key.1].clone();
        tokio::select! {
            biased;
            () = self.cx.stop.cancelled() => return Ok(None),
            read = self.world.call("source.read", false, || Ok(())) => read?,
        }
        let gate = || self.world.outside().gates.get(key).copied();
        while gate() == Some(at) {
            self.world.wait(Duration::from_millis(100)).await;
        }
        let left = gate().unwrap_or(rows.num_rows()) - at;
        if left == 0 {
            let end = SourceBatch {
                tables: Vec::new(),
                rows: rows.slice(at, 0),
                invalid: None,
                offset: Offset(format!("{at}{ENDED}")),
            };
            return Ok(self.branched().then_some(end));
        }
        let take = if self.row_by_row {
            1
        } else {
            1 + self.world.below(left.min(8))
        };
        Ok(Some(SourceBatch {
            tables: self.tables(key, at, take),
            rows: rows.slice(at, take),
            invalid: None,
            offset: Offset((at + take).to_string()),
        }))
    }

    /// What comes for the source's tables, if it has any: a row each with every row of its own.
    fn tables(&self, (source, partition): &(String, String), at: usize, take: usize) -> Tables {
        let outside = self.world.outside();
        let of = |(stream, rows): (&String, &BTreeMap<String, RecordBatch>)| {
            let table = stream.strip_prefix(source)?.strip_prefix('.')?;
            Some((table.to_owned(), rows.get(partition)?.slice(at, take)))
        };
        outside.inputs.iter().filter_map(of).collect()
    }

    fn branched(&self) -> bool {
        let outside = self.world.outside();
        outside.inputs[&self.cx.name].keys().any(|id| id.contains(BRANCH))
    }

    /// Only what the newest durable checkpoint covers may go, and only once all its sinks have published.
    fn check_release(&self, done: &Offsets) {
        let outside = self.world.outside();
        let saved = newest(&outside).map(|(r, _)| r.manifest);
        let covered = saved.as_ref().is_some_and(|m| {
            let state = m.sources.get(&self.cx.name);
            let upto = |partition| Some(row(state?.offsets.get(partition)?));
            // It has been forgotten since, for what follows it.
            let followed = |id: &PartitionId| {
                let mut known = state.into_iter().flat_map(|s| s.offsets.keys());
                known.any(|it| it.0.starts_with(&format!("{}{BRANCH}", id.0)))
            };
            done.iter()
                .all(|(id, offset)| upto(id).map_or_else(|| followed(id), |upto| row(offset) <= upto))
        });
        let published = saved.iter().flat_map(|m| &m.sinks).all(|(sink, what)| {
            let all = outside.published.get(sink);
            name_of(what).is_none_or(|n| all.is_some_and(|a| a.contains(n)))
        });
        drop(outside);
        if !covered || !published {
            let why = format!("released early: covered {covered}, published {published}");
            self.world.violation(why);
        }
    }
}

fn row(of: &Offset) -> usize {
    let number = of.0.trim_end_matches(ENDED);
    number.parse().expect("an offset of ours is a row number")
}

/// A kind of sink that publishes into a world.
pub struct SimSinks {
    /// The value of `type`.
    pub kind: &'static str,
    /// Where rows go.
    pub world: Arc<World>,
    /// Whether rows with an odd `id` are refused: half of them as they come, the others at the checkpoint.
    pub refuses: bool,
}

#[async_trait]
impl SinkConnector for SimSinks {
    fn name(&self) -> &'static str {
        self.kind
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(NoOptions)
    }

    fn rejects(&self) -> bool {
        self.refuses
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn Sink>> {
        let world = self.world.clone();
        world.call("sink.open", false, || Ok(())).await?;
        Ok(Box::new(SimSink {
            world,
            cx,
            written: Vec::new(),
            refusal: self.refuses.then(Refusal::default),
        }))
    }
}

struct SimSink {
    world: Arc<World>,
    cx: SinkContext,
    written: Vec<RecordBatch>,
    refusal: Option<Refusal>,
}

#[async_trait]
impl Sink for SimSink {
    async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        let world = self.world.clone();
        let (written, refusal) = (&mut self.written, &mut self.refusal);
        let effect = || {
            written.push(match refusal {
                Some(refusal) => refusal.take_from(&rows)?,
                None => rows,
            });
            Ok(())
        };
        world.call("sink.write", false, effect).await
    }

    /// Stages under a name of its own each time: what a try leaves behind is never published.
    async fn prepare(&mut self, barrier: Barrier) -> Result<Committable> {
        let world = self.world.clone();
        let rows = concat_batches(&self.cx.schema, &self.written)?;
        let effect = || {
            let mut outside = world.outside();
            let name = format!("{}-{}-{}", self.cx.name, barrier.epoch.0, outside.staged.len());
            outside.staged.insert(name.clone(), vec![rows]);
            Ok(name)
        };
        let name = world.call("sink.prepare", true, effect).await?;
        self.written.clear();
        if let Some(refusal) = &mut self.refusal {
            refusal.refused.append(&mut refusal.later);
        }
        Ok(Committable(name.into()))
    }

    fn rejected(&mut self) -> Option<RecordBatch> {
        let ids = std::mem::take(&mut self.refusal.as_mut()?.refused);
        (!ids.is_empty()).then(|| refused::rows(&ids))
    }

    async fn commit(&mut self, epoch: Epoch, what: Committable) -> Result<()> {
        let world = self.world.clone();
        let effect = || {
            self.check_commit(epoch, &what);
            let Some(name) = name_of(&what) else {
                return Err(Error::bug("a sink was given what it did not prepare"));
            };
            let mut outside = world.outside();
            let published = outside.published.entry(self.cx.name.clone()).or_default();
            published.insert(name.to_owned());
            Ok(())
        };
        world.call("sink.commit", true, effect).await
    }
}

/// The ids of rows that a sink refuses.
#[derive(Default)]
struct Refusal {
    /// Now.
    refused: Vec<i64>,
    /// At the next checkpoint.
    later: Vec<i64>,
}

impl Refusal {
    /// Leaves the rows that are taken.
    fn take_from(&mut self, rows: &RecordBatch) -> Result<RecordBatch> {
        let ids = rows.column(0).as_primitive::<Int64Type>().values();
        self.refused.extend(ids.iter().filter(|id| **id % 4 == 1));
        self.later.extend(ids.iter().filter(|id| **id % 4 == 3));
        let even: BooleanArray = ids.iter().map(|id| Some(id % 2 == 0)).collect();
        Ok(filter_record_batch(rows, &even)?)
    }
}

impl SimSink {
    /// Only the newest durable checkpoint may be published.
    fn check_commit(&self, epoch: Epoch, what: &Committable) {
        let saved = newest(&self.world.outside()).map(|(r, _)| r.manifest);
        let promised = saved.is_some_and(|m| m.epoch == epoch && m.sinks.get(&self.cx.name) == Some(what));
        if !promised {
            let world = &self.world;
            world.violation(format!(
                "{} commits what no checkpoint holds: {epoch:?}",
                self.cx.name
            ));
        }
    }
}

fn name_of(what: &Committable) -> Option<&str> {
    what.0.as_str()
}
