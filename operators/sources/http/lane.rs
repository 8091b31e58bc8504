//! One lane: a thread's view of the routes, and its part of every source.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::HeaderValue;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::answer::Replies;
use super::batch::LaneSource;
use super::body::Buffered;
use super::endpoint::{Endpoint, Route, Routes, Table};
use super::limits::Limits;
use super::options::GIF;
use super::reads::Reads;
use super::stats::LaneStats;
use super::wire::Date;

/// What all lanes share.
pub(super) struct Shared {
    pub routes: Routes,
    pub limits: Limits,
    pub stats: Vec<LaneStats>,
    /// What is answered elsewhere.
    pub reads: OnceLock<Reads>,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
}

/// One lane; never leaves its thread.
pub(super) struct Lane {
    pub shared: Arc<Shared>,
    pub index: usize,
    pub replies: Replies,
    pub buffered: Buffered,
    pub date: Date,
    pub memory: Memory,
    /// Cancelled when the server stops. Its own: every request looks at it.
    pub stop: CancellationToken,
    epoch: Cell<usize>,
    table: RefCell<Arc<Table>>,
    sources: RefCell<HashMap<String, Rc<LaneSource>>>,
}

/// Memory that the connections of a lane use in turns, so that one without a request in the middle has none.
pub(super) struct Memory {
    /// What a read brings.
    pub read: RefCell<Vec<u8>>,
    /// Answers on their way.
    pub written: RefCell<Vec<u8>>,
    spare: RefCell<Vec<Vec<u8>>>,
}

/// Read at once: three requests of 500 rows.
const READ_BYTES: usize = 256 << 10;
/// Buffers that are kept for requests that come in pieces, and the largest that is kept: 16 MiB in all.
const SPARES: usize = 64;
pub(super) const SPARE_BYTES: usize = 256 << 10;

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            read: RefCell::new(vec![0; READ_BYTES]),
            written: RefCell::default(),
            spare: RefCell::default(),
        }
    }
}

impl Memory {
    /// An empty buffer.
    pub fn take(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives a buffer back.
    pub fn give(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if (1..=SPARE_BYTES).contains(&buffer.capacity()) && spare.len() < SPARES {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

/// Where a path leads.
pub(super) enum Found {
    /// To a source; `gif` if the row is in the query string.
    Source { source: Rc<LaneSource>, gif: bool },
    /// To a source that will be back.
    Away,
    /// To a source that this lane cannot serve; the reason has been logged.
    Broken,
    /// Nowhere.
    Unknown,
}

impl Lane {
    pub fn new(shared: Arc<Shared>, index: usize) -> Lane {
        let epoch = shared.routes.epoch();
        Lane {
            index,
            replies: Replies::default(),
            date: Date::new(),
            memory: Memory::default(),
            stop: shared.stop.child_token(),
            buffered: Buffered {
                limit: shared.limits.buffered_bytes,
                bytes: Cell::new(0),
            },
            epoch: Cell::new(epoch),
            table: RefCell::new(shared.routes.table()),
            sources: RefCell::default(),
            shared,
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub fn stats(&self) -> &LaneStats {
        &self.shared.stats[self.index]
    }

    pub fn find(&self, path: &str) -> Found {
        self.follow();
        match self.find_exactly(path, false) {
            Found::Unknown => match path.strip_suffix(GIF) {
                Some(path) => self.find_exactly(path, true),
                None => Found::Unknown,
            },
            found => found,
        }
    }

    /// Whether every source that was opened takes rows.
    pub fn is_ready(&self) -> bool {
        self.follow();
        let table = self.table.borrow();
        let all_open = table.values().all(|route| matches!(route, Route::Open(_)));
        let any = !table.is_empty() || self.shared.reads.get().is_some();
        any && all_open && !self.stop.is_cancelled()
    }

    /// Whether pages of `origin` may read the answers of any source.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        self.follow();
        let table = self.table.borrow();
        table.is_empty()
            || table
                .values()
                .any(|route| matches!(route, Route::Open(of) if of.options.allows(origin)))
    }

    /// Waits until everything this lane took is on disk or refused.
    pub async fn quiet(&self) {
        let sources: Vec<_> = self.sources.borrow().values().cloned().collect();
        for source in sources {
            source.endpoint.quiet().await;
        }
    }

    fn find_exactly(&self, path: &str, gif: bool) -> Found {
        if let Some(source) = self.sources.borrow().get(path) {
            let source = source.clone();
            return Found::Source { source, gif };
        }
        match self.table.borrow().get(path) {
            None => Found::Unknown,
            Some(Route::Away { until }) if *until < Instant::now() => Found::Unknown,
            Some(Route::Away { .. }) => Found::Away,
            Some(Route::Open(endpoint)) => self.enter(path, endpoint, gif),
        }
    }

    fn enter(&self, path: &str, endpoint: &Arc<Endpoint>, gif: bool) -> Found {
        match LaneSource::new(endpoint.clone(), self.index, self.limits()) {
            Ok(source) => {
                let source = Rc::new(source);
                self.sources.borrow_mut().insert(path.to_owned(), source.clone());
                Found::Source { source, gif }
            }
            Err(e) => {
                error!(path, error = %e, "a lane could not take up a source");
                Found::Broken
            }
        }
    }

    /// Takes up the newest table, if there is one. Batches of sources that left it are written all the
    /// same: their task holds them.
    fn follow(&self) {
        let epoch = self.shared.routes.epoch();
        if epoch == self.epoch.get() {
            return;
        }
        // Read in this order, a change in between is followed once more, never missed.
        self.epoch.set(epoch);
        *self.table.borrow_mut() = self.shared.routes.table();
        let table = self.table.borrow();
        self.sources.borrow_mut().retain(|path, source| {
            matches!(table.get(path), Some(Route::Open(open)) if Arc::ptr_eq(open, &source.endpoint))
        });
    }
}

/// Tasks of a lane that are counted, and waited for at the end.
#[derive(Clone, Default)]
pub(super) struct Crowd(Rc<Members>);

#[derive(Default)]
struct Members {
    count: Cell<usize>,
    left: Notify,
}

struct Member(Crowd);

impl Crowd {
    /// Tasks that have not ended.
    pub fn len(&self) -> usize {
        self.0.count.get()
    }

    /// Runs `task` on this lane.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.count.set(self.len() + 1);
        let member = Member(self.clone());
        tokio::task::spawn_local(async move {
            task.await;
            drop(member);
        });
    }

    /// Waits until every task has ended.
    pub async fn gone(&self) {
        while self.len() > 0 {
            self.0.left.notified().await;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let crowd = &self.0.0;
        crowd.count.set(crowd.count.get() - 1);
        crowd.left.notify_one();
    }
}
