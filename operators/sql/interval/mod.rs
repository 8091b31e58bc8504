//! Joins of two streams without windows, within a bound of time.
//!
//! ```sql
//! SELECT i.*, c.click_id
//! FROM impressions i LEFT JOIN clicks c ON i.impression_id = c.impression_id
//!   AND c.occurred_at BETWEEN i.occurred_at AND i.occurred_at + INTERVAL '1 hour'
//! ```
//!
//! # What is promised
//!
//! A join needs at least one equality and, between the event times of the two streams, a lower and an upper
//! bound; everything else in ON and WHERE may be any condition. Where no row is late, the result is what
//! DataFusion returns in batch over all rows of both streams (`oracle.rs` compares the two).
//!
//! - A pair is made as soon as both of its rows are there, whichever came first.
//! - Time is the watermark of the two streams together, the earlier of theirs. A row is kept until the watermark
//!   has passed the last instant at which a match for it could stand. A row of an outer side that has found none
//!   by then is made with nulls for the other side, then and not before.
//! - A null in a key equals nothing (but with `IS NOT DISTINCT FROM`). Such a row of an outer side is made with
//!   nulls at once.
//! - A row that is *late*, behind the watermark, is matched with what is still kept, kept itself as long as its
//!   match may still come, and if that time is over made with nulls at once where its side is outer. So it is
//!   never lost from an outer side; it can miss a match that has been dropped, which a row in time cannot. Such
//!   rows are counted as `rows_behind_watermark`.
//! - Event time of the result is the first column that is the left stream's event time passed through, else the
//!   right one's; not one of a side that may be null. Results stand up to the bound behind the watermark, so the
//!   stream's own watermark is held back by that much ([`IntervalJoin::delay`]): windows over it lose nothing.
//!
//! # How
//!
//! ```text
//! partitions: steps of the left stream ──┐
//!                                        ├─► one task: the join, then the steps above it
//! partitions: steps of the right stream ─┘
//! ```
//!
//! `plan.rs` finds the join in DataFusion's physical plan, `bounds.rs` reads the bounds from its condition.
//! `operator.rs` probes and stores batch by batch; what is stored lies in slices of time (`state.rs`), which are
//! searched (`search.rs`) by hash (`index.rs`) and dropped as a whole.
//!
//! # How it fails
//!
//! Rows that are kept, or the matches of a single batch, may take no more than the query's `state_limit`; more is a data error
//! that says what to do.

mod bounds;
mod index;
mod operator;
#[cfg(test)]
mod oracle;
mod plan;
mod search;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::JoinType;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::joins::utils::JoinFilter;
use millstream_engine::Result;
use millstream_engine::message::{Batch, Pane};
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::time::Timestamp;

use super::errors::failed;
use super::steps::{ScanColumn, Steps, with_schema};
use bounds::Bounds;
use operator::Join;

pub(super) use plan::{Request, plan};

/// A planned join. Side 0 is the left one.
#[derive(Debug)]
pub(super) struct IntervalJoin {
    sides: [Side; 2],
    kind: JoinType,
    /// Whether nulls in keys equal one another.
    null_equal: bool,
    /// The condition beside the keys, bounds included.
    filter: Option<JoinFilter>,
    /// What of it is no bound, for people.
    residual: Vec<String>,
    bounds: Bounds,
    /// Left columns, then right columns.
    joined: SchemaRef,
    /// Those of the joined columns that the steps above read.
    projection: Option<Vec<usize>>,
    /// What is done to each pair.
    then: Steps,
}

/// One stream of a join.
#[derive(Debug)]
struct Side {
    /// What is done to its rows on arrival.
    steps: Steps,
    /// Its keys, over the rows that the steps give.
    keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Index of its event time in those rows.
    event_time: usize,
    /// Whether its rows come out without a match too.
    outer: bool,
}

impl IntervalJoin {
    /// The streams that are joined.
    pub fn inputs(&self) -> Vec<String> {
        self.sides.iter().map(|side| side.steps.table.clone()).collect()
    }

