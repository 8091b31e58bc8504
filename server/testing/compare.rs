//! Expected rows against rows that came out: which are missing, which were not expected.
//!
//! Expected rows may name different columns each, so one row that came out can fit several of them. Rows
//! are therefore paired by a largest matching (augmenting paths), not first come, first served. Of what is left
//! over, rows that agree in most columns are shown together, with the cells that differ marked.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};

use crate::testing::table::Table;
use crate::testing::value::{Cell, cells, shown};

/// Rows of each kind that a difference shows; more hide the point.
const SHOWN_ROWS: usize = 20;

/// Rows of each kind that are compared with each other for likeness.
const LIKENED_ROWS: usize = 200;

type Expected = BTreeMap<String, toml::Value>;

/// None when the rows are as expected, else what differs.
pub fn compare(
    schema: &SchemaRef,
    expected: &[Expected],
    came: &[RecordBatch],
) -> anyhow::Result<Option<String>> {
    let columns = named_columns(schema, expected)?;
    let came = rows(&columns, came)?;
    let (missing, unexpected) = pair(&columns, expected, &came);
    if missing.is_empty() && unexpected.is_empty() {
        return Ok(None);
    }
    let left = Left::of(&columns, missing, unexpected);
    let mut text = left.summary(expected.len());
    let mut table = Table::new(columns.iter().map(|c| (c.name.as_str(), c.kind.is_numeric())));
    let wanted = |row: &Expected| -> Vec<String> {
        let cell = |c: &Column| row.get(&c.name).map_or(String::new(), |v| shown(v, &c.kind));
        columns.iter().map(cell).collect()
    };
    for (row, came) in left.changed.iter().take(SHOWN_ROWS) {
        let wanted = wanted(row);
        let marks = marks(&columns, row, came, &wanted);
        table.row("- expected", wanted.into_iter());
        table.row("+ but came", texts(came).into_iter());
        table.row("", marks.into_iter());
    }
    for row in left.missing.iter().take(SHOWN_ROWS) {
        table.row("- missing", wanted(row).into_iter());
    }
    for row in left.unexpected.iter().take(SHOWN_ROWS) {
        table.row("+ unexpected", texts(row).into_iter());
    }
    text.push('\n');
    text.push_str(&table.to_string());
    let hidden = |rows: usize| rows.saturating_sub(SHOWN_ROWS);
    let hidden = hidden(left.changed.len()) + hidden(left.missing.len()) + hidden(left.unexpected.len());
    if hidden > 0 {
        text.push_str(&format!("\n  and {hidden} more"));
    }
    Ok(Some(text))
}

/// A column that takes part.
struct Column {
    name: String,
    index: usize,
    kind: DataType,
}

/// The columns that any expected row names, in the stream's order; all of them when no row is expected.
fn named_columns(schema: &SchemaRef, expected: &[Expected]) -> anyhow::Result<Vec<Column>> {
    let named: BTreeSet<&str> = expected
        .iter()
        .flat_map(|row| row.keys().map(String::as_str))
        .collect();
    if let Some(unknown) = named.iter().find(|n| schema.index_of(n).is_err()) {
        let known: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        bail!(
            "expect: the stream has no column {unknown:?}; known: {}",
            known.join(", ")
        );
    }
    let all = schema.fields().iter().enumerate();
    let wanted = all.filter(|(_, f)| expected.is_empty() || named.contains(f.name().as_str()));
    Ok(wanted
        .map(|(index, field)| Column {
            name: field.name().clone(),
            index,
            kind: field.data_type().clone(),
        })
        .collect())
}

fn rows(columns: &[Column], batches: &[RecordBatch]) -> anyhow::Result<Vec<Vec<Cell>>> {
    let mut rows = Vec::new();
    for batch in batches {
        let start = rows.len();
        rows.resize_with(start + batch.num_rows(), || Vec::with_capacity(columns.len()));
        for column in columns {
            for (row, cell) in cells(batch.column(column.index))?.into_iter().enumerate() {
                rows[start + row].push(cell);
            }
        }
    }
    Ok(rows)
}

fn fits(columns: &[Column], expected: &Expected, row: &[Cell]) -> bool {
    columns
        .iter()
        .zip(row)
        .all(|(column, cell)| expected.get(&column.name).is_none_or(|value| cell.is(value)))
}

