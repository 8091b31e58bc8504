//! `millstream preview`: rows in files through the real plan, and what the streams carried, printed.
//!
//! The plan's sources are replaced by the files ([`input`]), its sinks are taken off. Rows go in batches, which
//! are cut wherever a row by itself would meet another watermark ([`pace`]). Rows that cannot be read go to
//! `<source>.invalid`, as they would behind the source itself, and are summarised on standard error.

mod input;
mod pace;
pub mod print;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use millstream_engine::config::did_you_mean;
use millstream_engine::plan::Plan;
use millstream_engine::registry::Registry;

use millstream_operators::tables::load_file;

use self::input::{Bad, FileRows};
use crate::bounded::{Bounded, Given};
use crate::cli::preview::{Format, Preview};

/// A preview that can run: every name in it is known, every file open.
pub struct Asked {
    given: Given,
    /// Files in place of those of reference tables.
    tables: BTreeMap<String, String>,
    bad: Vec<Bad>,
    streams: Vec<String>,
    format: Format,
}

impl Asked {
    /// Resolves the names of a command line and opens its files.
    pub fn of(what: &Preview, plan: &Plan) -> anyhow::Result<Asked> {
        let streams = streams(what, plan)?;
        let mut files = files(what, plan)?;
        let mut asked = Asked {
            given: Given::default(),
            tables: tables(what, plan)?,
            bad: Vec::new(),
            streams,
            format: what.format,
        };
        for node in &plan.sources {
            let files = files.remove(node.name.as_str()).unwrap_or_default();
            let mut source = FileRows::new(node, plan);
            for file in files {
                asked.bad.push(source.add(file)?);
            }
            asked.given.sources.insert(node.name.clone(), Arc::new(source));
        }
        Ok(asked)
    }
}

/// Runs to the end of the rows and prints.
pub async fn run(plan: &Arc<Plan>, registry: &Registry, mut asked: Asked) -> anyhow::Result<()> {
    for table in &plan.tables {
        if let Some(file) = asked.tables.get(&table.name) {
            let rows = load_file(file, table.rows.schema().clone()).await;
            let rows = rows.with_context(|| format!("--table {}={file}", table.name))?;
            asked.given.tables.insert(table.name.clone(), rows);
        }
    }
    let names = asked.streams.iter().map(String::as_str);
    let run = Bounded::start(plan, registry, asked.given, names)?;
    run.handle.done().await?;
    let streams: Vec<print::Printed<'_>> = asked
        .streams
        .iter()
        .zip(run.take())
        .map(|(name, rows)| print::Printed {
            name,
            schema: &plan.streams[name].schema,
            rows,
        })
        .collect();
    print::print(&streams, asked.format).context("cannot write to standard output")?;
    for bad in &asked.bad {
        if let Some(text) = bad.summary() {
            eprintln!("{text}");
        }
    }
    for late in print::late(plan, &run.handle.nodes()) {
        eprintln!("{late}");
    }
    Ok(())
}

/// The streams to print: those that are named, else those that sinks take; each once.
fn streams(what: &Preview, plan: &Plan) -> anyhow::Result<Vec<String>> {
    let of_sinks = plan.sinks.iter().map(|s| s.input.clone());
    let of_sinks: Vec<String> = of_sinks.filter(|s| plan.rejecting(s).is_none()).collect();
    let named = if what.stream.is_empty() {
        &of_sinks
    } else {
        &what.stream
    };
    let mut streams: Vec<String> = Vec::new();
    for name in named {
        if !plan.streams.contains_key(name) {
            let known = plan.streams.keys().map(String::as_str);
            let help = did_you_mean(name, known, '"', "streams").unwrap_or_default();
            bail!("--stream {name}: there is no such stream; {help}");
        }
        if plan.rejecting(name).is_some() {
            bail!("--stream {name}: it is made by a sink, and a preview runs without sinks");
        }
        if !streams.contains(name) {
            streams.push(name.clone());
        }
    }
    Ok(streams)
}

/// The files of each source, in the order they were given.
fn files<'w>(what: &'w Preview, plan: &Plan) -> anyhow::Result<BTreeMap<&'w str, Vec<&'w str>>> {
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (source, file) in &what.input {
        if !plan.sources.iter().any(|s| s.name == *source) {
            let known = plan.sources.iter().map(|s| s.name.as_str());
            let help = did_you_mean(source, known, '"', "sources").unwrap_or_default();
            bail!("--input {source}={file}: there is no source {source:?}; {help}");
        }
        let mut sources = plan.sources.iter();
        if sources.any(|s| s.name == *source && !s.tables.is_empty()) {
            bail!(
                "--input {source}={file}: lines of a log cannot be previewed; put some into a [[test]], or see the \
                 tables of its schema by `millstream schema ddl`"
            );
        }
        files.entry(source).or_default().push(file);
    }
    if files.values().flatten().filter(|f| **f == STDIN).count() > 1 {
        bail!("--input: standard input can be read once only; put the rows of one source into a file");
    }
    if files.is_empty() {
        eprintln!("no --input is given, so every source is empty");
    }
    Ok(files)
}

/// The file of each reference table that is given one; the last counts.
fn tables(what: &Preview, plan: &Plan) -> anyhow::Result<BTreeMap<String, String>> {
    for (table, file) in &what.table {
        if !plan.tables.iter().any(|t| t.name == *table) {
            let known = plan.tables.iter().map(|t| t.name.as_str());
            let help = match did_you_mean(table, known, '"', "tables") {
                Some(help) => format!("; {help}"),
                None => "; the pipeline has none".to_owned(),
            };
            bail!("--table {table}={file}: there is no table {table:?}{help}");
        }
    }
    Ok(what.table.iter().cloned().collect())
}

/// The name of standard input.
const STDIN: &str = "-";

/// A file that is not there: its neighbours with a name like it.
fn near(path: &Path) -> String {
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return String::new(),
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return format!("; there is no folder {}", folder.display());
    };
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    let typed = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    // Only the guess: a folder can be long.
    let help = did_you_mean(typed, names.iter().map(String::as_str), '"', "").unwrap_or_default();
    match help.split_once("? ") {
        Some((guess, _)) => format!("; {guess}?"),
        None => String::new(),
    }
}
