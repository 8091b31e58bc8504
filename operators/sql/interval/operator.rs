//! The operator of an interval join: each batch is matched with what is kept of the other stream, then kept
//! itself.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::cmp::{eq, not_distinct};
use arrow::compute::{
    and, filter_record_batch, interleave_record_batch, prep_null_mask_filter, take_record_batch,
};
use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::{JoinSide, Result as PlanResult};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use millstream_engine::message::Batch;
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::state::{Snapshot, SnapshotPart};
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use super::super::errors::failed;
use super::super::steps::with_schema;
use super::super::{part_label, part_pane};
use super::search::{Search, Step};
use super::state::{Arrived, Kept, Slice};
use super::{IntervalJoin, Side};
use crate::window::{WATERMARK, event_times, watermark_of, watermark_rows};

/// Most pairs that are looked at together; one batch of results has no more rows.
const PAIRS: usize = 8_192;

/// What rows behind the watermark are counted as.
const ROWS_BEHIND: &str = "rows_behind_watermark";

/// The column that a snapshot of an outer side has last: which rows have found a match.
const MATCHED: &str = "matched";

/// A join at work.
pub(super) struct Join {
    query: Arc<str>,
    plan: Arc<IntervalJoin>,
    kept: [Kept; 2],
    watermark: Timestamp,
    /// The query's `state_limit`.
    limit: Bytes,
}

/// A row that arrived and one that is kept, whose keys have one hash and whose times are within the bounds.
#[derive(Clone, Copy)]
struct Pair {
    arrived: u32,
    slice: i64,
    kept: u32,
}

/// Rows of one side, with their keys hashed.
struct Keyed<'a> {
    rows: &'a RecordBatch,
    times: &'a [i64],
    hashes: Vec<u64>,
    /// Rows whose key can equal another; none: all.
    joinable: Option<NullBuffer>,
}

impl Join {
    /// A join with nothing kept.
    pub fn new(query: Arc<str>, plan: Arc<IntervalJoin>, limit: Bytes) -> Join {
        let kept = [0, 1].map(|side| Kept::new(plan.bounds, side, plan.sides[side].outer));
        Join {
            query,
            plan,
            kept,
            watermark: Timestamp::MIN,
            limit,
        }
    }

    /// Makes every pair of the rows and those kept of the other side; marks what has found a match.
    fn probe(&mut self, side: usize, rows: &Keyed<'_>, matched: &mut [bool], out: &mut Output) -> Result<()> {
        let (Some(first), Some(last)) = (rows.times.iter().min(), rows.times.iter().max()) else {
            return Ok(());
        };
        let (before, after) = self.plan.bounds.partners(side);
        let other = &self.kept[1 - side];
        let starts = other.slices(first.saturating_add(before), last.saturating_add(after));
        let starts: Vec<i64> = starts.map(|(start, _)| start).collect();
        let cutoff = other.cutoff(self.watermark.0);
        let looking = (rows.times, &rows.hashes[..], rows.joinable.as_ref());
        let mut search = Search::new(looking, (before, after), cutoff, PAIRS);
        let mut pairs = Vec::new();
        let (mut found, mut made) = (Vec::new(), 0);
        for slice in starts {
            let mut at = Some(Step::Begin);
            while let Some(step) = at {
                at = self.kept[1 - side].search(slice, &mut search, step, &mut found);
                pairs.extend(
                    found
                        .drain(..)
                        .map(|(arrived, kept)| Pair { arrived, slice, kept }),
                );
                if pairs.len() >= PAIRS {
                    made += self.make(side, rows, &pairs, matched, out)?;
                    check_made(&self.query, made, self.limit)?;
                    pairs.clear();
                }
            }
        }
        self.make(side, rows, &pairs, matched, out).map(drop)
    }