/// The expected rows and the rows that came which are left over by a largest one-to-one pairing.
fn pair<'a>(
    columns: &[Column],
    expected: &'a [Expected],
    came: &'a [Vec<Cell>],
) -> (Vec<&'a Expected>, Vec<&'a Vec<Cell>>) {
    let candidates = |row: &Expected| {
        (0..came.len())
            .filter(|&n| fits(columns, row, &came[n]))
            .collect()
    };
    let candidates: Vec<Vec<usize>> = expected.iter().map(candidates).collect();
    let mut taken_by = vec![None; came.len()];
    let mut missing = Vec::new();
    for (n, row) in expected.iter().enumerate() {
        if !place(n, &candidates, &mut taken_by, &mut vec![false; came.len()]) {
            missing.push(row);
        }
    }
    let left = came.iter().zip(&taken_by).filter(|(_, by)| by.is_none());
    (missing, left.map(|(row, _)| row).collect())
}

/// Finds a row for `who`, moving others to another of theirs where that makes room.
fn place(who: usize, candidates: &[Vec<usize>], taken_by: &mut [Option<usize>], tried: &mut [bool]) -> bool {
    for &row in &candidates[who] {
        if std::mem::replace(&mut tried[row], true) {
            continue;
        }
        if taken_by[row].is_none_or(|other| place(other, candidates, taken_by, tried)) {
            taken_by[row] = Some(who);
            return true;
        }
    }
    false
}

/// Rows without a partner.
struct Left<'a> {
    /// Expected rows, each with a row that came and agrees with it in most columns.
    changed: Vec<(&'a Expected, &'a Vec<Cell>)>,
    missing: Vec<&'a Expected>,
    unexpected: Vec<&'a Vec<Cell>>,
}

impl<'a> Left<'a> {
    /// Puts rows together that are most alike, the best pairs first.
    fn of(columns: &[Column], missing: Vec<&'a Expected>, unexpected: Vec<&'a Vec<Cell>>) -> Left<'a> {
        // All pairs are looked at; of very many rows only as many as can be shown have a use for that.
        let (rows, others) = (
            missing.len().min(LIKENED_ROWS),
            unexpected.len().min(LIKENED_ROWS),
        );
        let mut pairs: Vec<(usize, usize, usize)> = Vec::new();
        for (m, row) in missing[..rows].iter().enumerate() {
            for (u, came) in unexpected[..others].iter().enumerate() {
                let same = agreeing(columns, row, came);
                if same * 2 >= row.len() && same > 0 {
                    pairs.push((row.len() - same, m, u));
                }
            }
        }
        pairs.sort_unstable();
        let (mut partner, mut taken) = (BTreeMap::new(), BTreeSet::new());
        for (_, m, u) in pairs {
            if !partner.contains_key(&m) && taken.insert(u) {
                partner.insert(m, u);
            }
        }
        let mut left = Left {
            changed: Vec::new(),
            missing: Vec::new(),
            unexpected: Vec::new(),
        };
        for (m, row) in missing.into_iter().enumerate() {
            match partner.get(&m) {
                Some(u) => left.changed.push((row, unexpected[*u])),
                None => left.missing.push(row),
            }
        }
        let free = unexpected
            .into_iter()
            .enumerate()
            .filter(|(u, _)| !taken.contains(u));
        left.unexpected.extend(free.map(|(_, row)| row));
        left
    }

    fn summary(&self, expected: usize) -> String {
        let mut parts = Vec::new();
        let (changed, missing, unexpected) = (self.changed.len(), self.missing.len(), self.unexpected.len());
        if changed > 0 {
            parts.push(format!(
                "{changed} of {expected} expected rows came out otherwise"
            ));
        }
        if missing > 0 {
            parts.push(format!("{missing} of {expected} expected rows missing"));
        }
        if unexpected > 0 {
            let rows = if unexpected == 1 { "row" } else { "rows" };
            parts.push(format!("{unexpected} unexpected {rows}"));
        }
        parts.join(", ")
    }
}

/// How many of the columns that an expected row names have the value it says.
fn agreeing(columns: &[Column], expected: &Expected, row: &[Cell]) -> usize {
    let cells = columns.iter().zip(row);
    let same = cells.filter(|(column, cell)| expected.get(&column.name).is_some_and(|value| cell.is(value)));
    same.count()
}

/// `^` below the cells that differ, as wide as what was expected.
fn marks(columns: &[Column], expected: &Expected, row: &[Cell], wanted: &[String]) -> Vec<String> {
    let cells = columns.iter().zip(row).zip(wanted);
    let mark = |((column, cell), wanted): ((&Column, &Cell), &String)| match expected.get(&column.name) {
        Some(value) if !cell.is(value) => "^".repeat(wanted.chars().count().max(1)),
        _ => String::new(),
    };
    cells.map(mark).collect()
}

