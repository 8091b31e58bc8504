//! The loader as `deploy/` has it: a pipeline with a run per date reads the lake in S3, stages what it read, and has
//! Redshift Serverless load it and show the lake beside it, through the Data API. It is killed in between. Each row is in
//! the warehouse once, and the requests are those that the role allows, no more and no fewer.

#[path = "support/redshift/mod.rs"]
mod redshift;
mod support;

use std::path::Path;

use redshift::postgres::Postgres;
use redshift::stand_in::Redshift;
use serde_json::{Value, json};
use support::record::Recorder;
use support::{Aws, Launch, Millstream, get, log, put_object, python_json, root};

const BUCKET: &str = "millstream-000000000000";

const PIPELINE: &str = r#"
name = "clicks-daily"

[schedule]
start = "2026-11-01"
end = "2026-11-02"
available_after = "24h"
retry = { first = "1s", longest = "2s" }

[source.clicks]
type = "s3"
path = "s3://$BUCKET/lake/clicks/${date:year=%Y/month=%m/day=%d}"
event_time = "occurred_at"
[source.clicks.columns]
click_id    = "string not null"
ad_id       = "string not null"
occurred_at = "timestamp not null"

[sink.warehouse]
type = "redshift"
input = "clicks"
data_api = { workgroup = "millstream", database = "advertising", endpoint = "$API" }
staging = "s3://$BUCKET/staging"
iam_role = "default"
distkey = "ad_id"
external = { schema = "lake", database = "advertising", location = "s3://$BUCKET/lake/clicks", partitions = ["year", "month", "day"] }
"#;

const ROWS: usize = 30;

#[test]
fn days_of_the_lake_are_loaded_through_the_data_api_with_the_rights_of_the_role() {
    let (aws, tables) = (Aws::start(), Postgres::start());
    let dir = tempfile::tempdir().expect("a temporary directory");
    python_json("bucket.py", &[BUCKET], &aws.env);
    for day in 1..=2 {
        put_object(
            &aws.endpoint,
            &format!("{BUCKET}/lake/clicks/year=2026/month=11/day=0{day}/a.json"),
            &lines(day),
        );
    }
    let redshift = Redshift::start(&tables, &aws.endpoint);
    let api = redshift::data_api::start(&redshift, &tables, &aws.endpoint);
    let (s3, api) = (
        Recorder::start(&aws.endpoint, &requests(dir.path(), "s3"), ""),
        Recorder::start(&api, &requests(dir.path(), "api"), ""),
    );
    let file = dir.path().join("clicks-daily.toml");
    let text = PIPELINE.replace("$BUCKET", BUCKET).replace("$API", &api.url);
    std::fs::write(&file, text).expect("a writable directory");
    let mut env = aws.env.clone();
    env.push(("AWS_ENDPOINT_URL".into(), s3.url.clone()));
    let launch = Launch {
        dir: dir.path(),
        pipeline: &file.display().to_string(),
        port: 0,
        env,
    };

    // The batch goes on without whoever asked for it.
    let it = Millstream::start(&launch);
    it.wait_for("a load", || api.saw("BatchExecuteStatement"));
    it.kill();
    let it = Millstream::start(&launch);
    it.wait_for("both dates", || loaded(&it) == 2);
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));

    let count =
        "SELECT count(*) || ' ' || count(DISTINCT click_id) || ' ' || count(DISTINCT run_date) FROM clicks";
    assert_eq!(
        tables.value(count),
        Some(format!("{0} {0} 2", 2 * ROWS)),
        "{}",
        log(dir.path())
    );
    let said = redshift.statements();
    for part in [
        "COPY \"public\".\"clicks\" FROM 's3://millstream-000000000000/staging/clicks-daily/warehouse/",
        "DISTKEY (\"ad_id\")",
        "CREATE EXTERNAL SCHEMA IF NOT EXISTS \"lake\" FROM DATA CATALOG DATABASE 'advertising' IAM_ROLE default",
        "CREATE EXTERNAL TABLE \"lake\".\"clicks_spectrum\"",
        "PARTITION (\"year\" = '2026', \"month\" = '11', \"day\" = '02') LOCATION \
         's3://millstream-000000000000/lake/clicks/year=2026/month=11/day=02/'",
        "ANALYZE \"public\".\"clicks\"",
    ] {
        assert!(said.iter().any(|sql| sql.contains(part)), "no {part} in {said:?}");
    }
    redshift::check_statements(&said);

    let template = root().join("deploy/cloudformation.yaml");
    let outputs = json!({ "BucketName": BUCKET, "Template": template });
    let (s3, api) = (requests(dir.path(), "s3"), requests(dir.path(), "api"));
    let (s3, api) = (
        format!("loader={}", s3.display()),
        format!("loader={}", api.display()),
    );
    let needed = python_json("iam.py", &[&outputs.to_string(), &s3, &api], &aws.env);
    let needed = needed["loader"].to_string();
    assert!(
        needed.contains("redshift-data:BatchExecuteStatement") && needed.contains("s3:PutObject"),
        "{needed}"
    );
}

fn lines(day: usize) -> String {
    let line = |n: usize| {
        json!({ "click_id": format!("c{day}-{n}"), "ad_id": format!("a{}", n % 3),
            "occurred_at": format!("2026-11-0{day} 12:00:{n:02}") })
        .to_string()
            + "\n"
    };
    (0..ROWS).map(line).collect()
}

fn requests(dir: &Path, of: &str) -> std::path::PathBuf {
    dir.join(format!("{of}.jsonl"))
}

fn loaded(it: &Millstream) -> usize {
    let (_, body) = get(&it.admin, "/v1/runs/clicks-daily");
    let all: Value = serde_json::from_str(&body).unwrap_or_default();
    let runs = all["runs"].as_array().into_iter().flatten();
    runs.filter(|run| run["status"] == "load_success").count()
}
