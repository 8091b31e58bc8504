//! The half of a windowed query that runs once: collects the panes' state from all partitions and, when the
//! watermark passes a window's end, executes the upper plan over it.
//!
//! Windows fire in order of their end, each once, unless late rows make it fire again (`revisions.rs`): those
//! that hold any row, or with `emit_empty` all of them from the first known one on. The first known is the window of the first state that arrived or the first
//! one that was open at the first watermark, whichever is earlier; before that nobody was listening, so there
//! is nothing to report as empty.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use millstream_engine::message::{Batch, Pane};
use millstream_engine::operator::{Operator, Output, Rest};
use millstream_engine::state::Snapshot;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use super::errors::failed;
use super::firing::{Firing, Piece};
use super::functions::FiringWindow;
use super::kept::{Kept, StateLimit, rows_bytes};
use super::revisions::Revisions;
use super::split::{Reduce, Split};
use super::steps::with_schema;
use super::tables::References;
use super::{CONSECUTIVE_EMPTY_WINDOWS, part_label, part_pane};
use crate::window::{Interval, Panes, WATERMARK, watermark_of, watermark_rows};

/// The upper half of a windowed query.
pub(super) struct UpperHalf {
    query: Arc<str>,
    schema: SchemaRef,
    split: Split,
    window: Arc<FiringWindow>,
    context: Arc<TaskContext>,
    panes: Panes,
    tables: References,
    emit_empty: bool,
    /// State by start of pane; inside, by slot, the presence slot last.
    held: BTreeMap<i64, Vec<Vec<RecordBatch>>>,
    /// Rows held for slots without an aggregate.
    kept: Kept,
    /// Every window that ends here or earlier has fired.
    watermark: Timestamp,
    /// What the last watermark set off and is not done yet.
    firing: Firing,
    /// Set when windows fire again for late rows.
    revisions: Option<Revisions>,
}

impl UpperHalf {
    /// A half with no state, whose plan answers `window_start()` and `window_end()` from `window`.
    pub fn new(
        query: Arc<str>,
        split: Split,
        window: Arc<FiringWindow>,
        context: Arc<TaskContext>,
        panes: Panes,
        tables: References,
        limit: &Arc<StateLimit>,
    ) -> UpperHalf {
        UpperHalf {
            query,
            schema: split.upper.schema(),
            split,
            window,
            context,
            panes,
            tables,
            emit_empty: false,
            held: BTreeMap::new(),
            kept: Kept::new(limit),
            watermark: Timestamp::MIN,
            firing: Firing::default(),
            revisions: None,
        }
    }

    /// The same half, which fires windows without rows as well if so told.
    pub fn firing_empty(mut self, emit_empty: bool) -> UpperHalf {
        self.emit_empty = emit_empty;
        self
    }

    /// The same half, whose windows fire again for rows that come up to `lateness` after their end.
    pub fn updating(mut self, lateness: Option<Duration>) -> UpperHalf {
        self.revisions = lateness.map(|lateness| Revisions::new(self.panes, lateness, &self.schema));
        self
    }

    /// Whether the pane is of no more use.
    fn is_done(&self, pane: i64) -> bool {
        let last = self.panes.last_end(pane);
        match &self.revisions {
            None => last <= self.watermark.0,
            Some(revisions) => !revisions.keeps(last, self.watermark),
        }
    }

    fn hold(&mut self, at: Pane, rows: RecordBatch) -> Result<()> {
        let slots = self.split.slots.len() + 1;
        let slot = at.slot as usize;
        if slot >= slots {
            return Err(Error::bug(format!("query {:?} has no slot {slot}", self.query)));
        }
        if self.keeps(slot) {
            self.kept.add(rows_bytes(&rows))?;
        }
        let pane = self
            .held
            .entry(at.start.0)
            .or_insert_with(|| vec![Vec::new(); slots]);
        pane[slot].push(rows);
        Ok(())
    }

