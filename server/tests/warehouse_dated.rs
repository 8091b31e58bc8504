//! The `redshift` sink in runs of dates, driven as the runtime does: rows are prepared by one sink and loaded by another,
//! again after each crash. A date's rows are replaced, never added; old dates go; merges hold whatever is loaded again.

#[path = "support/redshift/mod.rs"]
mod redshift;
mod support;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_engine::ErrorClass;
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::metrics::Counters;
use millstream_engine::run::DatedRun;
use millstream_engine::sink::{Committable, SinkConnector, SinkContext};
use millstream_operators::sinks::redshift::RedshiftConnector;
use redshift::data_api::{CANCELLED, FOLLOWED};
use redshift::postgres::{Postgres, USER};
use redshift::stand_in::Redshift;
use serde_json::{Value, json};
use support::{Aws, python_json};

const BUCKET: &str = "millstream-dated";

/// Between looks at what a test waits for.
const LOOK: Duration = Duration::from_millis(20);

/// At the end of a date's rows.
const LAST: Barrier = Barrier {
    epoch: Epoch(1),
    last: true,
};

#[test]
fn runs_of_dates_in_postgres() {
    let warehouse = Postgres::start();
    scenario(
        &warehouse,
        &json!({ "url": warehouse.url(), "dialect": "postgres", "password": USER }),
    );
}

/// In a process of its own, as AWS credentials are read from the environment once.
#[test]
fn runs_of_dates_in_redshift() {
    let aws = Aws::start();
    python_json("bucket.py", &[BUCKET], &aws.env);
    let this = std::env::current_exe().expect("a test is a program");
    let done = Command::new(this)
        .args(["--exact", "redshift_with_credentials", "--ignored", "--nocapture"])
        .envs(aws.env.clone())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
#[ignore = "runs_of_dates_in_redshift runs it with an emulator"]
fn redshift_with_credentials() {
    let endpoint = std::env::var("AWS_ENDPOINT_URL").expect("run by the test above");
    let tables = Postgres::start();
    let redshift = Redshift::start(&tables, &endpoint);
    let options = json!({ "url": redshift::postgres::url(redshift.port), "staging": format!("s3://{BUCKET}/staged"),
        "iam_role": "default" });
    scenario(&tables, &options);
    shows_partitions(&tables, &redshift, &options);
    vacuums_once_a_day(&tables, &redshift, &options);
    refuses_as_redshift_does(&tables, &redshift, &endpoint, &options);
    redshift::check_statements(&redshift.statements());

    let tables = Postgres::start();
    let redshift = Redshift::start(&tables, &endpoint);
    let api = redshift::data_api::start(&redshift, &tables, &endpoint);
    let api = json!({ "cluster": "warehouse", "user": "loader", "database": "shop", "endpoint": api });
    let staging = format!("s3://{BUCKET}/by-api");
    let options = json!({ "data_api": api, "staging": staging, "iam_role": "default" });
    scenario(&tables, &options);
    cancels_what_nobody_waits_for(&tables, &options);
    redshift::check_statements(&redshift.statements());
}

fn scenario(warehouse: &Postgres, options: &Value) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ran = |of: &Sink<'_>, date: &str, attempt, rows: &[(&str, i64)]| {
        runtime.block_on(async {
            let what = of.transform(date, attempt, rows).await;
            of.load(date, attempt, &what).await;
            // As after a crash that nobody knows the time of.
            of.load(date, attempt, &what).await;
            what
        })
    };
    let all = |table: &str| {
        let rows = format!(
            "SELECT string_agg(name || height || '@' || run_date, ' ' ORDER BY run_date, name) FROM {table}"
        );
        warehouse.value(&rows).unwrap_or_default()
    };

    let people = Sink {
        dir: dir.path(),
        options,
        more: json!({ "retention_days": 3 }),
        table: "people",
    };
    ran(&people, "2026-11-23", 1, &[("Fred", 72), ("Anna", 60)]);
    assert_eq!(all("people"), "Anna60@2026-11-23 Fred72@2026-11-23");
    let first = ran(&people, "2026-11-24", 1, &[("Zoe", 50)]);
    ran(&people, "2026-11-23", 2, &[("Fred", 73)]);
    assert_eq!(
        all("people"),
        "Fred73@2026-11-23 Zoe50@2026-11-24",
        "the date's rows are replaced"
    );
    runtime.block_on(people.load("2026-11-24", 1, &first));
    assert_eq!(all("people"), "Fred73@2026-11-23 Zoe50@2026-11-24");
    ran(&people, "2026-11-24", 2, &[]);
    assert_eq!(
        all("people"),
        "Fred73@2026-11-23",
        "a run without rows replaces, too"
    );
    ran(&people, "2026-11-25", 1, &[("Bea", 40)]);
    ran(&people, "2026-11-26", 1, &[("Cas", 41)]);
    assert_eq!(
        all("people"),
        "Bea40@2026-11-25 Cas41@2026-11-26",
        "three days are three days"
    );
    ran(&people, "2026-11-20", 1, &[("Old", 1)]);
    assert_eq!(
        all("people"),
        "Bea40@2026-11-25 Cas41@2026-11-26",
        "a date that is too old is not kept"
    );
    let ledger = warehouse.value(
        "SELECT string_agg(run || '#' || number || ':' || rows, ' ' ORDER BY run) FROM millstream_ledger WHERE run <> 'vacuum'",
    );
    assert_eq!(
        ledger.as_deref(),
        Some("2026-11-20#1:1 2026-11-23#2:1 2026-11-24#2:0 2026-11-25#1:1 2026-11-26#1:1")
    );

    let merged = Sink {
        dir: dir.path(),
        options,
        more: json!({ "mode": "merge", "key": ["name"] }),
        table: "newest",
    };
    ran(&merged, "2026-11-23", 1, &[("a", 1), ("b", 1), ("a", 2)]);
    ran(&merged, "2026-11-24", 1, &[("a", 3), ("c", 3)]);
    assert_eq!(all("newest"), "b1@2026-11-23 a3@2026-11-24 c3@2026-11-24");
    ran(&merged, "2026-11-23", 2, &[("a", 9), ("d", 9)]);
    assert_eq!(
        all("newest"),
        "d9@2026-11-23 a3@2026-11-24 c3@2026-11-24",
        "a later date holds"
    );
    let both = Sink {
        dir: dir.path(),
        options,
        more: json!({}),
        table: "raced",
    };
    runtime.block_on(async {
        let what = both.transform("2026-11-24", 1, &[("a", 1)]).await;
        tokio::join!(
            both.load("2026-11-24", 1, &what),
            both.load("2026-11-24", 1, &what)
        );
    });
    assert_eq!(all("raced"), "a1@2026-11-24", "of two processes one loads");
    let stalled = Sink {
        table: "stalled",
        ..both
    };
    runtime.block_on(stalled.overtaken());
    assert_eq!(
        all("stalled"),
        "new2@2026-11-24",
        "who was overtaken harms nobody"
    );
    let details = warehouse.value("SELECT details FROM newest WHERE name = 'd'");
    assert_eq!(details.as_deref(), Some("{\"n\": 9}"));
}

