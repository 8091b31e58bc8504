//! What a `[schedule]` may say, through the real binary: pipelines side by side in one process, whose clock shows half past
//! two of a night in November. Which dates run at first, and which once something has happened.

#[path = "support/redshift/mod.rs"]
mod redshift;
mod support;

use std::collections::BTreeMap;
use std::path::Path;

use redshift::postgres::{self, Postgres, USER};
use serde_json::Value;
use support::advertising::runs;
use support::clock::Clock;
use support::{Aws, Launch, Millstream, log, now_seconds, put_object, python_json};

/// 2026-11-25 02:30 UTC.
const NIGHT: i64 = 1_795_573_800;

const HALF_AN_HOUR: i64 = 1_800;

/// Rows of a date become those of a table.
const PIPELINE: &str = r#"
name = "$NAME"

[schedule]
$SCHEDULE
retry = { first = "5s", longest = "5s" }

[source.rows]
$SOURCE
event_time = "at"
[source.rows.columns]
id = "string not null"
at = "timestamp not null"

[sink.out]
input = "rows"
$SINK
"#;

/// A schedule, and how far its dates get: at first, and at last.
struct Case {
    name: &'static str,
    schedule: &'static str,
    first: &'static [(&'static str, &'static str)],
    last: &'static [(&'static str, &'static str)],
}

const CASES: [Case; 6] = [
    // Without the expression, both dates would be old enough at once.
    Case {
        name: "by_cron",
        schedule: "cron = \"0 3 * * *\"\navailable_after = \"0s\"\nstart = \"2026-11-24\"",
        first: &[("2026-11-24", "load_success")],
        last: &[("2026-11-24", "load_success"), ("2026-11-25", "load_success")],
    },
    Case {
        name: "newest_only",
        schedule: "available_after = \"24h\"\nstart = \"2026-11-20\"\ncatch_up = false",
        first: &[("2026-11-24", "load_success")],
        last: &[("2026-11-24", "load_success")],
    },
    Case {
        name: "on_a_file",
        schedule: "available_after = \"24h\"\nstart = \"2026-11-23\"\nmarker = \"in/${date}/COMPLETE\"",
        first: &[("2026-11-23", "load_success"), ("2026-11-24", "waiting")],
        last: &[("2026-11-23", "load_success"), ("2026-11-24", "load_success")],
    },
    Case {
        name: "on_an_object",
        schedule: "available_after = \"24h\"\nstart = \"2026-11-23\"\nmarker = \"s3://logs/${date:%Y/%m/%d}/COMPLETE\"",
        first: &[("2026-11-23", "load_success"), ("2026-11-24", "waiting")],
        last: &[("2026-11-23", "load_success"), ("2026-11-24", "load_success")],
    },
    // Where only the file says that it is.
    Case {
        name: "on_an_object_of_another",
        schedule: "available_after = \"24h\"\nstart = \"2026-11-23\"\nmarker = \"s3://elsewhere/${date}/COMPLETE\"",
        first: &[("2026-11-23", "load_success"), ("2026-11-24", "waiting")],
        last: &[("2026-11-23", "load_success"), ("2026-11-24", "load_success")],
    },
    // Its table is locked.
    Case {
        name: "too_slow",
        schedule: "available_after = \"24h\"\nstart = \"2026-11-24\"\ntimeout = \"4s\"",
        first: &[("2026-11-24", "load_error")],
        last: &[("2026-11-24", "load_success")],
    },
];

