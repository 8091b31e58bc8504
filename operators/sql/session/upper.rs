//! The half of a query over a session window that runs once: holds the state of open sessions and fires those
//! that close.
//!
//! Before each watermark comes the list of sessions that it closes. They fire in order of their end, thousands
//! at a time, and between those the operator lets others run.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result as PlanResult, ScalarValue, internal_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, collect};
use millstream_engine::message::Batch;
use millstream_engine::operator::{Operator, Output};
use millstream_engine::state::Snapshot;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use super::held::{Gathered, Held};
use super::{Batched, PLANS_PER_TURN, SESSIONS_PER_RUN, SessionSlot, hidden_fields};
use crate::sql::errors::failed;
use crate::sql::functions::{Bound, FiringWindow};
use crate::sql::kept::{Kept, StateLimit};
use crate::sql::split::{Reduce, Slot, Split, slot_leaf};
use crate::sql::steps::{ScanColumn, with_schema};
use crate::sql::tables::References;
use crate::sql::{part_label, part_pane};
use crate::window::{CLOSED, ClosedSession, Interval, closed_sessions};

/// The upper half of a query over a session window.
pub(in crate::sql) struct SessionHalf {
    query: Arc<str>,
    schema: SchemaRef,
    split: Split,
    batched: Batched,
    window: Arc<FiringWindow>,
    context: Arc<TaskContext>,
    /// By slot.
    held: Vec<Held>,
    /// What the watermark that comes next closes.
    closing: Vec<ClosedSession>,
    tables: References,
    /// Rows held for slots without an aggregate.
    kept: Kept,
}

/// State of some sessions, by slot.
type State = Vec<Gathered>;

impl SessionHalf {
    /// A half with no state, whose plan answers `window_start()` and `window_end()` from `window`.
    pub fn new(
        query: Arc<str>,
        split: Split,
        batched: Batched,
        window: Arc<FiringWindow>,
        context: Arc<TaskContext>,
        tables: References,
        limit: &Arc<StateLimit>,
    ) -> SessionHalf {
        SessionHalf {
            query,
            schema: split.upper.schema(),
            held: split.slots.iter().map(|_| Held::default()).collect(),
            split,
            batched,
            window,
            context,
            closing: Vec::new(),
            tables,
            kept: Kept::new(limit),
        }
    }

    fn hold(&mut self, slot: usize, rows: RecordBatch) -> Result<()> {
        let Some(of) = self.split.slots.get(slot) else {
            // The presence slot: whether a session has rows is known from its being there.
            return Ok(());
        };
        let failed = |e| failed(&self.query, e);
        let session = session(of).map_err(failed)?;
        let held = &mut self.held[slot];
        held.push(session, rows).map_err(failed)?;
        if let Reduce::Aggregate(aggregate) = &of.reduce {
            held.merge(session, aggregate).map_err(failed)?;
        }
        self.count()
    }

    /// Counts what is held of slots without an aggregate; refuses more than the query's limit.
    fn count(&mut self) -> Result<()> {
        let keeps = |slot: &Slot| matches!(slot.reduce, Reduce::Keep);
        let kept = self.split.slots.iter().zip(&self.held);
        let bytes = kept.filter(|(s, _)| keeps(s)).map(|(_, h)| h.bytes).sum();
        self.kept.set(bytes)
    }

    async fn fire(&mut self, sessions: &[ClosedSession], out: &mut Output) -> Result<()> {
        let slots = self.split.slots.iter().zip(&mut self.held);
        let state = slots
            .map(|(slot, held)| counting(session(slot)?, sessions, held.take(session(slot)?, sessions)?));
        let state: State = state
            .collect::<PlanResult<_>>()
            .map_err(|e| failed(&self.query, e))?;
        self.count()?;
        match self.batched.clone() {
            Some(plan) => self.fire_together(&plan, sessions, &state, out).await,
            None => self.fire_each(sessions, &state, out).await,
        }
    }

