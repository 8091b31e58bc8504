//! Which columns make which metrics, checked against the stream.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field};
use aws_sdk_cloudwatch::types::StandardUnit;
use millstream_engine::sink::SinkContext;
use millstream_engine::{Error, Result};

use super::super::{column_of, suggest};
use super::options::{CloudwatchOptions, Metric};

/// Limits of PutMetricData.
const DIMENSIONS: usize = 30;
const NAME_CHARS: usize = 255;
pub(super) const DIMENSION_VALUE_CHARS: usize = 1024;

/// Which columns make which metrics.
#[derive(Debug)]
pub(super) struct Mapping {
    pub timestamp: usize,
    pub metrics: Vec<MetricColumns>,
}

/// The columns of one metric.
#[derive(Debug)]
pub(super) struct MetricColumns {
    pub name: String,
    pub unit: String,
    pub values: ValueColumns,
    pub dimensions: Vec<(String, usize)>,
}

/// The columns that hold what was measured.
#[derive(Debug)]
pub(super) enum ValueColumns {
    Single(usize),
    /// Sample count, sum, minimum, maximum.
    Statistics([usize; 4]),
    /// Lists; without counts each value was measured once.
    Distribution {
        values: usize,
        counts: Option<usize>,
    },
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
        on_dashboard(options)?;
        let metrics: Result<Vec<_>> = options.metrics.iter().map(|m| metric(cx, options, m)).collect();
        Ok(Mapping {
            timestamp: timestamp_column(cx, options)?,
            metrics: metrics?,
        })
    }
}

/// What the dashboard shows is there, and the dashboard has a name that CloudWatch takes.
fn on_dashboard(options: &CloudwatchOptions) -> Result<()> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let fits = |name: &String| (1..=NAME_CHARS).contains(&name.len()) && name.chars().all(in_name);
    if let Some(name) = options.dashboard.as_ref().filter(|name| !fits(name)) {
        return Err(Error::config(format!(
            "dashboard: {name:?} is not 1 to {NAME_CHARS} letters, digits, - and _"
        )));
    }
    for ratio in &options.ratios {
        let place = |e: Error| e.within(format!("ratio {:?}", ratio.name));
        for (key, name) in [("part", &ratio.part), ("whole", &ratio.whole)] {
            let Some(metric) = options.metrics.iter().find(|m| m.name == *name) else {
                let known = options.metrics.iter().map(|m| m.name.as_str());
                let near = suggest(name, known);
                return Err(place(Error::config(format!("{key}: no metric {name:?}; {near}"))));
            };
            if !metric
                .dimensions
                .as_ref()
                .unwrap_or(&options.dimensions)
                .is_empty()
            {
                return Err(place(Error::config(format!(
                    "{key}: metric {name:?} has dimensions, so it is many metrics; ratios are of metrics without"
                ))));
            }
        }
    }
    Ok(())
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
    let values = value_columns(cx, metric).map_err(place)?;
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
        values,
        dimensions: dimension_columns(cx, dimensions).map_err(place)?,
    })
}

fn value_columns(cx: &SinkContext, metric: &Metric) -> Result<ValueColumns> {
    let number = |key, name| column_of(cx, key, name, "a number", |f| f.data_type().is_numeric());
    let list = |key, name| column_of(cx, key, name, "a list of numbers", is_list_of_numbers);
    match (&metric.value, &metric.statistics, &metric.distribution) {
        (Some(value), None, None) => Ok(ValueColumns::Single(number("value", value)?)),
        (None, Some(s), None) => Ok(ValueColumns::Statistics([
            number("statistics.sample_count", &s.sample_count)?,
            number("statistics.sum", &s.sum)?,
            number("statistics.minimum", &s.minimum)?,
            number("statistics.maximum", &s.maximum)?,
        ])),
        (None, None, Some(d)) => {
            let counts = d.counts.as_ref().map(|name| list("distribution.counts", name));
            Ok(ValueColumns::Distribution {
                values: list("distribution.values", &d.values)?,
                counts: counts.transpose()?,
            })
        }
        _ => Err(Error::config("give one of value, statistics and distribution")),
    }
}

fn is_list_of_numbers(field: &Field) -> bool {
    match field.data_type() {
        DataType::List(of) | DataType::LargeList(of) => of.data_type().is_numeric(),
        _ => false,
    }
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
pub(super) fn is_dimension(text: &str, limit: usize) -> bool {
    let printable = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    printable && !text.trim().is_empty() && !text.starts_with(':') && text.len() <= limit
}
