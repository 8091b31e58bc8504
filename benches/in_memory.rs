//! What a pipeline reads and writes where the bench is about what lies between: rows in memory, and a sink that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_engine::Error;
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::sink::{Committable, Sink};
use millstream_engine::source::{Offset, Offsets, PartitionId, Partitions, Source, SourceBatch};

/// Rows in one partition.
pub struct InMemory(pub Vec<RecordBatch>);

#[async_trait]
impl Source for InMemory {
    fn schema(&self) -> SchemaRef {
        self.0[0].schema()
    }

    async fn partitions(&self, read: &Offsets) -> millstream_engine::Result<Partitions> {
        Ok(Partitions::fixed([PartitionId("0".into())], read))
    }

    fn read(
        &self,
        _: &PartitionId,
        _: Option<Offset>,
    ) -> BoxStream<'static, millstream_engine::Result<SourceBatch>> {
        let batch = |rows| {
            Ok(SourceBatch {
                tables: Vec::new(),
                rows,
                invalid: None,
                offset: Offset(String::new()),
            })
        };
        stream::iter(self.0.clone()).map(batch).boxed()
    }

    async fn commit(&self, _: &Offsets) -> millstream_engine::Result<()> {
        Ok(())
    }
}

/// Counts the rows it is given, and may sum up one of their columns; clones share the counts.
#[derive(Clone, Default)]
pub struct Counted {
    column: Option<&'static str>,
    counts: Arc<[AtomicU64; 2]>,
}

impl Counted {
    /// With the sum of a column of type bigint.
    pub fn summing(column: &'static str) -> Counted {
        Counted {
            column: Some(column),
            ..Counted::default()
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.counts[0].load(Ordering::Relaxed)
    }

    /// The sum so far.
    pub fn sum(&self) -> u64 {
        self.counts[1].load(Ordering::Relaxed)
    }

    /// Counts rows.
    pub fn take(&self, rows: &RecordBatch) -> millstream_engine::Result<()> {
        self.counts[0].fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
        if let Some(name) = self.column {
            let numbers = rows
                .column_by_name(name)
                .and_then(|c| c.as_primitive_opt::<Int64Type>());
            let numbers = numbers.ok_or_else(|| Error::bug(format!("the result has no bigint {name:?}")))?;
            let sum = arrow::compute::sum(numbers).unwrap_or(0);
            self.counts[1].fetch_add(sum as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for Counted {
    async fn write(&mut self, rows: RecordBatch) -> millstream_engine::Result<()> {
        self.take(&rows)
    }

    async fn prepare(&mut self, _: Barrier) -> millstream_engine::Result<Committable> {
        Ok(Committable::default())
    }

    async fn commit(&mut self, _: Epoch, _: Committable) -> millstream_engine::Result<()> {
        Ok(())
    }
}
