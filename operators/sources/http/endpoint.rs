//! What a path leads to: a source that takes rows, or one that will be back soon.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use millstream_engine::source::PartitionId;
use millstream_engine::{Error, Result};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::options::HttpOptions;
use crate::log::Log;

/// How long the path of a source that went away answers 503 instead of 404. A restart takes seconds, and
/// a pipeline that keeps failing is retried with a delay of minutes at most.
const AWAY_FOR: Duration = Duration::from_secs(600);

/// The partition of a lane, which is also the name of its log's directory: this and the lane's number.
pub(super) const LANE: &str = "lane-";

/// The partition of a lane.
pub(super) fn partition_of(lane: usize) -> PartitionId {
    PartitionId(format!("{LANE}{lane}"))
}

/// The log of a partition.
struct Kept {
    log: Log,
    /// The sinks have the frames before this one. Dropped with the log: what waits then waits in vain.
    delivered: watch::Sender<u64>,
}

/// A source as the lanes see it.
pub(super) struct Endpoint {
    /// `source "x" of pipeline "y"`, for errors.
    pub holder: String,
    pub options: HttpOptions,
    pub schema: SchemaRef,
    /// One per partition, until the source is gone. The lanes keep the endpoint in sight for longer, and a
    /// log that anyone still has cannot be opened by the source's next life.
    logs: RwLock<BTreeMap<PartitionId, Kept>>,
    /// Cancelled when no more rows are taken.
    pub closed: CancellationToken,
    /// The same, for every request to look at without a lock that all lanes share.
    is_closed: AtomicBool,
    /// Batches that have rows and are not yet durable, over all lanes. Counted from the first row, so that
    /// an orderly end waits for all of them.
    busy: AtomicUsize,
    quiet: Notify,
}

impl Endpoint {
    pub fn new(
        holder: String,
        options: HttpOptions,
        schema: SchemaRef,
        logs: BTreeMap<PartitionId, Log>,
    ) -> Endpoint {
        let keep = |(of, log)| {
            let delivered = watch::Sender::new(0);
            (of, Kept { log, delivered })
        };
        Endpoint {
            holder,
            options,
            schema,
            logs: RwLock::new(logs.into_iter().map(keep).collect()),
            closed: CancellationToken::new(),
            is_closed: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            quiet: Notify::new(),
        }
    }

    /// Whether no more rows are taken.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst)
    }

    /// The partitions there are.
    pub fn partitions(&self) -> Vec<PartitionId> {
        self.logs().keys().cloned().collect()
    }

    /// Does something with the log of a partition. Nobody keeps one for longer than that.
    pub fn with_log<R>(&self, of: &PartitionId, then: impl FnOnce(&Log) -> Result<R>) -> Result<R> {
        match self.logs().get(of) {
            Some(kept) => then(&kept.log),
            None => Err(Error::retry(format!(
                "{} was closed; its log {of} too",
                self.holder
            ))),
        }
    }

    /// The sinks have the frames of a partition before `upto`.
    pub fn delivered(&self, of: &PartitionId, upto: u64) {
        if let Some(kept) = self.logs().get(of) {
            kept.delivered.send_replace(upto);
        }
    }

    /// Follows how far the frames of a partition are delivered; none if the source is gone.
    pub fn delivery(&self, of: &PartitionId) -> Option<watch::Receiver<u64>> {
        Some(self.logs().get(of)?.delivered.subscribe())
    }

    /// Counts a batch in flight until the guard is dropped.
    pub fn begin_batch(self: &Arc<Self>) -> BatchInFlight {
        self.busy.fetch_add(1, SeqCst);
        BatchInFlight(self.clone())
    }

    /// Waits until no batch is in flight.
    pub async fn quiet(&self) {
        loop {
            let quiet = self.quiet.notified();
            if self.busy.load(SeqCst) == 0 {
                return;
            }
            quiet.await;
        }
    }

    fn close_logs(&self) {
        self.logs().values().for_each(|kept| kept.log.close());
    }

    /// Waits for the last sync of each log and gives its directory back.
    fn drop_logs(&self) {
        let logs = std::mem::take(&mut *self.logs.write().unwrap_or_else(PoisonError::into_inner));
        // Without the lock: lanes must not wait for the disk here.
        drop(logs);
    }

    fn logs(&self) -> RwLockReadGuard<'_, BTreeMap<PartitionId, Kept>> {
        self.logs.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch that is not yet durable.
