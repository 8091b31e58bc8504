//! The `http` sink: rows posted to a URL, as JSON arrays or JSON lines.
//!
//! Rows wait in a local file, fsynced at the checkpoint, and are posted at its commit, so nothing is posted that could
//! still be replayed. A commit that fails halfway goes on with the first request that was not answered. After a crash
//! the last checkpoint's requests may be made again (at least once); each carries the same `Idempotency-Key`
//! as the first time, by which a receiver can tell.
//!
//! In a dated run the key is `pipeline/sink/date/attempt/…`: a date that is run again is posted again, as another attempt,
//! and it is the receiver who puts its rows in the place of the earlier ones. A run without rows posts nothing.
//!
//! What the answers mean:
//!
//! | answer | what happens |
//! |---|---|
//! | 2xx | taken |
//! | 408, 425, 429, 5xx, none in time | posted again, after `Retry-After` where given |
//! | 3xx, 401, 403, 404, 405, 407, 410 | the pipeline stops: address or credentials are wrong, no row is lost |
//! | any other 4xx | these rows will never be taken: counted in `rows_refused`, logged, passed over |

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_engine::Result;
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::pipeline::Span;
use millstream_engine::run::DatedRun;
use millstream_engine::secret::Secret;
use millstream_engine::sink::{Committable, Sink, SinkConnector, SinkContext};
use millstream_engine::source::options;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::outbox::{Chunks, Outbox, Sealed};
use self::post::{Answer, Target};
use super::{new_series, promise, promised};

mod outbox;
mod post;
#[cfg(test)]
mod tests;

/// `type = "http"`.
pub struct HttpSinkConnector;

/// The keys of an `http` sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSinkOptions {
    /// Where rows are posted, `http://` or `https://`. A user in it, `https://user:password@host/`, is sent as
    /// `Authorization: Basic …`.
    pub url: Secret,
    /// The request's method.
    #[serde(default)]
    pub method: Method,
    /// Headers of every request. Values may hold secrets and are never printed.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Sent as `Authorization: Bearer …`.
    #[serde(default)]
    pub bearer_token: Option<Secret>,
    /// Rows of one request at most.
    #[serde(default = "default_batch_rows")]
    #[schemars(range(min = 1, max = 100_000))]
    pub batch_rows: usize,
    /// What a request's body looks like.
    #[serde(default)]
    pub format: BodyFormat,
    /// How long a request may take.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

/// The method of a webhook's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// `POST`.
    #[default]
    Post,
    /// `PUT`.
    Put,
}

/// What a request's body looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BodyFormat {
    /// A JSON array of objects.
    #[default]
    Json,
    /// One JSON object per line.
    Ndjson,
}

fn default_batch_rows() -> usize {
    500
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(30))
}

#[async_trait]
impl SinkConnector for HttpSinkConnector {
    fn name(&self) -> &'static str {
        "http"
    }

    fn identity(&self) -> &'static [&'static str] {
        &["url"]
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(HttpSinkOptions)
    }

    fn check(&self, cx: &SinkContext) -> Result<()> {
        Target::check(&options(&cx.options)?)
    }

    /// Whoever receives the rows sees their `revision`.
    fn takes_revisions(&self) -> bool {
        true
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn Sink>> {
        let typed: HttpSinkOptions = options(&cx.options)?;
        Ok(Box::new(HttpSink {
            target: Target::new(&typed)?,
            outbox: Outbox::new(cx.data_dir.clone()),
            batch_rows: typed.batch_rows,
            series: None,
            waiting: Vec::new(),
            posted: None,
            cx,
        }))
    }
}

/// What stands in the checkpoint.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Promise {
    series: String,
    files: Vec<Sealed>,
}

struct HttpSink {
    cx: SinkContext,
    target: Target,
    outbox: Outbox,
    batch_rows: usize,
    /// See [`new_series`]; none until the sink knows whether it recovers.
    series: Option<String>,
    /// Prepared, but not delivered yet.
    waiting: Vec<Sealed>,
    /// The file being delivered, and how many of its requests were answered for good.
    posted: Option<(Sealed, u64)>,
}

#[async_trait]
impl Sink for HttpSink {
    async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        self.begin()?;
        self.outbox.append(&rows)
    }

    async fn prepare(&mut self, barrier: Barrier) -> Result<Committable> {
        let series = self.begin()?;
        self.waiting.extend(self.outbox.seal(barrier.epoch).await?);
        promise(&Promise {
            series,
            files: self.waiting.clone(),
        })
    }

    async fn commit(&mut self, _: Epoch, what: Committable) -> Result<()> {
        let Some(promise) = promised::<Promise>(what, &self.cx)? else {
            return Ok(());
        };
        for file in &promise.files {
            self.deliver(&promise.series, file).await?;
        }
        if self.series.is_none() {
            // What is left was written by the crashed run after its last checkpoint and will be replayed.
            self.outbox.files.clear()?;
            self.series = Some(promise.series);
        }
        Ok(())
    }
}

impl HttpSink {
    /// The series of this sink. Without a commit before the first rows there was no checkpoint, so this is where
    /// a new series begins, and what lies in the outbox was promised to nobody.
    fn begin(&mut self) -> Result<String> {
        match &self.series {
            Some(series) => Ok(series.clone()),
            None => {
                self.outbox.files.clear()?;
                let series = match &self.cx.run {
                    Some(DatedRun { date, attempt }) => format!("{date}/{attempt}"),
                    None => new_series(),
                };
                Ok(self.series.insert(series).clone())
            }
        }
    }

    /// Posts a file's rows and removes it. A file that is gone was delivered before.
    async fn deliver(&mut self, series: &str, file: &Sealed) -> Result<()> {
        let answered = match &self.posted {
            Some((of, answered)) if of == file => *answered,
            _ => 0,
        };
        let Some(mut chunks) = Chunks::open(self.outbox.files.path(file), self.batch_rows).await? else {
            return Ok(());
        };
        let mut number = 0;
        while let Some(chunk) = chunks.next().await? {
            if number >= answered {
                let (pipeline, sink) = (&self.cx.pipeline, &self.cx.name);
                let key = format!("{pipeline}/{sink}/{series}/{}/{number}", file.epoch.0);
                let answer = self.target.post(&chunk, &key).await?;
                self.count(answer, chunk.len() as u64);
                self.posted = Some((*file, number + 1));
            }
            number += 1;
        }
        self.outbox.files.remove(file)?;
        self.waiting.retain(|f| f != file);
        self.posted = None;
        Ok(())
    }

    fn count(&self, answer: Answer, rows: u64) {
        let counters = &self.cx.counters;
        match answer {
            Answer::Taken => counters.add("rows_delivered", rows),
            Answer::Refused { status, why } => {
                counters.add("rows_refused", rows);
                tracing::error!(
                    pipeline = self.cx.pipeline,
                    sink = self.cx.name,
                    status,
                    rows,
                    answer = why,
                    "the receiver refused rows for good; they are passed over"
                );
            }
        }
    }
}
