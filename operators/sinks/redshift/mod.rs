//! The `redshift` sink: rows in a table of Amazon Redshift or PostgreSQL, each once whatever crashes.
//!
//! Rows are staged as Parquet ([`stage`]), with a manifest per load. A load is one transaction ([`plan`]): the table is
//! created or evolved ([`evolve`]), what the rows replace is deleted, they are copied in, and a row in the ledger,
//! `millstream_ledger`, says so ([`load`]). Made again, it finds that row and does nothing.
//!
//! In a run of a date the rows of one run are one load, which replaces the date's. In a streaming pipeline rows gather
//! over checkpoints and are loaded every `interval`, at the end of a checkpoint that promised the load.
//!
//! How it fails: an error of the local disk stops the pipeline (configuration). S3 or the warehouse away are tried again;
//! until they are back no checkpoint ends, and what comes in waits in the log. What the warehouse refuses of a load
//! stops the pipeline with what it says of it. Rows that it would refuse for certain (text wider than the column, a
//! zero byte, a key that is NULL) do not get there: they go to `<sink>.rejected` with the reason.

use std::time::Instant;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use async_trait::async_trait;
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::sink::{Committable, Sink, SinkConnector, SinkContext};
use millstream_engine::source::options;
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use self::columns::Column;
use self::external::ExternalTable;
use self::form::Form;
use self::load::{Loader, Warehouse};
pub use self::options::{RedshiftOptions, Vacuum};
use self::session::Address;
use self::sql::check_text;
use self::stage::{Part, Place, Stage, split};
use self::table::{Dated, Load, Target};
use super::rejected::RejectedRows;
use super::{new_series, promise, promised};
use crate::aws::AwsOptions;
use crate::warehouse::types::Dialect;

mod columns;
mod copy_text;
mod data_api;
mod evolve;
mod external;
mod failure;
mod form;
mod load;
mod options;
mod plan;
mod session;
mod sql;
mod stage;
mod table;
#[cfg(test)]
mod tests;
mod tls;

/// `type = "redshift"`.
pub struct RedshiftConnector;

/// What the options come to for a stream.
struct Checked {
    target: Target,
    columns: Vec<Column>,
    address: Option<Address>,
    external: Option<ExternalTable>,
    vacuum: Vacuum,
}

impl RedshiftOptions {
    fn checked(&self, cx: &SinkContext) -> Result<Checked> {
        let (target, columns) = Target::new(cx, self, dated(cx).is_some())?;
        let address = match (&self.url, &self.data_api) {
            (Some(url), None) => Some(Address::new(self, url)?),
            (None, Some(_)) if self.dialect == Dialect::Postgres => {
                return Err(Error::config("data_api: only Redshift has one; write url"));
            }
            (None, Some(api)) => {
                data_api::check(api)?;
                None
            }
            (None, None) => {
                return Err(Error::config(
                    "url: where is the warehouse? write url, or data_api",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(Error::config(
                    "data_api: the warehouse is reached by url already; take one away",
                ));
            }
        };
        self.check_staging()?;
        self.aws.check()?;
        let external = self.external.as_ref();
        let external = external.map(|of| ExternalTable::new(of, &target)).transpose()?;
        let otherwise = match self.retention_days {
            Some(_) => Vacuum::Saturday,
            None => Vacuum::Never,
        };
        Ok(Checked {
            target,
            columns,
            address,
            external,
            vacuum: self.vacuum.unwrap_or(otherwise),
        })
    }

    fn check_staging(&self) -> Result<()> {
        let redshift = self.dialect == Dialect::Redshift;
        match &self.staging {
            Some(staging) => {
                split(staging).map_err(|e| e.within("staging"))?;
                check_text("staging", staging)?;
            }
            None if redshift => {
                return Err(Error::config(
                    "staging: Redshift loads from S3; write staging = \"s3://bucket/prefix\", in its region",
                ));
            }
            None => {}
        }
        match &self.iam_role {
            Some(role) => check_text("iam_role", role),
            None if redshift => Err(Error::config(
                "iam_role: in which role may Redshift read the staged files? write its ARN, or default",
            )),
            None => Ok(()),
        }
    }

    async fn place(&self, cx: &SinkContext) -> Result<Place> {
        let Some(staging) = &self.staging else {
            return Ok(Place::Local(cx.data_dir.join("staged")));
        };
        Place::in_s3(staging, &[&cx.pipeline, &cx.name], &self.aws).await
    }
}

/// Removes what all sinks of a pipeline have staged below `staging`, `s3://bucket/prefix`.
///
/// # Errors
/// S3 refuses, or is away.
pub async fn remove_staged(staging: &str, pipeline: &str, aws: &AwsOptions) -> Result<()> {
    let place = Place::in_s3(staging, &[pipeline], aws).await?;
    place.clear("", |_| true).await
}

/// The run that the sink works for, where its pipeline has one per date.
fn dated(cx: &SinkContext) -> Option<Dated> {
    cx.run.as_ref().map(|run| Dated {
        date: run.date,
        attempt: run.attempt,
    })
}

#[async_trait]
impl SinkConnector for RedshiftConnector {
    fn name(&self) -> &'static str {
        "redshift"
    }

    fn identity(&self) -> &'static [&'static str] {
        &[
            "url", "data_api", "dialect", "schema", "table", "staging", "mode", "key",
        ]
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(RedshiftOptions)
    }

