//! `millstream query` over what the default pipeline writes, and over the raw lines of the same rows: they agree, with each
//! other and with what was sent, on disk and in S3.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::{Aws, Launch, Millstream, free_port, log, post, python_json, root};

/// Days with one digit and two in month and day; the third is between others.
const DAYS: [&str; 4] = ["2026-01-09", "2026-11-21", "2026-11-22", "2026-11-23"];

/// Rows of a day.
const IMPRESSIONS: usize = 60;
const CLICKS: usize = 20;

#[test]
fn lake_and_raw_lines_agree_on_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Without a word about it, the lake is where the default pipeline writes.
    let site = Site {
        dir: dir.path(),
        env: Vec::new(),
        lake: dir.path().join("data/lake").display().to_string(),
        raw: dir.path().join("raw").display().to_string(),
        lake_args: Vec::new(),
    };
    site.fill();
    site.check();
    check_formats(&site);
    check_more_columns(&site);
    check_broken_lines(&site);
    check_mistakes(&site);
}

#[test]
fn lake_and_raw_lines_agree_in_s3() {
    let aws = Aws::start();
    python_json("bucket.py", &["lake"], &aws.env);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut env = aws.env.clone();
    let lake = "s3://lake/of/ads".to_string();
    env.push(("LAKE".into(), lake.clone()));
    let site = Site {
        dir: dir.path(),
        env,
        lake_args: vec![
            "--lake".into(),
            format!("{lake}?region=us-east-1&endpoint={}", aws.endpoint),
        ],
        lake,
        raw: "s3://lake/raw".into(),
    };
    site.fill();
    site.check();
    let nowhere = site.query("SELECT 1 FROM t", &["--lake", "s3://nowhere/x"]);
    assert!(!nowhere.status.success());
    assert!(said(&nowhere).contains("nowhere"), "{}", said(&nowhere));
}

struct Site<'a> {
    dir: &'a Path,
    env: Vec<(String, String)>,
    lake: String,
    raw: String,
    lake_args: Vec<String>,
}

