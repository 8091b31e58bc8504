//! The source behind a path: one partition per lane, read from that lane's log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_engine::source::{
    Offset, Offsets, PartitionId, Partitions, Source, SourceBatch, SourceContext,
};
use millstream_engine::{Error, Result};
use tokio_util::sync::CancellationToken;

use super::coalesce;
use super::endpoint::{Endpoint, LANE, partition_of};
use super::ingest::Ingest;
use super::options::{Ack, HttpOptions};
use crate::log::{Frame, Log, LogOptions};

/// Rows that came over HTTP.
pub(super) struct HttpSource {
    ingest: Arc<Ingest>,
    endpoint: Arc<Endpoint>,
    /// What closes the path; taken when it is opened.
    stop: Mutex<Option<CancellationToken>>,
}

impl HttpSource {
    pub fn open(ingest: Arc<Ingest>, options: HttpOptions, cx: SourceContext) -> Result<HttpSource> {
        let holder = format!("source {:?} of pipeline {:?}", cx.name, cx.pipeline);
        ingest.claim(&options.path, &holder)?;
        let mut partitions = left_behind(&cx.data_dir)?;
        partitions.extend((0..ingest.lanes()).map(partition_of));
        let mut logs = BTreeMap::new();
        for partition in partitions {
            let log = open_log(&cx, &options, &partition)?;
            logs.insert(partition, log);
        }
        let endpoint = Arc::new(Endpoint::new(holder, options, cx.schema, logs));
        Ok(HttpSource {
            ingest,
            endpoint,
            stop: Mutex::new(Some(cx.stop)),
        })
    }

    fn frames(
        &self,
        partition: &PartitionId,
        from: Option<Offset>,
    ) -> Result<BoxStream<'static, Result<Frame>>> {
        let from = from.as_ref().map(sequence).transpose()?;
        self.endpoint.with_log(partition, |log| Ok(log.read(from)))
    }
}

#[async_trait]
impl Source for HttpSource {
    fn schema(&self) -> SchemaRef {
        self.endpoint.schema.clone()
    }

    /// Opens the path, too. Not before it is known from where the logs are read: one that was lost with its disk goes
    /// on from there, which it cannot once there are rows in it.
    async fn partitions(&self, read: &Offsets) -> Result<Partitions> {
        let partitions = self.endpoint.partitions();
        for (of, from) in sequences(read)? {
            if partitions.contains(&of) {
                self.endpoint.with_log(&of, |log| log.resume(from))?;
            }
        }
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stop) = stop {
            self.ingest.open(self.endpoint.clone(), stop)?;
        }
        Ok(Partitions::fixed(partitions, read))
    }

    fn read(&self, partition: &PartitionId, from: Option<Offset>) -> BoxStream<'static, Result<SourceBatch>> {
        match self.frames(partition, from) {
            Ok(frames) => coalesce::batches(frames),
            Err(e) => stream::once(async { Err(e) }).boxed(),
        }
    }

    async fn commit(&self, done: &Offsets) -> Result<()> {
        let done = sequences(done)?;
        let endpoint = self.endpoint.clone();
        let release = move || {
            done.iter()
                .try_for_each(|(of, upto)| endpoint.with_log(of, |log| log.release(*upto)))
        };
        // Two fsyncs per log.
        let released = tokio::task::spawn_blocking(release).await;
        released.map_err(|e| Error::bug(format!("releasing the ingest log: {e}")))?
    }

    async fn delivered(&self, done: &Offsets) -> Result<()> {
        for (of, upto) in sequences(done)? {
            self.endpoint.delivered(&of, upto);
        }
        Ok(())
    }
}

impl Drop for HttpSource {
    fn drop(&mut self) {
        self.ingest.abandon(&self.endpoint);
    }
}

fn sequences(of: &Offsets) -> Result<Vec<(PartitionId, u64)>> {
    of.iter()
        .map(|(of, offset)| Ok((of.clone(), sequence(offset)?)))
        .collect()
}

fn sequence(offset: &Offset) -> Result<u64> {
    let parsed = offset.0.parse();
    parsed.map_err(|_| Error::config(format!("offset {:?} is not one of an http source", offset.0)))
}

fn open_log(cx: &SourceContext, options: &HttpOptions, partition: &PartitionId) -> Result<Log> {
    let mut log = LogOptions::new(cx.data_dir.join(&partition.0));
    log.sync = options.ack == Ack::Durable;
    // The lane has let requests join already; a second pause would only add to their wait.
    log.commit_linger = Duration::ZERO;
    Log::open(log, cx.schema.clone()).map_err(|e| e.within(format!("ingest log {partition}")))
}

/// The lanes that have a directory: rows in them were acknowledged and must be read, even if there are
/// fewer lanes now.
fn left_behind(data_dir: &Path) -> Result<BTreeSet<PartitionId>> {
    let cannot = |e: std::io::Error| {
        let dir = data_dir.display();
        Error::config(format!("cannot read {dir}, where the ingest log is: {e}"))
    };
    let mut partitions = BTreeSet::new();
    let entries = match std::fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(partitions),
        Err(e) => return Err(cannot(e)),
    };
    for entry in entries {
        let name = entry.map_err(cannot)?.file_name();
        let lane = name.to_str().and_then(|name| name.strip_prefix(LANE));
        partitions.extend(lane.and_then(|number| number.parse().ok()).map(partition_of));
    }
    Ok(partitions)
}
