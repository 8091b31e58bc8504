//! Finds the partitions of a source whose partitions come and go, and hands them to the source's tasks.
//!
//! ```text
//! discovery ─ assignment ─► partition task      new partitions go to the task that reads the fewest
//!           ◄─── ended ────                     a partition has been read to its end
//! ```
//!
//! When a partition has ended the source is asked what follows it, and only when that holds the watermark does the
//! ended one let go of it: rows of a shard's children are not late because their parent was done. A source that cannot
//! say what there is is asked again, with backoff; meanwhile what is being read goes on.
//!
//! What a source wants forgotten is what others have followed, and those may be with another task. So an offset goes
//! only when a checkpoint that began after all assignments had arrived is complete: there is none without both.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::{ErrorClass, Result};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::{HELD_UP, IDLE_CHECK, SourceClock};
use crate::runtime::status::Progress;
use crate::runtime::timer::Timer;
use crate::source::{Offset, Offsets, PartitionId, Partitions, Source};

/// Assignments and ends that may wait: more would only wait in another place.
pub const ASSIGNMENTS: usize = 64;

/// What a partition task is told.
#[derive(Debug)]
pub enum Assignment {
    /// Read a partition.
    Read(Reading),
    /// These partitions' offsets are not needed any longer.
    Forget(Vec<PartitionId>),
}

/// A partition to read.
#[derive(Debug)]
pub struct Reading {
    /// Its number in the clock.
    pub number: usize,
    /// The partition.
    pub partition: PartitionId,
    /// Where to start.
    pub from: Option<Offset>,
}

/// A partition that has been read to its end.
#[derive(Debug)]
pub struct Ended {
    /// Its number in the clock.
    pub number: usize,
    /// The partition.
    pub partition: PartitionId,
    /// Where it stands.
    pub offset: Option<Offset>,
}

/// Everything the discovery of a source needs.
pub struct Discovery {
    /// Name of the source.
    pub name: String,
    /// The source.
    pub source: Arc<dyn Source>,
    /// The source's watermark.
    pub clock: Arc<SourceClock>,
    /// The clocks.
    pub timer: Arc<dyn Timer>,
    /// Cancelled when the pipeline stops.
    pub stop: CancellationToken,
    /// What is known of every partition.
    pub known: Offsets,
    /// The source's tasks.
    pub tasks: Vec<Reader>,
    /// What the tasks have told.
    pub ends: Ends,
    /// Partitions that were assigned in this run.
    pub assigned: HashSet<PartitionId>,
    /// Partitions to be forgotten, and the checkpoint that must be complete; none where it is not known yet.
    pub leaving: BTreeMap<PartitionId, Option<u64>>,
    /// The pipeline's checkpoints.
    pub progress: Arc<Progress>,
    /// How long there has been no partition.
    pub deserted: Duration,
}

/// A task of a source, as its discovery sees it.
pub struct Reader {
    /// Where assignments go.
    pub assignments: mpsc::Sender<Assignment>,
    /// Numbers of the partitions that it reads.
    pub reading: HashSet<usize>,
}

impl Reader {
    /// Whether every assignment has arrived.
    fn has_heard(&self) -> bool {
        self.assignments.capacity() == self.assignments.max_capacity()
    }
}

/// Partitions that have been read to their end.
pub struct Ends {
    /// From the source's tasks.
    pub arriving: mpsc::Receiver<Ended>,
    /// Those that came while something else was waited for; at most as many as are being read.
    pub waiting: Vec<Ended>,
}

