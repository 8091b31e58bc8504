//! What the catalog holds, as the API shows it.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use chrono::NaiveDate;
use millstream_engine::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::catalog::state::{JobState, Requested, RunState};
use crate::catalog::text;

/// What a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// The embedded pipeline `warehouse-load.toml`, with the job's fields as its variables.
    Load,
    /// A pipeline file with a `[schedule]`.
    Pipeline,
}

/// What is asked for when a job is made.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewJob {
    /// A load, unless said otherwise.
    #[serde(default = "load", skip_deserializing)]
    pub kind: JobKind,
    /// The log, or the pipeline's name.
    pub log_name: String,
    /// The version of the log's schema; empty for a pipeline.
    pub log_schema_version: String,
    /// Under which the folders of dates lie; empty for a pipeline.
    pub s3_path: String,
    /// The first date.
    #[serde(with = "text::date")]
    pub start_date: NaiveDate,
    /// The last date; none: for ever.
    #[serde(default, with = "text::date_or_none")]
    pub end_date: Option<NaiveDate>,
    /// Who is told.
    #[serde(default)]
    pub contact_emails: Vec<String>,
    /// How rows are written.
    #[serde(default = "json")]
    pub log_format: String,
    /// The cluster's name; empty for a pipeline.
    pub redshift_id: String,
    /// Further variables.
    #[serde(default)]
    pub additional_arguments: Map<String, Value>,
}

fn load() -> JobKind {
    JobKind::Load
}

fn json() -> String {
    "json".into()
}

impl NewJob {
    /// What must be unlike any other job's.
    pub fn key(&self) -> String {
        match self.kind {
            JobKind::Pipeline => format!("pipeline:{}", self.log_name),
            JobKind::Load => load_key(
                &self.redshift_id,
                &self.log_name,
                &self.log_schema_version,
                self.start_date,
                self.end_date,
            ),
        }
    }
}

/// The key of a load: Mycroft's.
pub fn load_key(cluster: &str, log: &str, version: &str, start: NaiveDate, end: Option<NaiveDate>) -> String {
    let end = end.map_or("None".into(), |end| end.to_string());
    format!("{cluster}:{log}:{version}:{start}:{end}")
}

/// A bounded pipeline and what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Job {
    pub uuid: String,
    pub key: String,
    pub kind: JobKind,
    /// The log, or the pipeline's name.
    pub log_name: String,
    pub log_schema_version: String,
    pub s3_path: String,
    #[serde(with = "text::date")]
    pub start_date: NaiveDate,
    #[serde(with = "text::date_or_none")]
    pub end_date: Option<NaiveDate>,
    pub contact_emails: Vec<String>,
    pub log_format: String,
    pub redshift_id: String,
    pub additional_arguments: Map<String, Value>,
    pub status: JobState,
    #[serde(with = "text::time")]
    pub status_since: Timestamp,
    /// Why it stopped, or why its newest failure is tried again.
    pub error: Option<String>,
    pub pause_requested: bool,
    pub cancel_requested: bool,
    pub delete_requested: bool,
    /// Dates a backfill transforms side by side; none: as many as the schedule says.
    pub backfill_parallelism: Option<u32>,
    pub dates: Dates,
    #[serde(with = "text::time")]
    pub created_at: Timestamp,
}

/// How many dates are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dates {
    /// Loaded.
    pub success: usize,
    /// Failed, whether tried again or given up, or cancelled.
    pub error: usize,
    /// In flight, or transformed and waiting for their turn to load.
    pub running: usize,
    /// Without a marker, or not begun.
    pub waiting: usize,
}

impl Dates {
    /// Counts runs.
    pub fn of<'r>(runs: impl IntoIterator<Item = &'r Run>) -> Dates {
        let mut dates = Dates::default();
        for run in runs {
            match run.status {
                RunState::LoadSuccess => dates.success += 1,
                RunState::Null | RunState::Waiting => dates.waiting += 1,
                RunState::EtStarted | RunState::EtSuccess | RunState::LoadStarted => dates.running += 1,
                _ => dates.error += 1,
            }
        }
        dates
    }
}

impl Job {
    /// One that is made now.
    pub fn new(new: NewJob, now: Timestamp) -> Job {
        Job {
            uuid: Uuid::new_v4().to_string(),
            key: new.key(),
            kind: new.kind,
            log_name: new.log_name,
            log_schema_version: new.log_schema_version,
            s3_path: new.s3_path,
            start_date: new.start_date,
            end_date: new.end_date,
            contact_emails: new.contact_emails,
            log_format: new.log_format,
            redshift_id: new.redshift_id,
            additional_arguments: new.additional_arguments,
            status: JobState::Null,
            status_since: now,
            error: None,
            pause_requested: false,
            cancel_requested: false,
            delete_requested: false,
            backfill_parallelism: None,
            dates: Dates::default(),
            created_at: now,
        }
    }

    /// What has been asked of it and not been done.
    pub fn requested(&self) -> Requested {
        Requested {
            pause: self.pause_requested,
            cancel: self.cancel_requested,
            delete: self.delete_requested,
        }
    }
}

/// How far a run is to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// Transform, then load.
    #[default]
    Full,
    /// Transform only; a later backfill with `load_only` loads it.
    Transform,
}