    async fn fire_together(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        sessions: &[ClosedSession],
        state: &State,
        out: &mut Output,
    ) -> Result<()> {
        let failed = |e| failed(&self.query, e);
        let plan = reset_plan_states(Arc::clone(plan)).map_err(failed)?;
        let filled = plan.transform_up(|node| {
            let Some((leaf, slot)) = slot_leaf(&node) else {
                return Ok(Transformed::no(node));
            };
            let rows = together(&self.split.slots[slot], sessions, &state[slot], &leaf.schema())?;
            Ok(Transformed::yes(
                Arc::new(leaf.filled(rows)) as Arc<dyn ExecutionPlan>
            ))
        });
        let filled = filled.map_err(failed)?.data;
        let own: Vec<usize> = (0..self.schema.fields().len()).collect();
        for rows in collect(filled, Arc::clone(&self.context)).await.map_err(failed)? {
            out.emit(with_schema(rows.project(&own)?, &self.schema)?);
        }
        Ok(())
    }

    async fn fire_each(&self, sessions: &[ClosedSession], state: &State, out: &mut Output) -> Result<()> {
        let mut results = Vec::new();
        // Where each slot's rows of the session at hand begin.
        let mut from = vec![0; state.len()];
        for (number, session) in (0u32..).zip(sessions) {
            let mut mine = Vec::with_capacity(state.len());
            for (slot, from) in state.iter().zip(&mut from) {
                let length = slot.of[*from..].partition_point(|of| *of <= number);
                mine.push(slot.rows.as_ref().map(|rows| rows.slice(*from, length)));
                *from += length;
            }
            results.extend(self.fire_one(session, mine).await?);
            if number % PLANS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        if !results.is_empty() {
            out.emit(concat_batches(&self.schema, &results)?);
        }
        Ok(())
    }

    async fn fire_one(
        &self,
        session: &ClosedSession,
        state: Vec<Option<RecordBatch>>,
    ) -> Result<Vec<RecordBatch>> {
        let window = Interval {
            start: Timestamp(session.start),
            end: Timestamp(session.end),
        };
        self.window.set(window);
        let failed = |e| failed(&self.query, e).within(format!("session {} to {}", window.start, window.end));
        let mut complete = Vec::with_capacity(state.len());
        for (slot, rows) in self.split.slots.iter().zip(state) {
            let rows = rows.filter(|rows| rows.num_rows() > 0);
            let rows = rows.map(|rows| of_one(slot, &rows, window)).transpose();
            complete.push(rows.map_err(failed)?);
        }
        let rows = |slot: usize| complete[slot].iter().cloned().collect();
        let tables = self.tables.now()?;
        let plan = self.split.filled(rows, &tables, window).map_err(failed)?;
        let results = collect(plan, Arc::clone(&self.context)).await.map_err(failed)?;
        let named = results.into_iter().map(|rows| with_schema(rows, &self.schema));
        Ok(named.collect::<std::result::Result<_, _>>()?)
    }
}

#[async_trait]
impl Operator for SessionHalf {
    fn on_batch(&mut self, _input: usize, batch: Batch, _out: &mut Output) -> Result<()> {
        match batch.pane {
            Some(CLOSED) => {
                self.closing.extend(closed_sessions(&batch.rows)?);
                Ok(())
            }
            Some(pane) => self.hold(pane.slot as usize, batch.rows),
            None => Err(Error::bug(format!(
                "query {:?} was given rows without a pane",
                self.query
            ))),
        }
    }

