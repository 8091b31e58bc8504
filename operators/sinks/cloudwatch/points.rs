//! Rows → datapoints, and what CloudWatch would refuse left out and counted.

use std::collections::BTreeMap;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, TimestampMicrosecondType};
use aws_sdk_cloudwatch::types::StandardUnit;
use millstream_engine::metrics::Counters;
use millstream_engine::sink::SinkContext;
use millstream_engine::time::{Timestamp, timestamp_type};
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::super::{column_of, suggest};
use super::options::{CloudwatchOptions, Metric};

/// Limits of PutMetricData.
const DIMENSIONS: usize = 30;
const NAME_CHARS: usize = 255;
const DIMENSION_VALUE_CHARS: usize = 1024;

/// A datapoint, as it stands in the checkpoint: short keys, as there are many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Point {
    #[serde(rename = "m")]
    pub metric: String,
    #[serde(rename = "u")]
    pub unit: String,
    #[serde(rename = "t")]
    pub at: Timestamp,
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    pub dimensions: Vec<(String, String)>,
    #[serde(rename = "v")]
    pub value: Value,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    Single(f64),
    Statistics {
        #[serde(rename = "n")]
        sample_count: f64,
        #[serde(rename = "sum")]
        sum: f64,
        #[serde(rename = "min")]
        minimum: f64,
        #[serde(rename = "max")]
        maximum: f64,
    },
}

impl Point {
    /// How many values it stands for.
    pub fn samples(&self) -> f64 {
        match self.value {
            Value::Single(_) => 1.0,
            Value::Statistics { sample_count, .. } => sample_count,
        }
    }

    /// At most what the point adds to a request, in either of the protocols the SDK speaks.
    pub fn request_bytes(&self) -> usize {
        /// Keys, numbers and timestamp of a datum with a statistic set; keys of a dimension.
        const DATUM: usize = 200;
        const DIMENSION: usize = 40;
        let dimensions = self
            .dimensions
            .iter()
            .map(|(name, value)| DIMENSION + name.len() + value.len());
        DATUM + self.metric.len() + self.unit.len() + dimensions.sum::<usize>()
    }
}

/// Which columns make which metrics.
#[derive(Debug)]
pub(super) struct Mapping {
    timestamp: usize,
    metrics: Vec<MetricColumns>,
}

#[derive(Debug)]
struct MetricColumns {
    name: String,
    unit: String,
    /// One column, or sample count, sum, minimum and maximum.
    values: Vec<usize>,
    dimensions: Vec<(String, usize)>,
}

impl Mapping {
    /// Checks the options against the stream.
    pub fn new(cx: &SinkContext, options: &CloudwatchOptions) -> Result<Mapping> {
        let namespace = &options.namespace;
        if namespace.is_empty() || namespace.len() > NAME_CHARS || namespace.starts_with("AWS/") {
            return Err(Error::config(format!(
                "namespace: {namespace:?} is not 1 to {NAME_CHARS} characters, or starts with AWS/, which AWS keeps to itself"
            )));
        }
        if options.metrics.is_empty() {
            return Err(Error::config("metrics: names no metric"));
        }
        let metrics: Result<Vec<_>> = options.metrics.iter().map(|m| metric(cx, options, m)).collect();
        Ok(Mapping {
            timestamp: timestamp_column(cx, options)?,
            metrics: metrics?,
        })
    }

    /// Appends the datapoints of `rows`.
    pub fn map(&self, rows: &RecordBatch, counters: &Counters, to: &mut Vec<Point>) -> Result<()> {
        let times = cast(rows.column(self.timestamp), &timestamp_type())?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let mut dropped = BTreeMap::new();
        for metric in &self.metrics {
            metric.map(rows, times, &mut dropped, to)?;
        }
        for (what, count) in dropped {
            counters.add(what, count);
        }
        Ok(())
    }
}

fn timestamp_column(cx: &SinkContext, options: &CloudwatchOptions) -> Result<usize> {
    let is_time = |f: &Field| matches!(f.data_type(), DataType::Timestamp(..));
    match (&options.timestamp, cx.event_time) {
        (Some(name), _) => column_of(cx, "timestamp", name, "a timestamp", is_time),
        (None, Some(index)) => Ok(index),
        (None, None) => Err(Error::config(format!(
            "timestamp: stream {:?} has no event time; name the timestamp column that dates the datapoints",
            cx.input
        ))),
    }
}

fn metric(cx: &SinkContext, options: &CloudwatchOptions, metric: &Metric) -> Result<MetricColumns> {
    let place = |e: Error| e.within(format!("metric {:?}", metric.name));
    if metric.name.is_empty() || metric.name.len() > NAME_CHARS {
        return Err(place(Error::config(format!(
            "the name is not 1 to {NAME_CHARS} characters"
        ))));
    }
    let columns: Vec<(&str, &String)> = match (&metric.value, &metric.statistics) {
        (Some(value), None) => vec![("value", value)],
        (None, Some(s)) => vec![
            ("statistics.sample_count", &s.sample_count),
            ("statistics.sum", &s.sum),
            ("statistics.minimum", &s.minimum),
            ("statistics.maximum", &s.maximum),
        ],
        _ => return Err(place(Error::config("give either value or statistics"))),
    };
    let is_number = |f: &Field| f.data_type().is_numeric();
    let values: Result<Vec<usize>> = columns
        .into_iter()
        .map(|(key, name)| column_of(cx, key, name, "a number", is_number).map_err(place))
        .collect();
    let units = StandardUnit::values();
    if !units.contains(&metric.unit.as_str()) {
        let near = suggest(&metric.unit, units.iter().copied());
        return Err(place(Error::config(format!(
            "unit: {:?} is no CloudWatch unit; {near}",
            metric.unit
        ))));
    }
    let dimensions = metric.dimensions.as_ref().unwrap_or(&options.dimensions);
    Ok(MetricColumns {
        name: metric.name.clone(),
        unit: metric.unit.clone(),
        values: values?,
        dimensions: dimension_columns(cx, dimensions).map_err(place)?,
    })
}