    /// Makes those of the pairs that meet the condition; says how many bytes they take.
    fn make(
        &mut self,
        side: usize,
        rows: &Keyed<'_>,
        pairs: &[Pair],
        matched: &mut [bool],
        out: &mut Output,
    ) -> Result<usize> {
        let mut bytes = 0;
        for pairs in pairs.chunks(PAIRS) {
            let kept = gather(&self.kept[1 - side], pairs)?;
            let arrived = taken(rows.rows, pairs.iter().map(|p| p.arrived))?;
            let mut sides = match side {
                0 => [arrived, kept],
                _ => [kept, arrived],
            };
            let meet = self.plan.meet(&sides).map_err(|e| failed(&self.query, e))?;
            let outer = [0, 1].map(|side| self.plan.sides[side].outer);
            for at in meet.values().set_indices().filter(|_| outer != [false; 2]) {
                matched[pairs[at].arrived as usize] = true;
                self.kept[1 - side].found(pairs[at].slice, pairs[at].kept);
            }
            if meet.true_count() == 0 {
                continue;
            }
            if meet.true_count() < pairs.len() {
                sides = [
                    filter_record_batch(&sides[0], &meet)?,
                    filter_record_batch(&sides[1], &meet)?,
                ];
            }
            let [left, right] = &sides;
            let columns = [left.columns(), right.columns()].concat();
            let result = self.plan.result(columns, left.num_rows());
            let result = result.map_err(|e| failed(&self.query, e))?;
            bytes += get_record_batch_memory_size(&result);
            out.emit(result);
        }
        Ok(bytes)
    }

    /// Keeps the rows whose match may still come; of an outer side, makes the others that found none.
    fn keep(&mut self, side: usize, rows: &Keyed<'_>, matched: &[bool], out: &mut Output) -> Result<()> {
        let cutoff = self.kept[side].cutoff(self.watermark.0);
        let may_match = |row: usize| rows.times[row] >= cutoff && rows.is_joinable(row);
        let keep: Vec<bool> = (0..rows.times.len()).map(may_match).collect();
        if self.plan.sides[side].outer {
            let alone = keep.iter().zip(matched).map(|(keep, matched)| !keep && !matched);
            let alone: BooleanArray = alone.collect::<Vec<_>>().into();
            if alone.true_count() > 0 {
                self.alone(side, filter_record_batch(rows.rows, &alone)?, out)?;
            }
        }
        self.kept[side].store(&rows.arrived(matched), &keep)?;
        let bytes = self.kept.iter().map(Kept::bytes).sum();
        check_kept(&self.query, bytes, self.limit)
    }

    fn alone(&self, side: usize, rows: RecordBatch, out: &mut Output) -> Result<()> {
        let result = self.plan.alone(side, rows);
        out.emit(result.map_err(|e| failed(&self.query, e))?);
        Ok(())
    }

    fn take_back(&mut self, part: &SnapshotPart) -> Result<()> {
        let side = part_pane(&part.label)?.slot as usize;
        let of = self.plan.sides.get(side);
        let of = of.ok_or_else(|| Error::bug(format!("query {:?} has no side {side}", self.query)))?;
        let (columns, matched) = match of.outer {
            true => marks_of(&part.rows)?,
            false => (part.rows.columns(), vec![false; part.rows.num_rows()]),
        };
        let rows = RecordBatch::try_new(Arc::clone(of.steps.schema()), columns.to_vec())?;
        let keyed = Keyed::of(of, self.plan.null_equal, &rows).map_err(|e| e.within(&self.query))?;
        let cutoff = self.kept[side].cutoff(self.watermark.0);
        // What was past has come out already.
        let keep: Vec<bool> = keyed.times.iter().map(|at| *at >= cutoff).collect();
        self.kept[side].store(&keyed.arrived(&matched), &keep)
    }
}

