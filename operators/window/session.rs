//! The operator of a session window: rows of all partitions come in, each leaves with the number of the part of
//! a session it belongs to, in a column [`PART`] behind the others; late rows leave by the side stream. At a
//! watermark the sessions that it closes leave as one list, before the watermark and marked as [`CLOSED`].
//!
//! A key lives in the operator from its first row until nothing can touch its sessions any more
//! (see [`super::sessions`]); nulls are a value like others. Rows are not kept.
//!
//! Fails with a data error when an event time is null or when there are more than [`KEYS`] keys.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use async_trait::async_trait;
use datafusion::common::HashMap;
use millstream_engine::message::{Batch, Pane};
use millstream_engine::operator::{Operator, Output};
use millstream_engine::state::Snapshot;
use millstream_engine::time::{Timestamp, micros};
use millstream_engine::{Error, Result};

use super::sessions::{ClosedSession, OpenSession, Sessions};
use super::{WATERMARK, event_times, watermark_of, watermark_rows};

/// Name of the column that says which part of a session a row belongs to.
pub(crate) const PART: &str = "__session";

/// Marks the list of sessions that close with the watermark that follows it. No query has so many lower
/// halves that one could have this number.
pub(crate) const CLOSED: Pane = Pane {
    slot: u32::MAX,
    start: Timestamp(0),
};

/// Most keys with sessions at a time; some 10 GB of memory, and then a pipeline fails by name instead of taking
/// the process with it.
const KEYS: usize = 50_000_000;

/// Most rows in one batch of a snapshot or of a list of closed sessions.
const ROWS: usize = 65_536;

/// Labels of the snapshot's parts.
const OPEN: &str = "open";
const ABSORBED: &str = "absorbed";
const CLOSED_UNTIL: &str = "closed_until";
const NEXT_PART: &str = "next_part";

/// The field of [`PART`].
pub(crate) fn part_field() -> FieldRef {
    Arc::new(Field::new(PART, DataType::Int64, false))
}

/// Whether sessions can have a key of this type.
pub(crate) fn can_be_key(of: &DataType) -> bool {
    RowConverter::supports_fields(&[SortField::new(of.clone())])
}

/// The operator that finds sessions; `key` and `event_time` are indices of columns.
pub fn session_operator(
    schema: &Schema,
    event_time: usize,
    gap: std::time::Duration,
    key: &[usize],
) -> Result<Box<dyn Operator>> {
    Ok(Box::new(SessionOperator {
        event_time,
        keys: Keys::new(schema, key, KEYS)?,
        sessions: Sessions::new(micros(gap)),
        watermark: Timestamp::MIN,
    }))
}

struct SessionOperator {
    event_time: usize,
    keys: Keys,
    sessions: Sessions,
    watermark: Timestamp,
}

