//! Loads that were posted: the embedded pipeline with the fields of the load, its cluster and its schema as variables.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use chrono::NaiveDate;
use millstream_engine::plan::Plan;
use millstream_engine::registry::Registry;
use serde_json::{Map, Value, json};

use crate::catalog::Catalog;
use crate::catalog::model::{Cluster, Job};
use crate::pipelines::File;
use crate::scheduler::engine::planned;

const NAME: &str = "(embedded) warehouse-load.toml";
const TEXT: &str = include_str!("../../pipelines/warehouse-load.toml");
/// Where schemas are written out for sources to read.
const SCHEMAS: &str = "schemas";

/// What a load is planned with. Equal ones have equal plans.
#[derive(Clone, PartialEq)]
pub struct Load {
    uuid: String,
    vars: BTreeMap<&'static str, String>,
    arguments: Map<String, Value>,
    cluster: Cluster,
}

impl Load {
    /// A load as it is in the catalog now.
    pub async fn of(job: &Job, catalog: &Catalog, data_dir: &Path) -> anyhow::Result<Load> {
        let cluster = catalog.cluster(&job.redshift_id).await?;
        let schema = schema(job, catalog, data_dir).await?;
        Ok(Load {
            uuid: job.uuid.clone(),
            vars: variables(job, &cluster, schema),
            arguments: job.additional_arguments.clone(),
            cluster,
        })
    }

    /// The plan for a date. Its name is the load's own: loads share neither directories nor ledger.
    pub fn plan(&self, registry: &Registry, date: NaiveDate) -> anyhow::Result<Plan> {
        let file = File {
            name: NAME.into(),
            text: TEXT.into(),
        };
        let plan = file.plan_with(registry, Some(date), &|name| self.vars.get(name).cloned());
        let mut plan = planned(plan)?;
        self.adapt(&mut plan);
        Ok(plan)
    }

    /// What variables cannot say: numbers, and keys that are not there.
    fn adapt(&self, plan: &mut Plan) {
        plan.name = format!("load-{}", self.uuid);
        let (arguments, cluster) = (&self.arguments, &self.cluster);
        if let Some(schedule) = &mut plan.schedule {
            if arguments.get("force") == Some(&json!(true)) {
                schedule.marker = None;
            }
            if let Some(dates) = arguments.get("parallelism").and_then(Value::as_u64) {
                schedule.parallelism = u32::try_from(dates.clamp(1, 100)).unwrap_or(1);
            }
        }
        for source in &mut plan.sources {
            if let Some(most) = arguments.get("max_errors") {
                source.options["max_errors"] = most.clone();
            }
        }
        for sink in &mut plan.sinks {
            let Some(keys) = sink.options.as_object_mut() else {
                continue;
            };
            let absent = [
                ("staging", cluster.staging.is_none()),
                ("iam_role", cluster.iam_role.is_none()),
                ("password", cluster.password_env.is_none()),
            ];
            for (key, _) in absent.iter().filter(|(_, absent)| *absent) {
                keys.remove(*key);
            }
            match cluster.tls {
                Some(true) => keys.insert("tls".into(), json!("verify-full")),
                Some(false) => keys.insert("tls".into(), json!("disable")),
                None => None,
            };
        }
    }
}

/// The file that holds a load's schema.
async fn schema(job: &Job, catalog: &Catalog, data_dir: &Path) -> anyhow::Result<String> {
    let (log, version) = (&job.log_name, &job.log_schema_version);
    let dir = data_dir.join(SCHEMAS);
    let path = dir.join(format!("{log}-{version}.yaml"));
    let stored = catalog.schema(log, version).await?;
    if std::fs::read_to_string(&path).is_ok_and(|text| text == stored.text) {
        return Ok(path.display().to_string());
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let new = dir.join(format!(".{log}-{version}.{}.yaml", job.uuid));
    let written = std::fs::write(&new, &stored.text).and_then(|()| std::fs::rename(&new, &path));
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}

fn variables(job: &Job, cluster: &Cluster, schema: String) -> BTreeMap<&'static str, String> {
    let Cluster {
        host,
        port,
        database,
        user,
        ..
    } = cluster;
    let password = cluster
        .password_env
        .as_ref()
        .and_then(|name| std::env::var(name).ok());
    let end = job.end_date.map(|end| end.to_string());
    let age = job
        .additional_arguments
        .get("available_after")
        .and_then(Value::as_str);
    let vars = [
        ("LOG_PATH", Some(job.s3_path.trim_end_matches('/').into())),
        ("LOG_SCHEMA", Some(schema)),
        ("START_DATE", Some(job.start_date.to_string())),
        ("END_DATE", end),
        ("AVAILABLE_AFTER", age.map(Into::into)),
        (
            "CLUSTER_URL",
            Some(format!("postgres://{user}@{host}:{port}/{database}")),
        ),
        ("CLUSTER_PASSWORD", password),
        ("DIALECT", Some(cluster.dialect.clone())),
        ("NAMESPACE", Some(cluster.namespace.clone())),
        ("STAGING", cluster.staging.clone()),
        ("IAM_ROLE", cluster.iam_role.clone()),
    ];
    vars.into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}
