//! A log that is loaded into a warehouse, from nothing: cluster, schema and load over `/v1`, ten dates in S3, a real
//! PostgreSQL, a real mail server. One date has no marker, one has bad lines, one has so many that it fails and is made
//! again; the process is killed in between. Every row is there once, and making dates again changes nothing.

#[path = "support/redshift/mod.rs"]
mod redshift;
mod support;

use std::path::Path;
use std::process::{Child, Command};

use redshift::postgres::{Postgres, USER};
use serde_json::{Value, json};
use support::{Aws, Launch, Millstream, ask, free_port, get, put_object, python, root};

const PIPELINE: &str = r#"
name = "idle"
[source.rows]
type = "http"
path = "/rows"
event_time = "at"
columns = { at = "timestamp not null" }
[sink.out]
type = "console"
input = "rows"
"#;

const SCHEMA: &str = r#"
version: 1
tables:
  people:
    src: ""
    src_type: dict
    sortkey_attr: [height]
    columns:
    - {log_key: name, sql_attr: varchar(16) not null, is_mandatory: true}
    - {log_key: height, sql_attr: int4}
    - {name: __source_filename__, sql_attr: varchar(200), is_derived: true}
  tags:
    src: tags
    src_type: list
    columns:
    - {log_key: name, sql_attr: varchar(16), is_foreign: true}
    - {log_key: index, name: at, sql_attr: int4}
    - {log_key: tag, sql_attr: varchar(8)}
"#;

/// Rows of each date; each has two tags.
const ROWS: usize = 50;
/// Bad lines a date may have.
const MOST_BAD: usize = 3;
/// The dates are long over, whenever this runs.
const FIRST: &str = "2024-03-01";
const LAST: &str = "2024-03-10";
/// This date has as many bad lines as it may.
const WITH_BAD: usize = 4;
/// This one has more, until someone mends it.
const FAILING: usize = 7;
/// This one has no marker for a while.
const UNMARKED: usize = 10;

struct Mails(Child);

