//! The command line, and the plan it makes with the configuration file.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Parser, Subcommand};
use rand::Rng;

use crate::config::{Config, parse_duration};
use crate::run::{Mode, Plan};
use crate::verify::VerifyArgs;

const AFTER_HELP: &str = "\
Exit codes of a run:
  0    every row that was sent was acked, and at least one was
  1    some rows were refused or got no answer, nothing was acked, or the ledger could not be written
  2    the command line or the configuration is wrong
  130  a second Ctrl-C: left at once, without a report
The first Ctrl-C (or SIGTERM) ends a run as its Duration does: it waits for the answers in flight, prints the
report and exits with 0 or 1. `loadgen verify` exits with 0 when the proof holds, 1 when not, 2 when it
cannot read its input.";

/// Traffic for Millstream: simulated users, fixed-rate load, and proof that nothing was lost.
#[derive(Parser)]
#[command(name = "loadgen", version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do; without a word: run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// The two commands.
#[derive(Subcommand)]
pub enum Command {
    /// Send traffic: simulated users, or --rate, or --closed-loop
    #[command(after_help = AFTER_HELP)]
    Run(Box<RunArgs>),
    /// Prove from a ledger that every acked row is in the lake exactly once
    Verify(VerifyArgs),
}

/// Flags of `run`. Those that name a key of the file override it.
#[derive(Args, Clone, Default)]
pub struct RunArgs {
    /// YAML file (BaseURL, Duration, Ads, Users); without one all keys have their defaults
    pub config: Option<PathBuf>,

    /// Send to URL/impressions and URL/clicks [default: http://127.0.0.1:8080/advertising]
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// End by itself after this time, such as 90s or 72h [default: 72h]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Number of different ads [default: 1000000]
    #[arg(long, value_name = "N")]
    pub ads: Option<u64>,
    /// Number of simulated users [default: 1000]
    #[arg(long, value_name = "N")]
    pub users: Option<u32>,
    /// Share of impressions that are clicked [default: 0.3]
    #[arg(long, value_name = "SHARE")]
    pub clickthrough: Option<f64>,
    /// A user's time between ads [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub view_frequency: Option<Duration>,
    /// Jitter of that, as a share [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    pub view_variance: Option<f64>,
    /// A user's time from impression to click [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub consider_duration: Option<Duration>,
    /// Jitter of that, as a share [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    pub consider_variance: Option<f64>,

    /// Instead of users: this many rows per second on a fixed schedule, latency from the intended send time
    #[arg(long, value_name = "ROWS_PER_SECOND", conflicts_with = "closed_loop")]
    pub rate: Option<f64>,
    /// Instead of users: as many rows as the server takes
    #[arg(long)]
    pub closed_loop: bool,
    /// Most rows in a request [default: 500]
    #[arg(long, value_name = "ROWS")]
    pub batch: Option<usize>,
    /// Connections, or with users: requests in flight [default: 16]
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,
    /// Requests in flight on each connection (--rate, --closed-loop) [default: 1]
    #[arg(long, value_name = "N")]
    pub pipeline: Option<usize>,
    /// Longest time a user's row waits for its batch [default: 200ms]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub flush: Option<Duration>,
    /// A request without an answer for this long counts as lost [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Send a user's rows again, with the same ids, after 429, 5xx or a lost connection; the end of the run waits for them up to --timeout (the source needs dedup)
    #[arg(long, conflicts_with_all = ["rate", "closed_loop"])]
    pub retry: bool,
    /// End after this many rows
    #[arg(long, value_name = "N")]
    pub rows: Option<u64>,
    /// Repeat the choices of an earlier run, ids included [default: random, printed in the report]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// Write the bodies before the run and send them again and again, with new ids and times but the same ads: for servers that are faster than rows can be made (--rate, --closed-loop)
    #[arg(long, conflicts_with = "ledger")]
    pub prebuilt: bool,
    /// Process id of the server, to report how busy it was
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Append every request and its outcome to this file, for `loadgen verify`
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Write when each acked request was due and its latency, in microseconds, into this file
    #[arg(long, value_name = "FILE")]
    pub latencies: Option<PathBuf>,
    /// Report as JSON on stdout, or into FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,
}

/// Rows in a request beyond this fit no server's limit (Millstream's default is 500).
const MAX_BATCH: usize = 100_000;

/// Connections beyond this run into the limit of open files.
const MAX_CONNECTIONS: usize = 10_000;

/// Deeper pipelines measure only the socket buffers.
const MAX_PIPELINE: usize = 10_000;

/// More threads than any machine has cores for loadgen.
const MAX_THREADS: usize = 256;

