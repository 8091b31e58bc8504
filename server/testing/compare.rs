//! Expected rows against rows that came out: which are missing, which were not expected.
//!
//! Expected rows may name different columns each, so one row that came out can fit several of them. Rows
//! are therefore paired by a largest matching (augmenting paths), not first come, first served.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};

use crate::testing::table::Table;
use crate::testing::value::{Cell, cells, shown};

/// Rows of each kind that a difference shows; more hide the point.
const SHOWN_ROWS: usize = 20;

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
    let mut text = summary(missing.len(), unexpected.len(), expected.len());
    let mut table = Table::new(columns.iter().map(|c| (c.name.as_str(), c.kind.is_numeric())));
    for row in missing.iter().take(SHOWN_ROWS) {
        let cell = |c: &Column| row.get(&c.name).map_or(String::new(), |v| shown(v, &c.kind));
        table.row("- missing", columns.iter().map(cell));
    }
    for row in unexpected.iter().take(SHOWN_ROWS) {
        table.row("+ unexpected", row.iter().map(Cell::to_string));
    }
    text.push('\n');
    text.push_str(&table.to_string());
    let hidden = missing.len().saturating_sub(SHOWN_ROWS) + unexpected.len().saturating_sub(SHOWN_ROWS);
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

fn summary(missing: usize, unexpected: usize, expected: usize) -> String {
    let mut parts = Vec::new();
    if missing > 0 {
        parts.push(format!("{missing} of {expected} expected rows missing"));
    }
    if unexpected > 0 {
        let rows = if unexpected == 1 { "row" } else { "rows" };
        parts.push(format!("{unexpected} unexpected {rows}"));
    }
    parts.join(", ")
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
                "1 of 2 expected rows missing, 2 unexpected rows
                at                    ad            n  rate
  - missing     1970-01-01T00:00:00Z  a            10  0.25
  + unexpected  1970-01-01T00:00:00Z  a             9  0.25
  + unexpected  1970-01-01T00:01:00Z  long name  1234  NULL",
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
