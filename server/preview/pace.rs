//! Cuts rows into batches that give what the rows would give one by one.
//!
//! The watermark moves between batches, so within a batch all rows meet the one that stood before it. Three things
//! depend on which one that is, and a batch ends before a row for which it would make a difference:
//!
//! - a row behind the watermark of the rows before it may be late;
//! - the first row alone says from when on windows without rows are known;
//! - a key of a dedup is forgotten as the watermark moves on.
//!
//! Rows in order, or out of order within bounds, are never cut.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use millstream_engine::plan::{Plan, SourceNode};
use millstream_engine::time::micros;

/// How far a dedup lets the watermark move in one batch, as a part of its `within`: dedup itself works in eighths.
const DEDUP_STEPS: i64 = 64;

/// The watermark of the rows of one source, as far as they have been cut.
#[derive(Debug)]
pub struct Pace {
    event_time: usize,
    behind: i64,
    /// The most that the watermark may move in one batch.
    step: i64,
    newest: Option<i64>,
    /// The watermark before the batch that is open; none before the first row's.
    standing: Option<i64>,
}

impl Pace {
    /// The pace of a source's rows, any of which may pass the plan's dedups.
    pub fn new(source: &SourceNode, plan: &Plan) -> Pace {
        let further = plan.dedups.iter().map(|d| &d.dedup);
        let within = source.dedup.iter().chain(further).map(|d| micros(d.within)).min();
        Pace {
            event_time: source.event_time,
            behind: micros(source.max_out_of_orderness),
            step: within.map_or(i64::MAX, |within| (within / DEDUP_STEPS).max(1)),
            newest: None,
            standing: None,
        }
    }

    /// The batches of `rows`, which follow the rows before.
    pub fn cut(&mut self, rows: &RecordBatch) -> Vec<RecordBatch> {
        let column = rows.column(self.event_time);
        let Some(times) = column.as_primitive_opt::<TimestampMicrosecondType>() else {
            return vec![rows.clone()];
        };
        let (mut batches, mut from) = (Vec::new(), 0);
        for (row, at) in times.values().iter().enumerate() {
            if row > from && self.would_differ(*at) {
                batches.push(rows.slice(from, row - from));
                from = row;
                self.standing = self.watermark();
            }
            self.newest = self.newest.max(Some(*at));
        }
        if from < rows.num_rows() {
            batches.push(rows.slice(from, rows.num_rows() - from));
        }
        self.standing = self.watermark();
        batches
    }

    /// Whether a row at `at` must meet the watermark of the rows before it.
    fn would_differ(&self, at: i64) -> bool {
        let (Some(standing), Some(now)) = (self.standing, self.watermark()) else {
            return true;
        };
        now > standing && (at < now || now.saturating_sub(standing) >= self.step)
    }

    fn watermark(&self) -> Option<i64> {
        self.newest.map(|newest| newest.saturating_sub(self.behind))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::TimestampMicrosecondArray;

    use super::*;

    /// Sizes of the batches of each piece.
    fn sizes(step: i64, pieces: &[&[i64]]) -> Vec<Vec<usize>> {
        let mut pace = Pace {
            event_time: 0,
            behind: 5,
            step,
            newest: None,
            standing: None,
        };
        let cut = |times: &&[i64]| {
            let times = Arc::new(TimestampMicrosecondArray::from(times.to_vec())) as _;
            let rows = RecordBatch::try_from_iter([("at", times)]).unwrap();
            pace.cut(&rows).iter().map(RecordBatch::num_rows).collect()
        };
        pieces.iter().map(cut).collect()
    }

    #[test]
    fn batches_end_where_a_row_alone_would_meet_another_watermark() {
        for (step, pieces, expect) in [
            (
                i64::MAX,
                &[&[][..], &[1], &[2, 3]][..],
                vec![vec![], vec![1], vec![2]],
            ),
            (i64::MAX, &[&[1, 2, 3, 4]], vec![vec![1, 3]]),
            // Out of order, but not behind 9 - 5.
            (i64::MAX, &[&[1, 9, 4, 5, 8]], vec![vec![1, 4]]),
            // Behind; the next ones are behind a watermark that stands already.
            (i64::MAX, &[&[1, 9, 3, 2, 4, 9, 10]], vec![vec![1, 1, 5]]),
            (i64::MAX, &[&[1, 9, 3, 20, 3, 21]], vec![vec![1, 1, 2, 2]]),
            // The end of a piece is the end of a batch.
            (i64::MAX, &[&[1, 9], &[3, 4]], vec![vec![1, 1], vec![2]]),
            // With dedup the watermark moves in steps.
            (2, &[&[1, 2, 3, 4, 5, 6]], vec![vec![1, 2, 2, 1]]),
        ] {
            assert_eq!(sizes(step, pieces), expect, "{step} {pieces:?}");
        }
    }
}
