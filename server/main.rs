//! The binary `millstream`: command line, admin API and console page around the engine.
//!
//! The only crate that knows argv, signals, threads and the web. A command returns how it ended
//! ([`cli::Exit`]); an error that no command turned into an exit code of its own ends the process with 1.

mod api;
mod bounded;
mod catalog;
mod cli;
mod console;
mod lock;
mod logging;
mod monitor;
mod notify;
mod pipelines;
mod preview;
mod query;
mod scheduler;
mod scheduling;
mod service;
mod signals;
mod testing;
mod traffic;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {}", logging::without_secrets(&format!("{error:#}")));
            cli::Exit::Failed.into()
        }
    }
}
