//! Reads next to the paths of sources: GET requests that are answered elsewhere, so that no lane waits for a store.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::{Method, StatusCode, Uri, request};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::answer::{self, Answer};

/// Reads that are on their way at a time. More are told to come again: beacons come first.
const AT_ONCE: usize = 64;

const READ_METHODS: &str = "GET, HEAD, OPTIONS";

/// Status and JSON body of a read.
pub type ReadAnswer = (StatusCode, String);

type Read = dyn Fn(Uri) -> BoxFuture<'static, ReadAnswer> + Send + Sync;

/// What answers reads below a path.
pub struct Reads {
    prefix: &'static str,
    on: Handle,
    read: Box<Read>,
    room: Arc<Semaphore>,
}

impl Reads {
    /// `read` answers every GET of a path that begins with `prefix`, on the runtime `on`.
    pub fn new(
        prefix: &'static str,
        on: Handle,
        read: impl Fn(Uri) -> BoxFuture<'static, ReadAnswer> + Send + Sync + 'static,
    ) -> Reads {
        Reads {
            prefix,
            on,
            read: Box::new(read),
            room: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    pub(super) fn take(&self, path: &str) -> bool {
        path.starts_with(self.prefix)
    }

    pub(super) async fn answer(&self, head: &request::Parts) -> Answer {
        match head.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return answer::options(READ_METHODS),
            _ => return answer::method_not_allowed(READ_METHODS),
        }
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            return answer::busy("too many reads at once", std::time::Duration::from_secs(1));
        };
        let read = (self.read)(head.uri.clone());
        let reading = self.on.spawn(async move {
            let _room = room;
            read.await
        });
        match reading.await {
            Ok((status, body)) => answer::json(status, body),
            // The process is ending.
            Err(_) => answer::busy("the server is stopping", std::time::Duration::from_secs(1)),
        }
    }
}