/// The stand-in itself: a width in bytes, and a manifest without lengths. The sink would have done neither.
fn refuses_as_redshift_does(tables: &Postgres, redshift: &Redshift, endpoint: &str, options: &Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sink = Sink {
        dir: dir.path(),
        options,
        more: json!({}),
        table: "narrow",
    };
    support::put_object(
        endpoint,
        &format!("{BUCKET}/without-lengths"),
        r#"{"entries":[{"url":"s3://x/y","mandatory":true}]}"#,
    );
    runtime.expect("a runtime").block_on(async {
        let staged = sink.transform("2026-11-24", 1, &[("é", 1), ("éé", 2)]).await;
        let manifest = staged.0["loads"][0]["manifest"].as_str().expect("a manifest").to_string();
        let client = redshift::postgres::connect(redshift.port).await.expect("it takes connections");
        let create = "CREATE TABLE IF NOT EXISTS \"public\".\"narrow\" (\"name\" varchar(3), \"height\" smallint, \
                      \"details\" varchar(99), \"run_date\" date)";
        client.simple_query(create).await.expect("it is created");
        for (manifest, says) in [
            (manifest, "Check 'stl_load_errors'"),
            (format!("s3://{BUCKET}/without-lengths"), "meta.content_length"),
        ] {
            let copy = format!(
                "COPY \"public\".\"narrow\" FROM '{manifest}' IAM_ROLE default FORMAT AS PARQUET MANIFEST"
            );
            let refused = client.simple_query(&copy).await.expect_err("it is refused");
            let refused = refused.as_db_error().expect("an error of the warehouse").message();
            assert!(refused.contains(says), "{refused}");
        }
    });
    let written =
        tables.query("SELECT trim(column_name), line_number, trim(error_message) FROM sys_load_error_detail");
    let expect = ["name", "2", "String length exceeds DDL length"].map(|v| Some(v.to_string()));
    assert_eq!(written, [expect]);
    assert_eq!(tables.value("SELECT count(*) FROM narrow").as_deref(), Some("0"));
}

