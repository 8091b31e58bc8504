//! Makes loads: in the warehouse once each, however often they are asked for.
//!
//! The ledger's row is written in the transaction that loads the rows. So a load whose answer was lost, or whose process
//! was killed anywhere, is made again from the start and either finds its row or finds nothing of what it did.

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use millstream_engine::sink::SinkContext;
use millstream_engine::{Error, Result};

use super::copy_text::Texts;
use super::data_api::Api;
use super::evolve::{columns_of, existing};
use super::external::ExternalTable;
use super::failure::Stopped;
use super::options::Vacuum;
use super::plan::{self, Step};
use super::session::{Address, Outcome, Rows, Session};
use super::sql::text;
use super::stage::Place;
use super::table::{Load, Target};

/// Rows of the load-error views that are shown.
const SHOWN_ERRORS: u32 = 3;

/// How the warehouse is reached.
pub(super) enum Warehouse {
    Connection(Address),
    DataApi(Api),
}

/// Makes the loads of a sink.
pub(super) struct Loader {
    pub cx: SinkContext,
    pub target: Target,
    pub warehouse: Warehouse,
    pub vacuum: Vacuum,
    pub analyze: bool,
    pub external: Option<ExternalTable>,
}

/// A way to the warehouse that is open.
enum Open<'a> {
    Connection(Session),
    DataApi(&'a Api),
}

impl Open<'_> {
    async fn query(&self, sql: &str) -> Result<Rows, Stopped> {
        match self {
            Open::Connection(session) => session.query(sql).await,
            Open::DataApi(api) => api.query(sql).await,
        }
    }

    async fn transact(&self, steps: &[Step], texts: &mut Texts) -> Result<Outcome, Stopped> {
        match self {
            Open::Connection(session) => session.transact(steps, texts).await,
            Open::DataApi(api) => api.transact(steps).await,
        }
    }
}

impl Loader {
    /// Makes a load, unless it has been made.
    pub async fn load(&self, load: &Load, place: &Place) -> Result<()> {
        let open = match &self.warehouse {
            Warehouse::Connection(address) => Open::Connection(address.connect().await?),
            Warehouse::DataApi(api) => Open::DataApi(api),
        };
        let now = DateTime::<Utc>::from(std::time::SystemTime::now());
        let made = match self.is_made(&open, load).await? {
            true => false,
            false => self.make(&open, load, place, now).await?,
        };
        if made {
            self.cx.counters.add("loads", 1);
            self.cx.counters.add("rows_loaded", load.rows);
        } else {
            self.cx.counters.add("loads_found_made", 1);
        }
        if let Some(external) = &self.external {
            self.show(&open, external, load).await?;
        }
        self.keep_up(&open, now.date_naive()).await
    }

    /// Removes the staged files of a load that has been made.
    pub async fn clean_up(&self, load: &Load, place: &Place) {
        let Some(manifest) = &load.manifest else {
            return;
        };
        let removed = async {
            let parts = place.read_manifest(manifest).await?;
            place.remove(&parts).await?;
            place.remove(std::slice::from_ref(manifest)).await
        };
        if let Err(error) = removed.await {
            let (pipeline, sink) = (&self.cx.pipeline, &self.cx.name);
            tracing::debug!(pipeline, sink, %error, "staged files of a load stay behind, or were removed before");
        }
    }

    /// Whether the ledger has the load.
    async fn is_made(&self, open: &Open<'_>, load: &Load) -> Result<bool> {
        let ledger = self.target.ledger();
        let doing = || format!("reading the ledger {ledger}");
        let has = open
            .query(&columns_of(&ledger))
            .await
            .map_err(|e| e.into_error(doing()))?;
        if has.is_empty() {
            let create = plan::create_ledger(&self.target);
            open.query(&create)
                .await
                .map_err(|e| e.into_error(format!("creating the ledger {ledger}")))?;
            return Ok(false);
        }
        let asked = open.query(&plan::digest_of(&self.target, load)).await;
        let rows = asked.map_err(|e| e.into_error(doing()))?;
        let digest = rows.first().and_then(|row| row.first().cloned().flatten());
        match digest {
            None => Ok(false),
            Some(digest) if digest == load.digest => Ok(true),
            Some(_) => Err(Error::config(format!(
                "the ledger {ledger} has load {} of this sink with other rows: the pipeline went back to an older \
                 checkpoint than the warehouse has seen, and rows would be loaded twice; compare the table with the \
                 source, then start the sink anew with --reset sink.{}",
                load.number, self.cx.name
            ))),
        }
    }

