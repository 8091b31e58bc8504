//! `millstream runs` and `millstream pipelines`: what the process at `--admin` has run and is to run.

use chrono::NaiveDate;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::catalog::text::read_date;
use crate::cli::{Exit, Global, admin};

/// `PIPELINE`: the name of a pipeline, or the uuid of a job.
#[derive(Debug, Subcommand)]
pub enum Runs {
    /// The jobs: pipelines with a [schedule], and loads
    List(Output),
    /// A job and its dates
    Show {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        output: Output,
    },
    /// Run one date now, again if it has been loaded
    Start {
        #[command(flatten)]
        which: Which,
        /// The date
        #[arg(long, value_name = "DATE", value_parser = read_date)]
        date: NaiveDate,
        /// Whatever its age, and without its marker
        #[arg(long)]
        force: bool,
    },
    /// Run dates again; each replaces what it has loaded before
    Backfill(Backfill),
    /// Finish the dates in flight and start no more
    Pause(Which),
    /// Go on with a paused job, or take up a cancelled one
    Resume(Which),
    /// Stop the dates in flight and start no more
    Cancel(Which),
    /// Forget a cancelled or complete job and its dates; what was loaded stays
    Delete(Which),
    /// Try the dates that failed again, each from the phase that failed
    Retry(Which),
}

/// Which job.
#[derive(Args, Debug)]
pub struct Which {
    /// A pipeline's name, or a job's uuid
    #[arg(value_name = "PIPELINE")]
    named: String,
}

/// How it is shown.
#[derive(Args, Debug)]
pub struct Output {
    /// As JSON, as the API gives it
    #[arg(long)]
    json: bool,
}

/// What `backfill` takes.
#[derive(Args, Debug)]
pub struct Backfill {
    #[command(flatten)]
    which: Which,
    /// The first date
    #[arg(long, value_name = "DATE", value_parser = read_date)]
    from: NaiveDate,
    /// The last date, inclusive
    #[arg(long, value_name = "DATE", value_parser = read_date)]
    to: NaiveDate,
    /// Only say which dates it would be
    #[arg(long)]
    dry_run: bool,
    /// Stop before the load
    #[arg(long, conflicts_with = "load_only")]
    transform_only: bool,
    /// Load what was transformed last; what has been loaded into Redshift stays as it is, rows that were deleted by hand
    /// come back only with their transform
    #[arg(long)]
    load_only: bool,
    /// Only dates that failed or were cancelled
    #[arg(long)]
    retry_errors: bool,
    /// Dates that transform side by side; absent: as many as the schedule says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    parallelism: Option<u32>,
    /// Whatever the dates' age, and without their markers
    #[arg(long)]
    force: bool,
}

pub fn run(global: &Global, what: &Runs) -> anyhow::Result<Exit> {
    match what {
        Runs::List(output) => list(global, output),
        Runs::Show { which, output } => show(global, which, output),
        Runs::Start { which, date, force } => {
            let asked = json!({ "date": date.to_string(), "force": force });
            dates(global, which, "start", &asked)
        }
        Runs::Backfill(backfill) => dates(global, &backfill.which, "backfill", &backfill.body()),
        Runs::Pause(which) => put(global, which, "pause_requested", true),
        Runs::Resume(which) => resume(global, which),
        Runs::Cancel(which) => put(global, which, "cancel_requested", true),
        Runs::Delete(which) => put(global, which, "delete_requested", true),
        Runs::Retry(which) => retry(global, which),
    }
}

/// `millstream pipelines`.
pub fn pipelines(global: &Global) -> anyhow::Result<Exit> {
    let all = admin::json(global.admin, "GET", "/api/v1/pipelines", None)?;
    let streaming = all["pipelines"].as_array().into_iter().flatten().map(|one| {
        let state = text(&one["status"]["state"]);
        [text(&one["name"]), state, text(&one["description"])]
    });
    let scheduled = all["scheduled"].as_array().into_iter().flatten().map(|job| {
        let dates = format!("{} dates loaded", job["dates"]["success"]);
        [text(&job["log_name"]), text(&job["status"]), dates]
    });
    table(["PIPELINE", "STATE", ""], streaming.chain(scheduled).collect());
    Ok(Exit::Ok)
}

impl Backfill {
    fn body(&self) -> Value {
        json!({
            "from": self.from.to_string(),
            "to": self.to.to_string(),
            "dry_run": self.dry_run,
            "transform_only": self.transform_only,
            "load_only": self.load_only,
            "retry_errors": self.retry_errors,
            "parallelism": self.parallelism,
            "force": self.force,
        })
    }
}

impl Which {
    fn job(&self, global: &Global) -> anyhow::Result<Value> {
        admin::json(global.admin, "GET", &format!("/v1/jobs/job/{}", self.named), None)
    }

