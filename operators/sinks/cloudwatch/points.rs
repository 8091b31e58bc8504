//! Datapoints, and the rows that they are made from.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use millstream_engine::Result;
use millstream_engine::metrics::Counters;
use millstream_engine::time::{Timestamp, timestamp_type};
use serde::{Deserialize, Serialize};

use super::columns::{DIMENSION_VALUE_CHARS, Mapping, MetricColumns, is_dimension};
use super::refusal::{Accepted, Refusal};
use super::values::Values;

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Values and how often each was measured.
    Distribution {
        #[serde(rename = "vs")]
        values: Vec<f64>,
        #[serde(rename = "ns")]
        counts: Vec<f64>,
    },
}

impl Point {
    /// How many values it stands for.
    pub fn samples(&self) -> f64 {
        match &self.value {
            Value::Single(_) => 1.0,
            Value::Statistics { sample_count, .. } => *sample_count,
            Value::Distribution { counts, .. } => counts.iter().sum(),
        }
    }

    /// How much it adds to a checkpoint: what a single value does is 1.
    pub fn size(&self) -> usize {
        match &self.value {
            Value::Distribution { values, .. } => values.len(),
            Value::Single(_) | Value::Statistics { .. } => 1,
        }
    }

    /// At most what the point adds to a request, in either of the protocols the SDK speaks.
    pub fn request_bytes(&self) -> usize {
        /// Keys, numbers and timestamp of a datum with a statistic set; keys of a dimension.
        const DATUM: usize = 200;
        const DIMENSION: usize = 40;
        /// A value and its count, each with its key.
        const VALUE: usize = 110;
        let dimensions = self
            .dimensions
            .iter()
            .map(|(name, value)| DIMENSION + name.len() + value.len());
        let values = match &self.value {
            Value::Distribution { values, .. } => VALUE * values.len(),
            Value::Single(_) | Value::Statistics { .. } => 0,
        };
        DATUM + values + self.metric.len() + self.unit.len() + dimensions.sum::<usize>()
    }
}

impl Mapping {
    /// Appends the datapoints of `rows`, and gives what is refused: for each row, by its number, which metric and
    /// why.
    pub fn map(
        &self,
        rows: &RecordBatch,
        accepted: &Accepted,
        counters: &Counters,
        to: &mut Vec<Point>,
    ) -> Result<BTreeMap<usize, Vec<String>>> {
        let times = cast(rows.column(self.timestamp), &timestamp_type())?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let mut refused = Refused::default();
        for metric in &self.metrics {
            metric.map(rows, times, accepted, &mut refused, to)?;
        }
        for (what, count) in refused.counts {
            counters.add(what, count);
        }
        Ok(refused.rows)
    }
}

/// What CloudWatch would refuse.
#[derive(Default)]
struct Refused {
    counts: BTreeMap<&'static str, u64>,
    rows: BTreeMap<usize, Vec<String>>,
}

impl Refused {
    fn add(&mut self, metric: &str, row: usize, why: Refusal) {
        *self.counts.entry(why.counter()).or_default() += 1;
        if let Some(reason) = why.reason() {
            self.rows
                .entry(row)
                .or_default()
                .push(format!("metric {metric}: {reason}"));
        }
    }
}

impl MetricColumns {
    fn map(
        &self,
        rows: &RecordBatch,
        times: &TimestampMicrosecondArray,
        accepted: &Accepted,
        refused: &mut Refused,
        to: &mut Vec<Point>,
    ) -> Result<()> {
        let values = Values::read(rows, &self.values)?;
        let dimensions: Result<Vec<StringArray>> = self
            .dimensions
            .iter()
            .map(|(_, i)| texts(rows.column(*i)))
            .collect();
        let dimensions = dimensions?;
        for row in 0..rows.num_rows() {
            let of_row = || {
                let values = values.of(row)?;
                let at = times.is_valid(row).then(|| Timestamp(times.value(row)));
                Ok((accepted.check(at)?, self.dimensions_of(&dimensions, row)?, values))
            };
            match of_row() {
                Ok((at, dimensions, values)) => {
                    let same = std::iter::repeat_n(dimensions, values.len());
                    to.extend(values.into_iter().zip(same).map(|(value, dimensions)| Point {
                        metric: self.name.clone(),
                        unit: self.unit.clone(),
                        at,
                        dimensions,
                        value,
                    }));
                }
                Err(why) => refused.add(&self.name, row, why),
            }
        }
        Ok(())
    }

    fn dimensions_of(&self, columns: &[StringArray], row: usize) -> Result<Vec<(String, String)>, Refusal> {
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
                    false => Err(Refusal::Dimension),
                }
            })
            .collect()
    }
}

fn texts(column: &ArrayRef) -> Result<StringArray> {
    Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
}