#[async_trait]
impl Operator for Join {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let side = batch.pane.map(|pane| pane.slot as usize).filter(|side| *side < 2);
        let side =
            side.ok_or_else(|| Error::bug(format!("query {:?} was given rows of no side", self.query)))?;
        let plan = Arc::clone(&self.plan);
        let rows = Keyed::of(&plan.sides[side], plan.null_equal, &batch.rows)?;
        let behind = rows.times.iter().filter(|at| **at < self.watermark.0).count();
        if behind > 0 {
            out.count(ROWS_BEHIND, behind as u64);
        }
        let mut matched = vec![false; rows.times.len()];
        self.probe(side, &rows, &mut matched, out)?;
        self.keep(side, &rows, &matched, out)
    }

    async fn on_watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<()> {
        // A source that was reset starts anew; what has come out must not come out again.
        self.watermark = self.watermark.max(at);
        for side in [0, 1] {
            let mut due = Vec::new();
            let cutoff = self.kept[side].cutoff(self.watermark.0);
            self.kept[side].pass(cutoff, |slice, rows| {
                for rows in rows.chunks(PAIRS) {
                    let mut places = Places::default();
                    places.add(slice, rows.iter().copied());
                    due.push(places.rows()?);
                }
                Ok(())
            })?;
            for rows in due {
                self.alone(side, rows, out)?;
            }
        }
        Ok(())
    }

    fn watermark_behind(&self, at: Timestamp) -> Timestamp {
        match at {
            Timestamp::MAX => at,
            at => at.minus(self.plan.delay()),
        }
    }

    fn snapshot(&mut self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        snapshot.push(WATERMARK, watermark_rows(self.watermark)?);
        for (side, kept) in self.kept.iter().enumerate() {
            for (start, rows, matched) in kept.batches() {
                let rows = match self.plan.sides[side].outer {
                    true => with_marks(rows, matched)?,
                    false => rows.clone(),
                };
                snapshot.push(part_label(side as u32, start)?, rows);
            }
        }
        Ok(snapshot)
    }

    fn restore(&mut self, from: Snapshot) -> Result<()> {
        let (times, rows): (Vec<_>, Vec<_>) = from.parts.into_iter().partition(|p| p.label == WATERMARK);
        for part in &times {
            self.watermark = watermark_of(&part.rows)?;
        }
        rows.iter().try_for_each(|part| self.take_back(part))
    }
}

impl<'a> Keyed<'a> {
    fn of(side: &Side, null_equal: bool, rows: &'a RecordBatch) -> Result<Keyed<'a>> {
        let times = event_times(rows, side.event_time)?.values();
        let keys = keys_of(side, rows).map_err(|e| Error::data(e.strip_backtrace()))?;
        let mut hashes = vec![0; rows.num_rows()];
        create_hashes(&keys, &RandomState::default(), &mut hashes)
            .map_err(|e| Error::bug(e.strip_backtrace()))?;
        let nulls = keys.iter().filter(|_| !null_equal).map(|key| key.logical_nulls());
        let joinable = nulls.fold(None, |all, nulls| NullBuffer::union(all.as_ref(), nulls.as_ref()));
        Ok(Keyed {
            rows,
            times,
            hashes,
            joinable,
        })
    }

    fn is_joinable(&self, row: usize) -> bool {
        self.joinable.as_ref().is_none_or(|nulls| nulls.is_valid(row))
    }

    fn arrived<'k>(&'k self, matched: &'k [bool]) -> Arrived<'k> {
        Arrived {
            rows: self.rows,
            times: self.times,
            hashes: &self.hashes,
            matched,
        }
    }
}

impl IntervalJoin {
    /// Which of the pairs, given as rows side by side, meet the condition.
    fn meet(&self, sides: &[RecordBatch; 2]) -> PlanResult<BooleanArray> {
        let [left, right] = [0, 1].map(|side| keys_of(&self.sides[side], &sides[side]));
        let mut masks = Vec::new();
        // Hashes are equal; keys need not be.
        for (left, right) in left?.iter().zip(&right?) {
            masks.push(match self.null_equal {
                true => not_distinct(left, right)?,
                false => eq(left, right)?,
            });
        }
        if let Some(filter) = &self.filter {
            masks.push(passes(filter, sides)?);
        }
        let all = BooleanArray::from(vec![true; sides[0].num_rows()]);
        let meet = masks.iter().try_fold(all, |all, mask| and(&all, mask))?;
        Ok(match meet.null_count() {
            0 => meet,
            _ => prep_null_mask_filter(&meet),
        })
    }

    /// The result for joined rows.
    fn result(&self, columns: Vec<ArrayRef>, rows: usize) -> PlanResult<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let mut joined = RecordBatch::try_new_with_options(Arc::clone(&self.joined), columns, &options)?;
        if let Some(columns) = &self.projection {
            joined = joined.project(columns)?;
        }
        Ok(with_schema(self.then.apply(&joined, None)?, self.then.schema())?)
    }

    /// The result for rows of one side that have no match.
    fn alone(&self, side: usize, rows: RecordBatch) -> PlanResult<RecordBatch> {
        let others = self.sides[1 - side].steps.schema().fields().iter();
        let nulls: Vec<_> = others
            .map(|field| new_null_array(field.data_type(), rows.num_rows()))
            .collect();
        let columns = match side {
            0 => [rows.columns(), &nulls].concat(),
            _ => [&nulls, rows.columns()].concat(),
        };
        self.result(columns, rows.num_rows())
    }
}