    fn runs(&self, global: &Global) -> anyhow::Result<Value> {
        admin::json(global.admin, "GET", &format!("/v1/runs/{}", self.named), None)
    }
}

fn list(global: &Global, output: &Output) -> anyhow::Result<Exit> {
    let all = admin::json(global.admin, "GET", "/v1/jobs", None)?;
    if output.json {
        println!("{all}");
        return Ok(Exit::Ok);
    }
    let rows = all["jobs"].as_array().into_iter().flatten().map(|job| {
        let dates = &job["dates"];
        [
            text(&job["uuid"]),
            text(&job["log_name"]),
            text(&job["status"]),
            text(&dates["success"]),
            text(&dates["running"]),
            text(&dates["waiting"]),
            text(&dates["error"]),
            text(&job["error"]),
        ]
    });
    let head = [
        "JOB", "PIPELINE", "STATE", "LOADED", "RUNNING", "WAITING", "FAILED", "ERROR",
    ];
    table(head, rows.collect());
    Ok(Exit::Ok)
}

fn show(global: &Global, which: &Which, output: &Output) -> anyhow::Result<Exit> {
    let job = which.job(global)?;
    let runs = which.runs(global)?;
    if output.json {
        println!("{}", json!({ "job": job, "runs": runs["runs"] }));
        return Ok(Exit::Ok);
    }
    let end = match &job["end_date"] {
        Value::String(end) => format!("to {end}"),
        _ => "for ever".into(),
    };
    println!(
        "{}  {}  from {} {end}",
        text(&job["log_name"]),
        text(&job["uuid"]),
        text(&job["start_date"])
    );
    println!(
        "{} since {}  {}",
        text(&job["status"]),
        text(&job["status_since"]),
        text(&job["error"])
    );
    let rows = runs["runs"].as_array().into_iter().flatten().map(|run| {
        let rows = run["rows"].as_object();
        let rows: u64 = rows
            .into_iter()
            .flat_map(|all| all.values())
            .filter_map(Value::as_u64)
            .sum();
        [
            text(&run["date"]),
            text(&run["status"]),
            text(&run["attempt"]),
            rows.to_string(),
            text(&run["invalid"]),
            seconds(&run["et_seconds"]),
            seconds(&run["load_seconds"]),
            text(&run["next_try_at"]),
            text(&run["error"]),
        ]
    });
    let head = [
        "DATE",
        "STATE",
        "TRY",
        "ROWS",
        "INVALID",
        "TRANSFORM",
        "LOAD",
        "NEXT TRY",
        "ERROR",
    ];
    table(head, rows.collect());
    Ok(Exit::Ok)
}

/// Asks for dates and prints which they are.
fn dates(global: &Global, which: &Which, what: &str, asked: &Value) -> anyhow::Result<Exit> {
    let path = format!("/v1/runs/{}/{what}", which.named);
    let answer = admin::json(global.admin, "POST", &path, Some(asked))?;
    for date in answer["dates"].as_array().into_iter().flatten() {
        println!("{}", text(date));
    }
    Ok(Exit::Ok)
}

fn put(global: &Global, which: &Which, what: &str, value: bool) -> anyhow::Result<Exit> {
    let asked = json!({ "uuid": which.named, what: value });
    admin::json(global.admin, "PUT", "/v1/jobs/job", Some(&asked))?;
    Ok(Exit::Ok)
}

fn resume(global: &Global, which: &Which) -> anyhow::Result<Exit> {
    match which.job(global)?["status"] == "cancelled" {
        true => put(global, which, "cancel_requested", false),
        false => put(global, which, "pause_requested", false),
    }
}

/// Over all dates there are.
fn retry(global: &Global, which: &Which) -> anyhow::Result<Exit> {
    let runs = which.runs(global)?;
    let dates_of = runs["runs"].as_array();
    let (Some(first), Some(last)) = (
        dates_of.and_then(|all| all.first()),
        dates_of.and_then(|all| all.last()),
    ) else {
        return Ok(Exit::Ok);
    };
    let asked = json!({ "from": first["date"], "to": last["date"], "retry_errors": true });
    dates(global, which, "backfill", &asked)
}

/// A value as people read it: nothing where there is none.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn seconds(value: &Value) -> String {
    value
        .as_f64()
        .map_or(String::new(), |seconds| format!("{seconds:.1} s"))
}

/// Prints columns under their names, as wide as their longest value.
fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) {
    let width = |at: usize| {
        let all = rows.iter().map(|row| row[at].chars().count());
        all.chain([head[at].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |cells: [&str; N]| {
        let cells = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    println!("{}", line(head));
    for row in &rows {
        println!("{}", line(row.each_ref().map(String::as_str)));
    }
}
