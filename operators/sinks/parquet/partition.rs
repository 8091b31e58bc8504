//! Which directory of the lake a row belongs to, decided for whole batches.
//!
//! The layout is Hive's: `name=value` directories, one level per entry of `partition_by`. Time levels come from the
//! event time in UTC and are zero-padded, so that names sort as times do. A column level holds the column's
//! value as text, and the column is left out of the file, as readers of the layout expect.
//!
//! In a dated run time levels are those of the run's date, so that a run can replace what it wrote by replacing what is in
//! its date's directory.
//!
//! Nearly every batch lies within one partition; that is recognised from its smallest and largest event time,
//! and the batch passes through untouched.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, max, min, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use chrono::{DateTime, Datelike, NaiveTime, Timelike, Utc};
use millstream_engine::sink::SinkContext;
use millstream_engine::time::timestamp_type;
use millstream_engine::{Error, Result};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::super::{column_of, suggest};

/// The directory of a row without a value, by Hive's convention; the empty string has no other name either.
pub(super) const NO_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// What Hive escapes in a directory name, and the space, which breaks shell commands.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'\'')
    .add(b'*')
    .add(b'/')
    .add(b':')
    .add(b'=')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'{')
    .add(b'}');

/// A slice of event time that makes a directory level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Year,
    Month,
    Day,
    Hour,
}

const UNITS: [Unit; 4] = [Unit::Year, Unit::Month, Unit::Day, Unit::Hour];

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Year => "year",
            Unit::Month => "month",
            Unit::Day => "day",
            Unit::Hour => "hour",
        }
    }
}

#[derive(Clone, Debug)]
enum Level {
    Time(Unit),
    Column { index: usize, name: String },
}

/// Splits batches by directory.
#[derive(Clone, Debug)]
pub(super) struct Partitioner {
    levels: Vec<Level>,
    /// The event-time column and the finest unit taken from it, where a level needs them.
    time: Option<(usize, Unit)>,
    /// Midnight of the date of a dated run.
    date: Option<DateTime<Utc>>,
}

impl Partitioner {
    /// Checks `partition_by` against the stream.
    pub fn new(cx: &SinkContext, partition_by: &[String]) -> Result<Partitioner> {
        let mut levels = Vec::with_capacity(partition_by.len());
        for (at, name) in partition_by.iter().enumerate() {
            if partition_by[..at].contains(name) {
                return Err(Error::config(format!(
                    "partition_by: {name:?} stands there twice"
                )));
            }
            levels.push(level(cx, name)?);
        }
        let finest = levels.iter().filter_map(|l| match l {
            Level::Time(unit) => Some(*unit),
            Level::Column { .. } => None,
        });
        let date = cx
            .run
            .as_ref()
            .map(|run| run.date.and_time(NaiveTime::MIN).and_utc());
        let time = match (finest.max(), cx.event_time) {
            (Some(Unit::Hour), _) if date.is_some() => {
                return Err(Error::config(
                    "partition_by: the files of a dated run lie in the directory of its date, which has no hour; leave \
                     \"hour\" out",
                ));
            }
            (None, _) => None,
            _ if date.is_some() => None,
            (Some(unit), Some(column)) => Some((column, unit)),
            (Some(_), None) => {
                return Err(Error::config(format!(
                    "partition_by: stream {:?} has no event time to take year, month, day or hour from; name \
                     columns instead, or write partition_by = []",
                    cx.input
                )));
            }
        };
        Ok(Partitioner { levels, time, date })
    }

    /// The directory in or below which all files of a dated run are: its levels up to the first that is a column.
    pub fn below(&self) -> String {
        let parts = self.levels.iter().map_while(|level| match level {
            Level::Time(unit) => Some(time_part(*unit, self.date)),
            Level::Column { .. } => None,
        });
        parts.collect::<Vec<_>>().join("/")
    }

    /// Indices of the columns that stand in directory names and so not in the files.
    pub fn columns(&self) -> Vec<usize> {
        self.levels
            .iter()
            .filter_map(|level| match level {
                Level::Column { index, .. } => Some(*index),
                Level::Time(_) => None,
            })
            .collect()
    }

