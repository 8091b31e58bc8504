//! `millstream query`: SQL over the lake.

use clap::{Args, ValueEnum};
use millstream_engine::ErrorClass;

use crate::cli::{Exit, Global};
use crate::{logging, query};

/// What `query` takes.
#[derive(Args, Clone, Debug)]
pub struct Query {
    /// The query; a second statement, or one that would change something, is refused
    #[arg(value_name = "SQL")]
    pub sql: String,
    /// The lake: a directory or s3://bucket/prefix, behind a ? region, endpoint, role_arn, external_id and session_name.
    /// The default is where `millstream run` writes without a pipeline of its own
    #[arg(long, value_name = "DIR|URL", env = "LAKE", default_value = "data/lake")]
    pub lake: String,
    /// Trees of JSON lines, packed (.gz, .zst) or not, such as data/raw: their directories, named by their path, are tables
    /// of the schema raw, and year, month, day and hour of YYYY/MM/DD/HH columns
    #[arg(long, value_name = "DIR|URL")]
    pub raw: Option<String>,
    /// How rows look
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

/// How rows look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One object per line.
    Json,
    /// With a line of names; NULL is empty, and an empty text "".
    Csv,
}

pub fn run(global: &Global, what: &Query) -> anyhow::Result<Exit> {
    // What reading logs is shown to those who ask for it.
    if std::env::var_os("RUST_LOG").is_some() {
        logging::init(global.log_format);
    }
    let runtime = tokio::runtime::Runtime::new()?;
    match runtime.block_on(query::run(what)) {
        Ok(()) => Ok(Exit::Ok),
        Err(query::Failed::Query(e)) => {
            eprintln!("error: {}", logging::without_secrets(&e.to_string()));
            Ok(match e.class() {
                ErrorClass::Config => Exit::Invalid,
                _ => Exit::Failed,
            })
        }
        Err(query::Failed::Output(e)) => Err(e.into()),
    }
}
