//! State that waits for its sessions to close, by part.
//!
//! Batches stay as they came, sorted by part; an index says where a part's rows are. What has fired is counted
//! per batch, and a batch most of whose rows have fired is copied without them, so that memory follows the
//! rows that are left.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{interleave_record_batch, take_record_batch};
use datafusion::common::{HashMap, Result};
use datafusion::physical_plan::spill::get_record_batch_memory_size;

use super::SessionSlot;
use crate::sql::accumulate::PartialAggregate;
use crate::window::ClosedSession;

/// State of a part that came in so many pieces is made one piece: what is kept of a session that goes on for days
/// is not to grow with every pane it has rows in.
const PIECES_OF_PART: usize = 32;

/// A batch is copied once only one in so many of its rows is left.
const LEFT_OF_BATCH: usize = 4;

/// The state of one slot.
#[derive(Default)]
pub(super) struct Held {
    batches: Vec<Option<HeldBatch>>,
    free: Vec<u32>,
    parts: HashMap<i64, Vec<Run>>,
    /// Parts that have come to have too many pieces.
    in_pieces: Vec<i64>,
    /// Memory of the batches.
    pub bytes: usize,
}

struct HeldBatch {
    rows: RecordBatch,
    left: usize,
    bytes: usize,
}

/// Rows of one part that stand together.
#[derive(Clone, Copy)]
struct Run {
    batch: u32,
    from: u32,
    length: u32,
}

/// State of several sessions.
pub(super) struct Gathered {
    /// The rows, session by session; none when there are none.
    pub rows: Option<RecordBatch>,
    /// Which of the sessions each row belongs to.
    pub of: Vec<u32>,
}

impl Held {
    /// Takes state in.
    pub fn push(&mut self, slot: &SessionSlot, rows: RecordBatch) -> Result<()> {
        let rows = by_part(slot, rows)?;
        let number = self.free.pop().unwrap_or(self.batches.len() as u32);
        for (part, run) in runs(slot.parts(&rows)?, number) {
            let pieces = self.parts.entry(part).or_default();
            pieces.push(run);
            if pieces.len() == PIECES_OF_PART {
                self.in_pieces.push(part);
            }
        }
        let batch = HeldBatch {
            left: rows.num_rows(),
            bytes: get_record_batch_memory_size(&rows),
            rows,
        };
        self.bytes += batch.bytes;
        match self.batches.get_mut(number as usize) {
            Some(place) => *place = Some(batch),
            None => self.batches.push(Some(batch)),
        }
        Ok(())
    }

    /// Takes out the state of sessions.
    pub fn take(&mut self, slot: &SessionSlot, sessions: &[ClosedSession]) -> Result<Gathered> {
        let (mut indices, mut of) = (Vec::new(), Vec::new());
        // Places of the batches that are needed, in the order in which they are first.
        let mut needed: Vec<u32> = Vec::new();
        let mut places: HashMap<u32, usize> = HashMap::new();
        for (number, session) in (0..).zip(sessions) {
            for run in session
                .parts
                .iter()
                .filter_map(|part| self.parts.remove(part))
                .flatten()
            {
                let place = *places.entry(run.batch).or_insert_with(|| {
                    needed.push(run.batch);
                    needed.len() - 1
                });
                let rows = run.from as usize..(run.from + run.length) as usize;
                of.resize(of.len() + rows.len(), number);
                indices.extend(rows.map(|row| (place, row)));
                if let Some(batch) = &mut self.batches[run.batch as usize] {
                    batch.left -= run.length as usize;
                }
            }
        }
        let batches: Vec<&RecordBatch> = needed
            .iter()
            .filter_map(|number| self.batches[*number as usize].as_ref())
            .map(|batch| &batch.rows)
            .collect();
        let rows = match indices.is_empty() {
            true => None,
            false => Some(interleave_record_batch(&batches, &indices)?),
        };
        for number in needed {
            self.tidy(slot, number)?;
        }
        Ok(Gathered { rows, of })
    }

    /// Makes one piece of what is in too many, for a slot with an aggregate.
    pub fn merge(&mut self, slot: &SessionSlot, aggregate: &PartialAggregate) -> Result<()> {
        let parts = std::mem::take(&mut self.in_pieces).into_iter();
        let parts: Vec<ClosedSession> = parts.map(ClosedSession::of_part).collect();
        match self.take(slot, &parts)?.rows {
            Some(rows) => self.push(slot, slot.merged(aggregate, &rows)?),
            None => Ok(()),
        }
    }

    /// All that is held.
    pub fn batches(&self) -> Result<Vec<RecordBatch>> {
        let held = self.batches.iter().enumerate();
        held.filter_map(|(number, batch)| Some((number, batch.as_ref()?)))
            .map(|(number, batch)| match batch.left == batch.rows.num_rows() {
                true => Ok(batch.rows.clone()),
                false => {
                    let runs = self.parts.values().flatten();
                    let mine = runs.filter(|run| run.batch as usize == number);
                    let mut rows: Vec<u32> = mine.flat_map(|r| r.from..r.from + r.length).collect();
                    rows.sort_unstable();
                    Ok(take_record_batch(&batch.rows, &UInt32Array::from(rows))?)
                }
            })
            .collect()
    }

    /// Drops a batch that has fired, or most of it.
    fn tidy(&mut self, slot: &SessionSlot, number: u32) -> Result<()> {
        let place = &mut self.batches[number as usize];
        let Some(batch) = place else { return Ok(()) };
        if batch.left > batch.rows.num_rows() / LEFT_OF_BATCH {
            return Ok(());
        }
        self.bytes -= batch.bytes;
        if batch.left == 0 {
            *place = None;
            self.free.push(number);
            return Ok(());
        }
        let mut kept: Vec<u32> = Vec::with_capacity(batch.left);
        for (part, run) in runs(slot.parts(&batch.rows)?, number) {
            let known = self.parts.get_mut(&part);
            let known = known.and_then(|runs| runs.iter_mut().find(|r| r.batch == number));
            if let Some(known) = known {
                known.from = kept.len() as u32;
                kept.extend(run.from..run.from + run.length);
            }
        }
        batch.rows = take_record_batch(&batch.rows, &UInt32Array::from(kept))?;
        batch.bytes = get_record_batch_memory_size(&batch.rows);
        self.bytes += batch.bytes;
        Ok(())
    }
}

/// Rows sorted by part, those of a part in the order in which they were.
fn by_part(slot: &SessionSlot, rows: RecordBatch) -> Result<RecordBatch> {
    let parts = slot.parts(&rows)?;
    if parts.is_sorted() {
        return Ok(rows);
    }
    let mut order: Vec<u32> = (0..parts.len() as u32).collect();
    order.sort_by_key(|row| parts[*row as usize]);
    Ok(take_record_batch(&rows, &UInt32Array::from(order))?)
}

/// Rows of one part that stand together, in a batch that is sorted by part.
fn runs(parts: &[i64], batch: u32) -> impl Iterator<Item = (i64, Run)> {
    let mut from = 0;
    parts.chunk_by(|a, b| a == b).map(move |same| {
        let run = Run {
            batch,
            from,
            length: same.len() as u32,
        };
        from += run.length;
        (same[0], run)
    })
}