#[async_trait]
impl Operator for SessionOperator {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let rows = batch.rows;
        let times = event_times(&rows, self.event_time)?;
        let encoded = self.keys.encode(&rows)?;
        let mut parts = Vec::with_capacity(rows.num_rows());
        for (row, at) in times.values().iter().enumerate() {
            let key = encoded.row(row);
            let known = self.keys.get(key.data());
            let part = match known {
                None if self.sessions.is_over(*at, self.watermark.0) => None,
                None => {
                    let key = self.keys.add(key.data())?;
                    self.sessions.take(key, *at, self.watermark.0)
                }
                Some(key) => self.sessions.take(key, *at, self.watermark.0),
            };
            parts.push(part);
        }
        let parts = Int64Array::from(parts);
        if parts.null_count() == 0 {
            out.emit(with_parts(&rows, parts)?);
            return Ok(());
        }
        let in_time: BooleanArray = (0..parts.len()).map(|row| Some(parts.is_valid(row))).collect();
        out.emit_side(filter_record_batch(&rows, &not(&in_time)?)?);
        let parts: Int64Array = parts.iter().flatten().collect::<Vec<_>>().into();
        out.emit(with_parts(&filter_record_batch(&rows, &in_time)?, parts)?);
        Ok(())
    }

    async fn on_watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<()> {
        self.watermark = at;
        let (closed, forgotten) = self.sessions.close(at.0);
        for key in forgotten {
            self.keys.remove(key);
        }
        for sessions in closed.chunks(ROWS) {
            out.emit(Batch {
                rows: closed_rows(sessions)?,
                pane: Some(CLOSED),
                due: None,
            });
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        snapshot.push(WATERMARK, watermark_rows(self.watermark)?);
        let next = Int64Array::from(vec![self.sessions.next_part]);
        snapshot.push(NEXT_PART, batch(&[NEXT_PART], vec![Arc::new(next)])?);
        let mut open = Vec::new();
        let mut closed = Vec::new();
        for (key, of) in self.sessions.keys() {
            open.extend(of.open.iter().map(|session| (key, session)));
            closed.extend(of.closed_until.map(|until| (key, until)));
        }
        for some in open.chunks(ROWS) {
            self.push_open(some, &mut snapshot)?;
        }
        for some in closed.chunks(ROWS) {
            let untils = Int64Array::from_iter_values(some.iter().map(|(_, until)| *until));
            let keys = self.keys.columns(some.iter().map(|(key, _)| *key))?;
            snapshot.push(CLOSED_UNTIL, keyed(&["until"], vec![Arc::new(untils)], keys)?);
        }
        Ok(snapshot)
    }

    fn restore(&mut self, from: Snapshot) -> Result<()> {
        // By the part that took it in.
        let mut absorbed: HashMap<i64, Vec<i64>> = HashMap::new();
        for part in from.parts.iter().filter(|p| p.label == ABSORBED) {
            let (by, parts) = (integers(&part.rows, 0)?, integers(&part.rows, 1)?);
            for (by, part) in by.values().iter().zip(parts.values()) {
                absorbed.entry(*by).or_default().push(*part);
            }
        }
        for part in &from.parts {
            match part.label.as_str() {
                WATERMARK => self.watermark = watermark_of(&part.rows)?,
                NEXT_PART => self.sessions.next_part = first(integers(&part.rows, 0)?)?,
                OPEN => self.restore_open(&part.rows, &mut absorbed)?,
                CLOSED_UNTIL => self.restore_closed(&part.rows)?,
                ABSORBED => {}
                label => {
                    return Err(Error::bug(format!(
                        "snapshot part {label:?} is not a session window's"
                    )));
                }
            }
        }
        Ok(())
    }
}

impl SessionOperator {
    fn push_open(&self, open: &[(u32, &OpenSession)], to: &mut Snapshot) -> Result<()> {
        let column = |value: fn(&OpenSession) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(
                open.iter().map(|(_, session)| value(session)),
            ))
        };
        let columns = vec![
            column(|s| s.first),
            column(|s| s.last),
            column(|s| s.began),
            column(|s| s.part),
        ];
        let keys = self.keys.columns(open.iter().map(|(key, _)| *key))?;
        to.push(OPEN, keyed(&["first", "last", "began", "part"], columns, keys)?);
        let absorbed = || {
            let each = open.iter().map(|(_, session)| session);
            each.flat_map(|session| session.absorbed.iter().map(|part| (session.part, *part)))
        };
        if absorbed().next().is_some() {
            let by = Int64Array::from_iter_values(absorbed().map(|(by, _)| by));
            let parts = Int64Array::from_iter_values(absorbed().map(|(_, part)| part));
            to.push(
                ABSORBED,
                batch(&["by", "part"], vec![Arc::new(by), Arc::new(parts)])?,
            );
        }
        Ok(())
    }

    fn restore_open(&mut self, rows: &RecordBatch, absorbed: &mut HashMap<i64, Vec<i64>>) -> Result<()> {
        let keys = self.keys.of_snapshot(rows, 4)?;
        let (first, last) = (integers(rows, 0)?, integers(rows, 1)?);
        let (began, part) = (integers(rows, 2)?, integers(rows, 3)?);
        for (row, key) in keys.into_iter().enumerate() {
            let part = part.value(row);
            let session = OpenSession {
                first: first.value(row),
                last: last.value(row),
                began: began.value(row),
                part,
                absorbed: absorbed.remove(&part).unwrap_or_default(),
            };
            self.sessions.restore_open(key, session);
        }
        Ok(())
    }

    fn restore_closed(&mut self, rows: &RecordBatch) -> Result<()> {
        let keys = self.keys.of_snapshot(rows, 1)?;
        for (key, until) in keys.into_iter().zip(integers(rows, 0)?.values()) {
            self.sessions.restore_closed(key, *until);
        }
        Ok(())
    }
}

