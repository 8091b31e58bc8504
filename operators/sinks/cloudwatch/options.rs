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
    /// Store with a resolution of one second instead of one minute.
    #[serde(default)]
    pub high_resolution: bool,
    /// How long a datapoint may take to show after it was sent. Only where it is not known whether datapoints were sent,
    /// as after a crash: they are sent again once they have not shown for this long.
    #[serde(default = "settle")]
    pub settle: Span,
    /// Where its requests go.
    #[serde(flatten)]
    pub aws: AwsOptions,
}

/// A metric made from a row: of one `value`, or of `statistics`.
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

fn no_unit() -> String {
    "None".into()
}

/// Metrics that exist show new datapoints within seconds; and it fits into the time that an orderly stop may take.
fn settle() -> Span {
    Span(Duration::from_secs(20))
}
