//! The keys of a `cloudwatch` sink.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_engine::pipeline::Span;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::aws::AwsOptions;

/// The keys of a `cloudwatch` sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct CloudwatchOptions {
    /// CloudWatch namespace, such as `Warehouse/Advertising`.
    pub namespace: String,
    /// The timestamp column that dates the datapoints. Absent: the stream's event time, which is the window's start
    /// for a windowed query.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// The metrics that each row makes.
    pub metrics: Vec<Metric>,
    /// Dimensions of every metric that names none of its own: `Name = "column"`.
    #[serde(default)]
    pub dimensions: BTreeMap<String, String>,
    /// How fine CloudWatch stores the datapoints: "1m" or, at a higher price, "1s".
    #[serde(default)]
    pub resolution: Resolution,
    /// How long a datapoint may take to show after it was sent. Only where it is not known whether datapoints were sent,
    /// as after a crash: they are sent again once they have not shown for this long.
    #[serde(default = "settle")]
    pub settle: Span,
    /// The dashboard of `millstream dashboards` that shows the metrics. Absent: `RealTime<Pipeline>Dashboard`.
    #[serde(default)]
    pub dashboard: Option<String>,
    /// Ratios of two of the metrics, which the dashboard shows and CloudWatch computes.
    #[serde(default)]
    pub ratios: Vec<Ratio>,
    /// Where its requests go.
    #[serde(flatten)]
    pub aws: AwsOptions,
}

/// A ratio of two metrics without dimensions, from 0 to 1.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    /// What people call it, such as `Clickthrough Rate`.
    pub name: String,
    /// The metric that is divided.
    pub part: String,
    /// The metric that it is divided by.
    pub whole: String,
}

/// How fine CloudWatch stores datapoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Resolution {
    /// By the second, for three hours; by the minute afterwards.
    #[serde(rename = "1s")]
    Second,
    /// By the minute.
    #[default]
    #[serde(rename = "1m")]
    Minute,
}

/// A metric made from a row: of one `value`, of `statistics` or of a `distribution`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Name of the metric in CloudWatch.
    pub name: String,
    /// The numeric column that holds the value.
    #[serde(default)]
    pub value: Option<String>,
    /// The numeric columns of a statistic set, instead of `value`.
    #[serde(default)]
    pub statistics: Option<Statistics>,
    /// The columns of a list of values, instead of `value`.
    #[serde(default)]
    pub distribution: Option<Distribution>,
    /// A CloudWatch unit, such as `Count`, `Percent`, `Milliseconds` or `Bytes/Second`.
    #[serde(default = "no_unit")]
    pub unit: String,
    /// Dimensions of this metric, `Name = "column"`, instead of those of the sink.
    #[serde(default)]
    pub dimensions: Option<BTreeMap<String, String>>,
}

/// The numeric columns of a statistic set: many values, sent as one datapoint.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// How many values.
    pub sample_count: String,
    /// Their sum.
    pub sum: String,
    /// The smallest.
    pub minimum: String,
    /// The largest.
    pub maximum: String,
}

/// Many values, each of which CloudWatch keeps, so that percentiles are exact: lists as `array_agg` makes them, of any
/// length.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// The column that holds the list of values.
    pub values: String,
    /// The column that holds, in a list as long, how often each was measured. Absent: once.
    #[serde(default)]
    pub counts: Option<String>,
}

fn no_unit() -> String {
    "None".into()
}

/// Metrics that exist show new datapoints within seconds; and it fits into the time that an orderly stop may take.
fn settle() -> Span {
    Span(Duration::from_secs(20))
}
