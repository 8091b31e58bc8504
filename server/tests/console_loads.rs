//! The console's pages about loads in a real browser, against the running binary and its catalog; with loads that another
//! process seems to make, and with one that is made.

#[path = "support/redshift/mod.rs"]
mod redshift;
mod support;

use std::process::Command;

use redshift::postgres::{Postgres, USER};
use serde_json::json;
use support::{Aws, IDLE, Launch, Millstream, ask, put_object, python, root};

const TOKEN: &str = "only-for-this-test";

#[test]
fn the_pages_about_loads_work() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("idle.toml"), IDLE).expect("written");
    let catalog = dir.path().join("catalog.db").display().to_string();
    let launch = Launch {
        dir: dir.path(),
        pipeline: "idle.toml",
        port: 0,
        env: vec![("MILLSTREAM_TOKEN".into(), TOKEN.into())],
    };
    let it = Millstream::start_with(&launch, &["--catalog", &catalog]);
    let args = [it.admin.as_str(), &catalog, TOKEN];
    in_a_browser("console_loads.py", &args, &[], "the pages about loads work");
}

/// With S3 and a warehouse behind the loads.
#[test]
fn the_pages_show_what_is_loaded() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("idle.toml"), IDLE).expect("written");
    let (aws, warehouse) = (Aws::start(), Postgres::start());
    put_object(&aws.endpoint, "logs", "");
    let mut env = aws.env.clone();
    env.push(("MILLSTREAM_TOKEN".into(), TOKEN.into()));
    env.push(("WAREHOUSE_PASSWORD".into(), USER.into()));
    let it = Millstream::start(&Launch {
        dir: dir.path(),
        pipeline: "idle.toml",
        port: 0,
        env,
    });
    let cluster = json!({
        "redshift_id": "small-one", "dialect": "postgres", "host": "127.0.0.1", "port": warehouse.port,
        "database": "postgres", "user": USER, "password_env": "WAREHOUSE_PASSWORD",
    });
    let headers = [
        format!("authorization: Bearer {TOKEN}"),
        "content-type: application/json".into(),
    ];
    let headers = headers.each_ref().map(String::as_str);
    let (status, _, said) = ask(&it.admin, "POST /v1/clusters", &headers, &cluster.to_string());
    assert_eq!(status, 200, "{said}");
    let args = [it.admin.as_str(), TOKEN, &aws.endpoint];
    in_a_browser(
        "console_loaded.py",
        &args,
        &aws.env,
        "the console shows what is loaded",
    );
    let rows = "SELECT string_agg(run_date || ' ' || n, ', ' ORDER BY run_date) FROM (SELECT run_date, count(*) AS n FROM \
                people GROUP BY run_date) AS dates";
    assert_eq!(
        warehouse.value(rows).as_deref(),
        Some("2024-03-01 6, 2024-03-02 5, 2024-03-03 4")
    );
}

fn in_a_browser(script: &str, args: &[&str], env: &[(String, String)], last: &str) {
    let out = Command::new(python())
        .arg(root().join("server/tests").join(script))
        .args(args)
        // Pictures of every page, for those who want to see them.
        .args(
            std::env::var("CONSOLE_SCREENSHOTS")
                .iter()
                .flat_map(|to| ["--screenshots", to]),
        )
        .envs(env.iter().map(|(name, value)| (name, value)))
        .output()
        .expect("python runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&out.stdout), text(&out.stderr));
    assert!(out.contains(last), "{out}{err}");
}
