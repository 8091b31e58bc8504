//! A real `millstream` process, and the outside world around it: requests over sockets, an AWS emulator,
//! Python as the independent reader of what came out.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

pub mod advertising;
pub mod clock;
pub mod gate;
pub mod load;
pub mod partly;
pub mod proxy;
pub mod quick;
pub mod receiver;
pub mod record;

/// Long enough for anything that does not hang, on a machine that is busy compiling.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A pipeline that takes rows and has nothing to do, for processes that are there for something else.
pub const IDLE: &str = r#"
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

/// A running `millstream run`, in a directory of its own. Killed when dropped.
pub struct Millstream {
    child: Child,
    dir: PathBuf,
    /// Empty where no source takes rows over HTTP.
    pub ingest: String,
    pub admin: String,
    out: Arc<Mutex<Vec<String>>>,
}

/// How to start one.
pub struct Launch<'a> {
    /// Where it runs: `data` lies below.
    pub dir: &'a Path,
    /// The pipeline file.
    pub pipeline: &'a str,
    /// The port to listen on for rows, to come back to after a restart; 0 picks one.
    pub port: u16,
    /// Environment.
    pub env: Vec<(String, String)>,
}

impl Millstream {
    /// Starts it and waits until its pipelines run.
    pub fn start(launch: &Launch<'_>) -> Millstream {
        Millstream::start_with(launch, &[])
    }

    /// As [`Millstream::start`], with more arguments.
    pub fn start_with(launch: &Launch<'_>, args: &[&str]) -> Millstream {
        let mut child = spawn(launch, args);
        let out = Arc::new(Mutex::new(Vec::new()));
        follow(
            BufReader::new(child.stdout.take().expect("stdout is piped")),
            out.clone(),
        );
        // The line about the ingest, if there is one, stands before this one.
        let admin = greeted(&mut child, launch.dir, "console");
        let ingest = address(&log(launch.dir), "ingest").unwrap_or_default();
        let mut it = Millstream {
            child,
            dir: launch.dir.into(),
            ingest,
            admin,
            out,
        };
        it.wait_until_it_runs();
        it
    }

    fn wait_until_it_runs(&mut self) {
        let started = Instant::now();
        while get(&self.admin, "/readyz").0 != 200 {
            let ended = self.child.try_wait().expect("its state is known");
            assert!(
                ended.is_none() && started.elapsed() < PATIENCE,
                "the pipeline does not run ({ended:?}); it logged:\n{}",
                log(&self.dir)
            );
            pause(Duration::from_millis(50));
        }
    }

    /// Standard output so far, without the greeting.
    pub fn printed(&self) -> Vec<String> {
        self.out
            .lock()
            .expect("no test panics while it holds the output")
            .clone()
    }

    /// The rows the console sink printed.
    pub fn printed_rows(&self) -> Vec<Value> {
        self.printed()
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The latest rows of a stream, through the API.
    pub fn stream(&self, pipeline: &str, stream: &str) -> Vec<Value> {
        let (status, body) = get(
            &self.admin,
            &format!("/api/v1/pipelines/{pipeline}/streams/{stream}?limit=1000"),
        );
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("the API answers with JSON")
    }

    /// A node's counts, through the API.
    pub fn node(&self, pipeline: &str, node: &str) -> Value {
        let (status, body) = get(&self.admin, &format!("/api/v1/pipelines/{pipeline}"));
        assert_eq!(status, 200, "{body}");
        let all: Value = serde_json::from_str(&body).expect("the API answers with JSON");
        let nodes = all["nodes"].as_array().expect("a list of nodes");
        nodes
            .iter()
            .find(|n| n["node"] == node)
            .cloned()
            .unwrap_or_else(|| panic!("no node {node} in {all}"))
    }

    pub fn wait_for(&self, what: &str, mut ready: impl FnMut() -> bool) {
        let started = Instant::now();
        while !ready() {
            assert!(
                started.elapsed() < PATIENCE,
                "waited in vain for {what}; it logged:\n{}",
                log(&self.dir)
            );
            pause(Duration::from_millis(50));
        }
    }

    /// As power loss would: no handler runs.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// SIGTERM; gives the exit code.
    pub fn terminate(mut self) -> i32 {
        signal(&self.child, "TERM");
        let status = self.child.wait().expect("it ends");
        status.code().unwrap_or(-1)
    }

    /// SIGTERM while a service that it needs keeps failing: it may not drain in time, and then says so. A start with
    /// the service well makes good what is left.
    pub fn terminate_in_bad_weather(self) {
        let dir = self.dir.clone();
        let code = self.terminate();
        let log = log(&dir);
        assert!(code == 0 || log.contains("not drained within"), "{log}");
    }
}

impl Drop for Millstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts it and waits for nothing. Not killed when dropped.
pub fn spawn(launch: &Launch<'_>, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_millstream"))
        .current_dir(launch.dir)
        .args(["--listen", &format!("127.0.0.1:{}", launch.port)])
        .args(["--admin", "127.0.0.1:0", "run", launch.pipeline])
        .args(args)
        .envs(launch.env.iter().map(|(k, v)| (k, v)))
        .stdout(Stdio::piped())
        .stderr(log_file(launch.dir))
        .spawn()
        .expect("the binary starts")
}

/// Sends a signal to a process of ours.
pub fn signal(to: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &to.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success(), "SIG{name} was not delivered");
}