    fn keeps(&self, slot: usize) -> bool {
        self.split
            .slots
            .get(slot)
            .is_some_and(|s| matches!(s.reduce, Reduce::Keep))
    }

    /// Ends of the windows to fire now, in order, each with a number when they may fire again.
    fn begin(&mut self, at: Timestamp) -> Vec<i64> {
        let first = self.due(at);
        let Some(revisions) = &mut self.revisions else {
            return first;
        };
        let mut due: Vec<i64> = revisions.again(self.watermark).into_iter().collect();
        due.extend(first);
        revisions.number(&due);
        due
    }

    /// Ends of the windows to fire for the first time, in order.
    fn due(&self, at: Timestamp) -> Vec<i64> {
        // Most watermarks pass no window's end; do not look at the panes for those.
        if self.watermark > Timestamp::MIN && self.panes.next_end(self.watermark.0) > at.0 {
            return Vec::new();
        }
        let with_rows: BTreeSet<i64> = self
            .held
            .range(self.panes.open_from(self.watermark)..)
            .flat_map(|(pane, _)| self.panes.ends_of(*pane))
            .filter(|end| *end > self.watermark.0 && *end <= at.0)
            .collect();
        match self.emit_empty {
            true => self.with_empty(with_rows, at),
            false => with_rows.into_iter().collect(),
        }
    }

    fn with_empty(&self, with_rows: BTreeSet<i64>, at: Timestamp) -> Vec<i64> {
        let first = with_rows.first().copied();
        let mut next = match self.watermark {
            Timestamp::MIN => first.unwrap_or(i64::MAX).min(self.panes.next_end(at.0)),
            fired => self.panes.next_end(fired.0),
        };
        let mut due = Vec::new();
        for end in &with_rows {
            next = self.empty_until(next, *end, &mut due);
            due.push(*end);
            next = next.max(self.panes.next_end(*end));
        }
        // After the end of a bounded stream no window is known any more.
        if at < Timestamp::MAX {
            self.empty_until(next, at.0.saturating_add(1), &mut due);
        }
        due
    }

    /// Adds the windows that end from `next` on and before `until`, up to a limit; returns the next end.
    fn empty_until(&self, mut next: i64, until: i64, due: &mut Vec<i64>) -> i64 {
        let mut left = CONSECUTIVE_EMPTY_WINDOWS;
        while next < until {
            if left == 0 {
                tracing::warn!(
                    query = &*self.query,
                    from = %Timestamp(next),
                    to = %Timestamp(until),
                    "more than {CONSECUTIVE_EMPTY_WINDOWS} windows in a row are empty; the rest is skipped"
                );
                return until;
            }
            left -= 1;
            due.push(next);
            next = self.panes.next_end(next);
        }
        next
    }