/// Numbers for keys. A key is looked up by its columns in arrow's row format, which stays in memory: snapshots
/// hold the columns.
struct Keys {
    columns: Vec<usize>,
    fields: Vec<FieldRef>,
    converter: RowConverter,
    numbers: HashMap<Arc<[u8]>, u32>,
    /// By number.
    encoded: Vec<Option<Arc<[u8]>>>,
    free: Vec<u32>,
    limit: usize,
}

impl Keys {
    fn new(schema: &Schema, columns: &[usize], limit: usize) -> Result<Keys> {
        let fields: Vec<FieldRef> = columns.iter().map(|c| Arc::clone(&schema.fields()[*c])).collect();
        let sorts = fields.iter().map(|f| SortField::new(f.data_type().clone()));
        Ok(Keys {
            columns: columns.to_vec(),
            converter: RowConverter::new(sorts.collect())?,
            fields,
            numbers: HashMap::new(),
            encoded: Vec::new(),
            free: Vec::new(),
            limit,
        })
    }

    fn encode(&self, rows: &RecordBatch) -> Result<arrow::row::Rows> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|c| Arc::clone(rows.column(*c))).collect();
        Ok(self.converter.convert_columns(&columns)?)
    }

    fn get(&self, key: &[u8]) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    fn add(&mut self, key: &[u8]) -> Result<u32> {
        if self.numbers.len() >= self.limit {
            let names: Vec<&str> = self.fields.iter().map(|f| f.name().as_str()).collect();
            return Err(Error::data(format!(
                "more than {} values of {} have sessions at a time, which is all that a session window \
                 follows; use a shorter `gap`, a coarser `key`, or filter before the window",
                self.limit,
                names.join(", ")
            )));
        }
        let key: Arc<[u8]> = key.into();
        let number = self.free.pop().unwrap_or(self.encoded.len() as u32);
        if number as usize == self.encoded.len() {
            self.encoded.push(None);
        }
        self.encoded[number as usize] = Some(Arc::clone(&key));
        self.numbers.insert(key, number);
        Ok(number)
    }

    fn remove(&mut self, number: u32) {
        if let Some(key) = self.encoded[number as usize].take() {
            self.numbers.remove(&key);
            self.free.push(number);
        }
    }

    /// The columns of the given keys.
    fn columns(&self, numbers: impl Iterator<Item = u32>) -> Result<Vec<(FieldRef, ArrayRef)>> {
        let parser = self.converter.parser();
        let keys = numbers.map(|number| self.encoded[number as usize].as_ref());
        let rows = keys.map(|key| parser.parse(key.expect("a key with a session has a number")));
        let columns = self.converter.convert_rows(rows)?;
        Ok(self.fields.iter().cloned().zip(columns).collect())
    }

    /// The keys in the columns of a snapshot from `from` on.
    fn of_snapshot(&mut self, rows: &RecordBatch, from: usize) -> Result<Vec<u32>> {
        let columns = rows.columns().get(from..).unwrap_or_default();
        if columns.len() != self.fields.len() {
            return Err(Error::bug("sessions in a snapshot have another key"));
        }
        let encoded = self.converter.convert_columns(columns)?;
        let number = |row: arrow::row::Row<'_>| match self.get(row.data()) {
            Some(number) => Ok(number),
            None => self.add(row.data()),
        };
        encoded.iter().map(number).collect()
    }
}

/// The rows with the part of each.
fn with_parts(rows: &RecordBatch, parts: Int64Array) -> Result<RecordBatch> {
    let schema = rows.schema();
    let fields = schema.fields().iter().cloned().chain([part_field()]);
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(parts));
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        columns,
    )?)
}

/// Closed sessions as rows: one per part, those of a session together.
fn closed_rows(sessions: &[ClosedSession]) -> Result<RecordBatch> {
    let parts = || {
        sessions
            .iter()
            .flat_map(|s| s.parts.iter().map(move |part| (s, *part)))
    };
    let times = |value: fn(&ClosedSession) -> i64| -> ArrayRef {
        let values = parts().map(|(session, _)| value(session));
        Arc::new(TimestampMicrosecondArray::from_iter_values(values))
    };
    let names = |(session, _): (&ClosedSession, i64)| session.parts[0];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(parts().map(|(_, part)| part))),
        Arc::new(Int64Array::from_iter_values(parts().map(names))),
        times(|s| s.start),
        times(|s| s.end),
    ];
    let field = |(name, column): (&&str, &ArrayRef)| Field::new(*name, column.data_type().clone(), false);
    let fields: Vec<Field> = ["part", "session", "start", "end"]
        .iter()
        .zip(&columns)
        .map(field)
        .collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The closed sessions in a batch that is marked [`CLOSED`].