    /// Schema of the result.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(self.then.schema())
    }

    /// Index of the result's event time, and the side it is of.
    fn time_column(&self) -> Option<(usize, usize)> {
        let left = self.sides[0].steps.schema().fields().len();
        let side_of = |output: usize| {
            let ScanColumn::Input(read) = self.then.source_of(output)? else {
                return None;
            };
            let joined = match &self.projection {
                Some(columns) => *columns.get(read)?,
                None => read,
            };
            let (side, column) = match joined.checked_sub(left) {
                None => (0, joined),
                Some(column) => (1, column),
            };
            let may_be_null = self.sides[1 - side].outer;
            (column == self.sides[side].event_time && !may_be_null).then_some(side)
        };
        let outputs = 0..self.then.schema().fields().len();
        let times = outputs.filter_map(|output| Some((output, side_of(output)?)));
        times.min_by_key(|(output, side)| (*side, *output))
    }

    /// Index of the result's event time.
    pub fn event_time(&self) -> Option<usize> {
        self.time_column().map(|(output, _)| output)
    }

    /// How far behind the watermark a result's event time may stand: a left row's match may come `upper` later,
    /// a right row's `-lower` later.
    pub fn delay(&self) -> Duration {
        let side = self.time_column().map_or(0, |(_, side)| side);
        Duration::from_micros(self.bounds.reach(side).max(0).unsigned_abs())
    }

    /// The operator that runs in each partition of a stream.
    pub fn local(&self, query: &Arc<str>, side: usize) -> Box<dyn Operator> {
        Box::new(Arrival {
            query: Arc::clone(query),
            steps: self.sides[side].steps.clone(),
            slot: side as u32,
        })
    }

    /// The operator that runs once.
    pub fn global(self: &Arc<Self>, query: &Arc<str>, limit: Bytes) -> Box<dyn Operator> {
        Box::new(Join::new(Arc::clone(query), Arc::clone(self), limit))
    }

    /// What runs in each partition of a stream, for people.
    pub fn local_lines(&self, side: usize) -> Vec<String> {
        self.sides[side].steps.lines()
    }

    /// What runs once, for people.
    pub fn global_lines(&self) -> Vec<String> {
        let mut lines = self.then.lines();
        // The steps end in a scan, which here is the join.
        lines.pop();
        let [left, right] = &self.sides;
        let keys = left.keys.iter().zip(&right.keys);
        let keys: Vec<_> = keys.map(|(left, right)| format!("{left} = {right}")).collect();
        lines.push(format!(
            "Interval join ({}): {}, {} from {} to {} after {}",
            self.kind,
            keys.join(", "),
            right.steps.table,
            signed(self.bounds.lower),
            signed(self.bounds.upper),
            left.steps.table,
        ));
        if !self.residual.is_empty() {
            lines.push(format!("Where: {}", self.residual.join(" AND ")));
        }
        lines
    }
}

/// A time for people: `-1h 30m`.
fn signed(micros: i64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (86_400_000_000, "d"),
        (3_600_000_000, "h"),
        (60_000_000, "m"),
        (1_000_000, "s"),
        (1_000, "ms"),
        (1, "us"),
    ];
    let mut left = micros.unsigned_abs();
    let mut parts = Vec::new();
    for (length, unit) in UNITS.iter().filter(|_| micros != 0) {
        if left >= *length {
            parts.push(format!("{}{unit}", left / length));
            left %= length;
        }
    }
    match (micros, parts.join(" ")) {
        (0, _) => "0s".to_owned(),
        (..0, text) => format!("-{text}"),
        (_, text) => text,
    }
}

/// The steps of one stream, in each of its partitions; says which side the rows are of.
struct Arrival {
    query: Arc<str>,
    steps: Steps,
    slot: u32,
}

#[async_trait]
impl Operator for Arrival {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let rows = self
            .steps
            .apply(&batch.rows, None)
            .map_err(|e| failed(&self.query, e))?;
        out.emit(Batch {
            rows: with_schema(rows, self.steps.schema())?,
            pane: Some(Pane {
                slot: self.slot,
                start: Timestamp(0),
            }),
            due: None,
        });
        Ok(())
    }
}
