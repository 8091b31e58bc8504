//! A process with loads, and everything around it: S3, a real PostgreSQL, a real mail server, logs of three tables.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::redshift::postgres::{Postgres, USER};
use crate::support::gate::Gate;
use crate::support::{
    Aws, IDLE, Launch, Millstream, PATIENCE, ask, free_port, get, pause, put_object, python, root,
};

/// Rows of each date; each has two tags.
pub const ROWS: usize = 50;
/// Bad lines a date may have.
pub const MOST_BAD: usize = 3;

/// Everything around the process.
pub struct World {
    dir: tempfile::TempDir,
    aws: Aws,
    /// Before S3, as the process sees it.
    pub s3: Gate,
    pub warehouse: Postgres,
    smtp: u16,
    _mails: Mails,
    pub it: Option<Millstream>,
}

/// A load that was posted: a log of its own, and tables that have its name in theirs.
pub struct Load {
    pub log: String,
    pub uuid: String,
}

struct Mails(Child);

impl Drop for Mails {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("idle.toml"), IDLE).expect("a writable directory");
        let smtp = free_port();
        let mails = mail_server(smtp, &dir.path().join("mails"));
        let aws = Aws::start();
        for bucket in ["logs", "staging"] {
            put_object(&aws.endpoint, bucket, "");
        }
        let mut world = World {
            dir,
            s3: Gate::start(&aws.endpoint),
            aws,
            warehouse: Postgres::start(),
            smtp,
            _mails: mails,
            it: None,
        };
        world.start();
        world.call(
            "POST /v1/clusters",
            &json!({
                "redshift_id": "main", "dialect": "postgres", "host": "127.0.0.1", "port": world.warehouse.port,
                "database": "postgres", "user": USER, "password_env": "WAREHOUSE_PASSWORD",
                "staging": "s3://staging/loads",
            }),
        );
        world
    }

    pub fn start(&mut self) {
        self.it = Some(self.process(self.dir.path()));
    }

    /// A process with a directory of its own, and the catalog of this world.
    pub fn process(&self, dir: &Path) -> Millstream {
        self.process_with(dir, Vec::new())
    }

    /// The same with more in its environment.
    pub fn process_with(&self, dir: &Path, more: Vec<(String, String)>) -> Millstream {
        std::fs::write(dir.join("idle.toml"), IDLE).expect("a writable directory");
        let mut env = self.aws.env.clone();
        env.push(("AWS_ENDPOINT_URL_S3".into(), self.s3.url.clone()));
        env.push(("WAREHOUSE_PASSWORD".into(), USER.into()));
        env.extend(more);
        let launch = Launch {
            dir,
            pipeline: "idle.toml",
            port: 0,
            env,
        };
        let smtp = format!("smtp://127.0.0.1:{}", self.smtp);
        let catalog = self.catalog().display().to_string();
        Millstream::start_with(&launch, &["--smtp", &smtp, "--catalog", &catalog])
    }

    pub fn catalog(&self) -> PathBuf {
        self.dir.path().join("catalog.db")
    }

    pub fn it(&self) -> &Millstream {
        self.it.as_ref().expect("it runs")
    }

    /// Puts the rows of a date, and bad lines behind them.
    pub fn put_date(&self, log: &str, day: usize, bad: usize) {
        let mut lines = String::new();
        for n in 0..ROWS {
            let tags = [json!({"tag": "a"}), json!({"tag": "b"})];
            lines += &json!({"name": format!("{day}-{n}"), "height": n, "tags": tags}).to_string();
            lines.push('\n');
        }
        lines += &"not a line of this log\n".repeat(bad);
        put_object(&self.aws.endpoint, &part(log, day), &lines);
    }

    pub fn mark(&self, log: &str, day: usize) {
        put_object(&self.aws.endpoint, &format!("{}/COMPLETE", folder(log, day)), "");
    }

    /// Posts the schema of a log and a load of it, of the dates up to `last`.
    pub fn post(&self, log: &str, last: usize, arguments: &Value) -> Load {
        let line = format!("POST /v1/schema/{log}/1");
        let (status, _, said) = ask(&self.it().admin, &line, &[], &schema(log));
        assert_eq!(status, 200, "{said}");
        let posted = self.call("POST /v1/jobs", &json!({
            "redshift_id": "main", "log_name": log, "log_schema_version": "1", "s3_path": format!("s3://logs/{log}"),
            "start_date": date(1), "end_date": date(last), "contact_emails": ["ops@example.com"],
            "additional_arguments": arguments,
        }));
        let uuid = posted["post_accepted"]["uuid"].as_str().expect("a uuid");
        Load {
            log: log.into(),
            uuid: uuid.into(),
        }
    }

    /// Asks something of a load; gives the status.
    pub fn ask(&self, load: &Load, mut what: Value) -> u16 {
        what["uuid"] = json!(load.uuid);
        let header = "content-type: application/json";
        ask(&self.it().admin, "PUT /v1/jobs/job", &[header], &what.to_string()).0
    }

    pub fn call(&self, line: &str, body: &Value) -> Value {
        let header = "content-type: application/json";
        let (status, _, said) = ask(&self.it().admin, line, &[header], &body.to_string());
        assert_eq!(status, 200, "{line}: {said}");
        serde_json::from_str(&said).expect("the API answers with JSON")
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, said) = get(&self.it().admin, path);
        assert_eq!(status, 200, "{path}: {said}");
        serde_json::from_str(&said).expect("the API answers with JSON")
    }

    /// The state of a load; `gone` when it is forgotten.
    pub fn status(&self, load: &Load) -> String {
        let (status, said) = get(&self.it().admin, &format!("/v1/jobs/job/{}", load.uuid));
        if status == 404 {
            return "gone".into();
        }
        let job: Value = serde_json::from_str(&said).expect("the API answers with JSON");
        job["status"].as_str().unwrap_or_default().to_owned()
    }

    pub fn wait_for_status(&self, load: &Load, wanted: &str) {
        self.wait(load, wanted, || json!(self.status(load)), |seen| seen == wanted);
    }

    /// Waits until something of a load is right; says what it was last if it never is.
    fn wait(&self, load: &Load, what: &str, look: impl Fn() -> Value, right: impl Fn(&Value) -> bool) {
        let started = Instant::now();
        loop {
            let seen = look();
            if right(&seen) {
                return;
            }
            if started.elapsed() > PATIENCE {
                let job = self.get(&format!("/v1/jobs/job/{}", load.uuid));
                let runs = self.get(&format!("/v1/runs/{}", load.uuid));
                panic!("{} is not {what}, but {seen}\n{job}\n{runs}", load.log);
            }
            pause(Duration::from_millis(50));
        }
    }

    /// The run of a date.
    pub fn run(&self, load: &Load, day: usize) -> Value {
        let all = self.get(&format!("/v1/runs/{}", load.uuid))["runs"].clone();
        let is = |run: &&Value| run["date"] == date(day);
        all.as_array()
            .into_iter()
            .flatten()
            .find(is)
            .cloned()
            .unwrap_or_default()
    }

    pub fn wait_for_run(&self, load: &Load, day: usize, what: &str, right: impl Fn(&Value) -> bool) {
        let what = format!("{what} on {}", date(day));
        self.wait(load, &what, || self.run(load, day), right);
    }

    pub fn wait_for_run_status(&self, load: &Load, day: usize, status: &str) {
        self.wait_for_run(load, day, status, |run| run["status"] == status);
    }

    /// `YYYY-MM-DD|rows` of a table.
    pub fn rows_by_date(&self, table: &str) -> Vec<String> {
        self.query(&format!(
            "SELECT run_date, count(*) FROM {table} GROUP BY run_date ORDER BY run_date"
        ))
    }

    /// The rows of an answer, columns apart by `|`.
    pub fn query(&self, sql: &str) -> Vec<String> {
        let line = |row: Vec<Option<String>>| {
            row.into_iter()
                .map(Option::unwrap_or_default)
                .collect::<Vec<_>>()
                .join("|")
        };
        self.warehouse.query(sql).into_iter().map(line).collect()
    }

    /// A number that says what the warehouse holds.
    pub fn content(&self) -> Vec<String> {
        let table = |table: &str| {
            let sql =
                format!("SELECT count(*), md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t");
            self.query(&sql).join("")
        };
        ["people", "people_tags"].map(table).to_vec()
    }

    /// Waits until nothing is left of a load but what it has loaded.
    pub fn wait_for_nothing_left(&self, load: &Load) {
        let name = format!("load-{}", load.uuid);
        let dir = self.dir.path().join("data").join(&name);
        let what = format!("the files of {} to be removed", load.log);
        self.it().wait_for(&what, || !dir.exists());
        self.it().wait_for(&what, || self.staged(load) == 0);
    }

    /// How many objects wait to be loaded.
    pub fn staged(&self, load: &Load) -> usize {
        let path = format!("/staging?list-type=2&prefix=loads/load-{}/", load.uuid);
        let (status, listed) = get(&self.aws.endpoint, &path);
        assert_eq!(status, 200, "{listed}");
        listed.matches("<Key>").count()
    }

    /// Waits until mails have told of events of a load.
    pub fn wait_for_mails<'e>(&self, load: &Load, events: impl IntoIterator<Item = &'e str>) {
        for event in events {
            let what = format!("the mail about {}: {event}", load.log);
            let told = (load.uuid.clone(), event.to_owned());
            self.it().wait_for(&what, || self.mailed().contains(&told));
        }
    }

    /// The loads and events that mails told of.
    fn mailed(&self) -> Vec<(String, String)> {
        let files = std::fs::read_dir(self.dir.path().join("mails")).expect("a folder of mails");
        let mut mails: Vec<_> = files
            .map(|file| file.expect("a readable folder").path())
            .collect();
        mails.retain(|path| path.extension().is_some_and(|e| e == "eml"));
        let told = |path| {
            let text = std::fs::read_to_string(path).expect("a mail");
            let fact = |name| text.lines().find_map(|line| line.strip_prefix(name));
            let fact = |name| fact(name).unwrap_or_default().to_owned();
            (fact("uuid: "), fact("status: "))
        };
        mails.into_iter().map(told).collect()
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

/// The tables of a log: one of its name, and its tags.
fn schema(log: &str) -> String {
    format!(
        "version: 1
tables:
  {log}:
    src: ''
    src_type: dict
    sortkey_attr: [height]
    columns:
    - {{log_key: name, sql_attr: varchar(16) not null, is_mandatory: true}}
    - {{log_key: height, sql_attr: int4}}
    - {{name: __source_filename__, sql_attr: varchar(200), is_derived: true}}
  {log}_tags:
    src: tags
    src_type: list
    columns:
    - {{log_key: name, sql_attr: varchar(16), is_foreign: true}}
    - {{log_key: index, name: at, sql_attr: int4}}
    - {{log_key: tag, sql_attr: varchar(8)}}
"
    )
}

/// The dates are long over, whenever this runs.
pub fn date(day: usize) -> String {
    format!("2024-03-{day:02}")
}

fn folder(log: &str, day: usize) -> String {
    format!("logs/{log}/2024/03/{day:02}")
}

/// The object that holds the rows of a date.
pub fn part(log: &str, day: usize) -> String {
    format!("{}/part-1.json", folder(log, day))
}

/// What `rows_by_date` gives when these days are there.
pub fn expected(days: impl IntoIterator<Item = usize>, rows: usize) -> Vec<String> {
    days.into_iter()
        .map(|day| format!("{}|{rows}", date(day)))
        .collect()
}
