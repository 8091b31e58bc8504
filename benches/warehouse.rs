//! The `redshift` sink into PostgreSQL beside `psql`'s `\copy` from a CSV file of the same rows.
//!
//! The sink stages rows as Parquet and loads them in a transaction with its ledger; `\copy` finds its file written. Both
//! load one PostgreSQL on this machine, into new tables, in turns; median of the rounds. The warehouse is the same work
//! for both and most of it, so the ratio says what the sink's way costs beside the shortest one there is.
//!
//! | variable | meaning |
//! |---|---|
//! | `ROWS` | rows of a round (default 10,000,000) |
//! | `ROUNDS` | rounds of each (default 3) |

use std::io::{BufWriter, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_benches::{impressions, median};
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::metrics::Counters;
use millstream_engine::sink::{SinkConnector, SinkContext};
use millstream_operators::sinks::redshift::RedshiftConnector;
use serde_json::json;

/// Different rows, which then come again: they are made before anything is measured.
const DIFFERENT_ROWS: usize = 1_000_000;

/// Rows of a batch that comes to the sink.
const BATCH_ROWS: usize = 8_192;

fn main() -> anyhow::Result<()> {
    let rows = variable("ROWS", 10_000_000)?;
    let rounds = variable("ROUNDS", 3)?;
    let postgres = Postgres::start()?;
    let batch = impressions(rows.min(DIFFERENT_ROWS), 1_000, 3_600);
    let csv = postgres.dir.path().join("rows.csv");
    write_csv(&csv, &batch, rows)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let (mut staging, mut loading, mut copying) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (staged, loaded) = runtime.block_on(by_sink(&postgres, round, &batch, rows))?;
        staging.push(staged);
        loading.push(loaded);
        copying.push(by_copy(&postgres, round, &csv)?);
        for table in ["sink", "copy"] {
            let found = postgres.psql(&format!("SELECT count(*) FROM {table}_{round}"))?;
            ensure!(found.trim() == rows.to_string(), "{table} has {found} rows");
            postgres.psql(&format!("DROP TABLE {table}_{round}"))?;
        }
    }
    let (staging, loading, copying) = (median(staging), median(loading), median(copying));
    let rate = |seconds: f64| rows as f64 / seconds;
    println!("{rows} rows a round, {rounds} rounds, median:");
    println!("  staging      {staging:>8.2} s  {:>10.0} rows/s", rate(staging));
    println!("  load         {loading:>8.2} s  {:>10.0} rows/s", rate(loading));
    println!(
        "  both         {:>8.2} s  {:>10.0} rows/s",
        staging + loading,
        rate(staging + loading)
    );
    println!("  psql \\copy   {copying:>8.2} s  {:>10.0} rows/s", rate(copying));
    println!(
        "  \\copy / both {:.2}   \\copy / load {:.2}",
        copying / (staging + loading),
        copying / loading
    );
    Ok(())
}

/// Batches of `rows` rows in all.
fn batches(batch: &RecordBatch, rows: usize) -> impl Iterator<Item = RecordBatch> + '_ {
    let different = batch.num_rows();
    let mut done = 0;
    std::iter::from_fn(move || {
        let from = done % different;
        let count = BATCH_ROWS.min(rows - done).min(different - from);
        done += count;
        (count > 0).then(|| batch.slice(from, count))
    })
}

async fn by_sink(
    postgres: &Postgres,
    round: usize,
    batch: &RecordBatch,
    rows: usize,
) -> anyhow::Result<(f64, f64)> {
    let dir = tempfile::tempdir()?;
    let url = format!("postgres://millstream@127.0.0.1:{}/postgres", postgres.port);
    let cx = SinkContext {
        run: None,
        pipeline: "bench".into(),
        name: "warehouse".into(),
        input: format!("sink_{round}"),
        schema: batch.schema(),
        event_time: Some(2),
        options: json!({ "url": url, "dialect": "postgres", "tls": "disable", "analyze": false }),
        data_dir: dir.path().into(),
        counters: Counters::detached(),
    };
    let mut sink = RedshiftConnector.open(cx).await?;
    let started = Instant::now();
    for rows in batches(batch, rows) {
        sink.write(rows).await?;
    }
    let epoch = Epoch(1);
    let what = sink.prepare(Barrier { epoch, last: true }).await?;
    let staged = started.elapsed();
    sink.commit(epoch, what).await?;
    Ok((staged.as_secs_f64(), (started.elapsed() - staged).as_secs_f64()))
}

