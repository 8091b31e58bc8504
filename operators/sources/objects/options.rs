//! The keys of `s3` and `file` sources, as typed and checked.

use std::time::Duration;

use millstream_engine::pipeline::Span;
use millstream_engine::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::logs::LogOptions;
use super::names::{Selection, Selections};
use crate::aws::AwsOptions;

/// Asking for new objects more often costs more than it brings.
const SHORTEST_POLL: Duration = Duration::from_millis(100);

/// The objects below a prefix of an S3 bucket.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct S3Options {
    /// `s3://bucket/prefix`, one object, or a glob such as `s3://bucket/raw/2026/*/*.gz`, where `**` is any folders; or
    /// a list of them, all of one bucket.
    pub path: S3Paths,
    /// Only objects whose name fits this glob, such as `*.gz`; with a `/` in it, whose key below the prefix does.
    #[serde(default)]
    pub include: Option<String>,
    /// `false`: the objects there are, then the source ends. `true`: those that come later, too.
    #[serde(default)]
    pub follow: bool,
    /// How often new objects are looked for.
    #[serde(default = "default_poll")]
    pub poll: Span,
    /// URL of an SQS queue that S3 tells of new objects, directly, over SNS or over EventBridge. Then the bucket is
    /// listed only at the start and once an hour.
    #[serde(default)]
    pub notifications: Option<String>,
    /// How rows are written. Absent: as the name's ending says, else `ndjson`.
    #[serde(default)]
    pub format: Option<Format>,
    /// The JSON key that holds the array of rows, for objects that are envelopes.
    #[serde(default)]
    pub records: Option<String>,
    /// `log`: the schema of the tables that lines feed: a path, or `s3://bucket/key`.
    #[serde(default)]
    pub schema: Option<String>,
    /// `log`: how many rows of a run may be bad; one more ends it. Absent: any number.
    #[serde(default)]
    pub max_errors: Option<u64>,
    /// An object that appears this much later than the newest one known, by its last-modified time, is not read: what
    /// was read before that time is not remembered.
    #[serde(default = "default_settle")]
    pub settle: Span,
    /// Where its requests go.
    #[serde(flatten)]
    pub aws: AwsOptions,
}

/// The files below a directory.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileOptions {
    /// A directory, a file, or a glob such as `raw/2026/*/*.gz`, where `**` is any directories; or a list of them. In a
    /// dated run one that does not exist holds no rows.
    pub path: Paths,
    /// Only files whose name fits this glob, such as `*.gz`; with a `/` in it, whose path below the directory does.
    #[serde(default)]
    pub include: Option<String>,
    /// `false`: the files there are, then the source ends. `true`: those that come later, too. They must be whole when
    /// they appear: write them under a name that starts with `.` or ends in `.tmp` or `.part`, and rename them.
    #[serde(default)]
    pub follow: bool,
    /// How often new files are looked for.
    #[serde(default = "default_poll")]
    pub poll: Span,
    /// How rows are written. Absent: as the name's ending says, else `ndjson`.
    #[serde(default)]
    pub format: Option<Format>,
    /// The JSON key that holds the array of rows, for files that are envelopes.
    #[serde(default)]
    pub records: Option<String>,
    /// `log`: the schema of the tables that lines feed: a path, or `s3://bucket/key`.
    #[serde(default)]
    pub schema: Option<String>,
    /// `log`: how many rows of a run may be bad; one more ends it. Absent: any number.
    #[serde(default)]
    pub max_errors: Option<u64>,
}

/// One path or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Paths {
    /// The one.
    One(String),
    /// Each of these.
    Many(#[schemars(length(min = 1))] Vec<String>),
}

/// One path of S3 or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum S3Paths {
    /// The one.
    One(S3Path),
    /// Each of these.
    Many(#[schemars(length(min = 1))] Vec<S3Path>),
}

/// `s3://bucket/prefix`, one object, or a glob.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct S3Path(
    #[schemars(regex(pattern = r"^s3://[^/]+"))]
    String,
);

/// How rows are written. All but Parquet may be packed by gzip or zstd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object per line; an array of rows is taken, too, up to 64 MiB.
    Ndjson,
    /// Comma-separated values under a header.
    Csv,
    /// Apache Parquet.
    Parquet,
    /// One JSON object per line, which feeds the tables of a `schema`.
    Log,
}

fn default_poll() -> Span {
    Span(Duration::from_secs(10))
}

fn default_settle() -> Span {
    Span(Duration::from_secs(24 * 3600))
}

/// Either source, checked.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub place: Place,
    pub selections: Selections,
    pub follow: bool,
    pub poll: Duration,
    pub format: Option<Format>,
    pub records: Option<String>,
    pub log: Option<LogOptions>,
}

/// What is said of how rows are written.
struct Written {
    format: Option<Format>,
    records: Option<String>,
    schema: Option<String>,
    max_errors: Option<u64>,
}

