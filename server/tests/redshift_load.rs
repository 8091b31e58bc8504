//! A load that is posted to `/v1` for a Redshift cluster: from a log in S3 over staged Parquet, manifest and COPY into a
//! Redshift stand-in before a real PostgreSQL. A date that fails is tried again by itself; one that is made again replaces
//! what it had, wherever the process was killed; one that is only transformed changes nothing until it is loaded.

#[path = "support/redshift/mod.rs"]
mod redshift;
mod support;

use redshift::fates::{Fates, Stop};
use redshift::postgres::{Postgres, USER};
use redshift::stand_in::Redshift;
use serde_json::{Value, json};
use support::clock::Clock;
use support::{Aws, IDLE, Launch, Millstream, ask, get, log, put_object, python_json};

/// A table with a column that is parsed in the warehouse and one that others write, and a table of tags.
const SCHEMA: &str = "
version: 1
tables:
  people:
    src: ''
    src_type: dict
    sortkey_attr: [height]
    columns:
    - {log_key: name, sql_attr: varchar(16) not null distkey, is_mandatory: true}
    - {log_key: height, sql_attr: int4}
    - {log_key: details, sql_attr: super, is_json: true}
    - {log_key: seen, sql_attr: timestamp}
    - {log_key: noted, sql_attr: varchar(9), is_noop: true}
    - {name: __source_filename__, sql_attr: varchar(200), is_derived: true}
  people_tags:
    src: tags
    src_type: list
    columns:
    - {log_key: name, sql_attr: varchar(16), is_foreign: true}
    - {log_key: tag, sql_attr: varchar(8)}
";

/// Bad lines that a date may have.
const MOST_BAD: usize = 3;
/// The date that fails at first.
const FAILING: usize = 2;
/// The last date of the load; the one behind it is asked for.
const LAST: usize = 3;
/// Longer than the first wait before a date is tried again.
const WAIT: i64 = 400;

/// Where the process is killed while a date is loaded, by what it says to the warehouse there.
const STEPS: &[Stop] = &[
    Stop::Before("COPY"),
    Stop::Unanswered("COMMIT"),
    Stop::Before("\"public\".\"people_tags\""),
];

#[test]
fn a_posted_load_comes_into_redshift_once() {
    let mut world = World::new();
    for (day, bad) in [(1, 0), (FAILING, MOST_BAD + 1), (LAST, MOST_BAD)] {
        world.put_date(day, 10, bad);
        put_object(&world.aws.endpoint, &format!("{}/COMPLETE", folder(day)), "");
    }
    world.post();

    // The date that fails is mended, and nobody asks for it.
    world.wait_for_run(FAILING, |run| {
        run["status"] == "et_error" && run["next_try_at"].is_string()
    });
    world.wait_for_run(1, |run| run["status"] == "load_success");
    world.wait_for_run(LAST, |run| run["status"] == "et_success");
    assert_eq!(world.rows("people"), ["1|10"]);
    world.put_date(FAILING, 10, 0);
    world.clock.set(WAIT);
    world.wait_for_status("complete");
    assert_eq!(world.rows("people"), ["1|10", "2|10", "3|10"]);
    assert_eq!(world.rows("people_tags"), ["1|20", "2|20", "3|20"]);
    assert_eq!(world.rows("pipeline_errors"), [format!("{LAST}|{MOST_BAD}")]);
    let values = "SELECT sum((details->>'n')::int), min(seen), max(seen), count(noted) FROM people";
    let values = world.tables.query(values);
    let expect = ["135", "2024-03-01 00:00:00", "2024-03-03 00:00:09", "0"];
    assert_eq!(values, [expect.map(|v| Some(v.to_string()))]);

    only_transformed(&world);
    started(&world);
    killed(&mut world);
    said(&world);
    let left = world.dir.path().join("left").display().to_string();
    python_json("download.py", &["staging", &left], &world.aws.env);
    let left = walk(std::path::Path::new(&left));
    assert!(left.is_empty(), "staged files stay: {left:?}");
    let it = world.it.take().expect("it runs");
    assert_eq!(it.terminate(), 0, "{}", log(world.dir.path()));
}