impl Site<'_> {
    /// Sends beacons to the default pipeline, and writes the same rows as a raw delivery.
    fn fill(&self) {
        let pipeline = root().join("pipelines/advertising.toml").display().to_string();
        let it = Millstream::start(&Launch {
            dir: self.dir,
            pipeline: &pipeline,
            port: free_port(),
            env: self.env.clone(),
        });
        for (kind, id, count) in [
            ("impressions", "impression_id", IMPRESSIONS),
            ("clicks", "click_id", CLICKS),
        ] {
            let mut all = Vec::new();
            for day in DAYS {
                for n in 0..count {
                    let at = format!("{day} {:02}:{:02}:07.500", n * 7 % 24, n % 60);
                    let mut row = json!({ "impression_id": format!("{day}-{n}"), "ad_id": format!("ad-{}", n % 7),
                        "occurred_at": at });
                    row[id] = json!(format!("{day}-{n}"));
                    all.push(row);
                }
            }
            let (status, answer) = post(
                &it.ingest,
                &format!("/advertising/{kind}"),
                &json!({ kind: all }).to_string(),
            );
            assert_eq!(status, 200, "{answer}");
            assert!(answer.starts_with(r#"{"failed_count":0"#), "{answer}");
            let file = self.dir.join(format!("{kind}.json"));
            std::fs::write(&file, json!(all).to_string()).expect("a writable directory");
            let file = file.display().to_string();
            let hours = python_json("query.py", &["raw", &self.raw, kind, &file], &self.env);
            assert!(hours.as_u64() > Some(10), "{hours} hours");
        }
        assert_eq!(it.terminate(), 0, "{}", log(self.dir));
    }

    fn check(&self) {
        for (table, rows) in [("impressions", IMPRESSIONS), ("clicks", CLICKS)] {
            let expect = json!(DAYS.map(|day| json!([day, rows, 7])));
            let outside = python_json(
                "query.py",
                &["days", &format!("{}/{table}", self.lake)],
                &self.env,
            );
            assert_eq!(outside, expect, "as DuckDB sees {table}");
            for (of, name) in [
                ("the lake", table.to_string()),
                ("raw lines", format!("raw.ad_{table}")),
            ] {
                let sql = format!(
                    "SELECT CAST(CAST(occurred_at AS TIMESTAMP) AS DATE) AS day, count(*) AS n, \
                     count(DISTINCT ad_id) AS ads FROM {name} GROUP BY 1 ORDER BY 1"
                );
                let expect: Vec<Value> = DAYS
                    .iter()
                    .map(|day| json!({ "day": day, "n": rows, "ads": 7 }))
                    .collect();
                assert_eq!(self.rows(&sql), expect, "days of {of}");
                let sql = format!(
                    "SELECT year, month, day, count(*) AS n FROM {name} WHERE month < 10 OR day = 22 \
                     GROUP BY ALL ORDER BY month"
                );
                let expect = [(1, 9), (11, 22)]
                    .map(|(month, day)| json!({ "year": 2026, "month": month, "day": day, "n": rows }));
                assert_eq!(self.rows(&sql), expect, "partitions of {of}");
            }
        }
        // Each row is the same, not only their number.
        let differ = "SELECT count(*) AS n, count(l.impression_id) AS lake, count(r.impression_id) AS raw \
                      FROM impressions l FULL JOIN raw.ad_impressions r ON l.impression_id = r.impression_id \
                      AND l.ad_id = r.ad_id AND l.occurred_at = CAST(r.occurred_at AS TIMESTAMP)";
        let all = IMPRESSIONS * DAYS.len();
        assert_eq!(self.rows(differ), [json!({ "n": all, "lake": all, "raw": all })]);
        self.check_pruning();
    }

    /// A day that a query does not ask for is not even opened.
    fn check_pruning(&self) {
        let table = format!("{}/impressions", self.lake);
        let damaged = python_json("query.py", &["damage", &table, "2026/11/22"], &self.env);
        assert!(damaged.as_u64() >= Some(1), "{damaged} files were damaged");
        for day in [
            "month = 1 AND day = 9",
            "year = 2026 AND month = 11 AND day = 23",
            "day > 22",
        ] {
            let rows = self.rows(&format!(
                "SELECT count(impression_id) AS n FROM impressions WHERE {day}"
            ));
            assert_eq!(rows, [json!({ "n": IMPRESSIONS })], "{day}");
        }
        let whole = self.query("SELECT count(impression_id) FROM impressions", &[]);
        assert!(!whole.status.success(), "damage is an error, not fewer rows");
    }

    fn rows(&self, sql: &str) -> Vec<Value> {
        let out = self.query(sql, &["--raw", &self.raw, "--format", "json"]);
        assert!(out.status.success(), "{sql}: {}", said(&out));
        let lines = String::from_utf8(out.stdout).expect("text");
        lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    fn query(&self, sql: &str, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
        command.current_dir(self.dir).arg("query").arg(sql);
        if !args.contains(&"--lake") {
            command.args(&self.lake_args);
        }
        command.args(args).env_remove("RUST_LOG");
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command.output().expect("it runs")
    }
}

/// A column that was added later, and rows that have no time.
fn check_more_columns(site: &Site<'_>) {
    python_json(
        "query.py",
        &["extend", &format!("{}/impressions", site.lake)],
        &[],
    );
    for (which, rows, campaigns) in [("day = 9", IMPRESSIONS, 0), ("year = -1", 1, 1)] {
        let sql = format!("SELECT count(*) AS n, count(campaign) AS c FROM impressions WHERE {which}");
        assert_eq!(site.rows(&sql), [json!({ "n": rows, "c": campaigns })], "{which}");
    }
}

/// What is no row is left out, and told of.
fn check_broken_lines(site: &Site<'_>) {
    let args = ["--raw", site.raw.as_str()];
    let out = site.query("SELECT count(*) FROM raw.ad_clicks", &args);
    let file = format!("{}/ad/clicks/2026/11/21/00/broken.json", site.raw);
    let says = format!("warning: 1 line of {file} is no JSON object, and left out");
    assert!(said(&out).contains(&says), "{}", said(&out));
    let unread = site.query("SELECT count(*) FROM raw.ad_clicks WHERE day = 9", &args);
    assert_eq!(said(&unread), "");
}

fn check_formats(site: &Site<'_>) {
    let sql = "SELECT * FROM (VALUES (1, 'a,b', 0.5, CAST('2026-11-23 01:02:03.5' AS TIMESTAMP)), (20, '', NULL, NULL), \
               (300, 'say \"x\"', 1e10, NULL)) AS t(n, text, share, at)";
    let cases = [
        (
            "table",
            "  n  text             share  at\n\
             ---  -------  -------------  ------------------------\n\
             \x20 1  a,b                0.5  2026-11-23T01:02:03.500Z\n\
             \x2020                    NULL  NULL\n\
             300  say \"x\"  10000000000.0  NULL\n\
             (3 rows)\n",
        ),
        (
            "json",
            "{\"n\":1,\"text\":\"a,b\",\"share\":0.5,\"at\":\"2026-11-23T01:02:03.500Z\"}\n{\"n\":20,\"text\":\"\",\"share\":null,\
             \"at\":null}\n",
        ),
        (
            "csv",
            "n,text,share,at\n1,\"a,b\",0.5,2026-11-23T01:02:03.500Z\n20,\"\",,\n300,\"say \"\"x\"\"\",10000000000.0,\n",
        ),
    ];
    for (format, expect) in cases {
        let out = site.query(sql, &["--format", format]);
        assert!(out.status.success(), "{}", said(&out));
        let text = String::from_utf8(out.stdout).expect("text");
        assert!(text.starts_with(expect), "{format}:\n{text}\nnot\n{expect}");
    }
    let none = site.query("SELECT ad_id FROM clicks WHERE false", &["--format", "csv"]);
    assert_eq!(String::from_utf8_lossy(&none.stdout), "ad_id\n");
    let tables = site.query("SHOW TABLES", &["--format", "csv"]);
    let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
    for table in [
        "lake,public,clicks,BASE TABLE",
        "lake,public,impressions,BASE TABLE",
    ] {
        assert!(tables.contains(table), "{tables}");
    }
}

fn check_mistakes(site: &Site<'_>) {
    let raw = site.raw.clone();
    let cases: [(&str, &[&str], &[&str]); 11] = [
        (
            "SELECT * FROM impression",
            &[],
            &["no table \"impression\" below", "did you mean \"impressions\"?"],
        ),
        ("SELECT * FROM other", &[], &["known: clicks, impressions"]),
        (
            "SELECT * FROM raw.ad_click",
            &["--raw", &raw],
            &["did you mean \"ad_clicks\"?"],
        ),
        (
            "SELECT * FROM raw.clicks",
            &[],
            &["no table \"clicks\": name the tree of its JSON lines with --raw"],
        ),
        (
            "SELECT count(*)\nFROM clicks WHERE add_id = 'x'",
            &[],
            &[
                "line 2, column 19: ",
                "^^^^^^",
                "ad_id",
                "of its first and its last files",
            ],
        ),
        (
            "SELECT count(* FROM clicks",
            &[],
            &["line 1, column 16: ", "FROM"],
        ),
        ("CREATE TABLE t (a INT)", &[], &["queries only read"]),
        (
            "EXPLAIN INSERT INTO clicks SELECT * FROM clicks",
            &[],
            &["queries only read"],
        ),
        (
            "SELECT 1; SELECT 2",
            &[],
            &["only supports a single SQL statement"],
        ),
        ("SELECT 1 AS n INTO t", &[], &["DDL not supported"]),
        (
            "SELECT 1 FROM t",
            &["--lake", "absent"],
            &["there is no directory \"absent\""],
        ),
    ];
    for (sql, args, says) in cases {
        let out = site.query(sql, args);
        assert_eq!(out.status.code(), Some(2), "{sql}: {}", said(&out));
        for part in says {
            assert!(
                said(&out).contains(part),
                "{sql}: {} without {part:?}",
                said(&out)
            );
        }
    }
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}