/// Where objects are.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Disk,
    S3 {
        bucket: String,
        aws: AwsOptions,
        queue: Option<String>,
        settle: Duration,
    },
}

impl S3Options {
    /// Refuses what the schema cannot.
    pub(super) fn check(self) -> Result<Settings> {
        let queue = self.notifications;
        let mut bucket = None;
        let mut selections = Vec::new();
        for path in self.path.all() {
            let (of, below) = bucket_of(path)?;
            match bucket.replace(of) {
                Some(other) if other != of => {
                    return Err(Error::config(format!(
                        "path: {path:?} is not in bucket {other:?}; write a source for each bucket"
                    )));
                }
                _ => selections.push(Selection::new(below, self.include.as_deref())?),
            }
        }
        let bucket = bucket.ok_or_else(no_path)?.to_owned();
        if let Some(url) = &queue {
            if !self.follow {
                return Err(Error::config(
                    "notifications tell of new objects; add follow = true, or leave them out",
                ));
            }
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(Error::config(format!(
                    "notifications {url:?} is not the URL of a queue; write https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"
                )));
            }
        }
        self.aws.check()?;
        let aws = self.aws.clone();
        let place = Place::S3 {
            bucket,
            aws: self.aws,
            queue,
            settle: self.settle.0,
        };
        let written = Written {
            format: self.format,
            records: self.records,
            schema: self.schema,
            max_errors: self.max_errors,
        };
        settings(place, selections, (self.follow, self.poll), written, aws)
    }
}

impl FileOptions {
    /// Refuses what the schema cannot.
    pub(super) fn check(self) -> Result<Settings> {
        let mut selections = Vec::new();
        for typed in self.path.all() {
            let path = typed.strip_prefix("file://").unwrap_or(typed);
            if path.is_empty() || path.contains("://") {
                return Err(Error::config(format!(
                    "path {typed:?} is not on a disk; write a directory, a file or a glob"
                )));
            }
            selections.push(Selection::new(path, self.include.as_deref())?);
        }
        let written = Written {
            format: self.format,
            records: self.records,
            schema: self.schema,
            max_errors: self.max_errors,
        };
        let (aws, follow) = (AwsOptions::default(), (self.follow, self.poll));
        settings(Place::Disk, selections, follow, written, aws)
    }
}

impl Paths {
    fn all(&self) -> &[String] {
        match self {
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }
}

impl S3Paths {
    fn all(&self) -> impl Iterator<Item = &str> {
        let all = match self {
            S3Paths::One(path) => std::slice::from_ref(path),
            S3Paths::Many(paths) => paths,
        };
        all.iter().map(|path| path.0.as_str())
    }
}

/// The bucket of a path, and what follows it.
fn bucket_of(path: &str) -> Result<(&str, &str)> {
    let rest = path.strip_prefix("s3://").unwrap_or_default();
    let (bucket, below) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || bucket.contains(['*', '?', '[']) {
        return Err(Error::config(format!(
            "path {path:?} names no bucket; write s3://bucket/prefix"
        )));
    }
    Ok((bucket, below))
}

fn no_path() -> Error {
    Error::config("path is an empty list; name what is to be read")
}

fn settings(
    place: Place,
    selections: Vec<Selection>,
    (follow, poll): (bool, Span),
    written: Written,
    aws: AwsOptions,
) -> Result<Settings> {
    if selections.is_empty() {
        return Err(no_path());
    }
    if poll.0 < SHORTEST_POLL {
        return Err(Error::config(format!("poll must be at least {SHORTEST_POLL:?}")));
    }
    let log = written.log(aws)?;
    Ok(Settings {
        place,
        selections: Selections(selections),
        follow,
        poll: poll.0,
        format: written.format,
        records: written.records,
        log,
    })
}

impl Written {
    /// What is said of a log, if it is one.
    fn log(&self, aws: AwsOptions) -> Result<Option<LogOptions>> {
        let is_log = self.format == Some(Format::Log);
        match (&self.schema, is_log) {
            (None, false) if self.max_errors.is_some() => {
                let why =
                    "max_errors is for format = \"log\"; bad rows of others are in the stream `.invalid`";
                Err(Error::config(why))
            }
            (None, false) => Ok(None),
            (Some(_), false) => Err(Error::config(
                "schema is for format = \"log\"; add that, or leave it out",
            )),
            (None, true) => {
                let why = "format = \"log\" needs a schema; write one by `millstream schema infer` and name it here";
                Err(Error::config(why))
            }
            (Some(_), true) if self.records.is_some() => Err(Error::config(
                "records is not for format = \"log\"; the schema says what rows are made of",
            )),
            (Some(schema), true) => Ok(Some(LogOptions {
                schema: schema.strip_prefix("file://").unwrap_or(schema).into(),
                max_errors: self.max_errors,
                aws,
            })),
        }
    }
}
