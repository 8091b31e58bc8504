//! Logs: the schema of the tables that lines feed, read when a pipeline is planned and again when its source opens.

use std::path::Path;
use std::sync::Arc;

use millstream_engine::source::Tables;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use crate::aws::{self, AwsOptions};
use crate::formats::log::{Budget, LogMapper, LogSchema, Reader};

/// Bytes of a schema, at most.
const SCHEMA_BYTES: u64 = 16 << 20;

/// What is said of a log.
#[derive(Clone, Debug)]
pub(super) struct LogOptions {
    /// Where its schema is.
    pub schema: String,
    /// Bad rows there may be.
    pub max_errors: Option<u64>,
    /// Where requests go, if the schema is in S3.
    pub aws: AwsOptions,
}

/// A log that is read: what all its files share.
pub(super) struct Log {
    schema: LogSchema,
    budget: Arc<Budget>,
    start: Timestamp,
    most: Option<u64>,
}

impl LogOptions {
    /// Reads the schema.
    ///
    /// # Errors
    /// Of class config: it cannot be read, or it is wrong.
    pub fn schema(&self) -> Result<LogSchema> {
        let path = &self.schema;
        let text = match path.strip_prefix("s3://") {
            Some(rest) => self.object(rest)?,
            None => std::fs::read_to_string(Path::new(path))
                .map_err(|e| Error::config(format!("cannot read schema {path}: {e}")))?,
        };
        LogSchema::parse(path, &text)
            .map_err(|problems| Error::config(format!("the schema is wrong\n{problems}")))
    }

    /// A pipeline is planned where nothing can wait, so the request has a thread and a runtime of its own.
    fn object(&self, rest: &str) -> Result<String> {
        let path = &self.schema;
        let (bucket, key) = rest.split_once('/').unwrap_or_default();
        if bucket.is_empty() || key.is_empty() {
            let why = format!("schema {path:?} names no object; write s3://bucket/key");
            return Err(Error::config(why));
        }
        let failed = |e: std::io::Error| Error::retry(format!("reading {path}: {e}"));
        let bytes = std::thread::scope(|threads| {
            let request = || -> Result<Vec<u8>> {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = runtime.enable_all().build().map_err(failed)?;
                runtime.block_on(get(&self.aws, bucket, key))
            };
            let thread = threads.spawn(request);
            thread
                .join()
                .map_err(|_| Error::bug("reading a schema does not panic"))?
        })?;
        String::from_utf8(bytes).map_err(|e| Error::config(format!("{path} is not UTF-8: {e}")))
    }

    /// Reads the schema of a run that begins.
    pub fn open(&self) -> Result<Log> {
        Ok(Log {
            schema: self.schema()?,
            budget: Arc::new(Budget::new(self.max_errors)),
            start: Timestamp::now(),
            most: self.max_errors,
        })
    }
}

async fn get(options: &AwsOptions, bucket: &str, key: &str) -> Result<Vec<u8>> {
    let doing = || format!("reading s3://{bucket}/{key}");
    let client = aws::s3(options).await?;
    let got = client.get_object().bucket(bucket).key(key).send().await;
    let got = got.map_err(|e| aws::classify(e, doing()))?;
    if got
        .content_length()
        .is_some_and(|bytes| bytes as u64 > SCHEMA_BYTES)
    {
        let mib = SCHEMA_BYTES >> 20;
        return Err(Error::config(format!(
            "{}: a schema has at most {mib} MiB",
            doing()
        )));
    }
    let body = got.body.collect().await;
    let body = body.map_err(|e| Error::retry(format!("{}: {e}", doing())))?;
    Ok(body.into_bytes().to_vec())
}

impl Log {
    /// Reads the lines of a file, from a place in it.
    pub fn reader(
        &self,
        name: &str,
        from: Box<dyn std::io::Read + Send>,
        place: Option<(u64, u64)>,
    ) -> Reader {
        let reader = Reader::new(from, self.mapper(name));
        reader.resume(place.unwrap_or_default())
    }

    /// What each line of a file feeds into the tables.
    ///
    /// # Errors
    /// More rows are bad than may be.
    pub fn lines(&self, name: &str, lines: &[String]) -> Result<Vec<Tables>> {
        let mut mapper = self.mapper(name);
        let mut tables = |line: &String| {
            mapper.push_line(line.as_bytes())?;
            mapper.finish()
        };
        lines.iter().map(&mut tables).collect()
    }

    /// Whether more rows were bad than may be.
    pub fn is_over_budget(&self) -> bool {
        self.most.is_some_and(|most| self.budget.spent() > most)
    }

    /// The row of `pipeline_errors` that says why nothing behind a line can be read.
    pub fn unreadable(&self, name: &str, line: u64, why: &str) -> Result<Tables> {
        let mut mapper = self.mapper(name).resume(line);
        mapper.push_unreadable(why)?;
        mapper.finish()
    }

    fn mapper(&self, name: &str) -> LogMapper {
        LogMapper::new(&self.schema, name, self.start, Arc::clone(&self.budget))
    }
}