/// One date of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    #[serde(with = "text::date")]
    pub date: NaiveDate,
    pub status: RunState,
    /// How often the date has been begun: 1 for the first time, 0 before.
    pub attempt: u32,
    #[serde(with = "text::time_or_none")]
    pub et_started_at: Option<Timestamp>,
    pub et_seconds: Option<f64>,
    #[serde(with = "text::time_or_none")]
    pub load_started_at: Option<Timestamp>,
    pub load_seconds: Option<f64>,
    /// Rows that each sink took.
    pub rows: BTreeMap<String, u64>,
    /// Rows that could not be read.
    pub invalid: u64,
    /// The process that has, or had, it in hand.
    pub worker: Option<String>,
    pub error: Option<String>,
    #[serde(with = "text::time_or_none")]
    pub next_try_at: Option<Timestamp>,
    /// Failures since it last went well.
    pub failures: u32,
    /// When the first of them was.
    #[serde(with = "text::time_or_none")]
    pub failing_since: Option<Timestamp>,
    /// It is not tried again by itself.
    pub given_up: bool,
    /// It runs whatever its age and without its marker.
    pub forced: bool,
    /// It is made again, or lies outside the schedule: dates after it do not wait for it.
    pub backfill: bool,
    pub extent: Extent,
}

impl Run {
    /// A date that has not begun.
    pub fn new(date: NaiveDate) -> Run {
        Run {
            date,
            status: RunState::Null,
            attempt: 0,
            et_started_at: None,
            et_seconds: None,
            load_started_at: None,
            load_seconds: None,
            rows: BTreeMap::new(),
            invalid: 0,
            worker: None,
            error: None,
            next_try_at: None,
            failures: 0,
            failing_since: None,
            given_up: false,
            forced: false,
            backfill: false,
            extent: Extent::Full,
        }
    }
}

/// `::1` or `[::1]`.
pub fn ipv6(host: &str) -> Option<Ipv6Addr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

/// A warehouse. Its password is never stored: the environment variable that holds it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name.
    pub redshift_id: String,
    /// `redshift` or `postgres`.
    #[serde(default = "redshift")]
    pub dialect: String,
    pub host: String,
    #[serde(default = "redshift_port")]
    pub port: u16,
    pub database: String,
    pub user: String,
    /// The environment variable that holds the password.
    #[serde(default)]
    pub password_env: Option<String>,
    #[serde(default = "public")]
    pub namespace: String,
    /// Where Parquet is staged: s3://bucket/prefix.
    #[serde(default)]
    pub staging: Option<String>,
    #[serde(default)]
    pub iam_role: Option<String>,
    #[serde(default)]
    pub tls: Option<bool>,
}

fn redshift() -> String {
    "redshift".into()
}

fn redshift_port() -> u16 {
    5439
}

fn public() -> String {
    "public".into()
}

/// A version of a log's schema. It never changes once it is posted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredSchema {
    pub log_name: String,
    pub version: String,
    /// The YAML.
    pub text: String,
    #[serde(with = "text::time")]
    pub posted_at: Timestamp,
}

/// What people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// All that could be loaded is loaded.
    Success,
    Complete,
    Error,
    Cancelled,
    Paused,
    Resumed,
    Deleted,
}

impl Event {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Event::Success => "success",
            Event::Complete => "complete",
            Event::Error => "error",
            Event::Cancelled => "cancelled",
            Event::Paused => "paused",
            Event::Resumed => "resumed",
            Event::Deleted => "deleted",
        }
    }

    /// The event that is written so.
    pub fn named(name: &str) -> Option<Event> {
        use Event::*;
        let all = [Success, Complete, Error, Cancelled, Paused, Resumed, Deleted];
        all.into_iter().find(|event| event.name() == name)
    }

    /// What is told when a job enters a state.
    pub fn of(state: JobState) -> Option<Event> {
        match state {
            JobState::Success => Some(Event::Success),
            JobState::Complete => Some(Event::Complete),
            JobState::Error => Some(Event::Error),
            JobState::Cancelled => Some(Event::Cancelled),
            JobState::Paused => Some(Event::Paused),
            JobState::Null | JobState::Scheduled | JobState::Running => None,
        }
    }
}

/// A row of the outbox: it is written with the change it tells of.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Ascending.
    pub id: i64,
    pub at: Timestamp,
    pub event: Event,
    /// The job as it was then, as the API shows it.
    pub job: Value,
    pub state: NoticeState,
    /// How often delivery was tried in vain.
    pub attempts: u32,
    /// What the deliverer wants to remember, such as which of several ways are done.
    pub progress: String,
    /// Why the last try failed.
    pub error: Option<String>,
    pub next_try_at: Timestamp,
    /// When it was over with.
    pub done_at: Option<Timestamp>,
}

/// How far a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoticeState {
    /// Someone is still to be told.
    Pending,
    /// Everyone has it.
    Sent,
    /// Someone will never take it.
    Failed,
    /// Nobody was to be told.
    Skipped,
}

impl NoticeState {
    pub const ALL: [NoticeState; 4] = [
        NoticeState::Pending,
        NoticeState::Sent,
        NoticeState::Failed,
        NoticeState::Skipped,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            NoticeState::Pending => "pending",
            NoticeState::Sent => "sent",
            NoticeState::Failed => "failed",
            NoticeState::Skipped => "skipped",
        }
    }

    /// The state that is written so.
    pub fn named(name: &str) -> Option<NoticeState> {
        NoticeState::ALL.into_iter().find(|state| state.name() == name)
    }
}