fn dimension_columns(cx: &SinkContext, of: &BTreeMap<String, String>) -> Result<Vec<(String, usize)>> {
    if of.len() > DIMENSIONS {
        return Err(Error::config(format!(
            "dimensions: CloudWatch takes {DIMENSIONS} at most"
        )));
    }
    of.iter()
        .map(|(name, column)| {
            if !is_dimension(name, NAME_CHARS) {
                return Err(Error::config(format!(
                    "dimensions: {name:?} is not 1 to {NAME_CHARS} printable ASCII characters not starting with a colon"
                )));
            }
            let wanted = "a string, number, boolean or date";
            Ok((name.clone(), column_of(cx, "dimensions", column, wanted, can_be_text)?))
        })
        .collect()
}

fn can_be_text(field: &Field) -> bool {
    use DataType::*;
    let of = field.data_type();
    of.is_numeric() || matches!(of, Utf8 | LargeUtf8 | Utf8View | Boolean | Date32)
}

/// Whether CloudWatch takes this as the name or value of a dimension.
fn is_dimension(text: &str, limit: usize) -> bool {
    let printable = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    printable && !text.trim().is_empty() && !text.starts_with(':') && text.len() <= limit
}

impl MetricColumns {
    fn map(
        &self,
        rows: &RecordBatch,
        times: &TimestampMicrosecondArray,
        dropped: &mut BTreeMap<&'static str, u64>,
        to: &mut Vec<Point>,
    ) -> Result<()> {
        let values: Result<Vec<Float64Array>> =
            self.values.iter().map(|i| numbers(rows.column(*i))).collect();
        let dimensions: Result<Vec<StringArray>> = self
            .dimensions
            .iter()
            .map(|(_, i)| texts(rows.column(*i)))
            .collect();
        let (values, dimensions) = (values?, dimensions?);
        for row in 0..rows.num_rows() {
            let point = value(&values, row).and_then(|value| {
                Ok(Point {
                    metric: self.name.clone(),
                    unit: self.unit.clone(),
                    at: times
                        .is_valid(row)
                        .then(|| Timestamp(times.value(row)))
                        .ok_or("timestamps_null")?,
                    dimensions: self.dimensions_of(&dimensions, row)?,
                    value,
                })
            });
            match point {
                Ok(point) => to.push(point),
                Err(why) => *dropped.entry(why).or_default() += 1,
            }
        }
        Ok(())
    }

    fn dimensions_of(
        &self,
        columns: &[StringArray],
        row: usize,
    ) -> Result<Vec<(String, String)>, &'static str> {
        self.dimensions
            .iter()
            .zip(columns)
            .map(|((name, _), column)| {
                let value = if column.is_null(row) {
                    ""
                } else {
                    column.value(row)
                };
                match is_dimension(value, DIMENSION_VALUE_CHARS) {
                    true => Ok((name.clone(), value.to_string())),
                    false => Err("dimensions_invalid"),
                }
            })
            .collect()
    }
}

fn numbers(column: &ArrayRef) -> Result<Float64Array> {
    Ok(cast(column, &DataType::Float64)?
        .as_primitive::<Float64Type>()
        .clone())
}

fn texts(column: &ArrayRef) -> Result<StringArray> {
    Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// The value of a row, or what to count it under.
fn value(columns: &[Float64Array], row: usize) -> Result<Value, &'static str> {
    let number = |column: &Float64Array| match column.is_valid(row) {
        true => in_range(column.value(row)),
        false => Err("values_null"),
    };
    match columns {
        [single] => Ok(Value::Single(number(single)?)),
        [sample_count, sum, minimum, maximum] => {
            // An empty set has no smallest value: where the query gives it a count of 0 there is nothing to send.
            let sample_count = number(sample_count)?;
            if sample_count == 0.0 {
                return Err("values_null");
            }
            let (sum, minimum, maximum) = (number(sum)?, number(minimum)?, number(maximum)?);
            match sample_count > 0.0 && minimum <= maximum {
                true => Ok(Value::Statistics {
                    sample_count,
                    sum,
                    minimum,
                    maximum,
                }),
                false => Err("values_inconsistent"),
            }
        }
        _ => Err("values_null"),
    }
}

/// CloudWatch takes 0 and magnitudes from 2⁻³⁶⁰ to 2³⁶⁰.
fn in_range(value: f64) -> Result<f64, &'static str> {
    let size = value.abs();
    match value {
        _ if !value.is_finite() => Err("values_not_a_number"),
        _ if size != 0.0 && !(2f64.powi(-360)..=2f64.powi(360)).contains(&size) => Err("values_out_of_range"),
        _ => Ok(value),
    }
}