impl Drop for Mails {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything around the process.
struct World {
    dir: tempfile::TempDir,
    aws: Aws,
    warehouse: Postgres,
    smtp: u16,
    _mails: Mails,
    it: Option<Millstream>,
    job: String,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("idle.toml"), PIPELINE).expect("a writable directory");
        let smtp = free_port();
        let mails = mail_server(smtp, &dir.path().join("mails"));
        let aws = Aws::start();
        put_object(&aws.endpoint, "logs", "");
        let mut world = World {
            dir,
            aws,
            warehouse: Postgres::start(),
            smtp,
            _mails: mails,
            it: None,
            job: String::new(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let mut env = self.aws.env.clone();
        env.push(("WAREHOUSE_PASSWORD".into(), USER.into()));
        let launch = Launch {
            dir: self.dir.path(),
            pipeline: "idle.toml",
            port: 0,
            env,
        };
        let smtp = format!("smtp://127.0.0.1:{}", self.smtp);
        self.it = Some(Millstream::start_with(&launch, &["--smtp", &smtp]));
    }

    fn it(&self) -> &Millstream {
        self.it.as_ref().expect("it runs")
    }

    fn put_date(&self, day: usize, bad: usize) {
        let mut lines = String::new();
        for n in 0..ROWS {
            let tags = [json!({"tag": "a"}), json!({"tag": "b"})];
            lines += &json!({"name": format!("{day}-{n}"), "height": n, "tags": tags}).to_string();
            lines.push('\n');
        }
        lines += &"not a line of this log\n".repeat(bad);
        put_object(
            &self.aws.endpoint,
            &format!("{}/part-1.json", folder(day)),
            &lines,
        );
    }

    fn mark(&self, day: usize) {
        put_object(&self.aws.endpoint, &format!("{}/COMPLETE", folder(day)), "");
    }

    fn call(&self, line: &str, body: &Value) -> Value {
        let header = "content-type: application/json";
        let (status, _, said) = ask(&self.it().admin, line, &[header], &body.to_string());
        assert_eq!(status, 200, "{line}: {said}");
        serde_json::from_str(&said).expect("the API answers with JSON")
    }

    fn get(&self, path: &str) -> Value {
        let (status, said) = get(&self.it().admin, path);
        assert_eq!(status, 200, "{path}: {said}");
        serde_json::from_str(&said).expect("the API answers with JSON")
    }

    fn status(&self) -> String {
        let job = self.get(&format!("/v1/jobs/job/{}", self.job));
        job["status"].as_str().unwrap_or_default().to_owned()
    }

    /// The run of a date.
    fn run(&self, day: usize) -> Value {
        let all = self.get(&format!("/v1/runs/{}", self.job))["runs"].clone();
        let is = |run: &&Value| run["date"] == date(day);
        all.as_array()
            .into_iter()
            .flatten()
            .find(is)
            .cloned()
            .unwrap_or_default()
    }

    fn wait_for_run(&self, day: usize, what: &str, right: impl Fn(&Value) -> bool) {
        let mut seen = Value::Null;
        let what = format!("{} to be {what}", date(day));
        self.it().wait_for(&what, || {
            seen = self.run(day);
            right(&seen)
        });
    }

    fn wait_loaded(&self, day: usize) {
        self.wait_for_run(day, "loaded", |run| run["status"] == "load_success");
    }

    /// `YYYY-MM-DD|rows` of a table.
    fn rows_by_date(&self, table: &str) -> Vec<String> {
        self.query(&format!(
            "SELECT run_date, count(*) FROM {table} GROUP BY run_date ORDER BY run_date"
        ))
    }

    /// The rows of an answer, columns apart by `|`.
    fn query(&self, sql: &str) -> Vec<String> {
        let line = |row: Vec<Option<String>>| {
            row.into_iter()
                .map(Option::unwrap_or_default)
                .collect::<Vec<_>>()
                .join("|")
        };
        self.warehouse.query(sql).into_iter().map(line).collect()
    }

    /// A number that says what the warehouse holds.
    fn content(&self) -> Vec<String> {
        let table = |table: &str| {
            let sql =
                format!("SELECT count(*), md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t");
            self.query(&sql).join("")
        };
        ["people", "tags"].map(table).to_vec()
    }

    /// The events that mails told of, in order.
    fn mailed(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.dir.path().join("mails")).expect("a folder of mails");
        let mut mails: Vec<_> = files
            .map(|file| file.expect("a readable folder").path())
            .collect();
        mails.retain(|path| path.extension().is_some_and(|e| e == "eml"));
        mails.sort_by_key(|path| path.file_stem().and_then(|n| n.to_str()?.parse::<u32>().ok()));
        let event = |path| {
            let text = std::fs::read_to_string(path).expect("a mail");
            let mut lines = text.lines();
            lines
                .find_map(|line| line.strip_prefix("status: "))
                .unwrap_or_default()
                .to_owned()
        };
        mails.into_iter().map(event).collect()
    }
}

fn mail_server(port: u16, dir: &Path) -> Mails {
    std::fs::create_dir(dir).expect("a writable directory");
    let child = Command::new(python())
        .arg(root().join("server/tests/smtp.py"))
        .args([&port.to_string(), &dir.display().to_string()])
        .spawn();
    Mails(child.expect("python starts"))
}

fn date(day: usize) -> String {
    format!("2024-03-{day:02}")
}

fn folder(day: usize) -> String {
    format!("logs/people/2024/03/{day:02}")
}

/// What `rows_by_date` gives when these days are there.
fn expected(days: impl Iterator<Item = usize>, rows: usize) -> Vec<String> {
    days.map(|day| format!("{}|{rows}", date(day))).collect()
}