pub(crate) fn closed_sessions(rows: &RecordBatch) -> Result<Vec<ClosedSession>> {
    let time = |column: usize| {
        let column = rows.columns().get(column);
        column
            .and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>())
            .ok_or_else(|| Error::bug("a list of closed sessions lacks a time"))
    };
    let (part, session, start, end) = (integers(rows, 0)?, integers(rows, 1)?, time(2)?, time(3)?);
    let mut all: Vec<ClosedSession> = Vec::new();
    for row in 0..rows.num_rows() {
        let part = part.value(row);
        match all.last_mut() {
            Some(last) if last.parts[0] == session.value(row) => last.parts.push(part),
            _ => all.push(ClosedSession {
                start: start.value(row),
                end: end.value(row),
                parts: vec![part],
            }),
        }
    }
    Ok(all)
}

fn batch(names: &[&str], columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    keyed(names, columns, Vec::new())
}

/// Columns without nulls, and those of keys behind them.
fn keyed(names: &[&str], columns: Vec<ArrayRef>, keys: Vec<(FieldRef, ArrayRef)>) -> Result<RecordBatch> {
    let field = |(name, column): (&&str, &ArrayRef)| -> FieldRef {
        Arc::new(Field::new(*name, column.data_type().clone(), false))
    };
    let mut fields: Vec<FieldRef> = names.iter().zip(&columns).map(field).collect();
    let mut columns = columns;
    for (field, column) in keys {
        fields.push(field);
        columns.push(column);
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn integers(rows: &RecordBatch, column: usize) -> Result<&Int64Array> {
    let column = rows.columns().get(column);
    column
        .and_then(|c| c.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| Error::bug("the state of a session window lacks a column of numbers"))
}

fn first(column: &Int64Array) -> Result<i64> {
    column
        .iter()
        .next()
        .flatten()
        .ok_or_else(|| Error::bug("the state of a session window lacks a number"))
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    fn names(of: &[Option<&str>]) -> RecordBatch {
        let column: ArrayRef = Arc::new(StringArray::from(of.to_vec()));
        RecordBatch::try_from_iter_with_nullable([("name", column, true)]).expect("rows")
    }

    #[test]
    fn keys_have_numbers_that_are_used_again() {
        let rows = names(&[Some("a"), None, Some("")]);
        let mut keys = Keys::new(&rows.schema(), &[0], 3).expect("keys");
        let encoded = keys.encode(&rows).expect("encoded");
        let numbers: Vec<u32> = encoded
            .iter()
            .map(|key| keys.add(key.data()).expect("room"))
            .collect();
        assert_eq!(numbers, [0, 1, 2], "null is a key like others");
        assert_eq!(keys.get(encoded.row(1).data()), Some(1));
        let columns = keys.columns([1, 0].into_iter()).expect("columns");
        assert_eq!(
            columns[0].1.as_string::<i32>(),
            &StringArray::from(vec![None, Some("a")])
        );
        keys.remove(1);
        assert_eq!(keys.get(encoded.row(1).data()), None);
        assert_eq!(keys.add(encoded.row(1).data()).expect("room"), 1);
    }

    #[test]
    fn more_keys_than_it_can_follow_are_an_error_that_says_what_to_do() {
        let rows = names(&[Some("a"), Some("b")]);
        let mut keys = Keys::new(&rows.schema(), &[0], 1).expect("keys");
        let encoded = keys.encode(&rows).expect("encoded");
        keys.add(encoded.row(0).data()).expect("room for one");
        let refused = keys.add(encoded.row(1).data()).expect_err("no room");
        assert!(matches!(refused, Error::Data(_)), "{refused:?}");
        assert!(
            refused.to_string().contains("more than 1 values of name"),
            "{refused}"
        );
    }
}
