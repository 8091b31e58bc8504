//! The keys of an `http` source, as typed and checked.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderValue;
use millstream_engine::pipeline::{Bytes, Span};
use millstream_engine::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Paths of the server itself.
pub(super) const HEALTH_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// Ending of the path that takes a row from the query string.
pub(super) const GIF: &str = ".gif";

/// A request is decoded in one go in one lane; this is a tenth of a second of it.
const LARGEST_BODY: u64 = 64 << 20;

/// One request must fit one batch of the log.
const MOST_ROWS: usize = 65_536;

/// A client waits as long for its answer.
const LONGEST_LINGER: Duration = Duration::from_secs(1);

/// From what a checkpoint on a busy machine may take, to what anybody waits for an answer.
const DELIVERY_TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);

/// Rows over HTTP: `POST <path>` with JSON, `GET <path>.gif?column=value` for pages without script.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpOptions {
    /// The path that takes rows, such as `/advertising/impressions`.
    #[schemars(regex(pattern = r"^/"))]
    pub path: String,
    /// The JSON key that holds the array of rows, which is then the only form a body may have. Absent: a
    /// body is one row, an array of rows, or one row per line.
    #[serde(default)]
    pub records: Option<String>,
    /// Rows in one request, at most.
    #[serde(default = "default_max_rows")]
    pub max_rows: usize,
    /// Size of a body, at most, before and after decompression.
    #[serde(default = "default_max_body")]
    pub max_body: Bytes,
    /// Origins whose pages may read the answers; `"*"` is any.
    #[serde(default = "default_cors_origins")]
    pub cors_origins: Vec<String>,
    /// When a request is answered.
    #[serde(default)]
    pub ack: Ack,
    /// How long a row may wait for others to be written together with.
    #[serde(default = "default_commit_linger")]
    pub commit_linger: Span,
    /// How long a request waits for its rows to be delivered, with `ack = "delivered"`; then it is answered with 503.
    #[serde(default = "default_delivery_timeout")]
    pub delivery_timeout: Span,
}

/// When a request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// Once its rows are on disk.
    #[default]
    Durable,
    /// Once its rows are handed on; a crash loses what the last moments brought.
    Memory,
    /// Once every sink of the pipeline has committed a checkpoint that covers its rows. Where sinks commit what is
    /// elsewhere by then, such as a stream, an answered row survives the loss of this machine and its disk. A request
    /// that is not answered with 200 may have been delivered all the same.
    Delivered,
}

fn default_max_rows() -> usize {
    500
}

fn default_max_body() -> Bytes {
    Bytes(4 << 20)
}

fn default_cors_origins() -> Vec<String> {
    vec!["*".into()]
}

fn default_commit_linger() -> Span {
    Span(Duration::from_millis(2))
}

/// Less than what clients and load balancers commonly wait, and many checkpoints.
fn default_delivery_timeout() -> Span {
    Span(Duration::from_secs(10))
}

impl HttpOptions {
    /// Refuses what the schema cannot.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::config(what));
        let path = &self.path;
        let uri = path.parse::<http::uri::PathAndQuery>();
        if !path.starts_with('/') || !uri.is_ok_and(|uri| uri.path() == path) {
            return refuse(format!(
                "path {path:?} is not the path of a URL; write for example \"/impressions\""
            ));
        }
        if HEALTH_PATHS.contains(&path.as_str()) || path.ends_with(GIF) {
            return refuse(format!(
                "path {path:?} is taken: {} and paths that end in {GIF} are the server's",
                HEALTH_PATHS.join(", ")
            ));
        }
        if self.records.as_ref().is_some_and(String::is_empty) {
            return refuse("records is empty; name the key that holds the rows, or leave it out".into());
        }
        if !(1..=MOST_ROWS).contains(&self.max_rows) {
            return refuse(format!("max_rows must be from 1 to {MOST_ROWS}"));
        }
        if !(1..=LARGEST_BODY).contains(&self.max_body.0) {
            return refuse(format!("max_body must be from 1 to {LARGEST_BODY} bytes"));
        }
        if self.commit_linger.0 > LONGEST_LINGER {
            return refuse(format!("commit_linger must be at most {LONGEST_LINGER:?}"));
        }
        if !DELIVERY_TIMEOUTS.contains(&self.delivery_timeout.0) {
            let (least, most) = (DELIVERY_TIMEOUTS.start(), DELIVERY_TIMEOUTS.end());
            return refuse(format!("delivery_timeout must be from {least:?} to {most:?}"));
        }
        match self
            .cors_origins
            .iter()
            .find(|o| HeaderValue::from_str(o).is_err())
        {
            Some(origin) => refuse(format!("cors_origins: {origin:?} is not an origin")),
            None => Ok(()),
        }
    }

    /// Whether pages of `origin` may read the answers.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        let origin = origin.as_bytes();
        self.cors_origins
            .iter()
            .any(|o| o == "*" || o.as_bytes() == origin)
    }
}
