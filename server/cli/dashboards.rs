//! `millstream dashboards`: the CloudWatch dashboards and alarms of pipelines, as JSON or put where they belong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_sdk_cloudwatch::Client;
use clap::{Args, Subcommand};
use millstream_engine::plan::Plan;
use millstream_operators::aws::{self, AwsOptions};
use serde_json::{Value, json};

use crate::cli::{Exit, Which, namespace};
use crate::monitor::alarms::{self, Alarm, Limits};
use crate::monitor::{dashboard, operations};
use crate::pipelines;

/// What to do with them.
#[derive(Clone, Debug, Subcommand)]
pub enum Dashboards {
    /// Print them: {"dashboards": {NAME: BODY}, "alarms": [what PutMetricAlarm takes]}
    Print(Wanted),
    /// Put them into CloudWatch; what is there under the same name is replaced
    Push(Wanted),
}

/// Which ones.
#[derive(Args, Clone, Debug)]
pub struct Wanted {
    #[command(flatten)]
    which: Which,
    /// The namespace that `millstream run --cloudwatch-metrics` publishes to; without it there are the
    /// dashboards of the cloudwatch sinks only
    #[arg(long, value_name = "NAMESPACE", env = "MILLSTREAM_CLOUDWATCH_METRICS", value_parser = namespace)]
    cloudwatch_metrics: Option<String>,
    /// The SNS topic that alarms notify; without it there are no alarms
    #[arg(long, value_name = "ARN", env = "MILLSTREAM_ALARM_TOPIC", requires = "cloudwatch_metrics",
          value_parser = topic)]
    alarm_topic: Option<String>,
    /// Alarm when a source is further behind: its watermark, or what it reads
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    max_lag: Duration,
    /// Alarm when a source takes more rows per second
    #[arg(long, value_name = "N", value_parser = positive)]
    max_rows_per_second: Option<f64>,
    /// Alarm when more requests per second come over HTTP
    #[arg(long, value_name = "N", value_parser = positive)]
    max_requests_per_second: Option<f64>,
    /// Alarm when more bytes per second come over HTTP
    #[arg(long, value_name = "N", value_parser = positive)]
    max_bytes_per_second: Option<f64>,
}

fn topic(text: &str) -> Result<String, String> {
    match text.split(':').collect::<Vec<_>>()[..] {
        ["arn", _, "sns", _, _, name] if !name.is_empty() => Ok(text.into()),
        _ => Err("not a topic; write arn:aws:sns:REGION:ACCOUNT:NAME".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write for example 5m"))
}

fn positive(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    let number = number.filter(|n: &f64| n.is_finite() && *n > 0.0);
    number.ok_or_else(|| "not a number above 0".into())
}

/// What pipelines have in CloudWatch.
#[derive(Default)]
struct Made {
    dashboards: BTreeMap<String, Value>,
    alarms: Vec<Alarm>,
}

pub fn run(what: &Dashboards) -> anyhow::Result<Exit> {
    let (Dashboards::Print(wanted) | Dashboards::Push(wanted)) = what;
    let registry = millstream_operators::registry(Default::default());
    let plans: Vec<Arc<Plan>> = match pipelines::load_all(&wanted.which.paths, &registry) {
        Ok(checked) => checked.into_iter().map(|one| one.plan).collect(),
        Err(exit) => return Ok(exit),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let environment = AwsOptions::default();
        let config = aws::config_for(&environment).await?;
        let region = config.region().map_or("", |r| r.as_ref());
        let made = make(wanted, &plans, region)?;
        match what {
            Dashboards::Print(_) => println!("{:#}", print(wanted, &made)),
            Dashboards::Push(_) => push(wanted, &made, &aws::cloudwatch(&environment).await?).await?,
        }
        say_what_is_missing(wanted, &made);
        Ok(Exit::Ok)
    })
}

fn make(wanted: &Wanted, plans: &[Arc<Plan>], region: &str) -> anyhow::Result<Made> {
    let mut made = Made::default();
    for plan in plans {
        made.dashboards.extend(dashboard::real_time(plan, region)?);
        if let Some(namespace) = &wanted.cloudwatch_metrics {
            made.dashboards
                .extend([operations::dashboard(plan, namespace, region)]);
        }
        if wanted.alarm_topic.is_some() {
            made.alarms.extend(alarms::of(plan, &wanted.limits()));
        }
    }
    // Those of the ingest server are the same for every pipeline.
    made.alarms.sort_by(|a, b| a.name().cmp(b.name()));
    made.alarms.dedup_by(|a, b| a.name() == b.name());
    Ok(made)
}

impl Wanted {
    fn limits(&self) -> Limits {
        Limits {
            lag: self.max_lag,
            rows_per_second: self.max_rows_per_second,
            requests_per_second: self.max_requests_per_second,
            bytes_per_second: self.max_bytes_per_second,
        }
    }

    /// Namespace and topic, where there are alarms.
    fn alarms(&self) -> Option<(&str, &str)> {
        Some((self.cloudwatch_metrics.as_deref()?, self.alarm_topic.as_deref()?))
    }
}

fn print(wanted: &Wanted, made: &Made) -> Value {
    let alarms: Vec<Value> = match wanted.alarms() {
        Some((namespace, topic)) => made.alarms.iter().map(|a| a.json(namespace, topic)).collect(),
        None => Vec::new(),
    };
    json!({ "dashboards": made.dashboards, "alarms": alarms })
}

async fn push(wanted: &Wanted, made: &Made, client: &Client) -> anyhow::Result<()> {
    for (name, body) in &made.dashboards {
        let put = client
            .put_dashboard()
            .dashboard_name(name)
            .dashboard_body(body.to_string());
        let answer = put.send().await;
        let answer = answer.map_err(|e| aws::classify(e, format!("putting dashboard {name}")))?;
        for found in answer.dashboard_validation_messages() {
            let (at, message) = (found.data_path(), found.message());
            eprintln!(
                "dashboard {name}: {}: {}",
                at.unwrap_or_default(),
                message.unwrap_or_default()
            );
        }
        println!("dashboard {name}");
    }
    if let Some((namespace, topic)) = wanted.alarms() {
        for alarm in &made.alarms {
            alarm.put(client, namespace, topic).await?;
            println!("alarm {}", alarm.name());
        }
    }
    Ok(())
}

fn say_what_is_missing(wanted: &Wanted, made: &Made) {
    if made.dashboards.is_empty() {
        eprintln!("no dashboard: no pipeline has a cloudwatch sink");
    }
    if wanted.cloudwatch_metrics.is_none() {
        eprintln!("no operations dashboard and no alarms: say with --cloudwatch-metrics where metrics are");
    } else if wanted.alarm_topic.is_none() {
        eprintln!("no alarms: say with --alarm-topic whom they notify");
    }
}
