//! The command line: what can be asked for, and how a process ends. One file per command.

mod admin;
mod check;
mod dashboards;
mod explain;
mod health;
mod log;
pub mod preview;
pub mod query;
mod run;
mod runs;
mod schema;
mod test;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Streaming dataflow in one binary: rows over HTTP, windowed SQL, results to CloudWatch, a console page
/// and a Parquet lake.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Where logs, checkpoints and the state of sinks live; one process at a time
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "MILLSTREAM_DATA_DIR",
        default_value = "./data"
    )]
    pub data_dir: PathBuf,
    /// Where rows come in over HTTP
    #[arg(long, global = true, value_name = "ADDRESS", env = "MILLSTREAM_LISTEN",
          default_value = "127.0.0.1:8080", value_parser = address)]
    pub listen: SocketAddr,
    /// Where the console page, the API and the metrics are served
    #[arg(long, global = true, value_name = "ADDRESS", env = "MILLSTREAM_ADMIN",
          default_value = "127.0.0.1:9090", value_parser = address)]
    pub admin: SocketAddr,
    /// How log lines look; RUST_LOG chooses which (default info)
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "MILLSTREAM_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Pipelines by file or directory.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// Pipeline files, or directories of them; without any, pipelines/advertising.toml, or the copy of it
    /// in the binary
    #[arg(value_name = "PIPELINE.toml|DIR")]
    pub paths: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run pipelines until SIGINT or SIGTERM (a second one ends the process at once)
    Run(run::Run),
    /// Find every mistake in pipeline files, without running them
    Check(Which),
    /// Show how pipelines will run: the plan, its queries' split, and what runs where
    Explain {
        #[command(flatten)]
        which: Which,
        /// What to write
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: explain::Format,
    },
    /// Run the [[test]] blocks of pipeline files
    Test(Which),
    /// Run a pipeline on rows in files to their end, and print what its streams carry
    ///
    /// At the end of the rows all windows close. Sinks are not opened and nothing is kept. Rows are late, or
    /// dropped as repeated, as if they came one by one. Reference tables are read from the files that the
    /// pipeline names.
    Preview(preview::Preview),
    /// SQL over the lake, and over raw JSON lines
    ///
    /// Every directory below the lake that holds Parquet is a table, named by its path (a/b is a_b); partitions such as
    /// year=2026 are columns. SHOW TABLES lists them, DESCRIBE NAME shows one.
    Query(query::Query),
    /// The CloudWatch dashboards and alarms of pipelines
    #[command(subcommand)]
    Dashboards(dashboards::Dashboards),
    /// Ask the process at --admin whether its pipelines run: 0 if they do, else 1
    Health,
    /// The pipelines of the process at --admin and how they are
    Pipelines,
    /// Look at and steer the daily runs of the process at --admin
    #[command(subcommand)]
    Runs(runs::Runs),
    /// Write and check schemas: of pipeline files, and of logs that feed a warehouse
    #[command(subcommand)]
    Schema(schema::Schema),
    /// Look after the ingest log
    #[command(subcommand)]
    Log(log::Log),
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well: 0.
    Ok,
    /// It was tried and did not work: 1.
    Failed,
    /// It was not tried, because the command line or a pipeline file is wrong: 2.
    Invalid,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Invalid => 2,
        })
    }
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<Exit> {
        match self.command {
            Command::Run(run) => run::run(&self.global, &run),
            Command::Check(which) => check::run(&which),
            Command::Explain { which, format } => explain::run(&which, format),
            Command::Test(which) => test::run(&self.global, &which),
            Command::Preview(preview) => preview::run(&self.global, &preview),
            Command::Query(query) => query::run(&self.global, &query),
            Command::Dashboards(what) => dashboards::run(&what),
            Command::Health => health::run(&self.global),
            Command::Pipelines => runs::pipelines(&self.global),
            Command::Runs(what) => runs::run(&self.global, &what),
            Command::Schema(schema) => schema::run(&schema),
            Command::Log(log) => log::run(&log),
        }
    }
}

/// Reads the name of a CloudWatch namespace.
fn namespace(text: &str) -> Result<String, String> {
    match (1..=255).contains(&text.len()) && !text.starts_with("AWS/") {
        true => Ok(text.into()),
        false => Err("not a namespace of ours; write 1 to 255 characters not starting with AWS/".into()),
    }
}

/// Reads `host:port`; names such as `localhost` are resolved.
fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map(|mut all| all.next());
    match found {
        Ok(Some(address)) => Ok(address),
        _ => Err("not an address; write host:port, such as 127.0.0.1:8080".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("millstream").chain(args.iter().copied()))
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let cli = parse(&["run"]).expect("run needs nothing");
        assert_eq!(cli.global.data_dir, PathBuf::from("./data"));
        assert_eq!(cli.global.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(cli.global.admin.to_string(), "127.0.0.1:9090");
        assert_eq!(cli.global.log_format, LogFormat::Text);
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for args in [
            ["--listen", "0.0.0.0:1", "run", "a.toml"],
            ["run", "a.toml", "--listen", "0.0.0.0:1"],
        ] {
            let cli = parse(&args).expect("both orders are fine");
            assert_eq!(cli.global.listen.to_string(), "0.0.0.0:1");
            let Command::Run(run) = cli.command else {
                panic!("{args:?} is run");
            };
            assert_eq!(run.which.paths, [PathBuf::from("a.toml")]);
        }
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for args in [
            &["rum"][..],
            &["run", "--listen", "8080"],
            &["run", "--reset", "clickthrough"],
            &["run", "--listen", "127.0.0.1:99999"],
            &["explain", "--format", "png"],
            &["preview"],
            &["preview", "a.toml", "--input", "rows.jsonl"],
            &["preview", "a.toml", "--format", "ndjson"],
            &["log", "verify"],
            &["run", "--cloudwatch-metrics", "AWS/Millstream"],
            &["dashboards"],
            &["dashboards", "push", "--alarm-topic", "arn:aws:sns:r:1:t"],
            &[
                "dashboards",
                "push",
                "--cloudwatch-metrics",
                "M",
                "--alarm-topic",
                "t",
            ],
            &["dashboards", "print", "--max-rows-per-second", "0"],
            &["runs", "backfill", "daily", "--from", "2026-11-01"],
            &["runs", "start", "daily", "--date", "2026-11-31"],
            &["schema", "nothing"],
            &[],
        ] {
            let error = parse(args).expect_err("a mistake");
            assert_eq!(error.exit_code(), 2, "{args:?}");
        }
    }
}