fn texts(row: &[Cell]) -> Vec<String> {
    row.iter().map(Cell::to_string).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn came(rows: &[(i64, &str, i64, Option<f64>)]) -> RecordBatch {
        let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(
            rows.iter().map(|r| r.0 * 60_000_000),
        ));
        let ad: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1)));
        let n: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2)));
        let rate: ArrayRef = Arc::new(rows.iter().map(|r| r.3).collect::<Float64Array>());
        RecordBatch::try_from_iter_with_nullable([
            ("at", at, false),
            ("ad", ad, false),
            ("n", n, false),
            ("rate", rate, true),
        ])
        .expect("one length")
    }

    fn check(expected: &str, rows: &[(i64, &str, i64, Option<f64>)], difference: Option<&str>) {
        #[derive(serde::Deserialize)]
        struct Expect {
            expect: Vec<Expected>,
        }
        let Expect { expect } = toml::from_str(&format!("expect = [{expected}]")).expect("toml");
        // Two batches, as rows come.
        let batch = came(rows);
        let cut = rows.len() / 2;
        let batches = [batch.slice(0, cut), batch.slice(cut, rows.len() - cut)];
        let found = compare(&batch.schema(), &expect, &batches).expect("known columns");
        assert_eq!(found.as_deref(), difference);
    }

    #[test]
    fn order_and_unnamed_columns_do_not_matter() {
        check(
            "{at = \"1970-01-01 00:01:00\", n = 2}, {at = 1970-01-01T00:00:00Z, n = 1, rate = \"NULL\"}",
            &[(0, "a", 1, None), (1, "b", 2, Some(0.5))],
            None,
        );
    }

    #[test]
    fn repeated_rows_count() {
        check(
            "{n = 1}, {n = 1}",
            &[(0, "a", 1, None)],
            Some("1 of 2 expected rows missing\n             n\n  - missing  1"),
        );
    }

    #[test]
    fn the_pairing_is_the_best_there_is() {
        // The first row fits both; taking the first one that fits would leave the second without.
        check(
            "{n = 1}, {n = 1, ad = \"a\"}",
            &[(0, "a", 1, None), (0, "b", 1, None)],
            None,
        );
    }

    #[test]
    fn a_difference_is_a_table() {
        check(
            "{at = \"1970-01-01 00:00:00\", ad = \"a\", n = 10, rate = 0.25}, {n = 7}",
            &[
                (0, "a", 9, Some(0.25)),
                (1, "long name", 1234, None),
                (2, "c", 7, None),
            ],
            Some(
                "1 of 2 expected rows came out otherwise, 1 unexpected row
                at                    ad            n  rate
  - expected    1970-01-01T00:00:00Z  a            10  0.25
  + but came    1970-01-01T00:00:00Z  a             9  0.25
                                                   ^^
  + unexpected  1970-01-01T00:01:00Z  long name  1234  NULL",
            ),
        );
    }

    #[test]
    fn rows_that_are_most_alike_stand_together() {
        check(
            "{at = \"1970-01-01 00:00:00\", ad = \"a\", n = 1}, {at = \"1970-01-01 00:00:00\", ad = \"b\", n = 2}, {ad = \"z\"}",
            &[(0, "b", 3, None), (1, "a", 1, None), (7, "q", 9, None)],
            Some(
                "2 of 3 expected rows came out otherwise, 1 of 3 expected rows missing, 1 unexpected row
                at                    ad  n
  - expected    1970-01-01T00:00:00Z  a   1
  + but came    1970-01-01T00:01:00Z  a   1
                ^^^^^^^^^^^^^^^^^^^^
  - expected    1970-01-01T00:00:00Z  b   2
  + but came    1970-01-01T00:00:00Z  b   3
                                          ^
  - missing                           z
  + unexpected  1970-01-01T00:07:00Z  q   9",
            ),
        );
    }

    #[test]
    fn nothing_expected_shows_whole_rows() {
        check("", &[], None);
        check(
            "",
            &[(0, "a", 9, None)],
            Some(
                "1 unexpected row
                at                    ad  n  rate
  + unexpected  1970-01-01T00:00:00Z  a   9  NULL",
            ),
        );
    }

    #[test]
    fn an_unknown_column_is_named() {
        let expect = vec![Expected::from([("m".to_owned(), toml::Value::Integer(1))])];
        let error = compare(&came(&[]).schema(), &expect, &[]).expect_err("no such column");
        assert_eq!(
            error.to_string(),
            "expect: the stream has no column \"m\"; known: at, ad, n, rate"
        );
    }
}
