//! What a pipeline reads and writes where the bench is about what lies between: rows in memory, and a sink that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
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

/// A sink that counts.
#[derive(Clone, Default)]
pub struct Counted {
    rows: Arc<AtomicU64>,
    total: Arc<AtomicI64>,
}

impl Counted {
    /// Rows that came.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// The sum of their column `n`, where there is one.
    pub fn total(&self) -> i64 {
        self.total.load(Ordering::Relaxed)
    }
}

/// The sum of the column `n`; 0 without one.
pub fn total(rows: &RecordBatch) -> i64 {
    let counts = rows.column_by_name("n");
    let counts = counts.and_then(|counts| counts.as_primitive_opt::<Int64Type>());
    counts.and_then(arrow::compute::sum).unwrap_or(0)
}

#[async_trait]
impl Sink for Counted {
    async fn write(&mut self, rows: RecordBatch) -> millstream_engine::Result<()> {
        self.rows.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
        self.total.fetch_add(total(&rows), Ordering::Relaxed);
        Ok(())
    }

    async fn prepare(&mut self, _: Barrier) -> millstream_engine::Result<Committable> {
        Ok(Committable::default())
    }

    async fn commit(&mut self, _: Epoch, _: Committable) -> millstream_engine::Result<()> {
        Ok(())
    }
}