/// New rows of a date are not to be seen until they are loaded.
fn only_transformed(world: &World) {
    let before = world.content();
    world.put_date(FAILING, 12, 0);
    let of = json!({ "from": date(FAILING), "to": date(FAILING) });
    let mut transform = of.clone();
    transform["transform_only"] = json!(true);
    assert_eq!(
        world.runs("backfill", &transform),
        json!({ "dates": [date(FAILING)] })
    );
    world.wait_for_run(FAILING, |run| run["status"] == "et_success");
    assert_eq!(world.content(), before);
    let mut load = of;
    load["load_only"] = json!(true);
    assert_eq!(world.runs("backfill", &load), json!({ "dates": [date(FAILING)] }));
    world.wait_for_run(FAILING, |run| run["status"] == "load_success");
    assert_eq!(world.rows("people"), ["1|10", "2|12", "3|10"]);
    world.wait_for_status("complete");
}

/// A date behind the last one and without a marker, as it was asked for; and one again, which changes nothing.
fn started(world: &World) {
    let day = LAST + 1;
    world.put_date(day, 5, 0);
    world.runs("start", &json!({ "date": date(day), "force": true }));
    world.wait_for_run(day, |run| run["status"] == "load_success");
    assert_eq!(world.rows("people"), ["1|10", "2|12", "3|10", "4|5"]);
    let before = world.content();
    world.again(1);
    assert_eq!(world.content(), before);
}

fn killed(world: &mut World) {
    let before = world.content();
    for (number, step) in (1..).zip(STEPS) {
        let tries = world.run(1)["attempt"].clone();
        world.warehouse.stop_at(*step);
        world.runs("start", &json!({ "date": date(1) }));
        let reached = || world.warehouse.reached() == number;
        world.it().wait_for(&format!("{step:?}"), reached);
        world.it.take().expect("it runs").kill();
        world.start();
        world.wait_for_run(1, |run| {
            run["status"] == "load_success" && run["attempt"] != tries
        });
        world.wait_for_status("complete");
        assert_eq!(world.content(), before, "{step:?}");
    }
}

/// What the warehouse was told, in Redshift's grammar.
fn said(world: &World) {
    let said = world.redshift.statements();
    let staged = format!("FROM 's3://staging/loads/load-{}/warehouse", world.uuid);
    for part in [
        "\"details\" SUPER",
        "DISTKEY (\"name\")",
        "SORTKEY (\"height\")",
        "JSON_PARSE(\"details\")",
        "IAM_ROLE 'arn:aws:iam::123456789012:role/copy' FORMAT AS PARQUET MANIFEST",
        &staged,
        "COPY \"public\".\"people_tags\" FROM 's3://",
    ] {
        let has = |sql: &String| sql.to_lowercase().contains(&part.to_lowercase());
        assert!(said.iter().any(has), "no {part} in {said:?}");
    }
    redshift::check_statements(&said);
}

