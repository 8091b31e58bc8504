//! Which items the runs of a date have put, by their keys, so that a later run of the date can delete those that it does
//! not put itself.
//!
//! The keys stand in a file of the sink's own, one per date. DynamoDB could find items by date only with an index or a scan
//! of the whole table, and an attribute or item of ours would show in a table that others read. The file is as durable as
//! the manifests of the runs, which are beside it; without it nothing is deleted.
//!
//! Before the first item is put its key is in the file, and a key leaves the file after its item has been deleted. So
//! whenever a load dies, and whichever run of the date comes next, the file holds the key of every item there may be.
//!
//! The keys of a date are in memory during its load: about 100 bytes for each item.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use millstream_engine::run::DatedRun;
use millstream_engine::sink::SinkContext;
use millstream_engine::{Error, Result};

use super::CHUNK_ROWS;
use super::item::{Item, Mapping};
use super::options::DynamodbOptions;
use crate::sinks::disk::{cannot, create_dirs, sync_dir};
use crate::sinks::row_outbox::Chunks;

/// The name, in the file, of what says which table the keys are of.
const OF: &str = "millstream.table";

/// The keys of a date's items.
pub(super) struct Written {
    path: PathBuf,
    /// Says which table the keys are of.
    table: String,
    options: DynamodbOptions,
    cx: SinkContext,
}

/// Keys that were read, with what they are read by.
pub(super) struct Keys {
    batches: Vec<RecordBatch>,
    mapping: Option<Mapping>,
}

impl Written {
    /// Of the date of a run. Makes no request and reads nothing.
    pub fn new(cx: &SinkContext, run: &DatedRun, options: &DynamodbOptions) -> Written {
        let DynamodbOptions { table, key, aws, .. } = options;
        let table = format!("{table} {key:?} {:?} {:?}", aws.region, aws.endpoint);
        Written {
            path: cx.data_dir.join(format!("written-{}.arrow", run.date)),
            table,
            // A version is not among the keys.
            options: DynamodbOptions {
                version: None,
                ..options.clone()
            },
            cx: cx.clone(),
        }
    }

    /// The keys that are known.
    pub async fn known(&self) -> Result<Keys> {
        let none = Keys {
            batches: Vec::new(),
            mapping: None,
        };
        let Some(mut chunks) = Chunks::open(self.path.clone())? else {
            return Ok(none);
        };
        let schema = chunks.schema();
        if schema.metadata().get(OF) != Some(&self.table) {
            tracing::warn!(
                pipeline = self.cx.pipeline,
                sink = self.cx.name,
                "earlier runs of this date put their items into another table, where they stay"
            );
            return Ok(none);
        }
        let mapping = Some(self.mapping(&schema)?);
        let mut batches = Vec::new();
        while let Some(rows) = chunks.next(CHUNK_ROWS).await? {
            batches.push(rows);
        }
        Ok(Keys { batches, mapping })
    }

    /// The keys of rows that are to be put.
    pub fn keys_of(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let key = self
            .options
            .key
            .iter()
            .map(|name| rows.schema_ref().index_of(name));
        Ok(rows.project(&key.collect::<Result<Vec<_>, ArrowError>>()?)?)
    }

    /// The keys in `rows`, as text that tells them apart.
    pub fn texts(&self, rows: &RecordBatch) -> Result<Vec<String>> {
        let items = self.mapping(rows.schema_ref())?.items(rows)?;
        items
            .into_iter()
            .map(|item| item.map(|item| item.key).map_err(not_a_key))
            .collect()
    }

    /// Makes `keys` those that are known, durably.
    pub async fn note(&self, keys: Vec<RecordBatch>) -> Result<()> {
        let (path, table) = (self.path.clone(), self.table.clone());
        let done = tokio::task::spawn_blocking(move || write(&path, &table, &keys));
        done.await.map_err(|e| Error::bug(format!("fsync task: {e}")))?
    }

    fn mapping(&self, schema: &SchemaRef) -> Result<Mapping> {
        let cx = SinkContext {
            schema: schema.clone(),
            ..self.cx.clone()
        };
        Mapping::new(&cx, &self.options)
    }
}

impl Keys {
    /// All of them.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// What tells them apart.
    pub fn texts(&self) -> Result<HashSet<String>> {
        let mut texts = HashSet::new();
        self.each(|item| {
            texts.insert(item.key);
        })?;
        Ok(texts)
    }

    /// Those that are not among `kept`, to be deleted.
    pub fn stale(&self, kept: &HashSet<String>) -> Result<Vec<Item>> {
        let mut stale = Vec::new();
        self.each(|item| {
            if !kept.contains(&item.key) {
                stale.push(item);
            }
        })?;
        Ok(stale)
    }

    /// What tells them apart, from what reads them.
    pub fn mapping(&self) -> Option<&Mapping> {
        self.mapping.as_ref()
    }

    fn each(&self, mut each: impl FnMut(Item)) -> Result<()> {
        for rows in &self.batches {
            let Some(mapping) = &self.mapping else { continue };
            for item in mapping.items(rows)? {
                each(item.map_err(not_a_key)?);
            }
        }
        Ok(())
    }
}

/// The rows of `keys` whose texts are not among `known`, which they join.
pub(super) fn new_ones(
    keys: &RecordBatch,
    texts: &[String],
    known: &mut HashSet<String>,
) -> Result<RecordBatch> {
    let new: BooleanArray = texts
        .iter()
        .map(|text| Some(known.insert(text.clone())))
        .collect();
    Ok(filter_record_batch(keys, &new)?)
}

fn not_a_key(why: String) -> Error {
    Error::bug(format!("a key that was put cannot be a key: {why}"))
}

fn write(path: &std::path::Path, table: &str, keys: &[RecordBatch]) -> Result<()> {
    // The newest rows say how keys are stored.
    let Some(newest) = keys.last() else {
        return match fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(cannot("remove", path, e)),
            _ => Ok(()),
        };
    };
    let dir = path.parent().unwrap_or(std::path::Path::new(""));
    create_dirs(dir)?;
    let new = path.with_extension("tmp");
    let written = || -> Result<(), ArrowError> {
        let schema = Schema::new(newest.schema_ref().fields().clone());
        let schema = Arc::new(schema.with_metadata([(OF.to_owned(), table.to_owned())].into()));
        let packed = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD))?;
        let file = BufWriter::new(File::create(&new)?);
        let mut writer = StreamWriter::try_new_with_options(file, &schema, packed)?;
        for rows in keys {
            let columns = rows.columns().iter().zip(schema.fields());
            let columns = columns.map(|(column, field)| cast(column, field.data_type()));
            writer.write(&RecordBatch::try_new(
                schema.clone(),
                columns.collect::<Result<_, _>>()?,
            )?)?;
        }
        let file = writer.into_inner()?.into_inner().map_err(|e| e.into_error())?;
        file.sync_all()?;
        Ok(fs::rename(&new, path)?)
    };
    written().map_err(|e| cannot("write", path, e))?;
    sync_dir(dir)
}
