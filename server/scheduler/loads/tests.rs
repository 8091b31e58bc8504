//! Loads as they are planned from what is in the catalog.

use super::*;
use crate::catalog::model::{NewJob, StoredSchema};
use millstream_engine::time::Timestamp;

const NOW: Timestamp = Timestamp(0);

fn cluster(host: &str, user: &str, database: &str) -> Cluster {
    let said = json!({
        "redshift_id": "main", "dialect": "postgres", "host": host, "port": 5432, "user": user, "database": database,
    });
    serde_json::from_value(said).expect("a cluster")
}

/// Loads that are posted to a catalog, each of a log and a version whose schema has one table.
struct Posted {
    catalog: Catalog,
    dir: tempfile::TempDir,
}

impl Posted {
    async fn with(cluster: Cluster) -> Posted {
        let catalog = Catalog::open(Path::new(":memory:")).expect("a catalog");
        catalog.post_cluster(cluster).await.expect("a cluster");
        let dir = tempfile::tempdir().expect("a temporary directory");
        Posted { catalog, dir }
    }

    async fn post(&self, log: &str, version: &str, table: &str, arguments: Value) -> Job {
        let schema = StoredSchema {
            log_name: log.into(),
            version: version.into(),
            text: format!(
                "version: 1\ntables:\n  {table}:\n    src: ''\n    src_type: dict\n    columns:\n    - \
                 {{log_key: name, sql_attr: varchar(9)}}\n"
            ),
            posted_at: NOW,
        };
        self.catalog.post_schema(schema).await.expect("a schema");
        let new: NewJob = serde_json::from_value(json!({
            "log_name": log, "log_schema_version": version, "s3_path": "s3://logs/l", "start_date": "2026-11-01",
            "redshift_id": "main", "additional_arguments": arguments,
        }))
        .expect("a load");
        let uuid = self.catalog.post_job(new, NOW).await.expect("posted");
        self.catalog.job(&uuid).await.expect("there")
    }

    async fn load(&self, job: &Job) -> Load {
        let load = Load::of(job, &self.catalog, self.dir.path()).await;
        load.expect("it has a cluster and a schema")
    }
}

fn plan(load: &Load) -> Plan {
    let plan = load.plan(
        &millstream_operators::registry(Default::default()),
        NaiveDate::default(),
    );
    plan.unwrap_or_else(|error| panic!("{}", error.message))
}

#[tokio::test]
async fn names_that_look_alike_when_joined_have_schemas_of_their_own() {
    let posted = Posted::with(cluster("h", "u", "d")).await;
    let one = posted.post("a", "b-c", "one", json!({})).await;
    let two = posted.post("a-b", "c", "two", json!({})).await;
    // Both are written before either is planned.
    let loads = [posted.load(&one).await, posted.load(&two).await];
    for (load, table) in loads.iter().zip(["one", "two"]) {
        let inputs: Vec<String> = plan(load).sinks.iter().map(|sink| sink.input.clone()).collect();
        assert!(inputs.contains(&format!("log.{table}")), "{table}: {inputs:?}");
    }
}

#[tokio::test]
async fn a_warehouse_may_have_any_address_and_names() {
    let cases = [
        (("h.example", "u", "d"), "postgres://u@h.example:5432/d"),
        (
            ("::1", "loader@corp", "dw?x=y"),
            "postgres://loader%40corp@[::1]:5432/dw%3Fx%3Dy",
        ),
        (
            ("[2001:db8::7]", "a:b/ü", "d w"),
            "postgres://a%3Ab%2F%C3%BC@[2001:db8::7]:5432/d%20w",
        ),
    ];
    for ((host, user, database), expect) in cases {
        let posted = Posted::with(cluster(host, user, database)).await;
        let job = posted.post("l", "1", "people", json!({})).await;
        // The sink reads it as it was meant, or there would be no plan.
        let plan = plan(&posted.load(&job).await);
        assert_eq!(plan.sinks[0].options["url"], expect);
    }
}

#[tokio::test]
async fn arguments_reach_source_and_sink() {
    let posted = Posted::with(cluster("h", "u", "d")).await;
    let arguments = json!({"retention_days": 30, "vacuum": "sunday", "analyze": false, "max_errors": 7});
    let job = posted.post("l", "1", "people", arguments).await;
    let plan = plan(&posted.load(&job).await);
    assert_eq!(plan.sources[0].options["max_errors"], 7);
    for sink in &plan.sinks {
        let keys = ["retention_days", "vacuum", "analyze", "owner"].map(|key| sink.options[key].clone());
        assert_eq!(
            keys,
            [json!(30), json!("sunday"), json!(false), json!("l:1")],
            "{}",
            sink.name
        );
    }
}

#[tokio::test]
async fn only_what_is_gone_cannot_help() {
    let posted = Posted::with(cluster("h", "u", "d")).await;
    let job = posted.post("l", "1", "people", json!({})).await;
    let no_disk = posted.dir.path().join("file");
    std::fs::write(&no_disk, "").expect("a writable directory");
    let failed = Load::of(&job, &posted.catalog, &no_disk).await;
    assert!(
        failed.is_err_and(|error| !error.hopeless),
        "a disk may have room again"
    );
    let elsewhere = Job {
        redshift_id: "gone".into(),
        ..job
    };
    let failed = Load::of(&elsewhere, &posted.catalog, posted.dir.path()).await;
    assert!(failed.is_err_and(|error| error.hopeless));
}
