//! Reads numbers in turn, at the rate that was asked for.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_engine::source::{
    Offset, Offsets, PartitionId, Partitions, Source, SourceBatch, SourceContext,
};
use millstream_engine::{Error, Result};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Generator;
use super::options::GenerateOptions;

/// Numbers in one batch: some milliseconds of work, so that barriers are not kept waiting.
const NUMBERS_PER_BATCH: u64 = 8_192;

/// The shortest wait for numbers that are due: a batch per row would cost more than the rows.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

/// Rows that are made up.
pub(super) struct GenerateSource {
    shared: Arc<Shared>,
}

struct Shared {
    generator: Generator,
    schema: SchemaRef,
    rows: Option<u64>,
    partitions: u64,
    /// Numbers per second and partition.
    rate: Option<f64>,
    stop: CancellationToken,
}

impl GenerateSource {
    pub fn new(generator: Generator, options: &GenerateOptions, cx: SourceContext) -> GenerateSource {
        let rate = options.rate.map(|rate| rate as f64 / options.partitions as f64);
        GenerateSource {
            shared: Arc::new(Shared {
                generator,
                schema: cx.schema,
                rows: options.rows,
                partitions: options.partitions,
                rate,
                stop: cx.stop,
            }),
        }
    }
}

#[async_trait]
impl Source for GenerateSource {
    fn schema(&self) -> SchemaRef {
        self.shared.schema.clone()
    }

    async fn partitions(&self, read: &Offsets) -> Result<Partitions> {
        let ids = (0..self.shared.partitions).map(|n| PartitionId(n.to_string()));
        Ok(Partitions::fixed(ids, read))
    }

    fn read(&self, partition: &PartitionId, from: Option<Offset>) -> BoxStream<'static, Result<SourceBatch>> {
        let reader = Reader::new(&self.shared, partition, from);
        match reader {
            Ok(reader) => {
                let next =
                    |mut reader: Reader| async move { reader.next().await.map(|batch| (batch, reader)) };
                stream::unfold(reader, next).boxed()
            }
            Err(e) => stream::once(async { Err(e) }).boxed(),
        }
    }

    /// There is nothing to release.
    async fn commit(&self, _: &Offsets) -> Result<()> {
        Ok(())
    }
}

/// Where reading a partition stands.
struct Reader {
    shared: Arc<Shared>,
    partition: u64,
    /// How many of the partition's numbers have been read.
    read: u64,
    /// What it was at the start.
    first: u64,
    started: Instant,
}

impl Reader {
    fn new(shared: &Arc<Shared>, partition: &PartitionId, from: Option<Offset>) -> Result<Reader> {
        let number = |text: &str, what: &str| {
            let parsed = text.parse::<u64>();
            parsed.map_err(|_| Error::config(format!("{what} {text:?} is not one of a generate source")))
        };
        let read = from.map_or(Ok(0), |Offset(read)| number(&read, "offset"))?;
        Ok(Reader {
            shared: shared.clone(),
            partition: number(&partition.0, "partition")?,
            read,
            first: read,
            started: Instant::now(),
        })
    }

    /// The row that stands at a place of this partition: runs of numbers are dealt to the partitions in turn.
    fn number(&self, place: u64) -> u64 {
        let run = self.shared.generator.run();
        (place / run * self.shared.partitions + self.partition) * run + place % run
    }

    async fn next(&mut self) -> Option<Result<SourceBatch>> {
        let due = self.due().await?;
        let end = self.shared.rows.unwrap_or(u64::MAX);
        let places = self.read..due.min(self.read + NUMBERS_PER_BATCH);
        let numbers: Vec<u64> = places
            .map(|place| self.number(place))
            .take_while(|n| *n < end)
            .collect();
        if numbers.is_empty() {
            return None;
        }
        self.read += numbers.len() as u64;
        let rows = self.shared.generator.rows(&numbers);
        Some(rows.map(|rows| SourceBatch {
            tables: Vec::new(),
            rows,
            invalid: None,
            offset: Offset(self.read.to_string()),
        }))
    }

    /// Waits until there is something to read; up to where. None when the pipeline stops.
    async fn due(&self) -> Option<u64> {
        loop {
            if self.shared.stop.is_cancelled() {
                return None;
            }
            let Some(rate) = self.shared.rate else {
                return Some(u64::MAX);
            };
            let due = self.first + due_after(self.started.elapsed(), rate);
            if due > self.read {
                return Some(due);
            }
            let wait = Duration::from_secs_f64(1.0 / rate).max(SHORTEST_WAIT);
            tokio::select! {
                () = self.shared.stop.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// How many numbers are due after some time.
fn due_after(elapsed: Duration, rate: f64) -> u64 {
    (elapsed.as_secs_f64() * rate) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_due_at_the_rate() {
        for (millis, rate, due) in [
            (0, 100.0, 0),
            (9, 100.0, 0),
            (11, 100.0, 1),
            (10_001, 100.0, 1_000),
            (2_500, 0.5, 1),
        ] {
            assert_eq!(
                due_after(Duration::from_millis(millis), rate),
                due,
                "{millis} ms at {rate}/s"
            );
        }
    }
}
