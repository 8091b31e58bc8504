//! `pipelines/advertising-daily-redshift.toml` through the real binary, into a Redshift stand-in before a real PostgreSQL.
//! The process is killed while it stages and at each step of a load; the three tables hold every row once all the same.

#[path = "support/redshift/mod.rs"]
mod redshift;
mod support;

use std::collections::BTreeSet;

use redshift::fates::{Fates, Stop};
use redshift::postgres::{Postgres, USER, url};
use redshift::stand_in::Redshift;
use serde_json::{Value, json};
use support::advertising::{ALL, DATES, Sent, backfill, date, into_the_lake, wait_until_loaded, write};
use support::gate::Gate;
use support::{Aws, Launch, Millstream, free_port, log, python_json};

const NAME: &str = "advertising-daily-redshift";

/// Where a process is killed in a load, by what it says to the warehouse there.
const STEPS: &[Stop] = &[
    Stop::Before("LOCK"),
    Stop::Before("COPY"),
    Stop::Unanswered("COPY"),
    Stop::Before("COMMIT"),
    Stop::Unanswered("COMMIT"),
    Stop::Before("ADD IF NOT EXISTS PARTITION"),
];

#[test]
fn a_date_is_replaced_in_redshift_wherever_the_process_was_killed() {
    let aws = Aws::start();
    python_json("bucket.py", &["lake"], &aws.env);
    python_json("catalog.py", &["database", "advertising"], &aws.env);
    python_json(
        "dynamodb.py",
        &["create", "traffic", "ad_id:S", "day:S"],
        &aws.env,
    );
    let tables = Postgres::start();
    let redshift = Redshift::start(&tables, &aws.endpoint);
    let (warehouse, s3) = (Fates::start(redshift.port), Gate::start(&aws.endpoint));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipeline = write(dir.path(), "advertising-daily-redshift.toml", &[]);
    let mut env = aws.env.clone();
    env.push(("LAKE_BUCKET".into(), "lake".into()));
    let lake = env.clone();
    env.push(("AWS_ENDPOINT_URL_S3".into(), s3.url.clone()));
    env.push(("CLUSTER_URL".into(), url(warehouse.port)));
    env.push(("CLUSTER_PASSWORD".into(), USER.into()));
    let launch = Launch {
        dir: dir.path(),
        pipeline: &pipeline,
        port: free_port(),
        env,
    };
    let is = |sent: &Sent| {
        assert_eq!(impressions(&tables), sent.distinct_impressions(&ALL));
        assert_eq!(clicks(&tables), sent.distinct_clicks(&ALL));
        assert_eq!(advertising(&tables), sent.advertising(&ALL));
    };

    let mut sent = Sent::life(0);
    into_the_lake(&sent, "advertising-aws.toml", &lake);
    let it = Millstream::start(&launch);
    wait_until_loaded(&it, dir.path(), NAME);
    is(&sent);
    shown_to_spectrum(&tables);

    // More rows of the same dates. Killed while it stages them, then at each step of a load.
    let more = Sent::life(1);
    into_the_lake(&more, "advertising-aws.toml", &lake);
    sent.add(more);
    s3.close("/staged/");
    backfill(&it, NAME, 0, DATES - 1);
    it.wait_for("rows to be staged", || s3.holds("/staged/"));
    it.kill();
    s3.open("/staged/");
    for (number, step) in (1..).zip(STEPS) {
        warehouse.stop_at(*step);
        let it = Millstream::start(&launch);
        it.wait_for(&format!("{step:?}"), || warehouse.reached() == number);
        it.kill();
    }
    let it = Millstream::start(&launch);
    wait_until_loaded(&it, dir.path(), NAME);
    is(&sent);
    let lake = python_json("daily.py", &["s3://lake/advertising"], &aws.env);
    assert_eq!(lake["rows"], sent.advertising(&ALL));

    // Again from the same rows.
    let before = content(&tables);
    backfill(&it, NAME, 0, DATES - 1);
    wait_until_loaded(&it, dir.path(), NAME);
    assert_eq!(content(&tables), before);
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
    laid_out(&redshift);
}

fn texts(tables: &Postgres, sql: &str) -> BTreeSet<Vec<Option<String>>> {
    let rows = tables.query(sql);
    let (count, rows) = (rows.len(), BTreeSet::from_iter(rows));
    assert_eq!(rows.len(), count, "rows are there twice: {sql}");
    rows
}

fn impressions(tables: &Postgres) -> Value {
    let rows = texts(
        tables,
        "SELECT impression_id, ad_id, occurred_at FROM impressions",
    );
    json!(rows)
}

fn clicks(tables: &Postgres) -> Value {
    let rows = texts(
        tables,
        "SELECT impression_id, click_id, ad_id, occurred_at FROM clicks",
    );
    json!(rows)
}

fn advertising(tables: &Postgres) -> Value {
    let rows = "SELECT impression_at::date, ad_id, impression_id, click_id, impression_at, coalesce(click_at::text, '') \
                FROM advertising";
    json!(texts(tables, rows))
}

/// What tells whether any table has changed.
fn content(tables: &Postgres) -> Value {
    json!([impressions(tables), clicks(tables), advertising(tables)])
}

/// Each table has an external one over the lake, with a partition for every date.
fn shown_to_spectrum(tables: &Postgres) {
    for table in ["impressions", "clicks", "advertising"] {
        let said = format!(
            "SELECT statement FROM svv_external_tables WHERE schemaname = 'spectrum' AND tablename = '{table}_spectrum'"
        );
        let said: Vec<String> = tables.query(&said).into_iter().flatten().flatten().collect();
        let created = said.iter().filter(|sql| sql.starts_with("CREATE EXTERNAL TABLE"));
        assert_eq!(created.count(), 1, "{said:?}");
        for number in 0..DATES {
            let day = date(number);
            let location = format!(
                "LOCATION 's3://lake/{table}/year={}/month={}/day={}/'",
                &day[..4],
                &day[5..7],
                &day[8..]
            );
            assert!(
                said.iter().any(|sql| sql.ends_with(&location)),
                "{location} in {said:?}"
            );
        }
    }
}

/// Tables are spread by ad, and an independent parser knows every statement as Redshift's.
fn laid_out(redshift: &Redshift) {
    let statements = redshift.statements();
    for table in ["impressions", "clicks", "advertising"] {
        let create = format!("\"public\".\"{table}\" (");
        let create = statements
            .iter()
            .find(|sql| sql.starts_with("CREATE TABLE") && sql.contains(&create));
        let create = create.unwrap_or_else(|| panic!("{table} is not created: {statements:?}"));
        assert!(create.contains("DISTSTYLE KEY DISTKEY (\"ad_id\")"), "{create}");
    }
    redshift::check_statements(&statements);
}
