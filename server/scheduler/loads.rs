//! Loads that were posted: the embedded pipeline with the fields of the load, its cluster and its schema as variables.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::NaiveDate;
use millstream_engine::plan::Plan;
use millstream_engine::registry::Registry;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::catalog::Catalog;
use crate::catalog::model::{Cluster, Job, ipv6};
use crate::pipelines::File;
use crate::scheduler::engine::planned;
use crate::scheduler::execute::RunError;

const NAME: &str = "(embedded) warehouse-load.toml";
const TEXT: &str = include_str!("../../pipelines/warehouse-load.toml");
/// Where schemas are written out for sources to read.
const SCHEMAS: &str = "schemas";

/// The arguments of a load that are keys of its sink.
const KEPT_UP: [&str; 3] = ["retention_days", "vacuum", "analyze"];
/// What stands in a URL as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// What a load is planned with. Equal ones have equal plans.
#[derive(Clone, PartialEq)]
pub struct Load {
    uuid: String,
    /// What its bad rows are told apart by: the same when the load is deleted and posted again.
    owner: String,
    vars: BTreeMap<&'static str, String>,
    arguments: Map<String, Value>,
    cluster: Cluster,
}

impl Load {
    /// A load as it is in the catalog now.
    ///
    /// # Errors
    /// Hopeless: its cluster or its schema is gone. Else the catalog or the disk failed.
    pub async fn of(job: &Job, catalog: &Catalog, data_dir: &Path) -> Result<Load, RunError> {
        let cluster = catalog.cluster(&job.redshift_id).await?;
        let schema = schema(job, catalog, data_dir).await?;
        Ok(Load {
            uuid: job.uuid.clone(),
            owner: format!("{}:{}", job.log_name, job.log_schema_version),
            vars: variables(job, &cluster, schema),
            arguments: job.additional_arguments.clone(),
            cluster,
        })
    }

    /// The plan for a date. Its name is the load's own: loads share neither directories nor ledger.
    pub fn plan(&self, registry: &Registry, date: NaiveDate) -> Result<Plan, RunError> {
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
        plan.name = name(&self.uuid);
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
            keys.insert("owner".into(), json!(self.owner));
            for key in KEPT_UP {
                if let Some(value) = arguments.get(key) {
                    keys.insert(key.into(), value.clone());
                }
            }
        }
    }
}

/// What the pipeline of a load is called.
pub fn name(uuid: &str) -> String {
    format!("load-{uuid}")
}

/// The file that holds a load's schema. Names of logs and versions may hold what would tell them apart in one name.
async fn schema(job: &Job, catalog: &Catalog, data_dir: &Path) -> Result<String, RunError> {
    let (log, version) = (&job.log_name, &job.log_schema_version);
    let dir = data_dir.join(SCHEMAS).join(log);
    let path = dir.join(format!("{version}.yaml"));
    let stored = catalog.schema(log, version).await?;
    if std::fs::read_to_string(&path).is_ok_and(|text| text == stored.text) {
        return Ok(path.display().to_string());
    }
    let new = dir.join(format!(".{version}.{}.yaml", Uuid::new_v4()));
    let written = std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(&new, &stored.text))
        .and_then(|()| std::fs::rename(&new, &path));
    written.map_err(|error| RunError {
        message: format!("cannot write {}: {error}", path.display()),
        hopeless: false,
    })?;
    Ok(path.display().to_string())
}

fn variables(job: &Job, cluster: &Cluster, schema: String) -> BTreeMap<&'static str, String> {
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
        ("CLUSTER_URL", Some(url(cluster))),
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

/// Where a cluster is, whatever its user and its database are called.
fn url(cluster: &Cluster) -> String {
    let plain = |text| utf8_percent_encode(text, PLAIN);
    let host = match ipv6(&cluster.host) {
        Some(address) => format!("[{address}]"),
        None => cluster.host.clone(),
    };
    let (user, port, database) = (plain(&cluster.user), cluster.port, plain(&cluster.database));
    format!("postgres://{user}@{host}:{port}/{database}")
}

#[cfg(test)]
mod tests;