pub(super) struct BatchInFlight(Arc<Endpoint>);

impl BatchInFlight {
    /// Where its rows were sent to.
    pub fn path(&self) -> &str {
        &self.0.options.path
    }
}

impl Drop for BatchInFlight {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, SeqCst) == 1 {
            self.0.quiet.notify_waiters();
        }
    }
}

/// Where a path leads.
#[derive(Clone)]
pub(super) enum Route {
    Open(Arc<Endpoint>),
    Away { until: Instant },
}

/// Paths to routes. A change makes a new table, so that lanes read theirs without a lock and fetch the
/// new one when the epoch has moved.
pub(super) type Table = HashMap<String, Route>;

/// The table that all lanes follow.
pub(super) struct Routes {
    table: RwLock<Arc<Table>>,
    epoch: AtomicUsize,
    /// Every endpoint that was opened and is still in use: the table forgets one as soon as it begins to close.
    opened: Mutex<Vec<Weak<Endpoint>>>,
}

impl Routes {
    /// Routes to sources that will open soon.
    pub fn expecting(paths: &[&str]) -> Routes {
        let until = Instant::now() + AWAY_FOR;
        let away = |path: &&str| ((*path).to_owned(), Route::Away { until });
        Routes {
            table: RwLock::new(Arc::new(paths.iter().map(away).collect())),
            epoch: AtomicUsize::new(0),
            opened: Mutex::default(),
        }
    }

    pub fn epoch(&self) -> usize {
        self.epoch.load(SeqCst)
    }

    pub fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes sure that nobody but `holder` has `path`. What `holder` itself had open, because the pipeline
    /// failed and starts again before all of it was dropped, is closed.
    pub fn claim(&self, path: &str, holder: &str) -> Result<()> {
        let Some(Route::Open(endpoint)) = self.table().get(path).cloned() else {
            return Ok(());
        };
        if endpoint.holder != holder {
            return Err(Error::config(format!(
                "path {path:?} is taken by {}; give each http source a path of its own",
                endpoint.holder
            )));
        }
        self.abandon(&endpoint);
        Ok(())
    }

    /// Opens the path of `endpoint`.
    pub fn open(&self, endpoint: Arc<Endpoint>) -> Result<()> {
        self.claim(&endpoint.options.path, &endpoint.holder)?;
        let mut opened = self.opened();
        opened.retain(|endpoint| endpoint.strong_count() > 0);
        opened.push(Arc::downgrade(&endpoint));
        drop(opened);
        self.change(|table| {
            table.insert(endpoint.options.path.clone(), Route::Open(endpoint));
        });
        Ok(())
    }

    /// Closes `endpoint` in order: nothing new, what is in flight becomes durable, its logs end.
    pub async fn close(&self, endpoint: &Arc<Endpoint>) {
        self.leave(endpoint);
        endpoint.quiet().await;
        endpoint.close_logs();
    }

    /// Closes every path in order. Also those that are being closed: whoever was at it may have gone in the middle,
    /// with the lane that it ran on.
    pub async fn close_all(&self) {
        let opened: Vec<_> = self.opened().iter().filter_map(Weak::upgrade).collect();
        for endpoint in opened {
            self.close(&endpoint).await;
        }
    }

    fn opened(&self) -> MutexGuard<'_, Vec<Weak<Endpoint>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes `endpoint` at once, as its source is gone: requests in flight are told to come again, and its
    /// logs can be opened anew. Blocks on the disk for the last sync.
    pub fn abandon(&self, endpoint: &Arc<Endpoint>) {
        self.leave(endpoint);
        endpoint.close_logs();
        endpoint.drop_logs();
    }

    fn leave(&self, endpoint: &Arc<Endpoint>) {
        endpoint.is_closed.store(true, SeqCst);
        endpoint.closed.cancel();
        self.change(|table| {
            if let Some(route) = table.get_mut(&endpoint.options.path)
                && matches!(route, Route::Open(open) if Arc::ptr_eq(open, endpoint))
            {
                *route = Route::Away {
                    until: Instant::now() + AWAY_FOR,
                };
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Table::clone(&table);
        change(&mut next);
        next.retain(|_, route| !matches!(route, Route::Away { until } if *until < Instant::now()));
        *table = Arc::new(next);
        self.epoch.fetch_add(1, SeqCst);
    }
}
