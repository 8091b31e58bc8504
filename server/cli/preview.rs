//! `millstream preview`: what a pipeline makes of the rows in some files.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::cli::{Exit, Global};
use crate::{logging, pipelines, preview};

/// What `preview` takes.
///
/// The pipeline runs to the end of the rows; then all its windows close. Its sinks are not opened and nothing is
/// kept. Rows are late, or dropped as repeated, as they would be if they came one by one.
#[derive(Args, Clone, Debug)]
pub struct Preview {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub pipeline: PathBuf,
    /// Rows for a source, from a file or, with -, from standard input: one JSON object per line, an array, or the
    /// envelope that the source's `records` names; unpacked if it ends in .gz or .zst. Given again for a source,
    /// files are read one after the other. Sources without an input are empty
    #[arg(long, value_name = "SOURCE=FILE", value_parser = pair)]
    pub input: Vec<(String, String)>,
    /// Rows for a reference table, from a CSV, JSON or Parquet file instead of the one that the pipeline names
    #[arg(long, value_name = "TABLE=FILE", value_parser = pair)]
    pub table: Vec<(String, String)>,
    /// A stream to print, such as a source, a query, SOURCE.invalid or WINDOW.late; absent: those that the
    /// pipeline's sinks take
    #[arg(long, value_name = "NAME")]
    pub stream: Vec<String>,
    /// How rows look. json is one object per line: the row, or, when several streams are printed,
    /// {"stream": NAME, "row": {…}}
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

/// How rows look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: a table per stream.
    Table,
    /// For programs: one object per line.
    Json,
}

pub fn run(global: &Global, what: &Preview) -> anyhow::Result<Exit> {
    // What the run logs is shown to those who ask for it.
    if std::env::var_os("RUST_LOG").is_some() {
        logging::init(global.log_format);
    }
    let registry = millstream_operators::registry(Default::default());
    let mut checked = match pipelines::load_all(std::slice::from_ref(&what.pipeline), &registry) {
        Ok(checked) => checked,
        Err(exit) => return Ok(exit),
    };
    let (Some(one), true) = (checked.pop(), checked.is_empty()) else {
        let error = anyhow::anyhow!(
            "{} holds several pipelines; name one file",
            what.pipeline.display()
        );
        return Ok(pipelines::refuse(&error));
    };
    let asked = match preview::Asked::of(what, &one.plan) {
        Ok(asked) => asked,
        Err(error) => return Ok(pipelines::refuse(&error)),
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    runtime.block_on(preview::run(&one.plan, &registry, asked))?;
    Ok(Exit::Ok)
}

/// Reads `NAME=FILE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.into(), file.into())),
        _ => Err("write NAME=FILE, such as impressions=rows.jsonl".into()),
    }
}