    /// Makes the load; false if it had been made meanwhile.
    async fn make(&self, open: &Open<'_>, load: &Load, place: &Place, now: DateTime<Utc>) -> Result<bool> {
        let table = &self.target.name;
        let doing = || format!("loading {table}");
        let has = open
            .query(&columns_of(table))
            .await
            .map_err(|e| e.into_error(doing()))?;
        let steps = plan::steps(&self.target, load, existing(&has).as_deref(), now)?;
        for statement in &steps.before {
            open.query(statement).await.map_err(|e| e.into_error(doing()))?;
        }
        let copies = steps.within.iter().any(|step| matches!(step, Step::CopyIn(_)));
        let mut texts = match &load.manifest {
            Some(manifest) if copies => match place.read_manifest(manifest).await {
                Ok(parts) => Texts::of(place.clone(), parts),
                // Another process may have made the load, and cleaned up after it.
                Err(_) if self.is_made(open, load).await? => return Ok(false),
                Err(gone) => return Err(gone),
            },
            _ => Texts::none(),
        };
        match open.transact(&steps.within, &mut texts).await {
            Ok(Outcome::Committed) => Ok(true),
            // By another process; its digest is looked at again.
            Ok(Outcome::NotMade) => match self.is_made(open, load).await? {
                true => Ok(false),
                false => Err(Error::retry(format!(
                    "{}: the ledger's row is gone again",
                    doing()
                ))),
            },
            Err(stopped) => Err(self.explain(open, load, stopped).await.into_error(doing())),
        }
    }

    /// Adds what the warehouse wrote down of rows it did not take.
    async fn explain(&self, open: &Open<'_>, load: &Load, stopped: Stopped) -> Stopped {
        let Stopped::Failed(mut failure) = stopped else {
            return stopped;
        };
        if failure.lost || !failure.has_load_errors() {
            return Stopped::Failed(failure);
        }
        if let Open::Connection(session) = open
            && session.query("ROLLBACK").await.is_err()
        {
            return Stopped::Failed(failure);
        }
        let manifest = load.manifest.as_deref().unwrap_or_default();
        let below = manifest.rsplit_once('/').map_or(manifest, |(below, _)| below);
        // A provisioned cluster has both, a workgroup the first only.
        for (view, file, line, column, reason, time) in [
            (
                "sys_load_error_detail",
                "file_name",
                "line_number",
                "column_name",
                "error_message",
                "start_time",
            ),
            (
                "stl_load_errors",
                "filename",
                "line_number",
                "colname",
                "err_reason",
                "starttime",
            ),
        ] {
            let asked = open
                .query(&format!(
                    "SELECT {file}, {line}, {column}, {reason} FROM {view} WHERE {file} LIKE {} ORDER BY {time} DESC \
                     LIMIT {SHOWN_ERRORS}",
                    text(&format!("{below}/%"))
                ))
                .await;
            for row in asked.unwrap_or_default() {
                let value = |i: usize| row.get(i).cloned().flatten().unwrap_or_default();
                failure.message += &format!(
                    "; {} line {} column {}: {}",
                    value(0).trim(),
                    value(1).trim(),
                    value(2).trim(),
                    value(3).trim()
                );
            }
            if failure.message.contains("; s3://") {
                break;
            }
        }
        Stopped::Failed(failure)
    }

    /// What lets the table be read quickly. A load is made without it, so a failure is only logged.
    async fn keep_up(&self, open: &Open<'_>, today: NaiveDate) -> Result<()> {
        let table = &self.target.name;
        let vacuums = self.vacuum.is_on(today.weekday()) && self.not_yet_vacuumed(today);
        let vacuum = vacuums.then(|| plan::vacuum(table, self.target.dialect));
        let analyze = self.analyze.then(|| plan::analyze(table));
        for statement in vacuum.into_iter().chain(analyze) {
            if let Err(stopped) = open.query(&statement).await {
                let error = stopped.into_error(&statement);
                let (pipeline, sink) = (&self.cx.pipeline, &self.cx.name);
                tracing::warn!(pipeline, sink, %error, "rows are loaded, but the table is not kept up");
            }
        }
        Ok(())
    }

    /// Notes the day where every run of the pipeline finds it, so that a day of many loads has one vacuum.
    fn not_yet_vacuumed(&self, today: NaiveDate) -> bool {
        let notes = self.cx.notes_dir();
        let (note, today) = (notes.join("vacuumed"), today.to_string());
        if std::fs::read_to_string(&note).is_ok_and(|last| last == today) {
            return false;
        }
        let written = std::fs::create_dir_all(&notes).and_then(|()| std::fs::write(&note, today));
        if let Err(error) = written {
            tracing::debug!(%error, "a day's second load may vacuum again");
        }
        true
    }

    /// Has the external table and the date's partition. Neither can stand in a transaction.
    async fn show(&self, open: &Open<'_>, external: &ExternalTable, load: &Load) -> Result<()> {
        let doing = format!("the external table {}", external.name);
        let failed = |e: Stopped| e.into_error(&doing);
        let has = open.query(&external.exists()).await.map_err(failed)?;
        if has.is_empty() {
            for statement in external.create(&load.columns)? {
                open.query(&statement).await.map_err(failed)?;
            }
        }
        if let Some(statement) = load.date().and_then(|date| external.add_partition(date)) {
            open.query(&statement).await.map_err(failed)?;
        }
        Ok(())
    }
}
