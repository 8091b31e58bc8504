//! What runs in every partition: a stateless query as a whole, or the lower half of a windowed one.
//!
//! The lower half keeps, per open pane and slot, accumulators (or rows, for slots without an aggregate). When
//! the watermark passes a pane's end its state leaves, marked with pane and slot. A pane whose rows all
//! disappeared on the way (filtered out under a GROUP BY) still leaves a row in the presence slot, so that the
//! global half knows that the window had rows: a `count(*)` above must then say 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_engine::Result;
use millstream_engine::message::{Batch, Pane};
use millstream_engine::operator::{Operator, Output, Rest};
use millstream_engine::state::Snapshot;
use millstream_engine::time::Timestamp;

use super::assign::by_pane;
use super::deltas::Deltas;
use super::errors::failed;
use super::firing::Piece;
use super::kept::{Kept, StateLimit, rows_bytes};
use super::split::{Reduce, Slot};
use super::steps::{Steps, with_schema};
use super::{STATE_ROWS_PER_BATCH, part_label, part_pane};
use crate::window::{Interval, Panes, event_times};

/// A query of filters and projections, batch by batch.
pub(super) struct Stateless {
    pub query: Arc<str>,
    pub steps: Steps,
    pub schema: SchemaRef,
}

#[async_trait]
impl Operator for Stateless {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let rows = self
            .steps
            .apply(&batch.rows, None)
            .map_err(|e| failed(&self.query, e))?;
        out.emit(with_schema(rows, &self.schema)?);
        Ok(())
    }
}

/// The lower half of a windowed query for one of its inputs.
pub(super) struct LowerHalf {
    query: Arc<str>,
    /// Index of the event-time column in the rows that arrive.
    event_time: usize,
    /// Indices of the columns that the slots read; only those are moved to panes.
    reads: Vec<usize>,
    panes: Panes,
    /// The slots this input feeds, with their numbers.
    slots: Vec<(u32, Arc<Slot>)>,
    presence: u32,
    open: BTreeMap<i64, OpenPane>,
    /// Whether a slot keeps rows, and which.
    keeps: bool,
    kept: Kept,
}

/// State of one pane: one entry per slot of the half, in its order.
struct OpenPane {
    rows: u64,
    slots: Vec<OpenSlot>,
}

struct OpenSlot {
    number: u32,
    slot: Arc<Slot>,
    window: Interval,
    state: State,
}

enum State {
    Accumulated(Deltas),
    Kept(Vec<RecordBatch>),
}

impl LowerHalf {
    /// The half that feeds the given slots of `query`; `presence` is the number of its presence slot.
    pub fn new(
        query: Arc<str>,
        event_time: usize,
        panes: Panes,
        slots: Vec<(u32, Arc<Slot>)>,
        presence: u32,
        limit: &Arc<StateLimit>,
    ) -> LowerHalf {
        let inputs = slots.iter().flat_map(|(_, slot)| slot.steps.inputs());
        let reads: Vec<usize> = inputs.collect::<BTreeSet<_>>().into_iter().collect();
        let reading = |(number, slot): (u32, Arc<Slot>)| {
            let steps = slot.steps.reading(&reads);
            let slot = Slot {
                steps,
                ..Slot::clone(&slot)
            };
            (number, Arc::new(slot))
        };
        let slots: Vec<_> = slots.into_iter().map(reading).collect();
        LowerHalf {
            query,
            event_time,
            reads,
            panes,
            keeps: slots.iter().any(|(_, slot)| matches!(slot.reduce, Reduce::Keep)),
            slots,
            presence,
            open: BTreeMap::new(),
            kept: Kept::new(limit),
        }
    }

