//! What was measured, from the columns that hold it.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type};
use millstream_engine::Result;

use super::columns::ValueColumns;
use super::points::Value;
use super::refusal::Refusal;

/// Values of one datapoint: the limit of PutMetricData.
pub(super) const DATUM_VALUES: usize = 150;

/// The columns of a batch.
pub(super) enum Values {
    Single(Float64Array),
    Statistics([Float64Array; 4]),
    Distribution {
        values: ListArray,
        counts: Option<ListArray>,
    },
}

impl Values {
    pub fn read(rows: &RecordBatch, columns: &ValueColumns) -> Result<Values> {
        Ok(match columns {
            ValueColumns::Single(value) => Values::Single(numbers(rows.column(*value))?),
            ValueColumns::Statistics([n, sum, min, max]) => Values::Statistics([
                numbers(rows.column(*n))?,
                numbers(rows.column(*sum))?,
                numbers(rows.column(*min))?,
                numbers(rows.column(*max))?,
            ]),
            ValueColumns::Distribution { values, counts } => Values::Distribution {
                values: lists(rows.column(*values))?,
                counts: counts.map(|column| lists(rows.column(column))).transpose()?,
            },
        })
    }

    /// What row `row` holds: as many datapoints as it takes.
    pub fn of(&self, row: usize) -> Result<Vec<Value>, Refusal> {
        match self {
            Values::Single(column) => Ok(vec![Value::Single(number(column, row)?)]),
            Values::Statistics(columns) => statistics(columns, row).map(|value| vec![value]),
            Values::Distribution { values, counts } => distribution(values, counts.as_ref(), row),
        }
    }
}

fn number(column: &Float64Array, row: usize) -> Result<f64, Refusal> {
    match column.is_valid(row) {
        true => in_range(column.value(row)),
        false => Err(Refusal::Null),
    }
}

fn statistics([n, sum, min, max]: &[Float64Array; 4], row: usize) -> Result<Value, Refusal> {
    // An empty set has no smallest value: where the query gives it a count of 0 there is nothing to send.
    let sample_count = number(n, row)?;
    if sample_count == 0.0 {
        return Err(Refusal::Null);
    }
    let (sum, minimum, maximum) = (number(sum, row)?, number(min, row)?, number(max, row)?);
    match sample_count > 0.0 && minimum <= maximum {
        true => Ok(Value::Statistics {
            sample_count,
            sum,
            minimum,
            maximum,
        }),
        false => Err(Refusal::Inconsistent),
    }
}

/// Values that are null were not measured; the others are cut into datapoints.
fn distribution(values: &ListArray, counts: Option<&ListArray>, row: usize) -> Result<Vec<Value>, Refusal> {
    if values.is_null(row) {
        return Err(Refusal::Null);
    }
    let values = values.value(row);
    let values = values.as_primitive::<Float64Type>();
    let counts = match counts {
        Some(counts) if counts.is_null(row) => return Err(Refusal::Inconsistent),
        Some(counts) => counts.value(row).as_primitive::<Float64Type>().clone(),
        None => Float64Array::from_value(1.0, values.len()),
    };
    if values.len() != counts.len() {
        return Err(Refusal::Inconsistent);
    }
    let mut measured = Vec::with_capacity(values.len());
    for at in (0..values.len()).filter(|at| values.is_valid(*at)) {
        let count = number(&counts, at).map_err(|_| Refusal::Inconsistent)?;
        if count < 0.0 {
            return Err(Refusal::Inconsistent);
        }
        if count > 0.0 {
            measured.push((number(values, at)?, count));
        }
    }
    if measured.is_empty() {
        return Err(Refusal::Null);
    }
    let datum = |some: &[(f64, f64)]| {
        let (values, counts) = some.iter().copied().unzip();
        Value::Distribution { values, counts }
    };
    Ok(measured.chunks(DATUM_VALUES).map(datum).collect())
}

/// CloudWatch takes 0 and magnitudes from 2⁻³⁶⁰ to 2³⁶⁰.
fn in_range(value: f64) -> Result<f64, Refusal> {
    let size = value.abs();
    match value {
        _ if !value.is_finite() => Err(Refusal::NotANumber),
        _ if size != 0.0 && !(2f64.powi(-360)..=2f64.powi(360)).contains(&size) => Err(Refusal::OutOfRange),
        _ => Ok(value),
    }
}

fn numbers(column: &ArrayRef) -> Result<Float64Array> {
    Ok(cast(column, &DataType::Float64)?
        .as_primitive::<Float64Type>()
        .clone())
}

fn lists(column: &ArrayRef) -> Result<ListArray> {
    let item = Field::new_list_field(DataType::Float64, true);
    Ok(cast(column, &DataType::List(item.into()))?
        .as_list::<i32>()
        .clone())
}
