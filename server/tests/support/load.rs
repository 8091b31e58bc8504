//! `loadgen`: traffic whose outcome is written down, and the proof made from that.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Running traffic, with its ledger in `dir/ledger.ndjson`. Killed when dropped.
pub struct Load {
    child: Child,
}

impl Load {
    /// Starts sending to `ingest` until [`Load::stop`]; `args` say how much.
    pub fn start(dir: &Path, ingest: &str, args: &[&str]) -> Load {
        let child = Command::new(binary())
            .args([
                "--base-url",
                &format!("{ingest}/advertising"),
                "--duration",
                "10h",
            ])
            .args(["--timeout", "10s", "--ledger"])
            .arg(ledger(dir))
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("loadgen starts");
        Load { child }
    }

    /// Ends it when everything in flight has its answer, which is in the ledger then.
    pub fn stop(mut self) {
        super::signal(&self.child, "TERM");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `loadgen verify` found.
pub struct Proof {
    pub holds: bool,
    pub text: String,
}

impl Proof {
    /// The numbers of a line, impressions and clicks.
    pub fn line(&self, name: &str) -> [u64; 2] {
        let line = self.text.lines().find(|line| line.trim_start().starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no line {name:?} in:\n{}", self.text));
        let mut numbers = line.split_whitespace().rev();
        let mut number = || numbers.next().and_then(|n| n.replace(',', "").parse().ok());
        match (number(), number()) {
            (Some(clicks), Some(impressions)) => [impressions, clicks],
            _ => panic!("no numbers in {line:?}"),
        }
    }
}

/// Compares the ledger in `dir` with the lake below `dir/data`.
pub fn verify(dir: &Path, args: &[&str]) -> Proof {
    verify_lake(dir, &dir.join("data/lake"), args)
}

/// Compares the ledger in `dir` with another lake.
pub fn verify_lake(dir: &Path, lake: &Path, args: &[&str]) -> Proof {
    let out = Command::new(binary())
        .args(["verify", "--ledger"])
        .arg(ledger(dir))
        .arg("--lake")
        .arg(lake)
        .args(args)
        .output()
        .expect("loadgen runs");
    let (text, error) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    Proof {
        holds: out.status.success(),
        text: format!("{text}{error}"),
    }
}

fn ledger(dir: &Path) -> PathBuf {
    dir.join("ledger.ndjson")
}

/// Beside the binary under test: both are built by `cargo test --workspace`.
fn binary() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_millstream")).with_file_name("loadgen");
    assert!(
        path.exists(),
        "there is no {}; run `cargo build --workspace --bins` first",
        path.display()
    );
    path
}
