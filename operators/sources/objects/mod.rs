//! The `s3` and `file` sources: rows in objects below a prefix, or in files below a directory.
//!
//! A partition is one version of one object: its key and its ETag, or its path, size and time. Each is read once, from
//! its first row to its last, whatever crashes; an object that is overwritten is another partition, and all of it is read.
//! An offset is a place in an object, so a large one is not read again from its start: plain JSON lines go on at a byte,
//! Parquet at a row, and what is packed is unpacked again up to the place.
//!
//! Rows without `received_at` take the time at which their object was last modified, which is the same however often it
//! is read.
//!
//! Lines of a log feed the tables of a schema (`logs`), each a stream of its own.
//!
//! | what fails | what happens |
//! |---|---|
//! | a row | it goes to `<source>.invalid`, with object and line; of a log to the table `pipeline_errors` |
//! | more rows of a log than `max_errors` | an error of class data |
//! | bytes in the middle of an object; an object that is removed or overwritten while it waits | the rows in front of it are kept, the rest is one invalid row |
//! | the network, a disk | the object is read again from the last row that came through |
//! | a bucket that is not there or must not be read | an error of configuration |

mod finder;
mod known;
mod logs;
mod marker;
mod names;
mod notices;
mod options;
mod progress;
mod ranges;
mod rows;
mod source;
mod store;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_engine::source::{
    RECEIVED_AT, Source, SourceConnector, SourceContext, Tables, options as typed,
};
use millstream_engine::{Error, Result};

pub use self::marker::Marker;
use self::options::Settings;
pub use self::options::{FileOptions, Format, S3Options};
use self::source::ObjectSource;
use crate::formats::json::Decoder;

/// `type = "s3"`.
pub struct S3Connector;

/// `type = "file"`.
pub struct FileConnector;

impl SourceConnector for S3Connector {
    fn name(&self) -> &'static str {
        "s3"
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(S3Options)
    }

    fn identity(&self) -> &'static [&'static str] {
        &["path", "endpoint"]
    }

    fn check(&self, cx: &SourceContext) -> Result<()> {
        check(&typed::<S3Options>(&cx.options)?.check()?, cx)
    }

    fn tables(&self, cx: &SourceContext) -> Result<Option<Vec<(String, SchemaRef)>>> {
        tables(&typed::<S3Options>(&cx.options)?.check()?)
    }

    fn tables_of(&self, cx: &SourceContext, lines: &[String]) -> Result<Vec<Tables>> {
        tables_of(&typed::<S3Options>(&cx.options)?.check()?, lines)
    }

    fn is_bounded(&self, options: &serde_json::Value) -> bool {
        options["follow"] != true
    }

    fn open(&self, cx: SourceContext) -> Result<Arc<dyn Source>> {
        let settings = typed::<S3Options>(&cx.options)?.check()?;
        Ok(Arc::new(ObjectSource::new(settings, cx)?))
    }
}

impl SourceConnector for FileConnector {
    fn name(&self) -> &'static str {
        "file"
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(FileOptions)
    }

    fn identity(&self) -> &'static [&'static str] {
        &["path"]
    }

    fn check(&self, cx: &SourceContext) -> Result<()> {
        check(&typed::<FileOptions>(&cx.options)?.check()?, cx)
    }

    fn tables(&self, cx: &SourceContext) -> Result<Option<Vec<(String, SchemaRef)>>> {
        tables(&typed::<FileOptions>(&cx.options)?.check()?)
    }

    fn tables_of(&self, cx: &SourceContext, lines: &[String]) -> Result<Vec<Tables>> {
        tables_of(&typed::<FileOptions>(&cx.options)?.check()?, lines)
    }

    fn is_bounded(&self, options: &serde_json::Value) -> bool {
        options["follow"] != true
    }

    fn open(&self, cx: SourceContext) -> Result<Arc<dyn Source>> {
        let settings = typed::<FileOptions>(&cx.options)?.check()?;
        Ok(Arc::new(ObjectSource::new(settings, cx)?))
    }
}

fn check(settings: &Settings, cx: &SourceContext) -> Result<()> {
    let Some(log) = &settings.log else {
        return Decoder::filling_arrival(cx.schema.clone()).map(drop);
    };
    log.schema()?;
    if cx.schema.fields().iter().any(|field| field.name() != RECEIVED_AT) {
        let why = "columns are not for format = \"log\"; the schema says what rows are made of";
        return Err(Error::config(why));
    }
    Ok(())
}

/// The tables of a log.
fn tables(settings: &Settings) -> Result<Option<Vec<(String, SchemaRef)>>> {
    let log = settings.log.as_ref();
    log.map(|log| Ok(log.schema()?.arrow())).transpose()
}

fn tables_of(settings: &Settings, lines: &[String]) -> Result<Vec<Tables>> {
    match &settings.log {
        Some(log) => log.open()?.lines("test.json", lines),
        None => Err(Error::bug("only a log feeds tables")),
    }
}

#[cfg(test)]
mod tests;
