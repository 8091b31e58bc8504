//! Objects as partitions: which to read, and the stream of each.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_engine::metrics::Counters;
use millstream_engine::source::{
    Offset, Offsets, PartitionId, Partitions, Source, SourceBatch, SourceContext,
};
use millstream_engine::{Error, Result};
use tokio::sync::{AcquireError, Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::finder::Finder;
use super::logs::{Log, LogOptions};
use super::notices::Notices;
use super::options::{Format, Place, Settings};
use super::progress::{At, Object, Progress, has_ended};
use super::rows::{self, Job};
use super::store::Store;

/// Objects read at a time, for each core: some download while others are decoded. Each may hold a batch or two and, of
/// Parquet, the columns of a row group.
const AT_ONCE_PER_CORE: usize = 2;

/// Batches that wait to be taken, of each object.
const BATCHES: usize = 1;

/// An object that is waited for is not idle, which it says this often.
const BEAT: Duration = Duration::from_millis(500);

/// The objects below a prefix, or the files below a directory.
pub(super) struct ObjectSource {
    shared: Arc<Shared>,
    finder: Mutex<Finder>,
    notices: Option<Arc<Notices>>,
}

struct Shared {
    store: Arc<Store>,
    schema: SchemaRef,
    format: Option<Format>,
    records: Option<String>,
    log: Option<Arc<Log>>,
    at_once: Arc<Semaphore>,
    counters: Counters,
    stop: CancellationToken,
}

impl ObjectSource {
    /// Opens the source. Makes no request, but for the schema of a log.
    pub fn new(settings: Settings, cx: SourceContext) -> Result<ObjectSource> {
        let log = settings.log.as_ref().map(LogOptions::open).transpose()?;
        let (store, notices) = match settings.place.clone() {
            Place::Disk => {
                // On a date without rows nobody has made its directory.
                let may_be_absent = cx.run.is_some();
                (Store::Disk { may_be_absent }, None)
            }
            Place::S3 {
                bucket, aws, queue, ..
            } => {
                let notices = queue.map(|url| Arc::new(Notices::new(url, aws.clone())));
                (Store::s3(bucket, aws), notices)
            }
        };
        let store = Arc::new(store);
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Ok(ObjectSource {
            finder: Mutex::new(Finder::new(&settings, Arc::clone(&store), notices.clone())),
            shared: Arc::new(Shared {
                store,
                schema: cx.schema,
                format: settings.format,
                records: settings.records,
                log: log.map(Arc::new),
                at_once: Arc::new(Semaphore::new(cores * AT_ONCE_PER_CORE)),
                counters: cx.counters,
                stop: cx.stop,
            }),
            notices,
        })
    }
}

#[async_trait]
impl Source for ObjectSource {
    fn schema(&self) -> SchemaRef {
        self.shared.schema.clone()
    }

    async fn partitions(&self, read: &Offsets) -> Result<Partitions> {
        self.finder.lock().await.next(read).await
    }

    fn read(&self, partition: &PartitionId, from: Option<Offset>) -> BoxStream<'static, Result<SourceBatch>> {
        match Reading::new(&self.shared, partition, from) {
            Ok(reading) => stream::unfold(reading, |mut reading| async move {
                reading.next().await.map(|batch| (batch, reading))
            })
            .boxed(),
            Err(e) => stream::once(async { Err(e) }).boxed(),
        }
    }

    async fn commit(&self, done: &Offsets) -> Result<()> {
        match &self.notices {
            Some(notices) => notices.commit(done).await,
            None => Ok(()),
        }
    }
}

type Turn = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// An object that is being read, or waits for its turn.
struct Reading {
    shared: Arc<Shared>,
    job: Option<Job>,
    turn: Turn,
    offset: Offset,
    running: Option<Running>,
}

/// What reads an object. Ends when it is dropped.
struct Running {
    batches: mpsc::Receiver<Result<SourceBatch>>,
    task: JoinSet<()>,
    _turn: OwnedSemaphorePermit,
}

impl Reading {
    fn new(shared: &Arc<Shared>, partition: &PartitionId, from: Option<Offset>) -> Result<Reading> {
        let offset = from.ok_or_else(|| Error::bug(format!("partition {partition} has no offset")))?;
        let progress: Progress = offset.0.parse()?;
        let job = Job {
            store: Arc::clone(&shared.store),
            schema: Arc::clone(&shared.schema),
            format: shared.format,
            records: shared.records.clone(),
            log: shared.log.clone(),
            object: Object::of(partition, &progress)?,
            at: progress.at,
            counters: shared.counters.clone(),
        };
        Ok(Reading {
            job: (progress.at != At::End).then_some(job),
            turn: Box::pin(Arc::clone(&shared.at_once).acquire_owned()),
            shared: Arc::clone(shared),
            offset,
            running: None,
        })
    }

    async fn next(&mut self) -> Option<Result<SourceBatch>> {
        if has_ended(&self.offset) {
            return None;
        }
        let stop = self.shared.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            batch = self.batch() => batch,
            () = tokio::time::sleep(BEAT) => Some(Ok(self.beat())),
        }
    }

    /// The next batch. Loses nothing when it is dropped half way.
    async fn batch(&mut self) -> Option<Result<SourceBatch>> {
        if self.running.is_none() {
            let turn = (&mut self.turn).await;
            let turn = turn.map_err(|e| Error::bug(format!("objects take turns: {e}")));
            let turn = match turn {
                Ok(turn) => turn,
                Err(e) => return Some(Err(e)),
            };
            self.running = Some(Running::start(self.job.take()?, turn));
        }
        let running = self.running.as_mut()?;
        match running.batches.recv().await {
            Some(Ok(batch)) => {
                self.offset = batch.offset.clone();
                Some(Ok(batch))
            }
            Some(Err(e)) => Some(Err(e)),
            None => running.why().await.map(Err),
        }
    }

    fn beat(&self) -> SourceBatch {
        SourceBatch {
            rows: RecordBatch::new_empty(Arc::clone(&self.shared.schema)),
            invalid: None,
            tables: Vec::new(),
            offset: self.offset.clone(),
        }
    }
}

impl Running {
    fn start(job: Job, turn: OwnedSemaphorePermit) -> Running {
        let (to, batches) = mpsc::channel(BATCHES);
        let mut task = JoinSet::new();
        task.spawn(rows::read(job, to));
        Running {
            batches,
            task,
            _turn: turn,
        }
    }

    /// Why there are no more batches, where none has said that it is the last.
    async fn why(&mut self) -> Option<Error> {
        match self.task.join_next().await? {
            Err(panic) => Some(Error::bug(format!("reading an object: {panic}"))),
            Ok(()) => None,
        }
    }
}
