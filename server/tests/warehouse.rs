//! The `redshift` sink through the real binary into a real PostgreSQL: each row once, whatever is killed and whatever
//! answer is lost; tables that grow with the stream; keys, retention, TLS.

#[path = "support/redshift/mod.rs"]
mod redshift;
mod support;

use std::path::Path;

use redshift::fates::{Fates, Stop};
use redshift::postgres::{self, Postgres, USER};
use redshift::stand_in::Redshift;
use serde_json::{Value, json};
use support::{Aws, Launch, Millstream, certificate, free_port, log, post, python_json};

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

/// Rows gather over checkpoints, and over kills, until they are due: here, at the stop.
#[test]
fn rows_that_wait_survive_kills_and_are_one_load() {
    let warehouse = Postgres::start();
    let options = format!("{POSTGRES}url = \"{}\"\n", warehouse.url()).replace("300ms", "1h");
    let site = Site::new(ORDERS, &options);
    for life in 0..3 {
        let it = site.start();
        send(&it, &(life * 40..(life + 1) * 40).map(order).collect::<Vec<_>>());
        it.wait_for("a checkpoint with the rows", || {
            let manifest = support::newest_manifest(site.path(), "shop").to_string();
            manifest.matches("\"part-").count() + manifest.matches("/part-").count() > life as usize
        });
        it.kill();
    }
    assert_eq!(there(&warehouse), (-1, -1), "nothing is due");
    site.stop(site.start());
    assert_eq!(there(&warehouse), (120, 120), "{}", log(site.path()));
    assert_eq!(
        warehouse
            .value("SELECT count(*) FROM millstream_ledger")
            .as_deref(),
        Some("1")
    );
}

/// Redshift's stand-in, its tables, and a bucket to stage in.
struct Cluster {
    redshift: Redshift,
    tables: Postgres,
    aws: Aws,
}

const BUCKET: &str = "millstream-staging";

impl Cluster {
    fn start() -> Cluster {
        let (tables, aws) = (Postgres::start(), Aws::start());
        python_json("bucket.py", &[BUCKET], &aws.env);
        let redshift = Redshift::start(&tables, &aws.endpoint);
        Cluster {
            redshift,
            tables,
            aws,
        }
    }

    /// A site whose sink loads it through `port`.
    fn site(&self, port: u16, options: &str) -> Site {
        let mut site = Site::new(ORDERS, &self.options(port, options));
        site.env.extend(self.aws.env.clone());
        site
    }

    fn options(&self, port: u16, more: &str) -> String {
        format!(
            "url = \"{}\"\nstaging = \"s3://{BUCKET}/staged\"\niam_role = \"arn:aws:iam::123456789012:role/copy\"\n\
             interval = \"300ms\"\n{more}",
            postgres::url(port)
        )
    }
}