    /// The names of the directory levels; of one that holds a column's values, the column.
    pub fn levels<'a>(&'a self, stream: &'a Schema) -> Vec<(&'a str, Option<&'a Field>)> {
        let level = |level: &'a Level| match level {
            Level::Time(unit) => (unit.name(), None),
            Level::Column { index, name } => (name.as_str(), Some(stream.field(*index))),
        };
        self.levels.iter().map(level).collect()
    }

    /// The batch cut by directory (`year=2026/month=11`, empty without levels), in order of first rows.
    pub fn split(&self, rows: RecordBatch) -> Result<Vec<(String, RecordBatch)>> {
        if rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let by_column = self.levels.iter().any(|l| matches!(l, Level::Column { .. }));
        let buckets = self.buckets(&rows)?;
        if !by_column && buckets.as_ref().is_none_or(one_value) {
            return Ok(vec![(self.directory(&rows, 0)?, rows)]);
        }
        let groups = self.groups(&rows, buckets)?;
        if groups.len() == 1 {
            return Ok(vec![(self.directory(&rows, 0)?, rows)]);
        }
        groups
            .into_iter()
            .map(|indices| {
                let directory = self.directory(&rows, indices[0] as usize)?;
                Ok((directory, take_record_batch(&rows, &UInt32Array::from(indices))?))
            })
            .collect()
    }

    /// A number per row that differs where the finest time level does. Two numbers, smallest and largest,
    /// stand for the whole batch when they are equal.
    fn buckets(&self, rows: &RecordBatch) -> Result<Option<Int64Array>> {
        let Some((column, unit)) = self.time else {
            return Ok(None);
        };
        let times = cast(rows.column(column), &timestamp_type())?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let bucket = |at: i64| bucket(unit, at);
        if times.null_count() == 0
            && let (Some(first), Some(last)) = (min(times), max(times))
            && bucket(first) == bucket(last)
        {
            return Ok(Some(Int64Array::from(vec![bucket(first)])));
        }
        Ok(Some(times.unary(bucket)))
    }

    /// Row numbers by partition, partitions in order of their first rows.
    fn groups(&self, rows: &RecordBatch, buckets: Option<Int64Array>) -> Result<Vec<Vec<u32>>> {
        let mut keys: Vec<ArrayRef> = self.columns().iter().map(|i| rows.column(*i).clone()).collect();
        match buckets {
            Some(buckets) if buckets.len() == rows.num_rows() => keys.push(Arc::new(buckets)),
            _ => {}
        }
        let fields = keys
            .iter()
            .map(|k| SortField::new(k.data_type().clone()))
            .collect();
        let keys = RowConverter::new(fields)?.convert_columns(&keys)?;
        let mut group_of = HashMap::new();
        let mut groups: Vec<Vec<u32>> = Vec::new();
        for (row, key) in (0u32..).zip(keys.iter()) {
            let group = *group_of.entry(key).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[group].push(row);
        }
        Ok(groups)
    }

    fn directory(&self, rows: &RecordBatch, row: usize) -> Result<String> {
        let at = match self.time {
            Some((column, _)) => {
                let time = cast(&rows.column(column).slice(row, 1), &timestamp_type())?;
                let time = time.as_primitive::<TimestampMicrosecondType>();
                time.is_valid(0)
                    .then(|| DateTime::from_timestamp_micros(time.value(0)))
                    .flatten()
            }
            None => self.date,
        };
        let parts: Result<Vec<String>> = self
            .levels
            .iter()
            .map(|level| match level {
                Level::Time(unit) => Ok(time_part(*unit, at)),
                Level::Column { index, name } => column_part(rows.column(*index), row, name),
            })
            .collect();
        Ok(parts?.join("/"))
    }
}

fn level(cx: &SinkContext, name: &str) -> Result<Level> {
    let unit = UNITS.iter().find(|unit| unit.name() == name);
    let column = cx.schema.column_with_name(name);
    match (unit, column) {
        (Some(_), Some(_)) => Err(Error::config(format!(
            "partition_by: {name:?} is taken from the event time, but stream {:?} has a column of that name too; \
             rename the column in a query",
            cx.input
        ))),
        (Some(unit), None) => Ok(Level::Time(*unit)),
        (None, Some(_)) => {
            let wanted = "a string, integer, boolean or date";
            let index = column_of(cx, "partition_by", name, wanted, can_name_a_directory)?;
            Ok(Level::Column {
                index,
                name: name.into(),
            })
        }
        (None, None) => {
            let units = UNITS.iter().map(|unit| unit.name());
            let columns = cx.schema.fields().iter().map(|f| f.name().as_str());
            Err(Error::config(format!(
                "partition_by: {name:?} is neither year, month, day, hour nor a column of stream {:?}; {}",
                cx.input,
                suggest(name, units.chain(columns))
            )))
        }
    }
}

fn can_name_a_directory(field: &Field) -> bool {
    use DataType::*;
    let of = field.data_type();
    of.is_integer() || matches!(of, Utf8 | LargeUtf8 | Utf8View | Boolean | Date32)
}

fn one_value(buckets: &Int64Array) -> bool {
    buckets.len() == 1
}

fn bucket(unit: Unit, micros: i64) -> i64 {
    const HOUR: i64 = 3_600_000_000;
    match unit {
        Unit::Hour => micros.div_euclid(HOUR),
        Unit::Day => micros.div_euclid(24 * HOUR),
        Unit::Month | Unit::Year => {
            let day = DateTime::<Utc>::from_timestamp_micros(micros);
            let (year, month) = day.map_or((0, 0), |d| (d.year(), d.month()));
            i64::from(year) * 16 + if unit == Unit::Month { i64::from(month) } else { 0 }
        }
    }
}