    /// Emits of a window's result as much as fits the piece; says whether that is all.
    async fn fire(&mut self, window: Interval, piece: &mut Piece, out: &mut Output) -> Result<bool> {
        let query = Arc::clone(&self.query);
        let failed = |e| failed(&query, e).within(format!("window {} to {}", window.start, window.end));
        let mut result = match self.firing.result.take() {
            Some(result) => result,
            None => {
                piece.window();
                self.result(window)?.peekable()
            }
        };
        while let Some(rows) = result.next().await {
            let rows = with_schema(rows.map_err(failed)?, &self.schema)?;
            piece.rows(rows.num_rows());
            out.emit(match &self.revisions {
                Some(revisions) => revisions.stamp(rows, window.end.0)?,
                None => rows,
            });
            // Not in the middle of a result that is at its end: between results more may come in between.
            if piece.is_full() && Pin::new(&mut result).peek().await.is_some() {
                self.firing.result = Some(result);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether rows and barriers may come between two windows of a firing. Where a pane has several windows, or
    /// windows fire again, state that arrives may be for a window which is still to fire but whose time is up,
    /// or tell of one that has fired: it waits until the firing is done.
    fn between_windows(&self) -> Rest {
        match self.panes.pane_is_window() && self.revisions.is_none() {
            true => Rest::Results,
            false => Rest::OfResult,
        }
    }

    /// Executes the upper plan for a window.
    fn result(&self, window: Interval) -> Result<SendableRecordBatchStream> {
        self.window.set(window);
        let rows = |slot: usize| {
            let panes = self.held.range(window.start.0..window.end.0);
            panes.flat_map(|(_, slots)| slots[slot].iter().cloned()).collect()
        };
        let failed = |e| failed(&self.query, e).within(format!("window {} to {}", window.start, window.end));
        let tables = self.tables.now()?;
        let plan = self.split.filled(rows, &tables, window).map_err(failed)?;
        execute_stream(plan, Arc::clone(&self.context)).map_err(failed)
    }

    /// Drops the panes whose last window has fired.
    fn forget(&mut self) {
        while let Some(pane) = self
            .held
            .keys()
            .next()
            .copied()
            .filter(|pane| self.is_done(*pane))
        {
            let slots = self.held.remove(&pane).unwrap_or_default();
            for (slot, rows) in slots.iter().enumerate() {
                if self.keeps(slot) {
                    self.kept.remove(rows.iter().map(rows_bytes).sum());
                }
            }
        }
    }
}

#[async_trait]
impl Operator for UpperHalf {
    fn on_batch(&mut self, _input: usize, batch: Batch, _out: &mut Output) -> Result<()> {
        let Some(pane) = batch.pane else {
            return Err(Error::bug(format!(
                "query {:?} was given rows without a pane",
                self.query
            )));
        };
        if self.is_done(pane.start.0) {
            return Err(Error::bug(format!(
                "query {:?} was given state of the pane at {} when the watermark stood at {}",
                self.query, pane.start, self.watermark
            )));
        }
        if let Some(revisions) = &mut self.revisions {
            revisions.touch(pane.start.0, self.watermark);
        }
        self.hold(pane, batch.rows)
    }

    async fn on_watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<()> {
        if self.firing.at != Some(at) {
            self.firing = Firing {
                at: Some(at),
                due: self.begin(at).into(),
                result: None,
            };
        }
        let mut piece = Piece::default();
        while let Some(end) = self.firing.due.front().copied() {
            if piece.is_full() {
                out.rest = self.between_windows();
                return Ok(());
            }
            if !self.fire(self.panes.ending(end), &mut piece, out).await? {
                out.rest = Rest::OfResult;
                return Ok(());
            }
            self.firing.due.pop_front();
            if self.between_windows() == Rest::Results {
                self.watermark = Timestamp(end);
                self.forget();
            }
        }
        self.firing = Firing::default();
        self.watermark = at;
        self.forget();
        if let Some(revisions) = &mut self.revisions {
            revisions.forget(at);
        }
        Ok(())
    }

    /// Results carry their window's start: the next one is that of the first window still open.
    fn watermark_behind(&self, at: Timestamp) -> Timestamp {
        let from = match &self.revisions {
            Some(revisions) => revisions.open_from(at),
            None => self.panes.open_from(at),
        };
        Timestamp(from).min(at)
    }

    fn snapshot(&mut self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        snapshot.push(WATERMARK, watermark_rows(self.watermark)?);
        if let Some(revisions) = &self.revisions {
            revisions.snapshot(&mut snapshot)?;
        }
        for (start, slots) in &self.held {
            for (slot, batches) in slots.iter().enumerate() {
                for rows in batches {
                    snapshot.push(part_label(slot as u32, *start)?, rows.clone());
                }
            }
        }
        Ok(snapshot)
    }

    fn restore(&mut self, from: Snapshot) -> Result<()> {
        for part in from.parts {
            if let Some(revisions) = &mut self.revisions
                && revisions.restore(&part)?
            {
                continue;
            }
            match part.label.as_str() {
                WATERMARK => self.watermark = watermark_of(&part.rows)?,
                label => self.hold(part_pane(label)?, part.rows)?,
            }
        }
        Ok(())
    }
}