fn keys_of(side: &Side, rows: &RecordBatch) -> PlanResult<Vec<ArrayRef>> {
    let keys = side.keys.iter();
    keys.map(|key| key.evaluate(rows)?.into_array(rows.num_rows()))
        .collect()
}

fn passes(filter: &JoinFilter, sides: &[RecordBatch; 2]) -> PlanResult<BooleanArray> {
    let column = |of: &datafusion::physical_plan::joins::utils::ColumnIndex| match of.side {
        JoinSide::Right => Arc::clone(sides[1].column(of.index)),
        _ => Arc::clone(sides[0].column(of.index)),
    };
    let rows = sides[0].num_rows();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let columns = filter.column_indices().iter().map(column).collect();
    let batch = RecordBatch::try_new_with_options(Arc::clone(filter.schema()), columns, &options)?;
    let passes = filter.expression().evaluate(&batch)?.into_array(rows)?;
    Ok(passes.as_boolean().clone())
}

/// Refuses to keep more rows than the query's `state_limit`.
pub(super) fn check_kept(query: &str, bytes: usize, limit: Bytes) -> Result<()> {
    if bytes as u64 <= limit.0 {
        return Ok(());
    }
    Err(Error::data(format!(
        "query {query:?} keeps more than {limit} of rows that wait for their match, its state_limit; select fewer \
         columns, filter before the join, make its time bound shorter, or raise `state_limit` in [sql.{query}]"
    )))
}

/// Refuses to make more pairs at once than the query's `state_limit`: they are all in memory until they have
/// left.
pub(super) fn check_made(query: &str, bytes: usize, limit: Bytes) -> Result<()> {
    if bytes as u64 <= limit.0 {
        return Ok(());
    }
    Err(Error::data(format!(
        "query {query:?} makes more than {limit} of pairs from one batch of rows, its state_limit, because very many \
         rows have one key; join on more columns, make the time bound shorter, or raise `state_limit` in [sql.{query}]"
    )))
}

/// The kept rows of pairs.
fn gather(kept: &Kept, pairs: &[Pair]) -> Result<RecordBatch> {
    let mut places = Places::default();
    for of_slice in pairs.chunk_by(|a, b| a.slice == b.slice) {
        places.add(
            kept.slice(of_slice[0].slice),
            of_slice.iter().map(|pair| pair.kept),
        );
    }
    places.rows()
}

/// Where rows lie: in which of some batches, and where there.
#[derive(Default)]
struct Places<'a> {
    batches: Vec<&'a RecordBatch>,
    rows: Vec<(usize, usize)>,
}

impl<'a> Places<'a> {
    fn add(&mut self, slice: &'a Slice, rows: impl Iterator<Item = u32>) {
        let first = self.batches.len();
        self.batches.extend(slice.batches());
        self.rows.extend(rows.map(|row| {
            let (batch, row) = slice.locate(row);
            (first + batch, row)
        }));
    }

    fn rows(&self) -> Result<RecordBatch> {
        match self.batches[..] {
            [batch] => taken(batch, self.rows.iter().map(|(_, row)| *row as u32)),
            _ => Ok(interleave_record_batch(&self.batches, &self.rows)?),
        }
    }
}

/// Rows of a batch by number; the batch itself when they are all of it in order.
fn taken(batch: &RecordBatch, rows: impl ExactSizeIterator<Item = u32> + Clone) -> Result<RecordBatch> {
    if rows.len() == batch.num_rows() && rows.clone().zip(0..).all(|(row, at)| row == at) {
        return Ok(batch.clone());
    }
    Ok(take_record_batch(batch, &UInt32Array::from_iter_values(rows))?)
}

/// Rows of an outer side for a snapshot.
fn with_marks(rows: &RecordBatch, matched: &[bool]) -> Result<RecordBatch> {
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(
        MATCHED,
        arrow::datatypes::DataType::Boolean,
        false,
    )));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(BooleanArray::from(matched.to_vec())));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The columns of rows that [`with_marks`] wrote, and the marks.
fn marks_of(rows: &RecordBatch) -> Result<(&[ArrayRef], Vec<bool>)> {
    let split = rows.columns().split_last();
    let marked = split.and_then(|(marks, columns)| Some((columns, marks.as_boolean_opt()?)));
    let (columns, marks) =
        marked.ok_or_else(|| Error::bug("a snapshot of an outer join does not say what has matched"))?;
    Ok((columns, marks.values().iter().collect()))
}
