//! Jobs and runs as rows of their tables, and back.

use chrono::NaiveDate;
use millstream_engine::time::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Row, Transaction, named_params, params};
use serde::de::DeserializeOwned;

use crate::catalog::Result;
use crate::catalog::model::{Dates, Extent, Job, JobKind, Run};
use crate::catalog::state::{JobState, RunState};
use crate::catalog::text::read_date;

/// The columns [`job`] reads.
const JOB: &str = "SELECT uuid, key, kind, log_name, log_schema_version, s3_path, start_date, end_date, \
    contact_emails, log_format, redshift_id, additional_arguments, status, status_since, error, pause_requested, \
    cancel_requested, delete_requested, backfill_parallelism, created_at FROM jobs";
/// The columns [`run`] reads.
const RUN: &str = "SELECT date, status, attempt, et_started_at, et_seconds, load_started_at, load_seconds, rows, \
    invalid, worker, error, next_try_at, failures, failing_since, given_up, forced, backfill, extent FROM runs \
    WHERE job = ?1 ORDER BY date";

/// All jobs, the oldest first, with their dates counted.
pub fn jobs(of: &Transaction<'_>) -> Result<Vec<Job>> {
    let mut all = of.prepare_cached(&format!("{JOB} ORDER BY created_at, uuid"))?;
    let jobs = all.query_map([], job)?.collect::<rusqlite::Result<Vec<_>>>()?;
    drop(all);
    jobs.into_iter().map(|job| with_dates(of, job)).collect()
}

/// A job by its uuid, with its dates counted.
pub fn job_by_uuid(of: &Transaction<'_>, uuid: &str) -> Result<Option<Job>> {
    one(of, "uuid", uuid)
}

/// A job by its key, with its dates counted.
pub fn job_by_key(of: &Transaction<'_>, key: &str) -> Result<Option<Job>> {
    one(of, "key", key)
}

fn one(of: &Transaction<'_>, column: &str, value: &str) -> Result<Option<Job>> {
    let mut query = of.prepare_cached(&format!("{JOB} WHERE {column} = ?1"))?;
    let found = query.query_map([value], job)?.next().transpose()?;
    drop(query);
    found.map(|job| with_dates(of, job)).transpose()
}

fn with_dates(of: &Transaction<'_>, mut job: Job) -> Result<Job> {
    let mut counts = of.prepare_cached("SELECT status, count(*) FROM runs WHERE job = ?1 GROUP BY status")?;
    let counts = counts.query_map([&job.uuid], |row| Ok((run_state(row, 0)?, row.get::<_, i64>(1)?)))?;
    for one in counts {
        let (status, count) = one?;
        job.dates.add(status, count as usize);
    }
    Ok(job)
}

impl Dates {
    fn add(&mut self, status: RunState, count: usize) {
        let one = Dates::of([&Run {
            status,
            ..Run::new(NaiveDate::MIN)
        }]);
        self.success += one.success * count;
        self.error += one.error * count;
        self.running += one.running * count;
        self.waiting += one.waiting * count;
    }
}

/// The runs of a job, by date.
pub fn runs(of: &Transaction<'_>, job: &str) -> Result<Vec<Run>> {
    let mut all = of.prepare_cached(RUN)?;
    let all = all.query_map([job], run)?.collect::<rusqlite::Result<_>>()?;
    Ok(all)
}

/// Writes a job, new or changed.
pub fn save_job(to: &Transaction<'_>, job: &Job) -> Result<()> {
    let mut save = to.prepare_cached(
        "INSERT INTO jobs VALUES (:uuid, :key, :kind, :log, :version, :path, :start, :end, :emails, :format, \
         :cluster, :arguments, :status, :since, :error, :pause, :cancel, :delete, :backfill, :created, 1) \
         ON CONFLICT (uuid) DO UPDATE SET start_date = :start, end_date = :end, contact_emails = :emails, \
         additional_arguments = :arguments, status = :status, status_since = :since, error = :error, \
         pause_requested = :pause, cancel_requested = :cancel, delete_requested = :delete, \
         backfill_parallelism = :backfill, revision = revision + 1",
    )?;
    let kind = match job.kind {
        JobKind::Load => "load",
        JobKind::Pipeline => "pipeline",
    };
    save.execute(named_params! {
        ":uuid": job.uuid, ":key": job.key, ":kind": kind, ":log": job.log_name,
        ":version": job.log_schema_version, ":path": job.s3_path, ":start": job.start_date.to_string(),
        ":end": job.end_date.map(|d| d.to_string()), ":emails": json(&job.contact_emails),
        ":format": job.log_format, ":cluster": job.redshift_id, ":arguments": json(&job.additional_arguments),
        ":status": job.status.name(), ":since": job.status_since.0, ":error": job.error,
        ":pause": job.pause_requested, ":cancel": job.cancel_requested, ":delete": job.delete_requested,
        ":backfill": job.backfill_parallelism, ":created": job.created_at.0,
    })?;
    Ok(())
}