impl RunArgs {
    /// The file with the flags laid over it, checked.
    ///
    /// # Errors
    /// Everything here is the caller's to fix: exit code 2.
    pub fn plan(&self) -> anyhow::Result<Plan> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::default(),
        };
        self.override_file(&mut config);
        config.check()?;
        self.check_json()?;
        let users = self.rate.is_none() && !self.closed_loop;
        ensure!(
            self.latencies.is_none() || !users,
            "--latencies needs --rate or --closed-loop: with users it is their pace that decides"
        );
        ensure!(
            !self.prebuilt || !users,
            "--prebuilt needs --rate or --closed-loop: users' rows are their own"
        );
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Plan {
            config,
            mode: self.mode()?,
            seed: self.seed.unwrap_or_else(|| rand::rng().random()),
            flush: self.flush.unwrap_or(Duration::from_millis(200)),
            batch: within("--batch", self.batch.unwrap_or(500), MAX_BATCH)?,
            connections: within("--connections", self.connections.unwrap_or(16), MAX_CONNECTIONS)?,
            pipeline: within("--pipeline", self.pipeline.unwrap_or(1), MAX_PIPELINE)?,
            threads: within(
                "--threads",
                self.threads.unwrap_or(cores.min(MAX_THREADS)),
                MAX_THREADS,
            )?,
            timeout: self.timeout.unwrap_or(Duration::from_secs(30)),
            retry: self.retry,
            ledger: self.ledger.clone(),
            latencies: self.latencies.clone(),
            rows: self.rows,
            prebuilt: self.prebuilt,
            server_pid: self.server_pid,
        })
    }

    fn mode(&self) -> anyhow::Result<Mode> {
        match self.rate {
            Some(rate) => {
                ensure!(
                    rate.is_finite() && rate > 0.0,
                    "--rate is {rate}: give rows per second above 0"
                );
                Ok(Mode::Rate(rate))
            }
            None if self.closed_loop => Ok(Mode::ClosedLoop),
            None => Ok(Mode::Users),
        }
    }

    fn override_file(&self, config: &mut Config) {
        fn put<T: Clone>(into: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                *into = value.clone();
            }
        }
        put(&mut config.base_url, &self.base_url);
        put(&mut config.duration, &self.duration);
        put(&mut config.ads.count, &self.ads);
        let users = &mut config.users;
        put(&mut users.count, &self.users);
        put(&mut users.clickthrough_probability, &self.clickthrough);
        put(&mut users.view_frequency, &self.view_frequency);
        put(&mut users.view_variance, &self.view_variance);
        put(&mut users.consider_duration, &self.consider_duration);
        put(&mut users.consider_variance, &self.consider_variance);
    }

    /// `loadgen --json demo.yaml` means the configuration, and would overwrite it.
    fn check_json(&self) -> anyhow::Result<()> {
        let extension = self.json.as_ref().and_then(|path| path.extension());
        ensure!(
            !extension.is_some_and(|extension| extension == "yaml" || extension == "yml"),
            "--json would write the report into a YAML file: put the configuration before --json"
        );
        Ok(())
    }
}

fn within(flag: &str, value: usize, max: usize) -> anyhow::Result<usize> {
    ensure!((1..=max).contains(&value), "{flag} is {value}: give 1 to {max}");
    Ok(value)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn plan(line: &str) -> anyhow::Result<Plan> {
        let cli = Cli::try_parse_from(line.split_whitespace())?;
        match cli.command {
            Some(Command::Run(args)) => args.plan(),
            Some(Command::Verify(_)) => anyhow::bail!("verify"),
            None => cli.run.plan(),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_word_run_may_be_left_out_and_flags_override() {
        for line in [
            "loadgen --users 7 --duration 1m30s --rate 900",
            "loadgen run --users 7 --duration 90s --rate 900",
        ] {
            let plan = plan(line).expect("valid");
            assert_eq!(plan.config.users.count, 7);
            assert_eq!(plan.config.duration, Duration::from_secs(90));
            assert_eq!(plan.mode, Mode::Rate(900.0));
        }
    }

    #[test]
    fn mistakes_name_the_flag() {
        let cases = [
            ("loadgen --rate 0", "--rate"),
            ("loadgen --batch 0", "--batch"),
            ("loadgen --latencies x", "--latencies"),
            ("loadgen --rate 5 --closed-loop", "--closed-loop"),
            ("loadgen --prebuilt", "--prebuilt"),
            ("loadgen --rate 5 --prebuilt --ledger x", "--ledger"),
            ("loadgen --clickthrough 2", "ClickthroughProbability"),
            ("loadgen --duration soon", "--duration"),
            ("loadgen --json demo.yaml", "--json"),
            ("loadgen /nowhere.yaml", "/nowhere.yaml"),
            ("loadgen --base-url ftp://x", "BaseURL"),
        ];
        for (line, name) in cases {
            let error = plan(line).expect_err(line);
            assert!(format!("{error:#}").contains(name), "{line}: {error:#}");
        }
    }
}
