//! `millstream run`: pipelines, ingest, API and console page in one process, until told to stop.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use millstream_engine::checkpoint::changes::ALL;
use millstream_engine::plan::Plan;

use crate::catalog::Catalog;
use crate::cli::{Exit, Global, Which, namespace};
use crate::lock::DataDir;
use crate::notify::settings::NotifyArgs;
use crate::pipelines::{self, Checked};
use crate::service::{self, Service};

/// What `run` takes.
#[derive(Args, Clone, Debug)]
pub struct Run {
    #[command(flatten)]
    pub which: Which,
    /// Drop what the last checkpoint holds for a node, such as sql.clickthrough, and go on with the rest;
    /// for every node: all. A source starts with the oldest rows its log holds; a sink forgets what it has
    /// not published
    #[arg(long, value_name = "NODE", value_parser = node)]
    pub reset: Vec<String>,
    /// Where checkpoints go, s3://bucket/prefix; absent: under the data directory. Behind a ? may stand region,
    /// endpoint, role_arn, external_id and session_name: s3://bucket/prefix?region=eu-west-1
    #[arg(long, value_name = "URL", env = "MILLSTREAM_CHECKPOINT")]
    pub checkpoint: Option<String>,
    /// Publish what the process counts to CloudWatch once a minute, into this namespace, for the operations
    /// dashboard and the alarms of `millstream dashboards`
    #[arg(long, value_name = "NAMESPACE", env = "MILLSTREAM_CLOUDWATCH_METRICS", value_parser = namespace)]
    pub cloudwatch_metrics: Option<String>,
    /// The catalog of jobs and runs; processes that share one share its runs. Absent: catalog.db in the data
    /// directory
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_CATALOG")]
    pub catalog: Option<PathBuf>,
    #[command(flatten)]
    pub notify: NotifyArgs,
    /// Where GET /advertising/traffic/{ad-id} reads: sqlite (serving.db in the data directory, table traffic),
    /// sqlite://FILE?table=NAME, or dynamodb://TABLE, behind a ? region, endpoint, role_arn, external_id and
    /// session_name; absent: sqlite
    #[arg(long, value_name = "STORE", env = "MILLSTREAM_SERVE")]
    pub serve: Option<String>,
}

/// Reads the name of a node.
fn node(text: &str) -> Result<String, String> {
    let kinds = ["source.", "window.", "sql.", "sink."];
    if text == ALL || kinds.iter().any(|kind| text.starts_with(kind)) {
        return Ok(text.into());
    }
    Err("not a node; write source.NAME, window.NAME, sql.NAME, sink.NAME or all".into())
}

pub fn run(global: &Global, run: &Run) -> anyhow::Result<Exit> {
    crate::logging::init(global.log_format);
    let registry = millstream_operators::registry(Default::default());
    let checked = match pipelines::load_all(&run.which.paths, &registry) {
        Ok(checked) => checked,
        Err(exit) => return Ok(exit),
    };
    if let Err(error) = pipelines::distinct(&checked) {
        return Ok(pipelines::refuse(&error));
    }
    checked
        .iter()
        .for_each(|one| crate::logging::hide(&one.plan.secrets));
    let (scheduled, streaming): (Vec<Checked>, Vec<Checked>) =
        checked.into_iter().partition(|one| one.plan.schedule.is_some());
    let plans: Vec<Arc<Plan>> = streaming.into_iter().map(|one| one.plan).collect();
    // Dropped last: until then nobody else may touch what the pipelines write.
    let data_dir = DataDir::lock(&global.data_dir)?;
    let catalog = match &run.catalog {
        Some(path) => Catalog::open(path)?,
        None => Catalog::open(&data_dir.path().join("catalog.db"))?,
    };
    let service = Service::start(service::Options {
        plans: &plans,
        scheduled: &scheduled,
        data_dir: data_dir.path(),
        reset: &run.reset,
        checkpoint: run.checkpoint.as_deref(),
        cloudwatch_metrics: run.cloudwatch_metrics.as_deref(),
        serve: run.serve.as_deref(),
        listen: global.listen,
        admin: global.admin,
        catalog,
        shared_catalog: run.catalog.is_some(),
        notify: &run.notify,
    })?;
    announce(
        plans.iter().chain(scheduled.iter().map(|one| &one.plan)),
        &service,
    );
    Ok(service.run_to_end())
}

/// Says what runs and where to look. On standard error, because standard output belongs to console sinks; at once,
/// because whoever reads along would see half an address.
fn announce<'p>(plans: impl Iterator<Item = &'p Arc<Plan>>, service: &Service) {
    let mut greeting = String::new();
    for plan in plans {
        let about = plan.description.as_deref().unwrap_or_default();
        greeting += &format!("{}  {about}\n", plan.name);
    }
    if let Some(ingest) = service.ingest() {
        greeting += &format!("ingest   http://{ingest}\n");
    }
    greeting += &format!("console  http://{}\n", service.admin());
    eprint!("{greeting}");
}
