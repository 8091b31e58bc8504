//! Time as the runtime sees it. Everything that waits or asks the time asks here, so that a simulation can
//! put virtual time in its place and run hours of waits, restarts and idle partitions in milliseconds.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::time::Timestamp;

/// A wait in progress.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The clocks, and waiting.
pub trait Timer: Send + Sync {
    /// The wall clock; may jump.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment; never moves back.
    fn elapsed(&self) -> Duration;

    /// Done once `wait` has passed.
    fn sleep(&self, wait: Duration) -> Sleep;
}

/// The machine's clocks.
pub fn real() -> Arc<dyn Timer> {
    Arc::new(Real(Instant::now()))
}

struct Real(Instant);

impl Timer for Real {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, wait: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(wait))
    }
}