fn by_copy(postgres: &Postgres, round: usize, csv: &Path) -> anyhow::Result<f64> {
    postgres.psql(&format!(
        "CREATE TABLE copy_{round} (impression_id varchar(65535), ad_id varchar(65535), occurred_at timestamp)"
    ))?;
    let started = Instant::now();
    postgres.psql(&format!(
        "\\copy copy_{round} FROM '{}' WITH (FORMAT csv)",
        csv.display()
    ))?;
    Ok(started.elapsed().as_secs_f64())
}

fn write_csv(to: &Path, batch: &RecordBatch, rows: usize) -> anyhow::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(to)?);
    let options = FormatOptions::new();
    for rows in batches(batch, rows) {
        let columns = rows
            .columns()
            .iter()
            .map(|c| ArrayFormatter::try_new(c, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..rows.num_rows() {
            let [id, ad, at] = [0, 1, 2].map(|c: usize| columns[c].value(row));
            writeln!(file, "{id},{ad},{at}")?;
        }
    }
    Ok(file.flush()?)
}

/// A PostgreSQL in a directory of its own. Ended when dropped.
struct Postgres {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Postgres {
    fn start() -> anyhow::Result<Postgres> {
        let dir = tempfile::tempdir()?;
        let user = other_user()?;
        if let Some((user, group)) = user {
            chown(dir.path(), Some(user), Some(group))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let data = dir.path().join("data");
        let made = program("initdb", user)?
            .current_dir(dir.path())
            .args([
                "--no-sync",
                "--locale=C",
                "--encoding=UTF8",
                "--auth=trust",
                "--username=millstream",
            ])
            .arg(format!("--pgdata={}", data.display()))
            .output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut postgres = program("postgres", user)?;
        postgres.current_dir(dir.path()).arg("-D").arg(&data);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_wal_size=4GB",
            &format!("port={port}"),
        ] {
            postgres.args(["-c", setting]);
        }
        let child = postgres.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let postgres = Postgres { child, port, dir };
        let started = Instant::now();
        while postgres.psql("SELECT 1").is_err() {
            ensure!(
                started.elapsed() < Duration::from_secs(60),
                "PostgreSQL does not answer"
            );
            wait();
        }
        Ok(postgres)
    }

    fn psql(&self, statement: &str) -> anyhow::Result<String> {
        let out = program("psql", None)?
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                "millstream",
                "-d",
                "postgres",
                "-Atc",
            ])
            .arg(statement)
            .output()?;
        ensure!(
            out.status.success(),
            "{statement}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        Ok(String::from_utf8(out.stdout)?)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &pid]).status();
        let _ = self.child.wait();
    }
}

#[allow(clippy::disallowed_methods, reason = "nothing else runs on this thread")]
fn wait() {
    std::thread::sleep(Duration::from_millis(100));
}

fn program(name: &str, user: Option<(u32, u32)>) -> anyhow::Result<Command> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed")?;
    let bins = versions.flatten().map(|v| v.path().join("bin"));
    let newest: Option<PathBuf> = bins.filter(|bin| bin.join(name).exists()).max();
    let mut command = Command::new(newest.context("PostgreSQL is not installed")?.join(name));
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    Ok(command)
}

/// PostgreSQL does not run as root: whom it runs as instead.
fn other_user() -> anyhow::Result<Option<(u32, u32)>> {
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let mut fields = users
            .lines()
            .find(|l| l.split(':').next() == Some(name))?
            .split(':')
            .skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Ok(Some(
        find("postgres")
            .or_else(|| find("nobody"))
            .context("no user to run PostgreSQL as")?,
    ))
}

fn variable(name: &str, otherwise: usize) -> anyhow::Result<usize> {
    match std::env::var(name) {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(otherwise),
    }
}
