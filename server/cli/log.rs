//! `millstream log`: is the ingest log whole, and what can be done if it is not.

use std::path::PathBuf;

use clap::Subcommand;
use millstream_operators::log;

use crate::cli::Exit;

/// What to do with a log.
#[derive(Debug, Subcommand)]
pub enum Log {
    /// Read every frame of a log and say what is damaged
    Verify {
        /// The log's directory
        dir: PathBuf,
    },
    /// Cut out what cannot be read, keeping the damaged bytes beside the log; the process must be stopped
    Repair {
        /// The log's directory
        dir: PathBuf,
    },
}

pub fn run(what: &Log) -> anyhow::Result<Exit> {
    match what {
        Log::Verify { dir } => {
            let report = log::verify(dir)?;
            print!("{report}");
            Ok(if report.is_sound() { Exit::Ok } else { Exit::Failed })
        }
        Log::Repair { dir } => {
            print!("{}", log::repair(dir)?);
            Ok(Exit::Ok)
        }
    }
}
