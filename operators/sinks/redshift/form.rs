//! What the rows of a stream become before they are staged: typed, with the date of their run, checked and numbered.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Date32Type, Field, Schema, SchemaRef, TimestampMicrosecondType};
use chrono::NaiveDate;
use millstream_engine::{Error, Result};

use super::columns::{Column, ROW_NUMBER, RUN_DATE, RUN_PIPELINE, Staged, written};
use super::table::{Dated, Replace, Target};

/// What rows look like when they are staged.
pub(super) struct Form {
    pub dated: Option<Dated>,
    pub columns: Vec<Column>,
    staged: Staged,
    /// Of [`Staged`], and the row number where rows are merged.
    schema: SchemaRef,
    /// Columns that must not be NULL.
    key: Vec<usize>,
    /// The column that holds the run's date, in the stream's own rows.
    date: Option<usize>,
    /// The pipeline, where rows say whose they are.
    pipeline: Option<String>,
    numbered: bool,
}

impl Form {
    pub fn new(target: &Target, columns: Vec<Column>, dated: Option<Dated>) -> Result<Form> {
        let staged = Staged::new(&columns)?;
        let index = |name: &String| written(&columns).position(|c| c.name == *name);
        let (key, numbered) = match &target.replace {
            Replace::Key(key) => (key.iter().filter_map(index).collect(), true),
            _ => (Vec::new(), false),
        };
        let mut fields: Vec<Field> = staged
            .schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone())
            .collect();
        if numbered {
            fields.push(Field::new(ROW_NUMBER, DataType::Int64, false));
        }
        let date = target.date_column.as_ref().and_then(index);
        Ok(Form {
            date: date.filter(|_| dated.is_some()),
            pipeline: target.shared.then(|| target.owner.clone()),
            dated,
            schema: Arc::new(Schema::new(fields)),
            columns,
            staged,
            key,
            numbered,
        })
    }

    /// Rows with the date of the run, in the types of the staged files.
    pub fn typed(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let Some(dated) = self.dated.filter(|_| rows.num_columns() < self.columns.len()) else {
            return self.staged.of(rows);
        };
        let date: ArrayRef = Arc::new(Date32Array::from(vec![days(dated.date); rows.num_rows()]));
        let mut fields: Vec<_> = rows.schema_ref().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(RUN_DATE, DataType::Date32, false)));
        let mut columns: Vec<ArrayRef> = rows.columns().iter().cloned().chain([date]).collect();
        if let Some(pipeline) = &self.pipeline {
            fields.push(Arc::new(Field::new(RUN_PIPELINE, DataType::Utf8, false)));
            let of_each = vec![pipeline.as_str(); rows.num_rows()];
            columns.push(Arc::new(StringArray::from(of_each)));
        }
        self.staged
            .of(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// Why the warehouse would refuse a row.
    pub fn refusal(&self, rows: &RecordBatch, row: usize) -> Option<String> {
        let null = self.key.iter().find(|i| rows.column(**i).is_null(row));
        let null = null.map(|i| format!("{}: NULL in the key", self.schema.field(*i).name()));
        null.or_else(|| self.staged.refusal(rows, row))
    }

    pub fn may_refuse(&self, rows: &RecordBatch) -> bool {
        self.key.iter().any(|i| rows.column(*i).null_count() > 0) || self.staged.may_refuse(rows)
    }

    /// Rows of another date would stay when the date is replaced, and be there twice.
    pub fn check_dates(&self, rows: &RecordBatch) -> Result<()> {
        let (Some(dated), Some(index)) = (self.dated, self.date) else {
            return Ok(());
        };
        const DAY: i64 = 86_400_000_000;
        let (column, day) = (rows.column(index), days(dated.date));
        let is_of_it = |row: usize| match column.data_type() {
            _ if column.is_null(row) => false,
            DataType::Date32 => column.as_primitive::<Date32Type>().value(row) == day,
            _ => {
                let at = column.as_primitive::<TimestampMicrosecondType>().value(row);
                at.div_euclid(DAY) == i64::from(day)
            }
        };
        match (0..rows.num_rows()).find(|row| !is_of_it(*row)) {
            None => Ok(()),
            Some(row) => Err(Error::data(format!(
                "date_column: a row has {} in column {:?}, but the run's date is {}; take such rows out in a query, or \
                 leave date_column away: rows are then replaced by the date of their run",
                arrow::util::display::array_value_to_string(column, row)?,
                self.schema.field(index).name(),
                dated.date
            ))),
        }
    }

    /// The rows as they are written; `first` is the number of the first one in its load.
    pub fn numbered(&self, rows: &RecordBatch, first: u64) -> Result<RecordBatch> {
        if !self.numbered {
            return Ok(rows.clone());
        }
        let first = first as i64;
        let numbers = Int64Array::from_iter_values(first..first + rows.num_rows() as i64);
        let columns = rows
            .columns()
            .iter()
            .cloned()
            .chain([Arc::new(numbers) as ArrayRef]);
        Ok(RecordBatch::try_new(self.schema.clone(), columns.collect())?)
    }
}

fn days(date: NaiveDate) -> i32 {
    Date32Type::from_naive_date(date)
}
