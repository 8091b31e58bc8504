//! Small frames of the log that wait together leave as one batch.
//!
//! A frame holds the requests that shared a write; when requests have one row, that is a handful of rows, and
//! every batch costs a pass through the whole pipeline. What waits is joined and nothing is waited for: a
//! pipeline that keeps up gets each frame at once, one that lags gets larger batches and so catches up.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_engine::source::{Offset, SourceBatch};
use millstream_engine::{Error, Result};

use crate::log::Frame;

/// Rows of a batch, at most, unless a single frame has more: one Arrow batch as DataFusion likes it.
const BATCH_ROWS: usize = 8192;
/// Frames of a batch, at most. Beyond, a pass through the pipeline is cheap beside joining.
const BATCH_FRAMES: usize = 256;

/// The frames as batches.
pub(super) fn batches(frames: BoxStream<'static, Result<Frame>>) -> BoxStream<'static, Result<SourceBatch>> {
    frames
        .ready_chunks(BATCH_FRAMES)
        .flat_map(|ready| stream::iter(runs(ready)))
        .map(|run| join(run?))
        .boxed()
}

/// Cuts frames into runs that make one batch each. An error stays where it was.
fn runs(ready: Vec<Result<Frame>>) -> Vec<Result<Vec<Frame>>> {
    let mut runs: Vec<Result<Vec<Frame>>> = Vec::new();
    for frame in ready {
        match (frame, runs.last_mut()) {
            (Ok(frame), Some(Ok(run))) if rows(run) + frame.rows.num_rows() <= BATCH_ROWS => run.push(frame),
            (frame, _) => runs.push(frame.map(|frame| vec![frame])),
        }
    }
    runs
}

fn rows(run: &[Frame]) -> usize {
    run.iter().map(|frame| frame.rows.num_rows()).sum()
}

/// One batch of a run, which is not empty; a lone frame is passed on as it is.
fn join(run: Vec<Frame>) -> Result<SourceBatch> {
    let last = run.last().ok_or_else(|| Error::bug("a batch of no frames"))?;
    Ok(SourceBatch {
        tables: Vec::new(),
        offset: Offset((last.seq + 1).to_string()),
        invalid: concat(run.iter().filter_map(|frame| frame.invalid.as_ref()))?,
        rows: concat(run.iter().map(|frame| &frame.rows))?
            .ok_or_else(|| Error::bug("a batch of no frames"))?,
    })
}

fn concat<'a>(mut all: impl Iterator<Item = &'a RecordBatch>) -> Result<Option<RecordBatch>> {
    let Some(first) = all.next() else {
        return Ok(None);
    };
    let rest: Vec<_> = all.collect();
    match rest.is_empty() {
        true => Ok(Some(first.clone())),
        false => Ok(Some(concat_batches(
            first.schema_ref(),
            std::iter::once(first).chain(rest),
        )?)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    /// Rows numbered from `seq * 10_000`.
    fn frame(seq: u64, rows: usize) -> Frame {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let from = seq as i64 * 10_000;
        let column = Arc::new(Int64Array::from_iter_values(from..from + rows as i64));
        Frame {
            seq,
            rows: RecordBatch::try_new(schema, vec![column]).expect("a column of the schema"),
            invalid: None,
        }
    }

    fn numbers(of: &RecordBatch) -> Vec<i64> {
        of.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    /// Sizes of the frames that wait (`!`: an error) to the batches, as rows and next offset.
    #[tokio::test]
    async fn joins_what_waits_up_to_a_batch() {
        for (waiting, expect) in [
            ("1", "1@1"),
            ("1 1 1", "3@3"),
            ("8191 1 1", "8192@2 1@3"),
            ("1 8192 1", "1@1 8192@2 1@3"),
            ("9000 9000", "9000@1 9000@2"),
            ("0 0 5", "5@3"),
            ("1 2 ! 3", "3@2 ! 3@4"),
        ] {
            let frames: Vec<Result<Frame>> = (0..)
                .zip(waiting.split(' '))
                .map(|(seq, size)| {
                    let size = size.parse();
                    size.map(|size| frame(seq, size))
                        .map_err(|_| Error::retry("a passing failure"))
                })
                .collect();
            let waited = frames.iter().flatten().flat_map(|f| numbers(&f.rows));
            let waited: Vec<_> = waited.collect();
            let batches: Vec<_> = batches(stream::iter(frames).boxed()).collect().await;
            let show = |batch: &Result<SourceBatch>| match batch {
                Ok(batch) => format!("{}@{}", batch.rows.num_rows(), batch.offset.0),
                Err(_) => "!".into(),
            };
            assert_eq!(
                batches.iter().map(show).collect::<Vec<_>>().join(" "),
                expect,
                "{waiting}"
            );
            let rows: Vec<_> = batches.iter().flatten().flat_map(|b| numbers(&b.rows)).collect();
            assert_eq!(rows, waited, "{waiting}");
        }
    }

    #[tokio::test]
    async fn waits_for_nothing() {
        let (mut sender, frames) = futures::channel::mpsc::channel(1);
        let mut batches = batches(frames.boxed());
        for seq in 0..3 {
            sender.try_send(Ok(frame(seq, 2))).expect("the stream is there");
            let batch = batches.next().await.expect("a batch").expect("rows");
            assert_eq!(batch.offset, Offset((seq + 1).to_string()));
        }
    }
}