/// Writes a run, new or changed.
pub fn save_run(to: &Transaction<'_>, job: &str, run: &Run) -> Result<()> {
    let mut save = to.prepare_cached(
        "INSERT OR REPLACE INTO runs VALUES (:job, :date, :status, :attempt, :et_at, :et, :load_at, :load, :rows, \
         :invalid, :worker, :error, :next, :failures, :since, :given_up, :forced, :backfill, :extent)",
    )?;
    let extent = match run.extent {
        Extent::Full => "full",
        Extent::Transform => "transform",
    };
    save.execute(named_params! {
        ":job": job, ":date": run.date.to_string(), ":status": run.status.name(), ":attempt": run.attempt,
        ":et_at": run.et_started_at.map(|t| t.0), ":et": run.et_seconds,
        ":load_at": run.load_started_at.map(|t| t.0), ":load": run.load_seconds, ":rows": json(&run.rows),
        ":invalid": run.invalid as i64, ":worker": run.worker, ":error": run.error,
        ":next": run.next_try_at.map(|t| t.0), ":failures": run.failures,
        ":since": run.failing_since.map(|t| t.0), ":given_up": run.given_up, ":forced": run.forced,
        ":backfill": run.backfill, ":extent": extent,
    })?;
    to.prepare_cached("UPDATE jobs SET revision = revision + 1 WHERE uuid = ?1")?
        .execute(params![job])?;
    Ok(())
}

fn json<T: serde::Serialize>(value: &T) -> String {
    // Lists and maps of text and numbers have no way to fail.
    serde_json::to_string(value).unwrap_or_default()
}

fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let kind: String = row.get(2)?;
    Ok(Job {
        uuid: row.get(0)?,
        key: row.get(1)?,
        kind: if kind == "load" {
            JobKind::Load
        } else {
            JobKind::Pipeline
        },
        log_name: row.get(3)?,
        log_schema_version: row.get(4)?,
        s3_path: row.get(5)?,
        start_date: date(row, 6)?,
        end_date: match row.get_ref(7)? {
            rusqlite::types::ValueRef::Null => None,
            _ => Some(date(row, 7)?),
        },
        contact_emails: from_json(row, 8)?,
        log_format: row.get(9)?,
        redshift_id: row.get(10)?,
        additional_arguments: from_json(row, 11)?,
        status: named(row, 12, JobState::named)?,
        status_since: Timestamp(row.get(13)?),
        error: row.get(14)?,
        pause_requested: row.get(15)?,
        cancel_requested: row.get(16)?,
        delete_requested: row.get(17)?,
        backfill_parallelism: row.get(18)?,
        dates: Dates::default(),
        created_at: Timestamp(row.get(19)?),
    })
}

fn run(row: &Row<'_>) -> rusqlite::Result<Run> {
    let time = |at: usize| row.get::<_, Option<i64>>(at).map(|t| t.map(Timestamp));
    let extent: String = row.get(17)?;
    Ok(Run {
        date: date(row, 0)?,
        status: run_state(row, 1)?,
        attempt: row.get(2)?,
        et_started_at: time(3)?,
        et_seconds: row.get(4)?,
        load_started_at: time(5)?,
        load_seconds: row.get(6)?,
        rows: from_json(row, 7)?,
        invalid: row.get::<_, i64>(8)? as u64,
        worker: row.get(9)?,
        error: row.get(10)?,
        next_try_at: time(11)?,
        failures: row.get(12)?,
        failing_since: time(13)?,
        given_up: row.get(14)?,
        forced: row.get(15)?,
        backfill: row.get(16)?,
        extent: if extent == "full" {
            Extent::Full
        } else {
            Extent::Transform
        },
    })
}

fn run_state(row: &Row<'_>, at: usize) -> rusqlite::Result<RunState> {
    named(row, at, RunState::named)
}

fn named<T>(row: &Row<'_>, at: usize, read: fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let name: String = row.get(at)?;
    read(&name).ok_or_else(|| strange(at, format!("{name:?} is no state")))
}

fn date(row: &Row<'_>, at: usize) -> rusqlite::Result<NaiveDate> {
    let text: String = row.get(at)?;
    read_date(&text).map_err(|e| strange(at, e))
}

fn from_json<T: DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let text: String = row.get(at)?;
    serde_json::from_str(&text).map_err(|e| strange(at, e.to_string()))
}

/// Someone else has written here.
fn strange(column: usize, what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.into())
}
