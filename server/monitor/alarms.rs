//! Alarms on what a pipeline's process publishes, which notify an SNS topic.
//!
//! Datapoints come once a minute, and counts are those of the minute: a limit per second is compared as 60 times as
//! much. A process that is gone publishes nothing: that is the affair of one alarm, the age of the last checkpoint, for
//! which no data is bad news; for the others it is none.

use std::time::Duration;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::types::{ComparisonOperator, Statistic};
use millstream_engine::Result;
use millstream_engine::pipeline::LateRows;
use millstream_engine::plan::Plan;
use millstream_operators::aws;
use serde_json::{Value, json};

use super::operations::refusing;
use super::{HTTP, Metric, Of, PERIOD, of_source};

/// So many checkpoints missed in a row are no hiccup.
const CHECKPOINTS_MISSED: u32 = 10;
/// The youngest last checkpoint that is too old: a restart may take as long.
const CHECKPOINT_AGE: Duration = Duration::from_secs(300);

/// From where on somebody is told.
pub struct Limits {
    /// How far a source may be behind: its watermark behind the wall clock, what it reads behind the newest there is.
    pub lag: Duration,
    /// Rows per second that one source may take.
    pub rows_per_second: Option<f64>,
    /// Requests per second that the process may take.
    pub requests_per_second: Option<f64>,
    /// Bytes per second that the process may take.
    pub bytes_per_second: Option<f64>,
}

/// An alarm on one metric.
pub struct Alarm {
    name: String,
    description: String,
    of: Of,
    metric: Metric,
    statistic: Statistic,
    threshold: f64,
    /// So many of so many minutes.
    minutes: (i32, i32),
    /// No data is as bad as too much.
    must_be_there: bool,
}

/// The alarms of a pipeline.
pub fn of(plan: &Plan, limits: &Limits) -> Vec<Alarm> {
    let node = |kind: &str, name: &str| Of::Node(plan.name.clone(), format!("{kind}.{name}"));
    let mut alarms = Vec::new();
    for source in &plan.sources {
        let of = node("source", &source.name);
        alarms.push(counted(&of, Metric::RowsInvalid, "input that cannot become rows"));
        alarms.push(Alarm {
            statistic: Statistic::Maximum,
            threshold: limits.lag.as_secs_f64(),
            ..counted(&of, Metric::WatermarkLag, "its watermark is far behind")
        });
        if of_source(&source.kind).contains(&Metric::SourceLag) {
            alarms.push(Alarm {
                statistic: Statistic::Maximum,
                threshold: limits.lag.as_secs_f64(),
                ..counted(&of, Metric::SourceLag, "it reads far behind the newest there is")
            });
        }
        alarms.extend(
            limits
                .rows_per_second
                .map(|limit| per_second(&of, Metric::RowsIn, limit)),
        );
    }
    let late = plan.windows.iter().filter(|w| w.late == LateRows::Side);
    alarms.extend(late.map(|w| {
        counted(
            &node("window", &w.name),
            Metric::RowsLate,
            "rows come after their window has closed",
        )
    }));
    alarms.extend(refusing(plan).into_iter().map(|node| Alarm {
        minutes: (1, 1),
        ..counted(
            &Of::Node(plan.name.clone(), node),
            Metric::RowsRejected,
            "the sink refuses rows",
        )
    }));
    if plan.sources.iter().any(|s| s.kind == HTTP) {
        for (limit, metric) in [
            (limits.requests_per_second, Metric::Requests),
            (limits.bytes_per_second, Metric::RequestBytes),
        ] {
            alarms.extend(limit.map(|limit| per_second(&Of::Ingest, metric, limit)));
        }
    }
    alarms.extend(of_pipeline(plan));
    alarms
}

fn of_pipeline(plan: &Plan) -> [Alarm; 2] {
    let of = Of::Pipeline(plan.name.clone());
    let oldest = CHECKPOINT_AGE.max(plan.checkpoint_interval * CHECKPOINTS_MISSED);
    [
        Alarm {
            minutes: (1, 1),
            ..counted(&of, Metric::Restarts, "it failed and started again")
        },
        Alarm {
            statistic: Statistic::Maximum,
            threshold: oldest.as_secs_f64(),
            minutes: (3, 3),
            must_be_there: true,
            ..counted(
                &of,
                Metric::CheckpointAge,
                "no checkpoint is made, or its process is gone",
            )
        },
    ]
}

/// In three of five minutes more than none.
fn counted(of: &Of, metric: Metric, description: &str) -> Alarm {
    let about = match of {
        Of::Ingest => "ingest".to_owned(),
        Of::Pipeline(pipeline) => pipeline.clone(),
        Of::Node(pipeline, node) => format!("{pipeline}/{node}"),
    };
    Alarm {
        name: format!("millstream/{about}/{}", metric.name()),
        description: format!("{about}: {description}"),
        of: of.clone(),
        metric,
        statistic: Statistic::Sum,
        threshold: 0.0,
        minutes: (3, 5),
        must_be_there: false,
    }
}

fn per_second(of: &Of, metric: Metric, limit: f64) -> Alarm {
    Alarm {
        threshold: limit * f64::from(PERIOD),
        ..counted(of, metric, &format!("more than {limit} per second"))
    }
}

impl Alarm {
    /// Its name; one alarm has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn missing(&self) -> &'static str {
        match self.must_be_there {
            true => "breaching",
            false => "notBreaching",
        }
    }

    /// What PutMetricAlarm takes, also in a template.
    pub fn json(&self, namespace: &str, topic: &str) -> Value {
        let dimensions = self.of.dimensions().into_iter();
        let dimensions: Vec<Value> = dimensions
            .map(|(name, value)| json!({ "Name": name, "Value": value }))
            .collect();
        json!({
            "AlarmName": self.name,
            "AlarmDescription": self.description,
            "AlarmActions": [topic],
            "OKActions": [topic],
            "Namespace": namespace,
            "MetricName": self.metric.name(),
            "Dimensions": dimensions,
            "Statistic": self.statistic.as_str(),
            "Period": PERIOD,
            "DatapointsToAlarm": self.minutes.0,
            "EvaluationPeriods": self.minutes.1,
            "Threshold": self.threshold,
            "ComparisonOperator": ComparisonOperator::GreaterThanThreshold.as_str(),
            "TreatMissingData": self.missing(),
        })
    }

    /// Makes the alarm, or makes the one of its name like it.
    pub async fn put(&self, client: &Client, namespace: &str, topic: &str) -> Result<()> {
        let put = client
            .put_metric_alarm()
            .alarm_name(&self.name)
            .alarm_description(&self.description)
            .alarm_actions(topic)
            .ok_actions(topic)
            .namespace(namespace)
            .metric_name(self.metric.name())
            .set_dimensions(Some(self.of.sdk_dimensions()))
            .statistic(self.statistic.clone())
            .period(PERIOD)
            .datapoints_to_alarm(self.minutes.0)
            .evaluation_periods(self.minutes.1)
            .threshold(self.threshold)
            .comparison_operator(ComparisonOperator::GreaterThanThreshold)
            .treat_missing_data(self.missing());
        let put = put.send().await;
        put.map(drop)
            .map_err(|e| aws::classify(e, format!("putting alarm {:?}", self.name)))
    }
}