/// A new external table, and a partition for each date; deleted space is given back once a day, not once a date.
fn shows_partitions(tables: &Postgres, redshift: &Redshift, options: &Value) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let more = json!({ "vacuum": "daily", "external": { "schema": "spectrum", "location": "s3://lake/people", "partitions": ["year", "month"] } });
    let sink = Sink {
        dir: dir.path(),
        options,
        more,
        table: "shown",
    };
    runtime.expect("a runtime").block_on(async {
        for date in ["2026-11-30", "2026-12-01"] {
            let what = sink.transform(date, 1, &[("a", 1)]).await;
            sink.load(date, 1, &what).await;
        }
    });
    let said = redshift.statements();
    let count = |part: &str| said.iter().filter(|sql| sql.starts_with(part)).count();
    assert_eq!(
        count("CREATE EXTERNAL TABLE \"spectrum\".\"shown_spectrum\""),
        1,
        "{said:?}"
    );
    assert_eq!(count("VACUUM DELETE ONLY \"public\".\"shown\""), 1, "{said:?}");
    let partitions = tables.query("SELECT statement FROM svv_external_tables WHERE statement LIKE 'ALTER%'");
    let last = partitions.last().and_then(|row| row[0].clone());
    assert_eq!(
        last.as_deref(),
        Some(
            "ALTER TABLE \"spectrum\".\"shown_spectrum\" ADD IF NOT EXISTS PARTITION (\"year\" = '2026', \"month\" = \
             '12') LOCATION 's3://lake/people/year=2026/month=12/'"
        )
    );
}

/// A batch that is under way when its load is given up comes to nothing; the load is made later.
fn cancels_what_nobody_waits_for(tables: &Postgres, options: &Value) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sink = Sink {
        dir: dir.path(),
        options,
        more: json!({}),
        table: "given_up",
    };
    let loaded = "SELECT string_agg(run, ' ') FROM millstream_ledger WHERE table_name = 'given_up'";
    runtime.expect("a runtime").block_on(async {
        let connect = || async {
            redshift::postgres::connect(tables.port)
                .await
                .expect("it takes connections")
        };
        let (other, client) = (connect().await, connect().await);
        let asked = async |sql: &str| redshift::postgres::simple(&client, sql).await.expect("an answer");
        let waits = "SELECT pid FROM pg_locks WHERE NOT granted";
        let what = sink.transform("2026-11-24", 1, &[("a", 1)]).await;
        // It may be read, but not locked.
        let lock = "BEGIN; LOCK TABLE millstream_ledger IN ROW EXCLUSIVE MODE";
        other.batch_execute(lock).await.expect("nobody else has it");
        let (followed, cancelled) = (FOLLOWED.load(SeqCst), CANCELLED.load(SeqCst));
        let under_way = async {
            while asked(waits).await.is_empty() || FOLLOWED.load(SeqCst) == followed {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = sink.load("2026-11-24", 1, &what) => panic!("the ledger is locked"),
            () = under_way => {}
        }
        while CANCELLED.load(SeqCst) == cancelled {
            tokio::time::sleep(LOOK).await;
        }
        other.batch_execute("COMMIT").await.expect("it is there");
        while !asked(waits).await.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
        assert_eq!(asked(loaded).await, [[None]]);
        sink.load("2026-11-24", 1, &what).await;
    });
    assert_eq!(tables.value(loaded).as_deref(), Some("2026-11-24"));
    assert_eq!(
        tables.value("SELECT count(*) FROM given_up").as_deref(),
        Some("1")
    );
}