/// Killed around COPY and COMMIT, then with a new column in the middle and wider text.
#[test]
fn redshift_gets_rows_once_by_manifest_and_its_table_grows() {
    let cluster = Cluster::start();
    let proxy = Fates::start(cluster.redshift.port);
    let keys = "table = \"orders\"\ndistkey = \"customer\"\nsortkey = [\"day\", \"id\"]\n";
    let mut site = cluster.site(proxy.port, "");
    site.write(
        &sold(""),
        &cluster.options(proxy.port, &format!("varchar_bytes = 10\n{keys}")),
    );
    let mut sent = 0;
    let mut rows = || {
        sent += 40;
        (sent - 40..sent).map(order).collect::<Vec<_>>()
    };
    for (life, stop) in (1..).zip([
        Stop::Before("COPY"),
        Stop::Unanswered("COPY"),
        Stop::Unanswered("COMMIT"),
    ]) {
        let it = site.start();
        proxy.stop_at(stop);
        send(&it, &rows());
        it.wait_for(&format!("{stop:?}"), || proxy.reached() == life);
        it.kill();
    }
    let it = site.start();
    // In bytes they are too many, in characters they are not.
    let mut wide = order(999);
    wide["customer"] = "ééééééé".into();
    send(&it, &[wide.clone()]);
    it.wait_for("the wide row to be refused", || count(&it, "rows_refused") == 1);
    let refused = it.stream("shop", "warehouse.rejected");
    assert_eq!(
        refused[0]["reason"],
        "customer: 14 bytes of text, but the column is varchar(10)"
    );
    site.stop(it);
    assert_eq!(there(&cluster.tables), (120, 120), "{}", log(site.path()));

    site.write(
        &sold("'C' || paid AS coupon, "),
        &cluster.options(proxy.port, &format!("varchar_bytes = 20\n{keys}")),
    );
    let it = site.start();
    send(&it, &[wide, order(200)]);
    it.wait_for("the wide row", || there(&cluster.tables) == (122, 122));
    site.stop(it);
    let found = cluster
        .tables
        .query("SELECT customer, coupon, price FROM orders WHERE id IN (999, 7) ORDER BY id");
    let text = |v: &str| Some(v.to_string());
    assert_eq!(
        found,
        [
            vec![text("c\t0\\"), None, text("0.875")],
            vec![text("ééééééé"), text("Cfalse"), text("124.875")]
        ]
    );
    let columns = cluster.tables.query(
        "SELECT string_agg(column_name || coalesce(character_maximum_length::text, ''), ' ' ORDER BY ordinal_position) \
         FROM information_schema.columns WHERE table_name = 'orders'",
    );
    assert_eq!(
        columns[0][0].as_deref(),
        Some("id customer20 price paid day at coupon20")
    );
    let left = site.path().join("left");
    python_json(
        "download.py",
        &[BUCKET, &left.display().to_string()],
        &cluster.aws.env,
    );
    assert!(walk(&left).is_empty(), "{:?}", walk(&left));
    let said = cluster.redshift.statements();
    let has = |part: &str| said.iter().any(|sql| sql.contains(part));
    assert!(
        has("DISTKEY (\"customer\") SORTKEY (\"day\", \"id\")"),
        "{said:?}"
    );
    assert!(has("COPY \"public\".\"orders\" FROM 's3://"), "{said:?}");
    assert!(has("COPY \"millstream_stage\" FROM 's3://"), "{said:?}");
    redshift::check_statements(&cluster.redshift.statements());
}

/// With one more column in the middle.
fn sold(more: &str) -> String {
    let query = format!(
        "[sql.sold]\nquery = \"SELECT id, customer, {more}price, paid, day, at FROM orders\"\n\n[sink."
    );
    let with_query = ORDERS.replace("[sink.", &query);
    with_query.replace("input = \"orders\"", "input = \"sold\"")
}

/// Of several rows with one key the last one is there; old days go; deleted space is given back.
#[test]
fn rows_are_merged_and_grow_old() {
    let cluster = Cluster::start();
    let options =
        "mode = \"merge\"\nkey = [\"id\"]\ndate_column = \"day\"\nretention_days = 3\nvacuum = \"daily\"\n";
    let site = cluster.site(cluster.redshift.port, options);
    let it = site.start();
    let day = |ago: i64| utc_day(support::now_seconds() - ago * 86_400);
    let of = |id: i64, price: f64, ago: i64| {
        let mut row = order(id);
        row["price"] = price.into();
        row["day"] = day(ago).into();
        row
    };
    send(
        &it,
        &[
            of(1, 1.0, 0),
            of(2, 2.0, 0),
            of(1, 3.0, 0),
            of(3, 1.0, 2),
            of(4, 1.0, 3),
            of(5, 1.0, 10),
        ],
    );
    let prices = || {
        let rows = cluster
            .tables
            .value("SELECT string_agg(id || '=' || price, ' ' ORDER BY id) FROM orders");
        rows.unwrap_or_default()
    };
    it.wait_for("the first load", || prices() == "1=3 2=2 3=1");
    send(&it, &[of(2, 9.0, 1), of(6, 1.0, 0), of(2, 7.0, 0)]);
    it.wait_for("the second load", || prices() == "1=3 2=7 3=1 6=1");
    site.stop(it);
    let said = cluster.redshift.statements();
    let vacuums = said.iter().filter(|sql| sql.starts_with("VACUUM")).count();
    assert_eq!(vacuums, 1, "once a day");
    assert!(
        said.iter().any(|sql| sql == "ANALYZE \"public\".\"orders\""),
        "{said:?}"
    );
    redshift::check_statements(&cluster.redshift.statements());
}