#[test]
fn dates_run_when_the_schedule_says() {
    let (dir, aws, warehouse) = (
        tempfile::tempdir().expect("a temporary directory"),
        Aws::start(),
        Postgres::start(),
    );
    python_json("bucket.py", &["logs"], &aws.env);
    let clock = Clock::new(dir.path());
    clock.set(NIGHT - now_seconds());
    for day in 20..=25 {
        rows(dir.path(), &format!("2026-11-{day}"));
    }
    std::fs::write(dir.path().join("in/2026-11-23/COMPLETE"), "").expect("a writable directory");
    put_object(&aws.endpoint, "logs/2026/11/23/COMPLETE", "");
    let elsewhere = Aws::start();
    for key in ["", "/2026-11-23/COMPLETE"] {
        put_object(&elsewhere.endpoint, &format!("elsewhere{key}"), "");
    }
    for day in ["2026-11-23", "2026-11-24"] {
        put_object(
            &elsewhere.endpoint,
            &format!("elsewhere/{day}/rows.json"),
            &two_rows(day),
        );
    }
    let lock = Lock::of(&warehouse);

    let files: Vec<String> = CASES
        .iter()
        .map(|case| case.write(dir.path(), &warehouse, &elsewhere))
        .collect();
    let others: Vec<&str> = files[1..].iter().map(String::as_str).collect();
    let it = Millstream::start_with(
        &Launch {
            dir: dir.path(),
            pipeline: &files[0],
            port: 0,
            env: [
                clock.env(),
                aws.env.clone(),
                vec![("WAREHOUSE_PASSWORD".into(), USER.into())],
            ]
            .concat(),
        },
        &others,
    );
    for case in &CASES {
        case.wait_for(&it, case.first);
    }
    let slow = &runs(&it, "too_slow")["2026-11-24"];
    let why = slow["error"].as_str().unwrap_or_default();
    assert!(why.contains("it took longer than 4s"), "{slow}");

    std::fs::write(dir.path().join("in/2026-11-24/COMPLETE"), "").expect("a writable directory");
    put_object(&aws.endpoint, "logs/2026/11/24/COMPLETE", "");
    put_object(&elsewhere.endpoint, "elsewhere/2026-11-24/COMPLETE", "");
    lock.open();
    for case in CASES.iter().filter(|case| case.name != "by_cron") {
        case.wait_for(&it, case.last);
    }
    // Nobody has looked since.
    CASES[0].wait_for(&it, CASES[0].first);
    clock.set(NIGHT + HALF_AN_HOUR - now_seconds());
    for case in &CASES {
        case.wait_for(&it, case.last);
    }
    for case in &CASES {
        for (date, run) in runs(&it, case.name) {
            assert_eq!(run["rows"]["out"], 2, "{} {date}: {run}", case.name);
        }
    }
    assert_eq!(warehouse.value("SELECT count(*) FROM slow").as_deref(), Some("2"));
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
}

impl Case {
    fn write(&self, dir: &Path, warehouse: &Postgres, elsewhere: &Aws) -> String {
        let source = match self.name {
            "on_an_object_of_another" => format!(
                "type = \"s3\"\npath = \"s3://elsewhere/${{date}}/\"\ninclude = \"*.json\"\nendpoint = \"{}\"",
                elsewhere.endpoint
            ),
            _ => "type = \"file\"\npath = \"in/${date}/rows.json\"".into(),
        };
        let sink = match self.name {
            "too_slow" => format!(
                "type = \"redshift\"\ndialect = \"postgres\"\ntable = \"slow\"\nurl = \"{}\"\npassword = \"${{WAREHOUSE_PASSWORD}}\"",
                warehouse.url()
            ),
            name => format!("type = \"sqlite\"\ntable = \"{name}\"\nkey = [\"id\"]"),
        };
        let text = PIPELINE.replace("$NAME", self.name).replace("$SOURCE", &source);
        let text = text.replace("$SINK", &sink);
        let file = dir.join(format!("{}.toml", self.name));
        std::fs::write(&file, text.replace("$SCHEDULE", self.schedule)).expect("a writable directory");
        file.display().to_string()
    }

    /// Waits until these dates, and no others, are as far as that.
    fn wait_for(&self, it: &Millstream, expect: &[(&str, &str)]) {
        let expect: BTreeMap<String, Value> = expect
            .iter()
            .map(|(date, status)| (date.to_string(), Value::from(*status)))
            .collect();
        it.wait_for(&format!("{}: {expect:?}", self.name), || {
            let runs = runs(it, self.name).into_iter();
            runs.map(|(date, run)| (date, run["status"].clone()))
                .collect::<BTreeMap<_, _>>()
                == expect
        });
    }
}

/// Two rows of a date.
fn rows(dir: &Path, date: &str) {
    let folder = dir.join("in").join(date);
    std::fs::create_dir_all(&folder).expect("a writable directory");
    std::fs::write(folder.join("rows.json"), two_rows(date)).expect("a writable directory");
}

fn two_rows(date: &str) -> String {
    let row = |n: i64| format!("{{\"id\":\"{date}-{n}\",\"at\":\"{date} 12:00:0{n}\"}}\n");
    row(1) + &row(2)
}

/// A table that somebody holds on to.
struct Lock {
    client: tokio_postgres::Client,
    runtime: tokio::runtime::Runtime,
}

impl Lock {
    fn of(warehouse: &Postgres) -> Lock {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let client = runtime.block_on(async {
            let client = postgres::connect(warehouse.port)
                .await
                .expect("it takes connections");
            let lock = "CREATE TABLE slow (id varchar(65535), at timestamp, run_date date); \
                        BEGIN; LOCK TABLE slow IN ACCESS EXCLUSIVE MODE";
            postgres::simple(&client, lock).await.expect("nobody else has it");
            client
        });
        Lock { client, runtime }
    }

    fn open(self) {
        let done = self.runtime.block_on(postgres::simple(&self.client, "COMMIT"));
        done.expect("it is there");
    }
}
