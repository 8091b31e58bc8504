//! The operator of a `[window.x]`: late rows leave by the side stream, the others pass.
//!
//! A row is late when every window it belongs to ends at or before the watermark that stood before its
//! batch. Lateness grows with age for every kind of window, so it is one comparison per row with a threshold
//! that moves with the watermark, and one comparison per batch when nothing is late, the normal case.
//! Windows that fire again take rows until their lateness is over; their threshold is that much earlier.
//!
//! Fails with a data error when an event time is null, which sources do not let through.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::kernels::cmp::lt;
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::{Field, Schema, TimestampMicrosecondType};
use async_trait::async_trait;
use millstream_engine::message::Batch;
use millstream_engine::operator::{Operator, Output};
use millstream_engine::state::Snapshot;
use millstream_engine::time::{Timestamp, timestamp_type};
use millstream_engine::window::Window;
use millstream_engine::{Error, Result};

use super::Panes;

/// Label of the snapshot part that holds a watermark.
pub(crate) const WATERMARK: &str = "watermark";

/// Count of late rows for which a window fires again, apart from those that come too late even for that.
pub(crate) const ROWS_LATE_UPDATED: &str = "rows_late_updated";

/// The operator that splits late rows off; `event_time` is the index of the event-time column.
pub fn window_operator(window: &Window, event_time: usize) -> Result<Box<dyn Operator>> {
    updating_window_operator(window, event_time, Duration::ZERO)
}

/// The same for windows that take rows until `lateness` after their end: late rows pass, and are counted, up
/// to then.
pub fn updating_window_operator(
    window: &Window,
    event_time: usize,
    lateness: Duration,
) -> Result<Box<dyn Operator>> {
    Ok(Box::new(WindowOperator {
        panes: Panes::new(window)?,
        event_time,
        lateness,
        watermark: Timestamp::MIN,
    }))
}

struct WindowOperator {
    panes: Panes,
    event_time: usize,
    lateness: Duration,
    watermark: Timestamp,
}

impl WindowOperator {
    /// Late rows that pass all the same.
    fn count_updating(&self, times: &TimestampMicrosecondArray, takes_from: i64, out: &mut Output) {
        let open_from = self.panes.open_from(self.watermark);
        let times = times.values().iter();
        let updating = times.filter(|at| (takes_from..open_from).contains(*at)).count();
        if updating > 0 {
            out.count(ROWS_LATE_UPDATED, updating as u64);
        }
    }
}

#[async_trait]
impl Operator for WindowOperator {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let times = event_times(&batch.rows, self.event_time)?;
        let takes_from = self.panes.takes_from(self.watermark, self.lateness);
        if !self.lateness.is_zero() {
            self.count_updating(times, takes_from, out);
        }
        match arrow::compute::min(times) {
            Some(earliest) if earliest < takes_from => {
                let late = lt(times, &TimestampMicrosecondArray::new_scalar(takes_from))?;
                out.emit_side(filter_record_batch(&batch.rows, &late)?);
                out.emit(filter_record_batch(&batch.rows, &not(&late)?)?);
            }
            _ => out.emit(batch),
        }
        Ok(())
    }

    async fn on_watermark(&mut self, at: Timestamp, _out: &mut Output) -> Result<()> {
        self.watermark = at;
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        snapshot.push(WATERMARK, watermark_rows(self.watermark)?);
        Ok(snapshot)
    }

    /// The earliest of several watermarks: a partition must not lose rows because another was ahead.
    fn restore(&mut self, from: Snapshot) -> Result<()> {
        let found: Result<Vec<_>> = from.parts.iter().map(|part| watermark_of(&part.rows)).collect();
        self.watermark = found?.into_iter().min().unwrap_or(Timestamp::MIN);
        Ok(())
    }
}

/// The event-time column of a batch.
pub(crate) fn event_times(rows: &RecordBatch, column: usize) -> Result<&TimestampMicrosecondArray> {
    let name = || rows.schema_ref().field(column).name().clone();
    let times = rows
        .column(column)
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::bug(format!("event time column {:?} is not a timestamp", name())))?;
    if times.null_count() > 0 {
        return Err(Error::data(format!(
            "event time column {:?} has a null; declare it \"timestamp not null\" in the source",
            name()
        )));
    }
    Ok(times)
}

