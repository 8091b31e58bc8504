//! The state of a partial aggregate over the rows of one pane, in pieces: what checkpoints have taken out of the
//! accumulators so far, and the accumulators of the rows that came since.
//!
//! Taking state consumes an accumulator. To put it back would cost every checkpoint as much as the whole state, and would
//! hand the store another batch each time; so what was taken stays taken. A checkpoint costs what came since the last one,
//! the pieces are shared with snapshots, and the store writes each once.
//!
//! Pieces that hold the same groups are worth merging. As in a log-structured merge tree, each is at least twice as large
//! as the next: there are few, all of them together are at most twice the largest, and a row is merged a logarithmic
//! number of times.

use arrow::array::{Array, RecordBatch};
use datafusion::common::Result;

use super::accumulate::{Accumulators, PartialAggregate};

/// The state of a partial aggregate.
pub(super) struct Deltas {
    /// From the oldest, which is the largest.
    pieces: Vec<RecordBatch>,
    live: Accumulators,
    /// Whether rows have come to `live`.
    touched: bool,
}

impl Deltas {
    /// Nothing yet.
    pub fn new(aggregate: &PartialAggregate) -> Result<Deltas> {
        Ok(Deltas {
            pieces: Vec::new(),
            live: Accumulators::new(aggregate)?,
            touched: false,
        })
    }

    /// Takes rows.
    pub fn update(&mut self, aggregate: &PartialAggregate, rows: &RecordBatch) -> Result<()> {
        self.touched = true;
        self.live.update(aggregate, rows)
    }

    /// Takes the state out, as the rows a final aggregate reads, and starts anew.
    pub fn take(&mut self, aggregate: &PartialAggregate) -> Result<Vec<RecordBatch>> {
        self.seal(aggregate)?;
        Ok(std::mem::take(&mut self.pieces))
    }

    /// The state, which stays.
    pub fn state(&mut self, aggregate: &PartialAggregate) -> Result<Vec<RecordBatch>> {
        self.seal(aggregate)?;
        while let [.., large, small] = &self.pieces[..]
            && bytes(large) < 2 * bytes(small)
        {
            let mut both = Accumulators::new(aggregate)?;
            both.merge(aggregate, large)?;
            both.merge(aggregate, small)?;
            let piece = both.take(aggregate)?;
            self.pieces.truncate(self.pieces.len() - 2);
            self.pieces.push(piece);
        }
        Ok(self.pieces.clone())
    }

    /// Takes state back in.
    pub fn merge(&mut self, state: RecordBatch) {
        self.pieces.push(state);
    }

    /// Without GROUP BY there is state even of no rows.
    fn seal(&mut self, aggregate: &PartialAggregate) -> Result<()> {
        if self.touched || self.pieces.is_empty() {
            let piece = self.live.take(aggregate)?;
            if piece.num_rows() > 0 {
                self.pieces.push(piece);
            }
            self.touched = false;
        }
        Ok(())
    }
}

/// What a piece takes, without what its buffers share with others.
fn bytes(piece: &RecordBatch) -> usize {
    let columns = piece.columns().iter();
    let bytes = columns.map(|c| {
        c.to_data()
            .get_slice_memory_size()
            .unwrap_or_else(|_| c.get_array_memory_size())
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{Int64Type, Schema};
    use datafusion::functions_aggregate::count::count_udaf;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_plan::ExecutionPlan;
    use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
    use datafusion::physical_plan::empty::EmptyExec;
    use datafusion::physical_plan::expressions::col;

    use super::*;

    fn rows(keys: impl IntoIterator<Item = i64>) -> RecordBatch {
        let keys = Arc::new(Int64Array::from_iter_values(keys)) as ArrayRef;
        RecordBatch::try_from_iter([("k", keys)]).expect("rows")
    }

    /// `count(k)`, by `k` or over everything.
    fn count(by_key: bool) -> PartialAggregate {
        let schema: Arc<Schema> = rows([]).schema();
        let k = col("k", &schema).expect("a column");
        let call = AggregateExprBuilder::new(count_udaf(), vec![Arc::clone(&k)])
            .schema(Arc::clone(&schema))
            .alias("n")
            .build()
            .expect("a call");
        let keys = by_key.then(|| (k, "k".to_string())).into_iter().collect();
        let plan = AggregateExec::try_new(
            AggregateMode::Partial,
            PhysicalGroupBy::new_single(keys),
            vec![Arc::new(call)],
            vec![None],
            Arc::new(EmptyExec::new(Arc::clone(&schema))),
            schema,
        )
        .expect("a plan");
        let schema = plan.schema();
        PartialAggregate::of(&plan, schema).expect("an aggregate")
    }

    fn total(pieces: &[RecordBatch]) -> i64 {
        let counts = |p: &RecordBatch| p.column(p.num_columns() - 1).as_primitive::<Int64Type>().clone();
        pieces.iter().flat_map(|p| counts(p).values().to_vec()).sum()
    }

    /// A thousand checkpoints over the same thousand groups: the pieces stay few and small, and every row counts once.
    #[test]
    fn pieces_stay_few_and_small() {
        for by_key in [true, false] {
            let aggregate = count(by_key);
            let mut state = Deltas::new(&aggregate).expect("state");
            for n in 0..1_000 {
                state
                    .update(&aggregate, &rows((n..n + 50).map(|k| k % 1_000)))
                    .expect("rows");
                let pieces = state.state(&aggregate).expect("pieces");
                assert!(pieces.len() <= 12, "{} pieces", pieces.len());
                let groups: usize = pieces.iter().map(RecordBatch::num_rows).sum();
                assert!(groups <= 2 * 1_000 + 50, "{groups} groups");
                assert_eq!(total(&pieces), 50 * (n + 1));
            }
            let taken = state.take(&aggregate).expect("pieces");
            assert_eq!(total(&taken), 50_000);
        }
    }

    /// What a checkpoint holds already is the same memory at the next one, as the store needs it to be.
    #[test]
    fn a_checkpoint_takes_only_what_came_since_the_last() {
        let aggregate = count(true);
        let mut state = Deltas::new(&aggregate).expect("state");
        state.update(&aggregate, &rows(0..10_000)).expect("rows");
        let first = state.state(&aggregate).expect("pieces");
        state.update(&aggregate, &rows(0..10)).expect("rows");
        let second = state.state(&aggregate).expect("pieces");
        let third = state.state(&aggregate).expect("pieces");
        assert_eq!([&first, &second, &third].map(Vec::len), [1, 2, 2]);
        for (a, b) in first.iter().chain(&second).zip(second[..1].iter().chain(&third)) {
            assert!(a.column(0).to_data().ptr_eq(&b.column(0).to_data()));
        }
    }
}
