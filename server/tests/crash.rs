//! The promise, tried on the real binary: an acked row is in the lake and in its window's count exactly
//! once, whenever the process is killed.
//!
//! `loadgen` sends without a pause and writes down what was acked; millstream is killed (SIGKILL, no code of
//! ours runs) at random moments, in the middle of its start too, and started again at once; then
//! `loadgen verify` compares the ledger with the lake and with the window counts that a receiver got. The
//! receiver is unreliable as well: some requests it refuses, some it takes without an answer.
//!
//! The choices come from a seed, which is printed; the moments of the machine do not repeat, so a seed makes
//! a failure likely again, not certain. `benches/chaos` runs it longer.
//!
//! | variable | meaning |
//! |---|---|
//! | `KILLS` | how often it is killed (default 25) |
//! | `SEED` | the seed (default: from the clock) |

mod support;

use std::path::Path;
use std::time::Duration;

use support::load::{Load, verify};
use support::quick::{self, WINDOW_SECONDS};
use support::receiver::Receiver;
use support::{Launch, Millstream, free_port, now_seconds, pause};

/// What continuous integration can wait for: about a minute.
const KILLS: u64 = 25;

#[test]
fn kills_at_random_moments_lose_nothing_and_double_nothing() {
    let kills = variable("KILLS").unwrap_or(KILLS);
    let seed = variable("SEED").unwrap_or_else(|| now_seconds() as u64);
    println!("{kills} kills, SEED={seed}");
    let mut dice = Dice(seed);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let receiver = Receiver::start(seed);
    let published = quick::published_to(&receiver.url);
    let changes = [("type = \"console\"", published.as_str())];
    let pipeline = quick::write(dir.path(), "advertising.toml", &changes);
    let launch = Launch {
        dir: dir.path(),
        pipeline: &pipeline,
        port: free_port(),
        env: Vec::new(),
    };
    let it = Millstream::start(&launch);
    let load = Load::start(
        dir.path(),
        &it.ingest,
        &["--users", "600", "--view-frequency", "1s"],
    );
    pause(Duration::from_secs(1));
    it.kill();
    for number in 1..kills {
        one_life(&launch, &mut dice);
        let log = support::log(dir.path());
        assert!(!log.contains("ERROR"), "life {number}, SEED={seed}:\n{log}");
    }
    let it = Millstream::start(&launch);
    pause(Duration::from_secs(2));
    load.stop();
    let end = now_seconds() / WINDOW_SECONDS * WINDOW_SECONDS;
    it.wait_for("the last window to be published", || {
        receiver.rows().iter().any(|row| at(row) > end)
    });
    assert_eq!(it.terminate(), 0, "{}", support::log(dir.path()));
    println!("{}", receiver.summary());
    let counts = dir.path().join("counts.ndjson");
    receiver.write_rows(&counts);
    let window = format!("{WINDOW_SECONDS}s");
    let proof = verify(dir.path(), &["--counts", path(&counts), "--window", &window]);
    let kept = || dir.path().display().to_string();
    println!("{}", proof.text);
    assert!(proof.holds, "SEED={seed}, in {}:\n{}", kept(), proof.text);
}

/// From a start to a kill: three in four times in the middle of work, else in the middle of the start.
fn one_life(launch: &Launch<'_>, dice: &mut Dice) {
    if dice.roll(4) == 0 {
        let mut child = support::spawn(launch, &[]);
        pause(Duration::from_millis(dice.roll(400)));
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    } else {
        let it = Millstream::start(launch);
        pause(Duration::from_millis(200 + dice.roll(2_400)));
        it.kill();
    }
}

/// The start of a published window, seconds since the epoch.
fn at(row: &serde_json::Value) -> i64 {
    let text = row["at"].as_str().unwrap_or_default();
    let time = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text);
    time.map_or(0, |nanos| nanos / 1_000_000_000)
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// Splitmix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    /// 0 to `sides` − 1.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}
