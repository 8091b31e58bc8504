//! The `redshift` sink through the real binary into a real PostgreSQL: each row once, whatever is killed and whatever
//! answer is lost; tables that grow with the stream; keys, retention, TLS.

#[path = "support/redshift/mod.rs"]
mod redshift;
mod support;

use std::path::Path;

use redshift::fates::{Fates, Stop};
use redshift::postgres::{self, Postgres, USER};
use serde_json::{Value, json};
use support::{Launch, Millstream, free_port, log, post};

/// Orders into a table of their own.
const ORDERS: &str = r#"
name = "shop"

[checkpoint]
interval = "300ms"

[source.orders]
type = "http"
path = "/orders"
event_time = "at"
[source.orders.columns]
id = "bigint not null"
customer = "string"
price = "double"
paid = "boolean"
day = "date"
at = "timestamp not null"

[sink.warehouse]
type = "redshift"
input = "orders"
password = "${WAREHOUSE_PASSWORD}"
"#;

const POSTGRES: &str = "dialect = \"postgres\"\ninterval = \"300ms\"\n";

/// A directory with a pipeline, and the processes that run in it.
struct Site {
    dir: tempfile::TempDir,
    pipeline: String,
    env: Vec<(String, String)>,
}

impl Site {
    fn new(pipeline: &str, options: &str) -> Site {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let env = vec![("WAREHOUSE_PASSWORD".into(), USER.into())];
        let mut site = Site {
            pipeline: dir.path().join("shop.toml").display().to_string(),
            dir,
            env,
        };
        site.write(pipeline, options);
        site
    }

    fn write(&mut self, pipeline: &str, options: &str) {
        std::fs::write(&self.pipeline, format!("{pipeline}{options}")).expect("a writable directory");
    }

    fn launch(&self) -> Launch<'_> {
        Launch {
            dir: self.path(),
            pipeline: &self.pipeline,
            port: free_port(),
            env: self.env.clone(),
        }
    }

    fn start(&self) -> Millstream {
        Millstream::start(&self.launch())
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn stop(&self, it: Millstream) {
        assert_eq!(it.terminate(), 0, "{}", log(self.path()));
    }
}

fn order(id: i64) -> Value {
    json!({ "id": id, "customer": format!("c\t{}\\", id % 7), "price": id as f64 / 8.0, "paid": id % 2 == 0,
        "day": "2026-11-24", "at": format!("2026-11-24 12:00:{:02}.{:03}", id % 60, id % 1000) })
}

fn send(it: &Millstream, rows: &[Value]) {
    let (status, answer) = post(&it.ingest, "/orders", &json!(rows).to_string());
    assert_eq!(status, 200, "{answer}");
    assert!(answer.starts_with(r#"{"failed_count":0"#), "{answer}");
}

fn count(it: &Millstream, what: &str) -> u64 {
    it.node("shop", "sink.warehouse")["counts"][what]
        .as_u64()
        .unwrap_or(0)
}

/// `kill -9` at each statement of the load: before it, and for the commit also when it was carried out.
#[test]
fn rows_are_there_once_after_a_kill_at_each_step() {
    let warehouse = Postgres::start();
    let proxy = Fates::start(warehouse.port);
    let site = Site::new(
        ORDERS,
        &format!("{POSTGRES}url = \"{}\"\n", postgres::url(proxy.port)),
    );
    let (mut sent, mut stops) = (0, 0);
    let mut rows = || {
        sent += 40;
        (sent - 40..sent).map(order).collect::<Vec<_>>()
    };
    let ledger = "CREATE TABLE IF NOT EXISTS \"public\".\"millstream_ledger\"";
    let it = site.start();
    proxy.stop_at(Stop::Before("SET TimeZone"));
    send(&it, &rows());
    it.wait_for("the first load", || proxy.reached() == 1);
    it.kill();
    stops += 1;
    // The same load again and again, by processes that recover.
    for stop in [
        Stop::Before(ledger),
        Stop::Unanswered(ledger),
        Stop::Before("BEGIN"),
        Stop::Before("LOCK TABLE"),
        Stop::Before("CREATE TABLE IF NOT EXISTS \"public\".\"orders\""),
        Stop::Unanswered("COPY \"public\".\"orders\""),
        Stop::Before("INSERT INTO \"public\".\"millstream_ledger\""),
        Stop::Before("COMMIT"),
        Stop::Unanswered("COMMIT"),
        Stop::Before("ANALYZE"),
    ] {
        proxy.stop_at(stop);
        let mut child = support::spawn(&site.launch(), &[]);
        stops += 1;
        wait_until(&format!("{stop:?}"), || proxy.reached() == stops);
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }
    // New loads, by processes that have made others.
    for stop in [
        Stop::Before("BEGIN"),
        Stop::Unanswered("COPY \"public\".\"orders\""),
        Stop::Unanswered("COMMIT"),
        Stop::Before("ANALYZE"),
    ] {
        let it = site.start();
        proxy.stop_at(stop);
        send(&it, &rows());
        stops += 1;
        it.wait_for(&format!("{stop:?}"), || proxy.reached() == stops);
        it.kill();
    }
    let last = rows();
    // The connection breaks instead of the answer to COMMIT: the same process asks the ledger.
    let it = site.start();
    it.wait_for("what was there", || there(&warehouse) == (sent - 40, sent - 40));
    proxy.stop_at(Stop::Broken("COMMIT"));
    send(&it, &last);
    it.wait_for("the last rows", || {
        there(&warehouse) == (sent, sent) && count(&it, "loads_found_made") > 0
    });
    site.stop(it);
    assert_eq!(there(&warehouse), (sent, sent), "{}", log(site.path()));
    let found = warehouse.query("SELECT customer, price, paid, day, at FROM orders WHERE id = 123");
    let expect = ["c\t4\\", "15.375", "f", "2026-11-24", "2026-11-24 12:00:03.123"];
    assert_eq!(found, [expect.map(|v| Some(v.to_string()))]);
    let loaded = warehouse.value("SELECT sum(rows) FROM millstream_ledger");
    assert_eq!(loaded, Some(sent.to_string()));
    let staged = site.path().join("data/shop/sinks/warehouse/staged");
    let left: Vec<_> = walk(&staged);
    assert!(left.is_empty(), "{left:?}");
}

fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !ready() {
        assert!(started.elapsed() < support::PATIENCE, "waited in vain for {what}");
        support::pause(std::time::Duration::from_millis(20));
    }
}

/// Rows, and different ones.
fn there(warehouse: &Postgres) -> (i64, i64) {
    let number = |sql| warehouse.value(sql).and_then(|n| n.parse().ok()).unwrap_or(-1);
    (
        number("SELECT count(*) FROM orders"),
        number("SELECT count(DISTINCT id) FROM orders"),
    )
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let found = entries.flat_map(|entry| match entry.path() {
        path if path.is_dir() => walk(&path),
        path => vec![path],
    });
    found.collect()
}
