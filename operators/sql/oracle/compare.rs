//! Results side by side.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::array_value_to_string;
use millstream_engine::time::Timestamp;

/// How far two sums of the same numbers in another order may be apart, of themselves and at all.
const CLOSE: f64 = 1e-9;

/// A window's result.
#[derive(Debug)]
pub struct Rows {
    types: Vec<DataType>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug)]
enum Cell {
    Null,
    Float(f64),
    Text(String),
}

impl Rows {
    /// The rows of some batches: sorted, unless their order is part of the result.
    pub fn new(batches: &[RecordBatch], ordered: bool) -> Rows {
        let types = batches.first().map(|batch| {
            let fields = batch.schema_ref().fields();
            fields.iter().map(|f| f.data_type().clone()).collect()
        });
        let mut rows: Vec<Vec<Cell>> = Vec::new();
        for batch in batches {
            rows.extend((0..batch.num_rows()).map(|row| {
                let cells = batch.columns().iter().map(|column| Cell::of(column, row));
                cells.collect()
            }));
        }
        if !ordered {
            rows.sort_by(|a, b| {
                let all = |order: fn(&Cell, &Cell) -> Ordering| {
                    let cells = a.iter().zip(b).map(|(a, b)| order(a, b));
                    cells.fold(Ordering::Equal, Ordering::then)
                };
                all(Cell::roughly).then(all(Cell::exactly))
            });
        }
        Rows {
            types: types.unwrap_or_default(),
            rows,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn equals(&self, other: &Rows) -> bool {
        let same = |(a, b): (&Vec<Cell>, &Vec<Cell>)| a.iter().zip(b).all(|(a, b)| a.equals(b));
        self.types == other.types
            && self.rows.len() == other.rows.len()
            && self.rows.iter().zip(&other.rows).all(same)
    }
}

impl Cell {
    fn of(column: &dyn Array, row: usize) -> Cell {
        if column.is_null(row) {
            return Cell::Null;
        }
        match column.as_primitive_opt::<Float64Type>() {
            Some(numbers) => Cell::Float(numbers.value(row)),
            None => Cell::Text(array_value_to_string(column, row).expect("a printable value")),
        }
    }

    fn equals(&self, other: &Cell) -> bool {
        match (self, other) {
            (Cell::Null, Cell::Null) => true,
            (Cell::Text(a), Cell::Text(b)) => a == b,
            (Cell::Float(a), Cell::Float(b)) => {
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= CLOSE * a.abs().max(b.abs()).max(1.0)
            }
            _ => false,
        }
    }

    /// Puts numbers that count as equal in the same place, all but always: rounded, and moved off the middle
    /// between two roundings, where round numbers like to fall.
    fn roughly(&self, other: &Cell) -> Ordering {
        let key = |cell: &Cell| match cell {
            Cell::Null => (0, String::new()),
            Cell::Float(number) if number.abs() < CLOSE => (1, "0".to_owned()),
            Cell::Float(number) => (1, format!("{:.8e}", number * (1.0 + 1e-11))),
            Cell::Text(text) => (2, text.clone()),
        };
        key(self).cmp(&key(other))
    }

    fn exactly(&self, other: &Cell) -> Ordering {
        match (self, other) {
            (Cell::Float(a), Cell::Float(b)) => a.total_cmp(b),
            _ => Ordering::Equal,
        }
    }
}

/// The first window whose results differ, and how.
pub fn difference(got: &BTreeMap<i64, Rows>, expected: &BTreeMap<i64, Rows>) -> Option<String> {
    let nothing = Rows::new(&[], false);
    let mut ends: Vec<i64> = got.keys().chain(expected.keys()).copied().collect();
    ends.sort_unstable();
    ends.dedup();
    ends.into_iter().find_map(|end| {
        let (got, expected) = (
            got.get(&end).unwrap_or(&nothing),
            expected.get(&end).unwrap_or(&nothing),
        );
        let same = got.equals(expected) || (got.is_empty() && expected.is_empty());
        (!same).then(|| {
            format!(
                "  window to {}\n{}  expected {:?}\n  got      {:?}",
                Timestamp(end),
                rows_apart(got, expected),
                expected.types,
                got.types
            )
        })
    })
}

fn rows_apart(got: &Rows, expected: &Rows) -> String {
    let mut text = format!(
        "  {} rows expected, {} got\n",
        expected.rows.len(),
        got.rows.len()
    );
    for at in 0..got.rows.len().max(expected.rows.len()) {
        let (a, b) = (expected.rows.get(at), got.rows.get(at));
        let same = a
            .zip(b)
            .is_some_and(|(a, b)| a.iter().zip(b).all(|(a, b)| a.equals(b)));
        if !same {
            text += &format!("  row {at}\n    expected {a:?}\n    got      {b:?}\n");
            break;
        }
    }
    text
}