fn time_part(unit: Unit, at: Option<DateTime<Utc>>) -> String {
    match (unit, at) {
        (Unit::Year, Some(at)) => format!("year={:04}", at.year()),
        (Unit::Month, Some(at)) => format!("month={:02}", at.month()),
        (Unit::Day, Some(at)) => format!("day={:02}", at.day()),
        (Unit::Hour, Some(at)) => format!("hour={:02}", at.hour()),
        (Unit::Year, None) => format!("year={NO_VALUE}"),
        (Unit::Month, None) => format!("month={NO_VALUE}"),
        (Unit::Day, None) => format!("day={NO_VALUE}"),
        (Unit::Hour, None) => format!("hour={NO_VALUE}"),
    }
}

fn column_part(column: &ArrayRef, row: usize, name: &str) -> Result<String> {
    let value = match column.is_null(row) {
        true => String::new(),
        false => array_value_to_string(column, row)?,
    };
    let value = if value.is_empty() { NO_VALUE.into() } else { value };
    Ok(format!(
        "{}={}",
        utf8_percent_encode(name, ESCAPED),
        utf8_percent_encode(&value, ESCAPED)
    ))
}

#[cfg(test)]
mod tests {
    use arrow::array::{StringArray, TimestampMicrosecondArray};
    use serde_json::json;

    use super::super::super::test_context;
    use super::*;

    fn at(text: &str) -> Option<i64> {
        (!text.is_empty()).then(|| DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros())
    }

    fn batch(rows: &[(&str, Option<&str>)]) -> RecordBatch {
        let times: TimestampMicrosecondArray = rows.iter().map(|(t, _)| at(t)).collect();
        let ads: StringArray = rows.iter().map(|(_, ad)| *ad).collect();
        let numbers = Int64Array::from_iter_values(0..rows.len() as i64);
        let schema = Schema::new(vec![
            Field::new("t", timestamp_type(), true),
            Field::new("ad", DataType::Utf8, true),
            Field::new("n", DataType::Int64, false),
        ]);
        RecordBatch::try_new(
            Arc::new(schema),
            vec![Arc::new(times), Arc::new(ads), Arc::new(numbers)],
        )
        .unwrap()
    }

    fn partitioner(by: &[&str]) -> Result<Partitioner> {
        let cx = test_context(batch(&[]).schema(), "/nowhere".as_ref(), json!({}));
        Partitioner::new(&cx, &by.iter().map(|s| s.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn splits_by_directory() {
        let day = "2026-11-23T23:59:59.999999Z";
        let next = "2026-11-24T00:00:00Z";
        let none = NO_VALUE;
        type Rows<'a> = &'a [(&'a str, Option<&'a str>)];
        type Parts<'a> = &'a [(&'a str, &'a [i64])];
        let cases: &[(&[&str], Rows, Parts)] = &[
            (&[], &[(day, None), (next, None)], &[("", &[0, 1])]),
            (
                &["year", "month", "day"],
                &[(day, None), (day, None)],
                &[("year=2026/month=11/day=23", &[0, 1])],
            ),
            (
                &["year", "month", "day"],
                &[(next, None), (day, None), (next, None)],
                &[
                    ("year=2026/month=11/day=24", &[0, 2]),
                    ("year=2026/month=11/day=23", &[1]),
                ],
            ),
            (&["month"], &[(day, None), (next, None)], &[("month=11", &[0, 1])]),
            (&["hour"], &[(next, None)], &[("hour=00", &[0])]),
            (
                &["year"],
                &[("1969-12-31T23:00:00Z", None)],
                &[("year=1969", &[0])],
            ),
            (
                &["day"],
                &[("", None), (day, None)],
                &[(&format!("day={none}"), &[0]), ("day=23", &[1])],
            ),
            (
                &["ad", "day"],
                &[
                    (day, Some("a/b=c")),
                    (day, None),
                    (day, Some("")),
                    (next, Some("a/b=c")),
                ],
                &[
                    ("ad=a%2Fb%3Dc/day=23", &[0]),
                    (&format!("ad={none}/day=23"), &[1]),
                    (&format!("ad={none}/day=23"), &[2]),
                    ("ad=a%2Fb%3Dc/day=24", &[3]),
                ],
            ),
        ];
        for (by, rows, expect) in cases {
            let parts = partitioner(by).unwrap().split(batch(rows)).unwrap();
            let parts: Vec<(String, Vec<i64>)> = parts
                .into_iter()
                .map(|(dir, rows)| {
                    let numbers = rows.column(2).as_primitive::<arrow::datatypes::Int64Type>();
                    (dir, numbers.values().to_vec())
                })
                .collect();
            let expect: Vec<(String, Vec<i64>)> =
                expect.iter().map(|(d, n)| (d.to_string(), n.to_vec())).collect();
            assert_eq!(parts, expect, "{by:?} {rows:?}");
        }
    }

    #[test]
    fn refuses_what_cannot_name_a_directory() {
        let cases: [(&[&str], &str); 3] = [
            (&["dya"], "did you mean \"day\"?"),
            (&["day", "day"], "twice"),
            (&["t"], "cast it in the query"),
        ];
        for (by, expect) in cases {
            let error = partitioner(by).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        }
    }
}
