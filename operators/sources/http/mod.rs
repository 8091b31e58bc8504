//! Rows over HTTP: the ingest server and the `http` source.
//!
//! One [`Ingest`] per process listens for all pipelines; a source opens its path on it. A request's bytes
//! are decoded straight into the open batch of its lane (`batch`), the batch becomes a frame of the
//! lane's log, and when that is durable every request in it is answered. The source reads the log: what
//! was answered with 200 comes out of it, whatever happens in between.
//!
//! With `ack = "delivered"` a request is answered when the sinks have its rows. The log is not synced then, and nobody
//! relies on it: it is where rows wait for the pipeline, and what a restart on the same disk goes on with.
//!
//! How it fails: a bad row alone, with a code in the answer; a bad body with 4xx; a full log with 503 and
//! `Retry-After`. Bad rows and bodies go to `<source>.invalid`. While a pipeline restarts, its path
//! answers 503.

mod answer;
mod batch;
mod body;
mod coalesce;
mod connection;
mod endpoint;
mod head;
mod ingest;
mod lane;
mod limits;
mod options;
mod plain;
mod reads;
mod request;
mod rewound;
mod source;
mod stats;
mod verdict;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use millstream_engine::source::{Source, SourceConnector, SourceContext, options as typed};
use millstream_engine::{Error, Result};

pub use self::ingest::Ingest;
pub use self::limits::Limits;
pub use self::options::{Ack, HttpOptions};
pub use self::reads::{ReadAnswer, Reads};
use self::source::HttpSource;
pub use self::stats::IngestStats;
use crate::formats::json::Decoder;

/// `type = "http"`.
pub struct HttpConnector {
    ingest: Option<Arc<Ingest>>,
}

impl HttpConnector {
    /// Sources open their paths on `ingest`.
    pub fn new(ingest: Arc<Ingest>) -> HttpConnector {
        HttpConnector { ingest: Some(ingest) }
    }

    /// For checking pipeline files: knows the keys, opens nothing.
    pub fn unbound() -> HttpConnector {
        HttpConnector { ingest: None }
    }
}

impl SourceConnector for HttpConnector {
    fn name(&self) -> &'static str {
        "http"
    }

    fn identity(&self) -> &'static [&'static str] {
        &["path"]
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(HttpOptions)
    }

    fn check(&self, cx: &SourceContext) -> Result<()> {
        typed::<HttpOptions>(&cx.options)?.check()?;
        Decoder::stamping_arrival(cx.schema.clone()).map(drop)
    }

    fn awaits_delivery(&self, of: &serde_json::Value) -> Option<Duration> {
        let typed: HttpOptions = typed(of).ok()?;
        (typed.ack == Ack::Delivered).then_some(typed.delivery_timeout.0)
    }

    fn open(&self, cx: SourceContext) -> Result<Arc<dyn Source>> {
        let ingest = self.ingest.clone().ok_or_else(|| {
            Error::config("there is no ingest server here; http sources run under millstream run")
        })?;
        self.check(&cx)?;
        let options = typed(&cx.options)?;
        Ok(Arc::new(HttpSource::open(ingest, options, cx)?))
    }
}

#[cfg(test)]
mod tests;