/// The address on the line of the greeting that starts with `what`.
fn greeted(child: &mut Child, dir: &Path, what: &str) -> String {
    let started = Instant::now();
    loop {
        let log = log(dir);
        if let Some(address) = address(&log, what) {
            return address;
        }
        let ended = child.try_wait().expect("its state is known").is_some();
        assert!(
            !ended && started.elapsed() < PATIENCE,
            "millstream did not start: {log}"
        );
        pause(Duration::from_millis(20));
    }
}

fn address(log: &str, what: &str) -> Option<String> {
    // A line without its end may still be being written: half an address is the wrong one.
    let mut lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let address = lines.find_map(|line| line.strip_prefix(what))?;
    Some(address.trim().into())
}

fn follow(mut lines: BufReader<ChildStdout>, out: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
            out.lock()
                .expect("no test panics while it holds the output")
                .push(line.trim_end().into());
            line.clear();
        }
    });
}

#[allow(clippy::disallowed_methods, reason = "a test has no runtime to block")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

pub fn now_seconds() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs() as i64
}

fn log_file(dir: &Path) -> std::fs::File {
    std::fs::File::create(dir.join("millstream.log")).expect("a writable directory")
}

/// What it logged.
pub fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("millstream.log")).unwrap_or_default()
}

/// The newest checkpoint of a pipeline; null where there is none, or where it was removed meanwhile.
pub fn newest_manifest(dir: &Path, pipeline: &str) -> Value {
    let checkpoints = std::fs::read_dir(dir.join("data").join(pipeline).join("checkpoints"));
    let paths = checkpoints
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let newest = paths
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .max();
    let text = newest
        .and_then(|path| std::fs::read_to_string(path).ok())
        .unwrap_or_default();
    // A checksum line follows the JSON.
    let manifest = text.split("\ncrc32 ").next().unwrap_or_default();
    serde_json::from_str(manifest).unwrap_or_default()
}

/// A port nobody listens on now.
pub fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("an address").port()
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("server/ lies in the repository")
        .into()
}

pub fn get(base: &str, path: &str) -> (u16, String) {
    request(
        base,
        &format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            host(base)
        ),
    )
}

pub fn post(base: &str, path: &str, body: &str) -> (u16, String) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        host(base),
        body.len()
    );
    request(base, &(head + body))
}

/// A request with headers, each `name: value`. Gives status, head and body of the answer.
pub fn ask(base: &str, line: &str, headers: &[&str], body: &str) -> (u16, String, String) {
    let mut head = format!("{line} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", host(base));
    for header in headers {
        head += &format!("{header}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    whole(base, &(head + body))
}

/// Puts an object, `bucket/key`, on an emulator, which asks for no signature.
pub fn put_object(endpoint: &str, path: &str, text: &str) {
    let head = format!(
        "PUT /{path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        host(endpoint),
        text.len()
    );
    let (status, said) = request(endpoint, &(head + text));
    assert_eq!(status, 200, "{said}");
}

fn host(base: &str) -> &str {
    base.trim_start_matches("http://")
}

/// One exchange; status 0 when there is no answer.
fn request(base: &str, bytes: &str) -> (u16, String) {
    let (status, _, body) = whole(base, bytes);
    (status, body)
}

fn whole(base: &str, bytes: &str) -> (u16, String, String) {
    let exchange = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect(host(base))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(bytes.as_bytes())?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = exchange().unwrap_or_default();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.into() };
    (status, head.into(), body)
}

fn unchunk(body: &str) -> String {
    let mut whole = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        if size == 0 || after.len() < size {
            break;
        }
        whole.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    whole
}

/// The Python of the test environment, which `./ci/test` installs.
pub fn python() -> PathBuf {
    venv().join("bin/python")
}

fn venv() -> PathBuf {
    let named = std::env::var_os("MILLSTREAM_VENV").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let venv = named.unwrap_or_else(|| home.join(".cache/millstream/venv"));
    assert!(
        venv.join("bin/python").exists(),
        "there is no Python environment at {}; run ./ci/test, which installs it",
        venv.display()
    );
    venv
}

/// Runs a script of `server/tests` and reads the JSON it prints.
pub fn python_json(script: &str, args: &[&str], env: &[(String, String)]) -> Value {
    let out = Command::new(python())
        .arg(root().join("server/tests").join(script))
        .args(args)
        .envs(env.iter().map(|(k, v)| (k, v)))
        .output()
        .expect("python runs");
    assert!(
        out.status.success(),
        "{script} {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).expect("the script prints JSON")
}

/// An AWS emulator on a port of its own. Ended when dropped.
pub struct Aws {
    child: Child,
    pub endpoint: String,
    pub env: Vec<(String, String)>,
}

impl Aws {
    pub fn start() -> Aws {
        Aws::serve(Command::new(venv().join("bin/ministack")))
    }

    /// The emulator as a script of `server/tests` starts it.
    pub fn start_by(script: &str) -> Aws {
        let mut command = Command::new(python());
        command.arg(root().join("server/tests").join(script));
        Aws::serve(command)
    }

    fn serve(mut command: Command) -> Aws {
        let port = free_port().to_string();
        let child = command
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", &port)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ministack starts");
        let endpoint = format!("http://127.0.0.1:{port}");
        let env = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        let env = env.map(|(k, v)| (k.to_string(), v.to_string())).to_vec();
        let started = Instant::now();
        while get(&endpoint, "/_ministack/health").0 == 0 {
            assert!(started.elapsed() < PATIENCE, "ministack does not answer");
            pause(Duration::from_millis(100));
        }
        Aws { child, endpoint, env }
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate of `localhost`, signed by itself, and its key: files in `dir`.
pub fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (dir.join("server.crt"), dir.join("server.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{made:?}");
    (certificate, key)
}