fn utc_day(seconds: i64) -> String {
    let at = arrow::temporal_conversions::timestamp_s_to_datetime(seconds).expect("a time of our age");
    at.format("%Y-%m-%d").to_string()
}

/// A row that only the warehouse can refuse: the error says which one, and why.
#[test]
fn what_the_warehouse_writes_down_of_a_load_is_shown() {
    let cluster = Cluster::start();
    cluster.tables.query(
        "CREATE TABLE orders (id bigint, customer varchar(65535) not null, price double precision, paid boolean, \
         day date, at timestamp)",
    );
    let site = cluster.site(cluster.redshift.port, "");
    let it = site.start();
    let mut row = order(2);
    row["customer"] = Value::Null;
    send(&it, &[order(1), row]);
    wait_until("the error", || {
        log(site.path()).contains("Missing data for not-null field")
    });
    let said = log(site.path());
    assert!(said.contains("line 2 column customer: Missing data"), "{said}");
    assert!(said.contains(".parquet line 2"), "{said}");
    assert_eq!(there(&cluster.tables).0, 0, "a load is made whole or not at all");
}

/// Another type under the same name is for a person to decide.
#[test]
fn a_table_that_does_not_fit_is_refused() {
    let warehouse = Postgres::start();
    warehouse.query("CREATE TABLE orders (id text, customer integer)");
    let url = warehouse.url();
    let site = Site::new(ORDERS, &format!("{POSTGRES}url = \"{url}\"\n"));
    let it = site.start();
    send(&it, &[order(1)]);
    wait_until("the error", || log(site.path()).contains("and cannot become"));
    let said = log(site.path());
    assert!(
        said.contains("column \\\"id\\\" is text and cannot become bigint"),
        "{said}"
    );
}

#[test]
fn a_connection_is_as_safe_as_asked_for() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let (certificate, key) = certificate(keys.path());
    let access = keys.path().join("hba.conf");
    std::fs::write(
        &access,
        "hostssl all loader all scram-sha-256\nhostnossl all millstream all scram-sha-256\n",
    )
    .expect("a writable directory");
    let settings = [
        "ssl=on",
        "ssl_cert_file=../server.crt",
        "ssl_key_file=../server.key",
        "hba_file=hba.conf",
    ];
    let files = [
        ("server.crt", certificate.as_path()),
        ("server.key", &key),
        ("hba.conf", &access),
    ];
    let warehouse = Postgres::start_with_files(&settings, &files);
    warehouse.query("CREATE ROLE loader LOGIN PASSWORD 'millstream'");
    warehouse.query("GRANT CREATE ON SCHEMA public TO loader");
    let port = warehouse.port;
    let of = |host: &str, more: &str| {
        let url = format!("url = \"postgres://loader@{host}:{port}/postgres\"\n");
        let site = Site::new(ORDERS, &format!("{POSTGRES}{url}{more}"));
        let it = site.start();
        send(&it, &[order(1)]);
        (site, it)
    };
    let ca = format!("tls = \"verify-full\"\ntls_ca = \"{}\"\n", certificate.display());
    let mut rows = 0;
    for more in [&ca, "tls = \"require\"\n", "tls = \"prefer\"\n"] {
        let (site, it) = of("localhost", more);
        rows += 1;
        it.wait_for(more, || there(&warehouse).0 == rows);
        site.stop(it);
    }
    for (host, more, says) in [
        (
            "localhost",
            "tls = \"verify-full\"\n",
            "name the certificate that vouches",
        ),
        ("127.0.0.1", ca.as_str(), "certificate"),
        ("localhost", "tls = \"disable\"\n", "no pg_hba.conf entry"),
    ] {
        let (site, _it) = of(host, more);
        wait_until(says, || log(site.path()).contains(says));
    }
    assert_eq!(there(&warehouse).0, rows);
}