    fn pane(&mut self, start: i64) -> Result<&mut OpenPane> {
        if !self.open.contains_key(&start) {
            let window = Interval {
                start: Timestamp(start),
                end: Timestamp(self.panes.pane_end(start)),
            };
            let open = |(number, slot): &(u32, Arc<Slot>)| OpenSlot::new(*number, slot, window);
            let slots: datafusion::common::Result<_> = self.slots.iter().map(open).collect();
            let slots = slots.map_err(|e| failed(&self.query, e))?;
            self.open.insert(start, OpenPane { rows: 0, slots });
        }
        Ok(self.open.get_mut(&start).expect("the pane was just opened"))
    }

    fn update(&mut self, start: i64, rows: &RecordBatch) -> Result<()> {
        let query = Arc::clone(&self.query);
        let pane = self.pane(start)?;
        pane.rows += rows.num_rows() as u64;
        let mut kept = 0;
        for slot in &mut pane.slots {
            kept += slot.update(rows).map_err(|e| failed(&query, e))?;
        }
        self.kept.add(kept)
    }

    fn emit(&self, start: i64, pane: &mut OpenPane, piece: &mut Piece, out: &mut Output) -> Result<()> {
        piece.window();
        for (slot, rows) in pane.take(self.presence).map_err(|e| failed(&self.query, e))? {
            let pane = Some(Pane {
                slot,
                start: Timestamp(start),
            });
            piece.rows(rows.num_rows());
            for from in (0..rows.num_rows()).step_by(STATE_ROWS_PER_BATCH) {
                let length = STATE_ROWS_PER_BATCH.min(rows.num_rows() - from);
                out.emit(Batch {
                    rows: rows.slice(from, length),
                    pane,
                    due: None,
                });
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Operator for LowerHalf {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<()> {
        if batch.pane.is_some() {
            // Which sessions close: for the upper half.
            out.emit(batch);
            return Ok(());
        }
        let times = event_times(&batch.rows, self.event_time)?;
        let rows = batch.rows.project(&self.reads)?;
        let parts = by_pane(&self.panes, times.values(), &rows, self.keeps)?;
        parts
            .iter()
            .try_for_each(|(start, rows)| self.update(*start, rows))
    }

    async fn on_watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<()> {
        let mut piece = Piece::default();
        while let Some(entry) = self.open.first_entry() {
            let start = *entry.key();
            if self.panes.pane_end(start) > at.0 {
                break;
            }
            if piece.is_full() {
                out.rest = Rest::Results;
                break;
            }
            let mut pane = entry.remove();
            self.kept.remove(pane.kept_bytes());
            self.emit(start, &mut pane, &mut piece, out)?;
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        for (start, pane) in &mut self.open {
            let state = pane.state(self.presence).map_err(|e| failed(&self.query, e))?;
            for (slot, rows) in state {
                snapshot.push(part_label(slot, *start)?, rows);
            }
        }
        Ok(snapshot)
    }

    fn restore(&mut self, from: Snapshot) -> Result<()> {
        for part in from.parts {
            let at = part_pane(&part.label)?;
            let pane = self.pane(at.start.0)?;
            pane.rows = pane.rows.max(1);
            pane.merge(at.slot, part.rows);
        }
        self.kept.add(self.open.values().map(OpenPane::kept_bytes).sum())
    }
}

impl OpenPane {
    /// Takes the state out, by slot; a pane that had rows always gives some.
    fn take(&mut self, presence: u32) -> datafusion::common::Result<Vec<(u32, RecordBatch)>> {
        let state = self.by_slot(OpenSlot::take)?;
        self.or_presence(state, presence)
    }

    /// As [`OpenPane::take`], of state that stays.
    fn state(&mut self, presence: u32) -> datafusion::common::Result<Vec<(u32, RecordBatch)>> {
        let state = self.by_slot(OpenSlot::state)?;
        self.or_presence(state, presence)
    }

    fn by_slot(
        &mut self,
        of: fn(&mut OpenSlot) -> datafusion::common::Result<Vec<RecordBatch>>,
    ) -> datafusion::common::Result<Vec<(u32, RecordBatch)>> {
        let mut all = Vec::new();
        for slot in &mut self.slots {
            let rows = of(slot)?.into_iter().filter(|rows| rows.num_rows() > 0);
            all.extend(rows.map(|rows| (slot.number, rows)));
        }
        Ok(all)
    }

    fn or_presence(
        &self,
        mut state: Vec<(u32, RecordBatch)>,
        presence: u32,
    ) -> datafusion::common::Result<Vec<(u32, RecordBatch)>> {
        if state.is_empty() && self.rows > 0 {
            state.push((presence, presence_rows(self.rows)?));
        }
        Ok(state)
    }

    /// Rows of the presence slot, which is none of the pane's, leave no state.
    fn merge(&mut self, slot: u32, rows: RecordBatch) {
        if let Some(slot) = self.slots.iter_mut().find(|s| s.number == slot) {
            slot.merge(rows);
        }
    }

    fn kept_bytes(&self) -> usize {
        self.slots.iter().map(OpenSlot::kept_bytes).sum()
    }
}

impl OpenSlot {
    fn new(number: u32, slot: &Arc<Slot>, window: Interval) -> datafusion::common::Result<OpenSlot> {
        let slot = match slot.mentions_window {
            true => Arc::new(slot.bind(window)?),
            false => Arc::clone(slot),
        };
        let state = match &slot.reduce {
            Reduce::Aggregate(aggregate) => State::Accumulated(Deltas::new(aggregate)?),
            Reduce::Keep => State::Kept(Vec::new()),
        };
        Ok(OpenSlot {
            number,
            slot,
            window,
            state,
        })
    }

    /// Takes rows; says how many bytes of them are kept.
    fn update(&mut self, rows: &RecordBatch) -> datafusion::common::Result<usize> {
        let rows = self.slot.steps.apply(rows, Some(self.window))?;
        match (&mut self.state, &self.slot.reduce) {
            (State::Accumulated(state), Reduce::Aggregate(aggregate)) => {
                state.update(aggregate, &rows)?;
                Ok(0)
            }
            (State::Kept(kept), _) if rows.num_rows() > 0 => {
                let bytes = rows_bytes(&rows);
                kept.push(rows);
                Ok(bytes)
            }
            _ => Ok(0),
        }
    }

    fn take(&mut self) -> datafusion::common::Result<Vec<RecordBatch>> {
        match (&mut self.state, &self.slot.reduce) {
            (State::Accumulated(state), Reduce::Aggregate(aggregate)) => state.take(aggregate),
            (State::Kept(kept), _) => Ok(std::mem::take(kept)),
            (State::Accumulated(_), Reduce::Keep) => Ok(Vec::new()),
        }
    }

    fn state(&mut self) -> datafusion::common::Result<Vec<RecordBatch>> {
        match (&mut self.state, &self.slot.reduce) {
            (State::Accumulated(state), Reduce::Aggregate(aggregate)) => state.state(aggregate),
            (State::Kept(kept), _) => Ok(kept.clone()),
            (State::Accumulated(_), Reduce::Keep) => Ok(Vec::new()),
        }
    }

    fn merge(&mut self, rows: RecordBatch) {
        match &mut self.state {
            State::Accumulated(state) => state.merge(rows),
            State::Kept(kept) => kept.push(rows),
        }
    }

    fn kept_bytes(&self) -> usize {
        match &self.state {
            State::Kept(kept) => kept.iter().map(rows_bytes).sum(),
            State::Accumulated(_) => 0,
        }
    }
}

fn presence_rows(rows: u64) -> datafusion::common::Result<RecordBatch> {
    let schema = Schema::new(vec![Field::new("rows", DataType::UInt64, false)]);
    let column = Arc::new(UInt64Array::from(vec![rows])) as ArrayRef;
    Ok(RecordBatch::try_new(Arc::new(schema), vec![column])?)
}
