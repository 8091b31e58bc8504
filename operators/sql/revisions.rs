//! Firing windows again: what `on_late = "update"` adds to the upper half.
//!
//! A window's state stays for `lateness` beyond its end. State that comes for a window which has fired marks its
//! pane; at the next watermark every fired window of a marked pane fires again with all it has, however many
//! rows came late, under the next number. Which rows are taken is decided where they arrive, by the watermark
//! that stood before them; here, too, it is the watermark *before* the step that says whether a window is still
//! kept, so a row that was taken just in time still makes its revision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::DataFusionError;
use millstream_engine::sql::REVISION;
use millstream_engine::state::{Snapshot, SnapshotPart};
use millstream_engine::time::{Timestamp, micros};
use millstream_engine::{Error, Result};

use crate::window::Panes;

/// Label of the snapshot part that holds the numbers of past firings.
const FIRED: &str = "fired";
/// Label of the snapshot part that holds the marked panes.
const TOUCHED: &str = "touched";

/// The result's schema with the number of the firing as its last column, whose name must be free.
pub(super) fn with_revision(schema: &SchemaRef) -> Result<SchemaRef, DataFusionError> {
    if schema.column_with_name(REVISION).is_some() {
        return Err(DataFusionError::Plan(format!(
            "the result has a column {REVISION:?}, which windows with on_late = \"update\" add themselves; give it \
             another name"
        )));
    }
    Ok(numbered(schema))
}

fn numbered(schema: &SchemaRef) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(REVISION, DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

/// Which windows have fired how often, and which are to fire again.
pub(super) struct Revisions {
    panes: Panes,
    lateness: Duration,
    schema: SchemaRef,
    /// Number of the last firing by window end, for windows that are kept.
    fired: BTreeMap<i64, i64>,
    /// Panes with a fired window, by start, for which state has come since the last watermark.
    touched: BTreeSet<i64>,
}

impl Revisions {
    /// Nothing has fired. `schema` is the result's without the number.
    pub fn new(panes: Panes, lateness: Duration, schema: &SchemaRef) -> Revisions {
        Revisions {
            panes,
            lateness,
            schema: numbered(schema),
            fired: BTreeMap::new(),
            touched: BTreeSet::new(),
        }
    }

    /// Whether a window that ends at `end` takes rows when the watermark stands at `watermark`.
    pub fn keeps(&self, end: i64, watermark: Timestamp) -> bool {
        end.saturating_add(micros(self.lateness)) > watermark.0
    }

    /// The start of the earliest window that may still give a result.
    pub fn open_from(&self, watermark: Timestamp) -> i64 {
        self.panes.takes_from(watermark, self.lateness)
    }

    /// State has come for a pane.
    pub fn touch(&mut self, pane: i64, watermark: Timestamp) {
        if self.panes.next_end(pane) <= watermark.0 {
            self.touched.insert(pane);
        }
    }

    /// Ends of the windows to fire again, in order, when the watermark has stood at `watermark`.
    pub fn again(&self, watermark: Timestamp) -> BTreeSet<i64> {
        let ends = self.touched.iter().flat_map(|pane| self.panes.ends_of(*pane));
        ends.filter(|end| *end <= watermark.0 && self.keeps(*end, watermark))
            .collect()
    }

    /// Numbers a firing of the windows that end at `due`, which is all that was to fire again.
    pub fn number(&mut self, due: &[i64]) {
        self.touched.clear();
        for end in due {
            self.fired.entry(*end).and_modify(|n| *n += 1).or_insert(0);
        }
    }

    /// Some of a window's result, with the number of its last firing.
    pub fn stamp(&self, rows: RecordBatch, end: i64) -> Result<RecordBatch> {
        let number = self.fired.get(&end).copied();
        let number = number.ok_or_else(|| Error::bug("a window fires without a number"))?;
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(Int64Array::from_value(number, rows.num_rows())));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Drops the numbers of windows that take no more rows.
    pub fn forget(&mut self, watermark: Timestamp) {
        while let Some(entry) = self.fired.first_entry() {
            if entry.key().saturating_add(micros(self.lateness)) > watermark.0 {
                break;
            }
            entry.remove();
        }
    }

    /// Adds to a snapshot.
    pub fn snapshot(&self, to: &mut Snapshot) -> Result<()> {
        to.push(
            FIRED,
            numbers([
                ("end", self.fired.keys().copied().collect()),
                (REVISION, self.fired.values().copied().collect()),
            ])?,
        );
        to.push(
            TOUCHED,
            numbers([("pane", self.touched.iter().copied().collect())])?,
        );
        Ok(())
    }

    /// Takes a part of a snapshot; says whether it was one of these.
    pub fn restore(&mut self, part: &SnapshotPart) -> Result<bool> {
        match part.label.as_str() {
            FIRED => {
                let (ends, numbers) = (column(part, 0)?, column(part, 1)?);
                let pairs = ends
                    .values()
                    .iter()
                    .copied()
                    .zip(numbers.values().iter().copied());
                self.fired.extend(pairs);
            }
            TOUCHED => self.touched.extend(column(part, 0)?.values()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn numbers<const N: usize>(columns: [(&str, Vec<i64>); N]) -> Result<RecordBatch> {
    let named = columns.map(|(name, of)| (name, Arc::new(Int64Array::from(of)) as _, false));
    Ok(RecordBatch::try_from_iter_with_nullable(named)?)
}

fn column(part: &SnapshotPart, index: usize) -> Result<&Int64Array> {
    let column = part.rows.columns().get(index);
    column
        .and_then(|c| c.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| {
            Error::bug(format!(
                "snapshot part {:?} has no number in column {index}",
                part.label
            ))
        })
}
