//! A real PostgreSQL, in a directory of its own on a free port. Ended when dropped.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::super::support::{PATIENCE, free_port, pause, signal};

/// The user of the tests, whose password it is, too.
pub const USER: &str = "millstream";

/// Rows of an answer, as text.
pub type Rows = Vec<Vec<Option<String>>>;

pub struct Postgres {
    child: Child,
    pub port: u16,
    dir: tempfile::TempDir,
}

impl Postgres {
    pub fn start() -> Postgres {
        Postgres::start_with(&[])
    }

    /// With more settings. Files of `files` are put into its directory first, as only its user may read them.
    pub fn start_with(settings: &[&str]) -> Postgres {
        Postgres::start_with_files(settings, &[])
    }

    pub fn start_with_files(settings: &[&str], files: &[(&str, &Path)]) -> Postgres {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        let password = dir.path().join("password");
        std::fs::write(&password, USER).expect("a writable directory");
        let user = other_user();
        let own = |path: &Path| {
            if let Some((user, group)) = user {
                chown(path, Some(user), Some(group)).expect("root may give files away");
            }
        };
        for (name, from) in files {
            let to = dir.path().join(name);
            std::fs::copy(from, &to).expect("a file to copy");
            std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .expect("it is ours");
            own(&to);
        }
        own(dir.path());
        own(&password);
        let made = command("initdb", user)
            .args([
                "--no-sync",
                "--locale=C",
                "--encoding=UTF8",
                "--auth=scram-sha-256",
            ])
            .args(["--username", USER])
            .arg(format!("--pwfile={}", password.display()))
            .arg(format!("--pgdata={}", data.display()))
            .current_dir(dir.path())
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (child, port) = serve(&data, dir.path(), user, settings);
        Postgres { child, port, dir }
    }

    pub fn url(&self) -> String {
        url(self.port)
    }

    /// Runs a statement.
    pub fn query(&self, sql: &str) -> Rows {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async {
            let client = connect(self.port).await.expect("it takes connections");
            simple(&client, sql)
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
        })
    }

    /// The only value of an answer; none where there is no table.
    pub fn value(&self, sql: &str) -> Option<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async {
            let client = connect(self.port).await.expect("it takes connections");
            let rows = simple(&client, sql).await.ok()?;
            rows.first()?.first()?.clone()
        })
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once, with its children.
        signal(&self.child, "QUIT");
        let _ = self.child.wait();
    }
}

pub fn url(port: u16) -> String {
    format!("postgres://{USER}@127.0.0.1:{port}/postgres")
}

/// A connection as the tests' user.
pub async fn connect(port: u16) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config: tokio_postgres::Config = url(port).parse()?;
    let (client, connection) = config.password(USER).connect(NoTls).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// Runs statements as text.
pub async fn simple(client: &tokio_postgres::Client, sql: &str) -> Result<Rows, tokio_postgres::Error> {
    let answer = client.simple_query(sql).await?;
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|i| row.get(i).map(ToString::to_string))
                .collect(),
        ),
        _ => None,
    };
    Ok(answer.into_iter().filter_map(row).collect())
}

fn serve(data: &Path, dir: &Path, user: Option<(u32, u32)>, settings: &[&str]) -> (Child, u16) {
    let started = Instant::now();
    loop {
        // Somebody else may take the port meanwhile.
        let port = free_port();
        let log = std::fs::File::create(dir.join("log")).expect("a writable directory");
        let mut postgres = command("postgres", user);
        postgres.arg("-D").arg(data).current_dir(dir);
        let fixed = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "max_connections=50",
        ];
        for setting in fixed.iter().chain(settings) {
            postgres.args(["-c", setting]);
        }
        let mut child = postgres
            .args(["-c", &format!("port={port}")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres starts");
        while child.try_wait().expect("its state is known").is_none() {
            if ready(port) {
                return (child, port);
            }
            pause(Duration::from_millis(50));
            assert!(started.elapsed() < PATIENCE, "postgres does not answer");
        }
        assert!(
            started.elapsed() < PATIENCE,
            "postgres does not start: {}",
            std::fs::read_to_string(dir.join("log")).unwrap_or_default()
        );
    }
}

fn ready(port: u16) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .expect("a runtime")
        .block_on(async { connect(port).await.is_ok() })
}

fn command(name: &str, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(bin().join(name));
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
}

/// The newest installed PostgreSQL.
fn bin() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = versions
        .map(|v| v.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .max();
    newest.expect("PostgreSQL is not installed; run ./ci/test, which installs it")
}

/// PostgreSQL does not run as root: whom it runs as instead.
fn other_user() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let me = std::fs::metadata("/proc/self")
        .expect("a process has itself")
        .uid();
    if me != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("a readable file");
    let find = |name: &str| {
        let mut fields = users
            .lines()
            .find(|l| l.split(':').next() == Some(name))?
            .split(':')
            .skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody"))
}