impl Discovery {
    /// Assigns what the source named first, then goes on until there is nothing more to find and all has been read, or
    /// until the pipeline stops. What is not assigned by then is found again by the next run.
    pub async fn run(mut self, first: Partitions) -> Result<()> {
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            done = self.discover(first) => done,
        }
    }

    async fn discover(&mut self, mut found: Partitions) -> Result<()> {
        let mut ended = Vec::new();
        loop {
            let again = found.again;
            self.assign(found).await;
            self.release(&mut ended);
            let Some(again) = again else { break };
            ended = self.wait(again).await;
            found = self.ask().await?;
        }
        while self.reading() > 0 {
            let mut ended = self.wait(IDLE_CHECK).await;
            self.release(&mut ended);
        }
        self.clock.complete(self.timer.now());
        Ok(())
    }

    /// All of them hold the watermark before the first is read.
    async fn assign(&mut self, found: Partitions) {
        let mut new = Vec::new();
        for (partition, from) in found.open {
            if !self.assigned.insert(partition.clone()) {
                continue;
            }
            if let Some(from) = &from {
                self.known.insert(partition.clone(), from.clone());
            }
            new.push(Reading {
                number: self.clock.add(),
                partition,
                from,
            });
        }
        for it in new {
            let reader = self.tasks.iter_mut().min_by_key(|r| r.reading.len());
            let reader = reader.expect("a source has a task");
            reader.reading.insert(it.number);
            // A task that is gone has failed, and with it this try of the pipeline.
            let sent = reader.assignments.send(Assignment::Read(it));
            self.ends.meanwhile(sent).await.ok();
        }
        self.forget(found.forget).await;
    }

    async fn forget(&mut self, partitions: Vec<PartitionId>) {
        for partition in partitions {
            self.leaving.entry(partition).or_default();
        }
        let complete = self.progress.status().epoch;
        if self.tasks.iter().all(Reader::has_heard) {
            // One may have begun already.
            let waiting = self.leaving.values_mut().filter(|due| due.is_none());
            waiting.for_each(|due| *due = Some(complete + 2));
        }
        let due = self
            .leaving
            .extract_if(.., |_, due| due.is_some_and(|due| due <= complete));
        let due: Vec<PartitionId> = due.map(|(id, _)| id).collect();
        if due.is_empty() {
            return;
        }
        for partition in &due {
            self.known.remove(partition);
            self.assigned.remove(partition);
        }
        for reader in &self.tasks {
            let sent = reader.assignments.send(Assignment::Forget(due.clone()));
            self.ends.meanwhile(sent).await.ok();
        }
    }

    /// What follows them holds the watermark by now.
    fn release(&mut self, ended: &mut Vec<Ended>) {
        for it in ended.drain(..) {
            self.clock.finish(it.number, true, self.timer.now());
        }
    }

    fn reading(&self) -> usize {
        self.tasks.iter().map(|r| r.reading.len()).sum()
    }

    /// Waits for the end of a partition, at most so long.
    async fn wait(&mut self, longest: Duration) -> Vec<Ended> {
        let mut pause = self.timer.sleep(longest);
        let mut done = false;
        while !done && self.ends.waiting.is_empty() {
            let began = self.timer.elapsed();
            let look = self.timer.sleep(IDLE_CHECK);
            tokio::select! {
                biased;
                Some(end) = self.ends.arriving.recv() => self.ends.waiting.push(end),
                () = &mut pause => done = true,
                () = look => {}
            }
            self.look(self.timer.elapsed().saturating_sub(began));
        }
        while let Ok(end) = self.ends.arriving.try_recv() {
            self.ends.waiting.push(end);
        }
        for end in &self.ends.waiting {
            if let Some(offset) = &end.offset {
                self.known.insert(end.partition.clone(), offset.clone());
            }
            for reader in &mut self.tasks {
                reader.reading.remove(&end.number);
            }
        }
        std::mem::take(&mut self.ends.waiting)
    }

    /// A source without partitions falls idle as one whose partitions are silent does.
    fn look(&mut self, waited: Duration) {
        self.deserted = match self.reading() {
            0 if waited <= HELD_UP => self.deserted + waited,
            _ => Duration::ZERO,
        };
        if self.reading() == 0 {
            self.clock.tick_deserted(self.deserted, self.timer.now());
        }
    }

    async fn ask(&mut self) -> Result<Partitions> {
        let mut backoff = Backoff::default();
        loop {
            let asked = self.ends.meanwhile(self.source.partitions(&self.known)).await;
            let error = match asked {
                Ok(found) => return Ok(found),
                Err(e) => e,
            };
            let ErrorClass::Retry { after } = error.class() else {
                return Err(error);
            };
            let wait = backoff.next(after);
            tracing::warn!(source = self.name, %error, ?wait, "cannot see what there is to read; trying again");
            self.ends.meanwhile(self.timer.sleep(wait)).await;
        }
    }
}

