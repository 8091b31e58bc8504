//! What is known of bounded pipelines: jobs, the runs of their dates, clusters, schemas, and what people are still
//! to be told. One SQLite file, `<data-dir>/catalog.db`, or one that several processes share.
//!
//! Everything is changed in transactions that are durable when they return (`synchronous = FULL`), so a crash leaves
//! a change made or not made. A change of a job reads the job and its runs, decides and writes in one
//! `BEGIN IMMEDIATE`: two processes never decide on the same state. What people are to be told is written with the
//! change it tells of.
//!
//! SQLite blocks, so every access runs on tokio's blocking threads. How it fails: a disk that is full or gone fails
//! the one call; a catalog of a newer version is refused at the start; another process that holds the lock for longer
//! than [`BUSY`] fails the call, and the scheduler tries again.

mod jobs;
pub mod model;
mod outbox;
mod overlap;
mod registered;
mod rows;
pub mod state;
mod tables;
pub mod text;
mod workers;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::NaiveDate;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::broadcast;

pub use jobs::{Entry, StateCounts};

/// How long a call waits for another process's transaction. They take milliseconds.
const BUSY: Duration = Duration::from_secs(30);
/// Changes a slow listener may be behind before it is told that it missed some.
const CHANGES: usize = 1024;

/// The catalog, open. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Mutex<Connection>,
    changes: broadcast::Sender<Changed>,
    /// Held by every call in progress.
    calls: Arc<()>,
}

/// A job, or one date of it, is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its uuid.
    pub job: String,
    /// None: the job itself, or all of it.
    pub date: Option<NaiveDate>,
}

/// Why the catalog does not do what it was asked for.
#[derive(Debug)]
pub enum CatalogError {
    /// There is no such thing: 404.
    Missing(String),
    /// It cannot be done in the state things are in: 409.
    Conflict(String),
    /// It cannot be done at all: 422.
    Invalid(String),
    /// The catalog itself failed.
    Failed(String),
}

/// Result of everything in the catalog.
pub type Result<T, E = CatalogError> = std::result::Result<T, E>;

impl Catalog {
    /// Opens a catalog, makes it where there is none, and brings one of an earlier version up to date. Blocks.
    pub fn open(path: &Path) -> Result<Catalog> {
        let named =
            |e: &dyn fmt::Display| CatalogError::Failed(format!("the catalog {}: {e}", path.display()));
        let mut connection = Connection::open(path).map_err(|e| named(&e))?;
        tables::prepare(&mut connection, BUSY).map_err(|e| named(&e))?;
        Ok(Catalog {
            inner: Arc::new(Inner {
                connection: Mutex::new(connection),
                changes: broadcast::channel(CHANGES).0,
                calls: Arc::new(()),
            }),
        })
    }

    /// Hears of every change this process makes, and of those it has seen others make.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.inner.changes.subscribe()
    }

    /// Says that something is not what it was.
    pub(crate) fn tell(&self, changed: Changed) {
        // Nobody listening is fine.
        let _ = self.inner.changes.send(changed);
    }

    /// Whether a call is in progress, for simulations that have to know when everybody waits.
    #[cfg(test)]
    pub fn busy(&self) -> bool {
        Arc::strong_count(&self.inner.calls) > 1
    }

    /// Runs `work` in one transaction on a blocking thread; an error of it undoes everything.
    async fn call<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let inner = self.inner.clone();
        let _called = inner.calls.clone();
        let calling = inner.calls.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _calling = calling;
            // A call that panicked has left its transaction rolled back.
            let mut connection = inner.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        });
        let done = done.await;
        done.unwrap_or_else(|panic| {
            Err(CatalogError::Failed(format!(
                "a call of the catalog failed: {panic}"
            )))
        })
    }
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (CatalogError::Missing(text)
        | CatalogError::Conflict(text)
        | CatalogError::Invalid(text)
        | CatalogError::Failed(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for CatalogError {}

impl From<rusqlite::Error> for CatalogError {
    fn from(error: rusqlite::Error) -> CatalogError {
        CatalogError::Failed(format!("the catalog: {error}"))
    }
}