/// A watermark as snapshot rows.
pub(crate) fn watermark_rows(at: Timestamp) -> Result<RecordBatch> {
    let schema = Schema::new(vec![Field::new(WATERMARK, timestamp_type(), false)]);
    let rows = TimestampMicrosecondArray::from_value(at.0, 1);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(rows)])?)
}

/// The watermark that [`watermark_rows`] wrote.
pub(crate) fn watermark_of(rows: &RecordBatch) -> Result<Timestamp> {
    let column = (rows.num_rows() == 1 && rows.num_columns() == 1).then(|| rows.column(0));
    column
        .and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>())
        .map(|times| Timestamp(times.value(0)))
        .ok_or_else(|| Error::bug("a watermark in a snapshot is not one timestamp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(times: &[i64]) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("at", timestamp_type(), true)]);
        let times = TimestampMicrosecondArray::from(times.to_vec());
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(times)]).expect("rows")
    }

    fn times(of: &RecordBatch) -> Vec<i64> {
        of.column(0)
            .as_primitive::<TimestampMicrosecondType>()
            .values()
            .to_vec()
    }

    fn minutes() -> Box<dyn Operator> {
        let window = Window::Tumbling {
            size: Duration::from_micros(60),
            offset: Duration::ZERO,
        };
        window_operator(&window, 0).expect("operator")
    }

    #[tokio::test]
    async fn splits_by_the_watermark_before_the_batch() {
        let mut operator = minutes();
        let mut out = Output::default();
        operator
            .on_batch(0, rows(&[-500, 5, 61]).into(), &mut out)
            .expect("batch");
        assert!(out.side.is_empty(), "nothing is late before the first watermark");
        operator
            .on_watermark(Timestamp(119), &mut out)
            .await
            .expect("watermark");
        let mut out = Output::default();
        operator
            .on_batch(0, rows(&[59, 60, 118, 120]).into(), &mut out)
            .expect("batch");
        assert_eq!(times(&out.side[0]), [59]);
        assert_eq!(times(&out.main[0].rows), [60, 118, 120]);

        let snapshot = operator.snapshot().expect("snapshot");
        let mut restored = minutes();
        restored.restore(snapshot).expect("restore");
        let mut out = Output::default();
        restored.on_batch(0, rows(&[59]).into(), &mut out).expect("batch");
        assert!(out.main.is_empty());
        assert_eq!(times(&out.side[0]), [59]);
    }

    #[tokio::test]
    async fn a_row_is_late_once_and_counted_once() {
        let window = Window::Tumbling {
            size: Duration::from_micros(60),
            offset: Duration::ZERO,
        };
        let lateness = Duration::from_micros(100);
        let mut operator = updating_window_operator(&window, 0, lateness).expect("operator");
        let mut out = Output::default();
        operator
            .on_watermark(Timestamp(219), &mut out)
            .await
            .expect("watermark");
        let batch = rows(&[59, 60, 119, 120, 179, 180, 240]);
        operator.on_batch(0, batch.into(), &mut out).expect("batch");
        assert_eq!(times(&out.side[0]), [59], "its window ended 159 ago");
        assert_eq!(times(&out.main[0].rows), [60, 119, 120, 179, 180, 240]);
        assert_eq!(out.counts, [(ROWS_LATE_UPDATED, 4)]);
        // Not a microsecond longer.
        operator
            .on_watermark(Timestamp(220), &mut out)
            .await
            .expect("watermark");
        let mut out = Output::default();
        let batch = rows(&[119, 120]);
        operator.on_batch(0, batch.into(), &mut out).expect("batch");
        assert_eq!(times(&out.side[0]), [119]);
        assert_eq!(out.counts, [(ROWS_LATE_UPDATED, 1)]);
    }

    #[test]
    fn passes_a_batch_in_time_without_copying() {
        let batch = rows(&[70, 65]);
        let before = batch.column(0).to_data().buffers()[0].as_ptr();
        let mut out = Output::default();
        minutes().on_batch(0, batch.into(), &mut out).expect("batch");
        assert_eq!(out.main[0].rows.column(0).to_data().buffers()[0].as_ptr(), before);
    }

    #[test]
    fn null_event_time_is_a_data_error() {
        let schema = Schema::new(vec![Field::new("at", timestamp_type(), true)]);
        let nulls = TimestampMicrosecondArray::from(vec![Some(1), None]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(nulls)]).expect("rows");
        let refused = minutes().on_batch(0, batch.into(), &mut Output::default());
        assert!(matches!(refused, Err(Error::Data(_))), "{refused:?}");
    }
}