impl Ends {
    /// Waits for something while the tasks can still tell of ends: they never wait for one that waits for them.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return done,
                Some(end) = self.arriving.recv() => self.waiting.push(end),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Schema, SchemaRef};
    use async_trait::async_trait;
    use futures::stream::{BoxStream, StreamExt};

    use super::*;
    use crate::message::Epoch;
    use crate::runtime::clock::ClockSettings;
    use crate::runtime::timer;
    use crate::source::SourceBatch;

    /// A source that is not asked.
    struct Silent;

    #[async_trait]
    impl Source for Silent {
        fn schema(&self) -> SchemaRef {
            Arc::new(Schema::empty())
        }

        async fn partitions(&self, _: &Offsets) -> Result<Partitions> {
            Ok(Partitions::default())
        }

        fn read(&self, _: &PartitionId, _: Option<Offset>) -> BoxStream<'static, Result<SourceBatch>> {
            futures::stream::empty().boxed()
        }

        async fn commit(&self, _: &Offsets) -> Result<()> {
            Ok(())
        }
    }

    fn discovery(assignments: mpsc::Sender<Assignment>) -> Discovery {
        let settings = ClockSettings {
            max_out_of_orderness: Duration::ZERO,
            idle_after: Duration::from_secs(10),
        };
        let (_, arriving) = mpsc::channel(1);
        Discovery {
            name: "s".into(),
            source: Arc::new(Silent),
            clock: Arc::new(SourceClock::new(settings, crate::time::Timestamp::MIN)),
            timer: timer::real(),
            stop: CancellationToken::new(),
            known: Offsets::from([(id("parent"), Offset("end".into()))]),
            tasks: vec![Reader {
                assignments,
                reading: HashSet::new(),
            }],
            ends: Ends {
                arriving,
                waiting: Vec::new(),
            },
            assigned: HashSet::new(),
            leaving: BTreeMap::new(),
            progress: Arc::default(),
            deserted: Duration::ZERO,
        }
    }

    fn id(name: &str) -> PartitionId {
        PartitionId(name.into())
    }

    /// A child is on its way to its task: until a checkpoint that began after it arrived is complete, there may be one
    /// that has neither it nor its parent.
    #[tokio::test]
    async fn an_offset_is_forgotten_when_a_checkpoint_has_what_followed_it() {
        let (assignments, mut task) = mpsc::channel(ASSIGNMENTS);
        let mut it = discovery(assignments);
        let child = Partitions {
            open: vec![(id("child"), Some(Offset("0".into())))],
            forget: vec![id("parent")],
            again: None,
        };
        it.assign(child).await;
        let completed = |it: &Discovery, epoch| it.progress.checkpointed(Epoch(epoch), Duration::ZERO);
        completed(&it, 5);
        it.forget(vec![id("parent")]).await;
        assert!(matches!(task.try_recv(), Ok(Assignment::Read(_))), "the child");
        // It has arrived; checkpoint 6 may have begun before that, 7 cannot have.
        for epoch in [5, 6] {
            completed(&it, epoch);
            it.forget(vec![id("parent")]).await;
            assert!(task.try_recv().is_err(), "{epoch}");
            assert!(it.known.contains_key(&id("parent")), "{epoch}");
        }
        completed(&it, 7);
        it.forget(vec![id("parent")]).await;
        let told = task.try_recv();
        assert!(matches!(told, Ok(Assignment::Forget(ids)) if ids == [id("parent")]));
        assert_eq!(it.known.keys().collect::<Vec<_>>(), [&id("child")]);
    }
}