#[test]
fn ten_dates_come_into_the_warehouse_once_each() {
    let mut world = World::new();
    world.call(
        "POST /v1/clusters",
        &json!({
            "redshift_id": "main", "dialect": "postgres", "host": "127.0.0.1", "port": world.warehouse.port,
            "database": "postgres", "user": USER, "password_env": "WAREHOUSE_PASSWORD",
        }),
    );
    let (status, _, said) = ask(&world.it().admin, "POST /v1/schema/people/1", &[], SCHEMA);
    assert_eq!(status, 200, "{said}");
    for day in 1..=10 {
        let bad = match day {
            WITH_BAD => MOST_BAD,
            FAILING => MOST_BAD + 1,
            _ => 0,
        };
        world.put_date(day, bad);
        if day != UNMARKED {
            world.mark(day);
        }
    }
    let posted = world.call("POST /v1/jobs", &json!({
        "redshift_id": "main", "log_name": "people", "log_schema_version": "1", "s3_path": "s3://logs/people",
        "start_date": FIRST, "end_date": LAST, "contact_emails": ["ops@example.com"],
        "additional_arguments": {"max_errors": MOST_BAD},
    }));
    world.job = posted["post_accepted"]["uuid"]
        .as_str()
        .expect("a uuid")
        .to_owned();

    // Killed while it is at it, whatever it is at.
    world.wait_loaded(2);
    world.it.take().expect("it runs").kill();
    world.start();

    // Up to the one that fails; those behind it wait for their turn.
    world.wait_for_run(FAILING, "failed", |run| {
        run["status"] == "et_error" && run["error"].as_str().is_some_and(|why| !why.is_empty())
    });
    world.wait_loaded(FAILING - 1);
    world.wait_for_run(FAILING + 2, "transformed", |run| run["status"] == "et_success");
    assert_eq!(world.rows_by_date("people"), expected(1..FAILING, ROWS));
    assert_eq!(world.rows_by_date("tags"), expected(1..FAILING, 2 * ROWS));
    assert_eq!(world.run(WITH_BAD)["invalid"], MOST_BAD);
    let bad =
        "SELECT run_date, line_number, error_reason, raw_line FROM pipeline_errors ORDER BY line_number";
    let bad = world.query(bad);
    assert_eq!(bad.len(), MOST_BAD, "{bad:?}");
    let first = format!("{}|{}|", date(WITH_BAD), ROWS + 1);
    assert!(
        bad[0].starts_with(&first) && bad[0].ends_with("|not a line of this log"),
        "{bad:?}"
    );

    // Mended, and made again.
    world.put_date(FAILING, 0);
    let again = json!({"from": FIRST, "to": LAST, "retry_errors": true});
    let dates = world.call(&format!("POST /v1/runs/{}/backfill", world.job), &again);
    assert_eq!(dates, json!({"dates": [date(FAILING)]}));
    world.wait_loaded(UNMARKED - 1);
    world.wait_for_run(UNMARKED, "waiting", |run| {
        run["status"] == "waiting" && run["error"].is_null()
    });
    assert_eq!(world.rows_by_date("people"), expected(1..UNMARKED, ROWS));

    // The marker that was missing.
    world.mark(UNMARKED);
    world.wait_loaded(UNMARKED);
    world
        .it()
        .wait_for("the end of the job", || world.status() == "complete");
    assert_eq!(world.rows_by_date("people"), expected(1..=10, ROWS));
    assert_eq!(world.rows_by_date("tags"), expected(1..=10, 2 * ROWS));

    again_changes_nothing(&world);
    world.it().wait_for("the mail about the end", || {
        world.mailed().iter().any(|event| event == "complete")
    });
    forgotten(&world);
}

/// Every date is made once more.
fn again_changes_nothing(world: &World) {
    let before = world.content();
    let attempts = |world: &World| -> Vec<u64> {
        (1..=10)
            .map(|day| world.run(day)["attempt"].as_u64().unwrap_or(0))
            .collect()
    };
    let first = attempts(world);
    let asked = json!({"from": FIRST, "to": LAST});
    world.call(&format!("POST /v1/runs/{}/backfill", world.job), &asked);
    world.it().wait_for("all dates to be made again", || {
        let newer = attempts(world)
            .iter()
            .zip(&first)
            .all(|(now, before)| now > before);
        newer && world.status() == "complete"
    });
    assert_eq!(world.content(), before);
    assert_eq!(
        world.rows_by_date("pipeline_errors"),
        [format!("{}|{MOST_BAD}", date(WITH_BAD))]
    );
}

/// The job goes; what it has loaded stays.
fn forgotten(world: &World) {
    let before = world.content();
    world.call(
        "PUT /v1/jobs/job",
        &json!({"uuid": world.job, "delete_requested": true}),
    );
    world.it().wait_for("the job to go", || {
        world.get("/v1/jobs/filtered/people") == json!({"jobs": []})
    });
    assert_eq!(world.content(), before);
    world.it().wait_for("the mail about it", || {
        world.mailed().last().is_some_and(|event| event == "deleted")
    });
    let failed = world.get("/v1/notices?state=failed");
    assert_eq!(failed, json!({"notices": []}));
}
