//! Which rows of a batch fall into which pane.
//!
//! Neighbouring rows usually share a pane, so a batch is first seen as runs: one comparison per row, and the
//! arithmetic of windows once per run. Only runs are sorted, and rows are moved only when a pane has several.

use arrow::array::{RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take_arrays;
use arrow::error::ArrowError;

use crate::window::Panes;

/// A part of a batch that is kept may be held by the memory of all of it when it is at least one of so many.
const SHARE: usize = 4;

/// Neighbouring rows of one pane.
#[derive(Clone, Copy, Debug)]
struct Run {
    pane: i64,
    from: usize,
    rows: usize,
}

/// A batch's rows by start of pane, ascending, in order of arrival within each. `times` are the rows' event
/// times. The parts may share memory with the batch and with each other; with `apart` those do not that are less than
/// a [`SHARE`] of it, so that one which is kept does not hold much more than itself.
pub(super) fn by_pane(
    panes: &Panes,
    times: &[i64],
    rows: &RecordBatch,
    apart: bool,
) -> Result<Vec<(i64, RecordBatch)>, ArrowError> {
    let mut runs = runs(panes, times);
    if let [run] = runs.as_slice() {
        return Ok(vec![(run.pane, rows.clone())]);
    }
    // Stable: the runs of a pane stay in order of arrival.
    runs.sort_by_key(|run| run.pane);
    let of_panes = runs.chunk_by(|a, b| a.pane == b.pane);
    if apart {
        let part = |runs: &[Run]| match runs {
            [run] if run.rows * SHARE >= times.len() => Ok((run.pane, rows.slice(run.from, run.rows))),
            _ => Ok((runs[0].pane, moved(rows, &indices(runs))?)),
        };
        return of_panes.map(part).collect();
    }
    if of_panes.clone().all(|runs| runs.len() == 1) {
        let part = |run: &Run| (run.pane, rows.slice(run.from, run.rows));
        return Ok(runs.iter().map(part).collect());
    }
    let sorted = moved(rows, &indices(&runs))?;
    let mut from = 0;
    let part = |runs: &[Run]| {
        let length = runs.iter().map(|run| run.rows).sum();
        from += length;
        (runs[0].pane, sorted.slice(from - length, length))
    };
    Ok(of_panes.map(part).collect())
}

fn runs(panes: &Panes, times: &[i64]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut from = 0;
    while from < times.len() {
        let pane = panes.pane_of(times[from]);
        let within = pane..panes.pane_end(pane);
        let others = times[from + 1..].iter().position(|at| !within.contains(at));
        let rows = 1 + others.unwrap_or(times.len() - from - 1);
        runs.push(Run { pane, from, rows });
        from += rows;
    }
    runs
}

/// The rows with these numbers, which a batch without columns has too: `count(*)` reads none.
fn moved(rows: &RecordBatch, numbers: &UInt32Array) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
    let columns = take_arrays(rows.columns(), numbers, None)?;
    RecordBatch::try_new_with_options(rows.schema(), columns, &options)
}

fn indices(runs: &[Run]) -> UInt32Array {
    let rows = runs.iter().flat_map(|run| run.from..run.from + run.rows);
    rows.map(|row| row as u32).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use millstream_engine::window::Window;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn panes() -> Panes {
        let size = Duration::from_micros(10);
        let offset = Duration::from_micros(3);
        Panes::new(&Window::Tumbling { size, offset }).expect("a window")
    }

    fn batch(times: &[i64]) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("row", DataType::Int64, false)]);
        let rows = Int64Array::from_iter_values(0..times.len() as i64);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(rows)]).expect("rows")
    }

    fn numbers(of: &[(i64, RecordBatch)]) -> Vec<(i64, Vec<i64>)> {
        let numbers = |rows: &RecordBatch| rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        of.iter().map(|(pane, rows)| (*pane, numbers(rows))).collect()
    }

    /// One map look-up per row.
    fn slowly(times: &[i64]) -> Vec<(i64, Vec<i64>)> {
        let mut by_pane: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (row, at) in times.iter().enumerate() {
            by_pane.entry(panes().pane_of(*at)).or_default().push(row as i64);
        }
        by_pane.into_iter().collect()
    }

    #[test]
    fn agrees_with_one_look_up_per_row() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let disorder = random.random_range(0..40);
            let count = random.random_range(1..60);
            let times: Vec<i64> = (0..count)
                .map(|row| row - 30 + random.random_range(-disorder..=disorder))
                .collect();
            for apart in [false, true] {
                let parts = by_pane(&panes(), &times, &batch(&times), apart).expect("parts");
                assert_eq!(numbers(&parts), slowly(&times), "seed {seed}, apart {apart}");
            }
        }
    }

    #[test]
    fn rows_without_columns_are_cut_too() {
        let options = RecordBatchOptions::new().with_row_count(Some(5));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
        let parts = by_pane(&panes(), &[2, 14, 1, 15, 4], &rows.expect("rows"), true).expect("parts");
        let counts: Vec<usize> = parts.iter().map(|(_, rows)| rows.num_rows()).collect();
        assert_eq!(counts, [2, 1, 2]);
    }

    /// A small part that is kept does not hold the memory of a large batch.
    #[test]
    fn a_small_part_has_memory_of_its_own() {
        let times: Vec<i64> = (0..80).map(|row| if row < 8 { 0 } else { 13 }).collect();
        let rows = batch(&times);
        let parts = by_pane(&panes(), &times, &rows, true).expect("parts");
        let capacity = |rows: &RecordBatch| rows.column(0).to_data().buffers()[0].capacity();
        assert_eq!(
            parts.iter().map(|(_, rows)| rows.num_rows()).collect::<Vec<_>>(),
            [8, 72]
        );
        assert!(capacity(&parts[0].1) < 80 * 8 && capacity(&parts[1].1) >= 80 * 8);
    }

    #[test]
    fn rows_in_order_are_not_moved() {
        let times = [0, 1, 2, 3, 4, 13, 14];
        let rows = batch(&times);
        let at = |rows: &RecordBatch| rows.column(0).to_data().buffers()[0].as_ptr() as usize;
        let parts = by_pane(&panes(), &times, &rows, false).expect("parts");
        assert_eq!(parts.len(), 3);
        for (_, part) in parts {
            let range = at(&rows)..at(&rows) + 7 * 8;
            assert!(range.contains(&at(&part)), "a copy");
        }
    }
}