    async fn on_watermark(&mut self, _at: Timestamp, out: &mut Output) -> Result<()> {
        let closing = std::mem::take(&mut self.closing);
        for sessions in closing.chunks(SESSIONS_PER_RUN) {
            self.fire(sessions, out).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Snapshot> {
        if !self.closing.is_empty() {
            return Err(Error::bug(format!(
                "query {:?} was asked for its state between sessions that close and their watermark",
                self.query
            )));
        }
        let mut snapshot = Snapshot::default();
        for (slot, held) in self.held.iter().enumerate() {
            for rows in held.batches().map_err(|e| failed(&self.query, e))? {
                snapshot.push(part_label(slot as u32, 0)?, rows);
            }
        }
        Ok(snapshot)
    }

    fn restore(&mut self, from: Snapshot) -> Result<()> {
        for part in from.parts {
            self.hold(part_pane(&part.label)?.slot as usize, part.rows)?;
        }
        Ok(())
    }
}

fn session(slot: &Slot) -> PlanResult<&SessionSlot> {
    slot.session
        .as_ref()
        .ok_or_else(|| internal_datafusion_err!("a slot over a session window does not keep sessions apart"))
}

/// State without that of sessions which conditions over their bounds leave out.
fn counting(slot: &SessionSlot, sessions: &[ClosedSession], state: Gathered) -> PlanResult<Gathered> {
    let all: Vec<u32> = (0..sessions.len() as u32).collect();
    let (Some(counts), Some(rows)) = (slot.counts(&hidden_columns(sessions, &all)[1..])?, &state.rows) else {
        return Ok(state);
    };
    let of = |row: &u32| counts.value(*row as usize);
    let kept: BooleanArray = state.of.iter().map(|row| Some(of(row))).collect();
    Ok(Gathered {
        rows: Some(filter_record_batch(rows, &kept)?),
        of: state.of.into_iter().filter(of).collect(),
    })
}

/// State of one session as the plan expects it, except for window columns, which [`Split::filled`] adds.
fn of_one(slot: &Slot, rows: &RecordBatch, window: Interval) -> PlanResult<RecordBatch> {
    let bound = |bound: Bound| bound.of(window).to_array_of_size(rows.num_rows());
    session(slot)?.complete(rows, &[bound(Bound::Start)?, bound(Bound::End)?])
}

/// State of several sessions as the leaf of a batched plan expects it.
fn together(
    slot: &Slot,
    sessions: &[ClosedSession],
    state: &Gathered,
    schema: &SchemaRef,
) -> PlanResult<Vec<RecordBatch>> {
    let of_session = session(slot)?;
    let mut all = Vec::new();
    if let Some(rows) = &state.rows {
        let hidden = hidden_columns(sessions, &state.of);
        let rows = of_session.complete(rows, &hidden[1..])?;
        let columns = match &slot.window_columns {
            Some((columns, _)) => with_window_columns(columns, &rows, &hidden)?,
            None => rows.columns().to_vec(),
        };
        all.push(leaf_rows(slot, columns, hidden, schema)?);
    }
    if let Some(nothing) = &of_session.of_nothing {
        let mut without = vec![true; sessions.len()];
        state.of.iter().for_each(|of| without[*of as usize] = false);
        let without: Vec<u32> = (0..).zip(&without).filter(|(_, w)| **w).map(|(n, _)| n).collect();
        if !without.is_empty() {
            let repeated = nothing
                .columns()
                .iter()
                .map(|column| ScalarValue::try_from_array(column, 0)?.to_array_of_size(without.len()));
            let columns = repeated.collect::<PlanResult<_>>()?;
            all.push(leaf_rows(
                slot,
                columns,
                hidden_columns(sessions, &without),
                schema,
            )?);
        }
    }
    Ok(all)
}

fn hidden_columns(sessions: &[ClosedSession], of: &[u32]) -> Vec<ArrayRef> {
    let time = |value: fn(&ClosedSession) -> i64| -> ArrayRef {
        let values = of.iter().map(|of| value(&sessions[*of as usize]));
        Arc::new(TimestampMicrosecondArray::from_iter_values(values))
    };
    let numbers = Int64Array::from_iter_values(of.iter().map(|of| i64::from(*of)));
    vec![Arc::new(numbers), time(|s| s.start), time(|s| s.end)]
}

/// Kept rows with the window columns that the scan asks for in their places.
fn with_window_columns(
    columns: &[ScanColumn],
    rows: &RecordBatch,
    hidden: &[ArrayRef],
) -> PlanResult<Vec<ArrayRef>> {
    let mut inputs = rows.columns().iter();
    let column = |column: &ScanColumn| match column {
        ScanColumn::Window(Bound::Start) => Ok(Arc::clone(&hidden[1])),
        ScanColumn::Window(Bound::End) => Ok(Arc::clone(&hidden[2])),
        ScanColumn::Input(_) => inputs
            .next()
            .cloned()
            .ok_or_else(|| internal_datafusion_err!("kept rows lack a column")),
    };
    columns.iter().map(column).collect()
}

fn leaf_rows(
    slot: &Slot,
    columns: Vec<ArrayRef>,
    hidden: Vec<ArrayRef>,
    schema: &SchemaRef,
) -> PlanResult<RecordBatch> {
    debug_assert_eq!(hidden.len(), hidden_fields().len());
    let all = match slot.reduce {
        Reduce::Aggregate(_) => hidden.into_iter().chain(columns).collect(),
        Reduce::Keep => columns.into_iter().chain(hidden).collect::<Vec<_>>(),
    };
    Ok(RecordBatch::try_new(Arc::clone(schema), all)?)
}