/// A process with a load, and everything around it.
struct World {
    dir: tempfile::TempDir,
    aws: Aws,
    clock: Clock,
    tables: Postgres,
    redshift: Redshift,
    /// Before the stand-in, as the process sees it.
    warehouse: Fates,
    it: Option<Millstream>,
    uuid: String,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("idle.toml"), IDLE).expect("a writable directory");
        let (aws, tables) = (Aws::start(), Postgres::start());
        for bucket in ["logs", "staging"] {
            put_object(&aws.endpoint, bucket, "");
        }
        let redshift = Redshift::start(&tables, &aws.endpoint);
        let mut world = World {
            clock: Clock::new(dir.path()),
            warehouse: Fates::start(redshift.port),
            dir,
            aws,
            tables,
            redshift,
            it: None,
            uuid: String::new(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let mut env = [self.aws.env.clone(), self.clock.env()].concat();
        env.push(("WAREHOUSE_PASSWORD".into(), USER.into()));
        self.it = Some(Millstream::start(&Launch {
            dir: self.dir.path(),
            pipeline: "idle.toml",
            port: 0,
            env,
        }));
    }

    fn it(&self) -> &Millstream {
        self.it.as_ref().expect("it runs")
    }

    /// Lines of a date, each with two tags, and bad ones behind them.
    fn put_date(&self, day: usize, rows: usize, bad: usize) {
        // Midnight of the first of March 2024.
        let midnight = 1_709_251_200 + (day - 1) * 86_400;
        let line = |n: usize| {
            let tags = [json!({ "tag": "a" }), json!({ "tag": "b" })];
            json!({ "name": format!("{day}-{n}"), "height": n, "details": { "n": n }, "seen": midnight + n, "tags": tags })
                .to_string()
                + "\n"
        };
        let lines: String = (0..rows).map(line).collect();
        let lines = lines + &"not a line of this log\n".repeat(bad);
        put_object(&self.aws.endpoint, &format!("{}/part.json", folder(day)), &lines);
    }

    /// Posts the cluster, the schema and the load.
    fn post(&mut self) {
        self.call(
            "POST /v1/clusters",
            &json!({
                "redshift_id": "warehouse", "host": "127.0.0.1", "port": self.warehouse.port, "database": "postgres",
                "user": USER, "password_env": "WAREHOUSE_PASSWORD", "tls": false,
                "staging": "s3://staging/loads", "iam_role": "arn:aws:iam::123456789012:role/copy",
            }),
        );
        let (status, _, said) = ask(&self.it().admin, "POST /v1/schema/people/1", &[], SCHEMA);
        assert_eq!(status, 200, "{said}");
        let load = json!({
            "redshift_id": "warehouse", "log_name": "people", "log_schema_version": "1", "s3_path": "s3://logs/people",
            "start_date": date(1), "end_date": date(LAST), "additional_arguments": { "max_errors": MOST_BAD },
        });
        let posted = self.call("POST /v1/jobs", &load);
        self.uuid = posted["post_accepted"]["uuid"].as_str().expect("a uuid").into();
    }

    fn call(&self, line: &str, body: &Value) -> Value {
        let header = "content-type: application/json";
        let (status, _, said) = ask(&self.it().admin, line, &[header], &body.to_string());
        assert_eq!(status, 200, "{line}: {said}");
        serde_json::from_str(&said).expect("the API answers with JSON")
    }

    fn runs(&self, what: &str, body: &Value) -> Value {
        self.call(&format!("POST /v1/runs/{}/{what}", self.uuid), body)
    }

    fn get(&self, path: &str) -> Value {
        let (status, said) = get(&self.it().admin, path);
        assert_eq!(status, 200, "{path}: {said}");
        serde_json::from_str(&said).expect("the API answers with JSON")
    }

    fn run(&self, day: usize) -> Value {
        let all = self.get(&format!("/v1/runs/{}", self.uuid))["runs"].take();
        let mut all = all.as_array().into_iter().flatten();
        let found = all.find(|run| run["date"] == date(day));
        found.cloned().unwrap_or_default()
    }

    fn wait_for_run(&self, day: usize, right: impl Fn(&Value) -> bool) {
        self.it()
            .wait_for(&format!("the run of {}", date(day)), || right(&self.run(day)));
    }

    fn wait_for_status(&self, status: &str) {
        let path = format!("/v1/jobs/job/{}", self.uuid);
        self.it().wait_for(status, || self.get(&path)["status"] == status);
    }

    /// Makes a date once more, and waits until it is made.
    fn again(&self, day: usize) {
        let tries = self.run(day)["attempt"].clone();
        self.runs("start", &json!({ "date": date(day) }));
        self.wait_for_run(day, |run| {
            run["status"] == "load_success" && run["attempt"] != tries
        });
        self.wait_for_status("complete");
    }

    /// `day of the month|rows` of a table.
    fn rows(&self, table: &str) -> Vec<String> {
        let sql = format!(
            "SELECT extract(day FROM run_date) || '|' || count(*) FROM {table} GROUP BY run_date ORDER BY run_date"
        );
        self.tables.query(&sql).into_iter().flatten().flatten().collect()
    }

    /// What tells whether any table has changed.
    fn content(&self) -> Vec<Option<String>> {
        let table = |table: &str| {
            let sql =
                format!("SELECT count(*) || md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t");
            self.tables.value(&sql)
        };
        ["people", "people_tags", "pipeline_errors"].map(table).to_vec()
    }
}

/// The dates are long over, whenever this runs.
fn date(day: usize) -> String {
    format!("2024-03-{day:02}")
}

fn folder(day: usize) -> String {
    format!("logs/people/2024/03/{day:02}")
}

/// The files below a directory, which may not be there.
fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let of = |path: std::path::PathBuf| match path.is_dir() {
        true => walk(&path),
        false => vec![path],
    };
    entries.flat_map(|entry| of(entry.path())).collect()
}