    fn check(&self, cx: &SinkContext) -> Result<()> {
        options::<RedshiftOptions>(&cx.options)?.checked(cx).map(drop)
    }

    fn rejects(&self) -> bool {
        true
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn Sink>> {
        let typed: RedshiftOptions = options(&cx.options)?;
        let checked = typed.checked(&cx)?;
        let warehouse = match (checked.address, &typed.data_api) {
            (Some(address), _) => Warehouse::Connection(address),
            (None, Some(api)) => Warehouse::DataApi(data_api::Api::open(api, &typed).await?),
            (None, None) => return Err(Error::bug("a warehouse without an address")),
        };
        let form = Form::new(&checked.target, checked.columns, dated(&cx))?;
        let stage = Stage::new(typed.place(&cx).await?, &cx.data_dir);
        Ok(Box::new(RedshiftSink {
            rejected: RejectedRows::new(&cx),
            loader: Loader {
                cx,
                target: checked.target,
                warehouse,
                vacuum: checked.vacuum,
                analyze: typed.analyze,
                external: checked.external,
            },
            form,
            stage,
            interval: typed.interval.0,
            begun: false,
            since: None,
            written: 0,
            state: Promise::default(),
        }))
    }
}

/// Rows that are staged and wait for more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Gathered {
    columns: Vec<Column>,
    parts: Vec<Part>,
    rows: u64,
}

/// What stands in the checkpoint, and all that a sink knows from one to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Promise {
    /// See [`new_series`]; in a run of a date, the date.
    series: String,
    next_part: u64,
    next_load: u64,
    /// To be made when the checkpoint is durable.
    loads: Vec<Load>,
    /// Of a later load.
    gathered: Gathered,
}

struct RedshiftSink {
    loader: Loader,
    form: Form,
    stage: Stage,
    interval: std::time::Duration,
    /// Knows whether it recovers.
    begun: bool,
    /// When the first row came of those that wait.
    since: Option<Instant>,
    /// Rows that are written and not yet known to be kept.
    written: u64,
    state: Promise,
    rejected: RejectedRows,
}

#[async_trait]
impl Sink for RedshiftSink {
    async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        self.begin().await?;
        let mut typed = self.form.typed(&rows)?;
        self.form.check_dates(&typed)?;
        let mut refused = Vec::new();
        if self.form.may_refuse(&typed) {
            refused = (0..typed.num_rows())
                .map(|row| self.form.refusal(&typed, row))
                .collect();
            let taken: BooleanArray = refused.iter().map(|why| Some(why.is_none())).collect();
            typed = filter_record_batch(&typed, &taken)?;
        }
        if typed.num_rows() > 0 {
            let first = self.state.gathered.rows + self.written;
            let (below, part) = (self.below(), &mut self.state.next_part);
            let name = || {
                *part += 1;
                part_name(&below, *part - 1)
            };
            self.stage
                .write(&self.form.numbered(&typed, first)?, name)
                .await?;
            self.written += typed.num_rows() as u64;
            self.since.get_or_insert_with(Instant::now);
        }
        for (row, why) in refused.iter().enumerate() {
            if let Some(why) = why {
                self.loader.cx.counters.add("rows_refused", 1);
                self.rejected.push(&rows, row, why)?;
            }
        }
        Ok(())
    }

    async fn prepare(&mut self, barrier: Barrier) -> Result<Committable> {
        self.begin().await?;
        let kept = self.stage.keep().await?;
        let gathered = &mut self.state.gathered;
        if gathered.parts.is_empty() {
            // What an earlier life found no rows for may have had other columns.
            gathered.columns = self.form.columns.clone();
        }
        gathered.parts.extend(kept);
        gathered.rows += std::mem::take(&mut self.written);
        let due = match self.form.dated {
            Some(_) => barrier.last && self.state.loads.is_empty(),
            None if self.state.gathered.parts.is_empty() => false,
            None => barrier.last || self.since.is_some_and(|since| since.elapsed() >= self.interval),
        };
        if due {
            self.gather().await?;
        }
        promise(&self.state)
    }

    async fn commit(&mut self, _: Epoch, what: Committable) -> Result<()> {
        let Some(promise) = promised::<Promise>(what, &self.loader.cx)? else {
            return Ok(());
        };
        if !self.begun && self.form.dated.is_none() {
            self.recover(promise.clone()).await?;
        }
        for load in &promise.loads {
            self.loader.load(load, &self.stage.place).await?;
            self.loader.clean_up(load, &self.stage.place).await;
            self.state.loads.retain(|l| l != load);
        }
        Ok(())
    }

    fn rejected(&mut self) -> Option<RecordBatch> {
        self.rejected.take()
    }
}

