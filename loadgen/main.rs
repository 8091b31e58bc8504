//! Loadgen, the outside world: it makes traffic as users and as instruments do, measures the answers, and
//! proves from its own ledger that what was acked is in the lake exactly once.
//!
//! It depends on no other crate of the workspace: what it knows of Millstream is the HTTP contract, the Parquet
//! files and the published counts, as anyone outside would.

mod args;
mod config;
mod cpu;
mod drive;
mod fixed;
mod latencies;
mod ledger;
mod reply;
mod report;
mod rows;
mod run;
mod users;
mod verify;
mod wire;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Cli, Command, RunArgs};
use crate::report::{About, Report, Tally};
use crate::run::{Mode, Plan, Run};

/// The command line, the configuration or an input file is wrong.
const EXIT_USAGE: u8 = 2;

/// 128 + SIGINT, as shells report it.
const EXIT_INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Verify(args)) => verify::verify(&args),
        Some(Command::Run(args)) => run(&args),
        None => run(&cli.run),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let plan = args.plan()?;
    let report = runtime(&plan)?.block_on(traffic(plan))?;
    print(&report, args.json.as_deref())?;
    Ok(report.exit_code())
}

fn runtime(plan: &Plan) -> anyhow::Result<Runtime> {
    let built = match plan.threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        threads => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build(),
    };
    built.context("cannot start the threads")
}

async fn traffic(plan: Plan) -> anyhow::Result<Report> {
    let run = Arc::new(Run::new(plan)?);
    tokio::spawn(end_after_duration(run.clone()));
    tokio::spawn(end_on_signals(run.clone()));
    tokio::spawn(progress(run.clone()));
    let (tally, never_sent) = match run.plan.mode {
        Mode::Users => (drive::drive(run.clone()).await, 0),
        Mode::Rate(_) | Mode::ClosedLoop => fixed::drive(run.clone()).await?,
    };
    run.close_files();
    run.end_progress();
    Ok(sum_up(&run, &tally, never_sent))
}

fn sum_up(run: &Run, tally: &Tally, never_sent: u64) -> Report {
    let took = run.started.elapsed();
    let threads = Some(run.plan.threads);
    let about = About {
        mode: run.plan.mode.name(),
        base_url: run.plan.config.base_url.clone(),
        seed: run.plan.seed,
        took,
        never_sent,
        aborted: run.aborted(),
        client: run.client.as_ref().and_then(|client| client.usage(took, threads)),
        server: run.server.as_ref().and_then(|server| server.usage(took, None)),
    };
    Report::new(tally, about)
}

async fn end_after_duration(run: Arc<Run>) {
    tokio::time::sleep(run.plan.config.duration).await;
    run.stop();
}

/// The first signal ends the run in good order, the second at once.
async fn end_on_signals(run: Arc<Run>) {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        eprintln!("loadgen: cannot listen for signals: Ctrl-C will end it without a report");
        return;
    };
    for first in [true, false] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if first {
            eprintln!("\nending: waiting for answers in flight (again to leave at once)");
            run.stop();
        }
    }
    #[allow(clippy::disallowed_methods, reason = "asked twice: leave at once")]
    std::process::exit(EXIT_INTERRUPTED);
}

async fn progress(run: Arc<Run>) {
    run.show_progress().await;
}

/// The text goes to stdout, except when stdout is for JSON.
fn print(report: &Report, json: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = json else {
        print!("{report}");
        return Ok(());
    };
    let text = serde_json::to_string_pretty(report)?;
    if path == Path::new("-") {
        eprint!("{report}");
        println!("{text}");
        return Ok(());
    }
    print!("{report}");
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write the report {}", path.display()))
}