/// However many dates are loaded on a day.
fn vacuums_once_a_day(tables: &Postgres, redshift: &Redshift, options: &Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let dir = tempfile::tempdir().expect("a temporary directory");
    runtime.expect("a runtime").block_on(async {
        for (date, attempt) in [
            ("2026-11-23", 1),
            ("2026-11-24", 1),
            ("2026-11-25", 1),
            ("2026-11-23", 2),
        ] {
            // A date has a directory of its own.
            let sink = Sink {
                dir: &dir.path().join(date),
                options,
                more: json!({ "vacuum": "daily" }),
                table: "cleared",
            };
            let what = sink.transform(date, attempt, &[("a", 1)]).await;
            sink.load(date, attempt, &what).await;
        }
    });
    let said = redshift.statements();
    let vacuums = said
        .iter()
        .filter(|sql| *sql == "VACUUM DELETE ONLY \"public\".\"cleared\"")
        .count();
    let days = "SELECT count(DISTINCT loaded_at::date) FROM millstream_ledger WHERE table_name = 'cleared'";
    assert_eq!(Some(vacuums.to_string()), tables.value(days), "{said:?}");
}

/// A sink of one table.
struct Sink<'a> {
    dir: &'a Path,
    options: &'a Value,
    more: Value,
    table: &'static str,
}

impl Sink<'_> {
    async fn transform(&self, date: &str, attempt: u32, rows: &[(&str, i64)]) -> Committable {
        let mut sink = self.open(date, attempt).await;
        // Batches of one, so that an order between them counts.
        for row in rows {
            sink.write(batch(std::slice::from_ref(row)))
                .await
                .expect("rows are taken");
        }
        sink.prepare(LAST).await.expect("rows are staged")
    }

    /// A first attempt is given up and goes on all the same, or begins only then, while the second one is made.
    async fn overtaken(&self) {
        let date = "2026-11-24";
        let (mut first, mut late) = (self.open(date, 1).await, self.open(date, 1).await);
        first.write(batch(&[("old", 1)])).await.expect("rows are taken");
        let second = self.transform(date, 2, &[("new", 2)]).await;
        // Its files may be gone under its hands.
        let _ = first.write(batch(&[("old", 3)])).await;
        let _ = first.prepare(LAST).await;
        late.write(batch(&[("late", 4)])).await.expect("rows are taken");
        late.prepare(LAST).await.expect("rows are staged");
        self.load(date, 2, &second).await;
    }

    async fn open(&self, date: &str, attempt: u32) -> Box<dyn millstream_engine::sink::Sink> {
        let opened = RedshiftConnector.open(self.context(date, attempt)).await;
        opened.expect("it opens")
    }

    async fn load(&self, date: &str, attempt: u32, what: &Committable) {
        let mut sink = self.open(date, attempt).await;
        // As the runtime tries again.
        while let Err(e) = sink.commit(Epoch(1), what.clone()).await {
            assert!(matches!(e.class(), ErrorClass::Retry { .. }), "{e}");
        }
    }

    fn context(&self, date: &str, attempt: u32) -> SinkContext {
        let mut options = self.options.clone();
        for (key, value) in self.more.as_object().expect("options") {
            options[key] = value.clone();
        }
        SinkContext {
            run: Some(DatedRun {
                date: date.parse().expect("a date"),
                attempt,
            }),
            pipeline: "people".into(),
            name: self.table.into(),
            input: format!("log.{}", self.table),
            schema: batch(&[]).schema(),
            event_time: None,
            options,
            // As the runtime has it: a directory for each date.
            data_dir: self.dir.join("runs").join(date).join("sinks").join(self.table),
            counters: Counters::detached(),
        }
    }
}

/// As a log's schema declares them.
fn batch(rows: &[(&str, i64)]) -> RecordBatch {
    let field = |name: &str, of: DataType, sql: &str| {
        Field::new(name, of, true).with_metadata(HashMap::from([("sql".to_string(), sql.to_string())]))
    };
    let fields = vec![
        field("name", DataType::Utf8, "varchar(7) not null distkey"),
        field("height", DataType::Int64, "int2"),
        field("details", DataType::Utf8, "super"),
    ];
    let schema = Schema::new(fields).with_metadata(HashMap::from([("sortkey".into(), "height,name".into())]));
    let details = rows.iter().map(|(_, height)| format!("{{\"n\": {height}}}"));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(name, _)| name))),
        Arc::new(Int64Array::from_iter_values(
            rows.iter().map(|(_, height)| *height),
        )),
        Arc::new(StringArray::from_iter_values(details)),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).expect("columns of one length")
}