impl RedshiftSink {
    /// Before the first rows of a life.
    async fn begin(&mut self) -> Result<()> {
        if self.begun {
            return Ok(());
        }
        self.state.series = match self.form.dated {
            Some(dated) => dated.date.to_string(),
            None => new_series(),
        };
        if let Some(dated) = self.form.dated {
            self.state.next_load = dated.attempt.into();
            // Of attempts that did not end, or whose rows are about to be replaced.
            let date = format!("{}/", self.state.series);
            let unwanted = |url: &str| attempt_of(url, &date).is_none_or(|of| of <= dated.attempt);
            self.stage.forget(&date, unwanted).await?;
            self.stage.place.clear(&date, unwanted).await?;
        }
        self.begun = true;
        Ok(())
    }

    /// Where files lie, below the sink's. Each attempt at a date has its own place: one that was given up may be writing
    /// still, in a process that hangs, and must not touch what a newer one stages.
    fn below(&self) -> String {
        match self.form.dated {
            Some(dated) => format!("{}/{}", self.state.series, dated.attempt),
            None => self.state.series.clone(),
        }
    }

    /// Goes on from a checkpoint; what was staged after it is staged again.
    async fn recover(&mut self, promise: Promise) -> Result<()> {
        if promise.series.is_empty() {
            return Ok(());
        }
        let below = format!("{}/", promise.series);
        self.stage.forget(&below, |_| true).await?;
        let (part, load) = (
            part_name(&promise.series, promise.next_part),
            load_name(&promise.series, promise.next_load),
        );
        let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_string();
        let (part, load) = (last(&part), last(&load));
        let later = |url: &str| {
            let name = last(url);
            let (kind, than) = if name.starts_with("part-") {
                ("part-", &part)
            } else {
                ("load-", &load)
            };
            name.starts_with(kind) && name >= *than
        };
        self.stage.place.clear(&below, later).await?;
        self.state = promise;
        self.begun = true;
        if !self.state.gathered.parts.is_empty() {
            self.since = Some(Instant::now());
            if self.state.gathered.columns != self.form.columns {
                // The pipeline has changed: a load has one set of columns.
                self.gather().await?;
            }
        }
        Ok(())
    }

    /// Makes a load of what has been gathered.
    async fn gather(&mut self) -> Result<()> {
        let state = &self.state;
        let gathered = &state.gathered;
        let number = state.next_load;
        let manifest = match gathered.parts.is_empty() {
            true => None,
            false => {
                let name = load_name(&self.below(), number);
                Some(self.stage.place.write_manifest(&name, &gathered.parts).await?)
            }
        };
        let mut load = Load {
            run: state.series.clone(),
            number,
            dated: self.form.dated.is_some(),
            columns: gathered.columns.clone(),
            manifest,
            rows: gathered.rows,
            digest: String::new(),
        };
        load.digest = digest(&load, &gathered.parts)?;
        self.state.loads.push(load);
        self.state.gathered = Gathered::default();
        self.state.next_load += 1;
        self.since = None;
        Ok(())
    }
}

fn part_name(below: &str, number: u64) -> String {
    format!("{below}/part-{number:010}.parquet")
}

fn load_name(below: &str, number: u64) -> String {
    format!("{below}/load-{number:010}.manifest")
}

/// The attempt at a date that staged a file; none: of files that have the date alone in their names.
fn attempt_of(url: &str, date: &str) -> Option<u32> {
    let (_, name) = url.rsplit_once(date)?;
    name.split_once('/')?.0.parse().ok()
}

/// Of what a load does and of the rows in it.
fn digest(load: &Load, parts: &[Part]) -> Result<String> {
    let all = serde_json::to_vec(&(load, parts)).map_err(|e| Error::bug(format!("a load as JSON: {e}")))?;
    Ok(blake3::hash(&all).to_hex()[..32].into())
}
