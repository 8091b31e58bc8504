//! Which tables there are, and what they look like. Directories are found when a place is opened; the columns of a table
//! are looked up when a query first names it, in the first and the last files of its tree: where columns were added,
//! the last have them. All files would be a request for each, and one that a query does not need is never opened; so a
//! column that only files in between have is not known, and the error about it says where columns come from.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::reader::infer_json_schema;
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::object_store::path::Path;
use datafusion::object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use millstream_engine::{Error, Result};
use tokio::sync::OnceCell;
use url::Url;

use super::lines::LeftOut;
use super::place::{Place, failed};
use super::tree::{Layout, NO_VALUE, TIMES, Tree, is_number};
use crate::sinks::suggest;

/// Directories below each other that may hold tables.
const DEPTH: usize = 6;

/// Files of one directory whose columns are looked up.
const SAMPLE_FILES: usize = 4;

/// Of a file of JSON lines, what is read to learn its columns.
const SAMPLE_LINES: usize = 1_000;
const SAMPLE_BYTES: usize = 1 << 20;

/// What the files of a place hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Parquet,
    Json,
}

impl Kind {
    fn is_file(self, path: &Path) -> bool {
        let name = path.filename().unwrap_or_default();
        match self {
            Kind::Parquet => name.ends_with(".parquet"),
            // Whatever lies in a raw tree is lines of JSON: Firehose gives its files no ending that says so.
            Kind::Json => true,
        }
    }

    fn is_partition(self, path: &Path) -> bool {
        let name = path.filename().unwrap_or_default();
        match self {
            Kind::Parquet => name.contains('='),
            Kind::Json => name.contains('=') || (name.len() == 4 && is_number(name)),
        }
    }
}

/// The tables of one schema.
pub(super) struct Tables {
    /// As it was given; none where none was.
    place: Option<String>,
    tables: BTreeMap<String, Found>,
    /// For reading files; it knows nothing of these tables.
    reading: SessionContext,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tables below {:?}: {:?}", self.place, self.tables.keys())
    }
}

/// A directory that is a table.
struct Found {
    kind: Kind,
    place: Place,
    at: Path,
    /// See [`Tree::lines`].
    lines: Option<LeftOut>,
    /// Under which its store is registered.
    url: Url,
    provider: OnceCell<Arc<dyn TableProvider>>,
}

impl Tables {
    /// The directories of `place` that hold Parquet.
    pub async fn of_lake(place: &Place, reading: &SessionContext) -> Result<Tables> {
        Tables::find(place, "lake", None, reading).await
    }

    /// The trees of `place` that hold lines of JSON.
    pub async fn of_raw(place: &Place, reading: &SessionContext, left_out: &LeftOut) -> Result<Tables> {
        Tables::find(place, "raw", Some(left_out), reading).await
    }

    /// Where no place was named.
    pub fn none(reading: &SessionContext) -> Tables {
        Tables {
            place: None,
            tables: BTreeMap::new(),
            reading: reading.clone(),
        }
    }

    async fn find(
        place: &Place,
        schema: &str,
        lines: Option<&LeftOut>,
        reading: &SessionContext,
    ) -> Result<Tables> {
        let kind = match lines {
            Some(_) => Kind::Json,
            None => Kind::Parquet,
        };
        let mut found = Vec::new();
        walk(place, kind, place.root.clone(), DEPTH, &mut found).await?;
        let mut tables = BTreeMap::new();
        for (number, at) in found.into_iter().enumerate() {
            let name = name(place, &at, schema);
            let url = Url::parse(&format!("{schema}://t{number}/"));
            let table = Found {
                kind,
                place: place.clone(),
                url: url.map_err(|e| Error::bug(format!("the address of a table: {e}")))?,
                lines: lines.cloned(),
                provider: OnceCell::new(),
                at,
            };
            if let Some(other) = tables.insert(name.clone(), table) {
                return Err(Error::config(format!(
                    "two directories of {} have the name {name:?}, one is {}; query one of them by itself",
                    place.name,
                    place.url(&other.at)
                )));
            }
        }
        Ok(Tables {
            place: Some(place.name.clone()),
            tables,
            reading: reading.clone(),
        })
    }

    fn get(&self, name: &str) -> Result<&Found> {
        let alike = || {
            self.tables
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        let found = self.tables.get(name).or_else(|| alike().map(|(_, found)| found));
        found.ok_or_else(|| {
            let Some(place) = &self.place else {
                return Error::config(format!(
                    "no table {name:?}: name the tree of its JSON lines with --raw"
                ));
            };
            let near = match self.tables.is_empty() {
                true => "there are none".into(),
                false => suggest(name, self.tables.keys().map(String::as_str)),
            };
            Error::config(format!("no table {name:?} below {place}; {near}"))
        })
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let external = |e: Error| DataFusionError::External(Box::new(e));
        let found = self.get(name).map_err(external)?;
        let provider = found.provider.get_or_try_init(|| found.open(&self.reading));
        provider.await.cloned().map(Some).map_err(external)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.get(name).is_ok()
    }
}

/// Gathers the directories that hold files, or partitions of them.
fn walk<'a>(
    place: &'a Place,
    kind: Kind,
    at: Path,
    depth: usize,
    found: &'a mut Vec<Path>,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let here = place.list(&at).await?;
        let has_files = here.objects.iter().any(|object| kind.is_file(&object.location));
        if has_files || here.common_prefixes.iter().any(|path| kind.is_partition(path)) {
            found.push(at);
            return Ok(());
        }
        if depth > 0 {
            for below in here.common_prefixes {
                walk(place, kind, below, depth - 1, found).await?;
            }
        }
        Ok(())
    })
}

/// The name of a table: its path below the place.
fn name(place: &Place, at: &Path, schema: &str) -> String {
    let parts = at.prefix_match(&place.root).into_iter().flatten();
    let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
    match parts.is_empty() {
        true => at.filename().unwrap_or(schema).to_owned(),
        false => parts.join("_"),
    }
}

/// What the ends of a tree show of it.
#[derive(Default)]
struct Ends {
    /// The partitions, outermost first, and whether every value seen is a number.
    partitions: Vec<(String, bool)>,
    unpadded: bool,
    files: Vec<ObjectMeta>,
}

impl Found {
    async fn open(&self, reading: &SessionContext) -> Result<Arc<dyn TableProvider>> {
        let url = self.place.url(&self.at);
        let mut ends = Ends::default();
        self.look(self.at.clone(), 0, &mut ends).await?;
        let layout = match self.kind {
            Kind::Json if ends.partitions.first().is_some_and(|(name, _)| name == TIMES[0]) => Layout::Times,
            _ => Layout::Hive {
                padded: !ends.unpadded,
            },
        };
        let tree = Tree {
            place: self.place.clone(),
            root: self.at.clone(),
            layout,
            lines: self.lines.clone(),
        };
        // What is read twice is not counted twice.
        let looking = Tree {
            lines: self.lines.as_ref().map(|_| LeftOut::default()),
            ..tree.clone()
        };
        let columns = self
            .columns(&looking, &ends, reading)
            .await
            .map_err(|e| e.within(&url))?;
        reading.register_object_store(&self.url, Arc::new(tree));
        self.provider(ends.partitions, columns)
            .map_err(|e| Error::config(format!("{url}: {e}")))
    }

    fn provider(
        &self,
        partitions: Vec<(String, bool)>,
        columns: Schema,
    ) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let (format, ending): (Arc<dyn FileFormat>, _) = match self.kind {
            Kind::Parquet => (Arc::new(ParquetFormat::default()), ".parquet"),
            Kind::Json => (Arc::new(JsonFormat::default()), ""),
        };
        // What a path says of a row is not read from its file.
        let is_partition = |field: &&Arc<Field>| partitions.iter().any(|(name, _)| name == field.name());
        let columns = columns
            .fields()
            .iter()
            .filter(|field| !is_partition(field))
            .cloned();
        let columns: SchemaRef = Arc::new(Schema::new(columns.collect::<Vec<_>>()));
        let partitions = partitions.into_iter().map(|(name, is_number)| {
            let of = if is_number {
                DataType::Int32
            } else {
                DataType::Utf8
            };
            (name, of)
        });
        let options = ListingOptions::new(format)
            .with_file_extension(ending)
            .with_table_partition_cols(partitions.collect());
        let config = ListingTableConfig::new(ListingTableUrl::parse(&self.url)?)
            .with_listing_options(options)
            .with_schema(columns);
        Ok(Arc::new(ListingTable::try_new(config)?))
    }

    /// Follows the first and the last of the directories, down to files.
    fn look<'a>(&'a self, at: Path, level: usize, ends: &'a mut Ends) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let here = self.place.list(&at).await?;
            let files = here
                .objects
                .into_iter()
                .filter(|object| self.kind.is_file(&object.location));
            let files: Vec<ObjectMeta> = files.collect();
            let skipped = files.len().saturating_sub(SAMPLE_FILES);
            // The first one, and the last ones.
            let sample = files
                .into_iter()
                .enumerate()
                .filter(|(n, _)| *n == 0 || *n > skipped);
            ends.files.extend(sample.map(|(_, file)| file));
            let below = here.common_prefixes;
            for path in &below {
                self.partition(path, level, ends);
            }
            let (first, last) = (below.first().cloned(), below.last().cloned());
            let last = last.filter(|last| Some(last) != first.as_ref());
            for path in [first, last].into_iter().flatten() {
                self.look(path, level + 1, ends).await?;
            }
            Ok(())
        })
    }

    /// Notes what a directory says of its partition.
    fn partition(&self, path: &Path, level: usize, ends: &mut Ends) {
        let part = path.filename().unwrap_or_default();
        let (name, value) = match (part.split_once('='), self.kind, TIMES.get(level)) {
            (Some(pair), ..) => pair,
            (None, Kind::Json, Some(time)) if is_number(part) => (*time, part),
            _ => return,
        };
        let is_time = TIMES.contains(&name);
        if is_time && value.len() == 1 {
            ends.unpadded = true;
        }
        if ends.partitions.len() == level {
            ends.partitions.push((name.into(), is_time));
        }
        if let Some((_, all_numbers)) = ends.partitions.get_mut(level) {
            *all_numbers &= is_number(value) || value == NO_VALUE;
        }
    }

    async fn columns(&self, tree: &Tree, ends: &Ends, reading: &SessionContext) -> Result<Schema> {
        if ends.files.is_empty() {
            return Err(Error::config("there are no files yet"));
        }
        let shown = ends.files.iter().filter_map(|file| {
            Some(ObjectMeta {
                location: tree.shown(&file.location)?,
                ..file.clone()
            })
        });
        let shown: Vec<ObjectMeta> = shown.collect();
        match self.kind {
            Kind::Parquet => {
                let store: Arc<dyn ObjectStore> = Arc::new(tree.clone());
                let format = ParquetFormat::default();
                let columns = format.infer_schema(&reading.state(), &store, &shown).await;
                let columns = columns
                    .map_err(|e| super::ours(&e).unwrap_or_else(|| Error::config(e.strip_backtrace())))?;
                Ok(columns.as_ref().clone())
            }
            Kind::Json => {
                let mut text = Vec::new();
                for file in &shown {
                    sample(tree, &file.location, &mut text).await?;
                }
                let (columns, _) = infer_json_schema(Cursor::new(text), None)
                    .map_err(|e| Error::config(format!("its lines are no JSON: {e}")))?;
                Ok(typed(&columns))
            }
        }
    }
}

/// Appends the first lines of a file.
async fn sample(tree: &Tree, at: &Path, to: &mut Vec<u8>) -> Result<()> {
    let doing = || format!("reading {at}");
    let got = tree.get(at).await.map_err(|e| failed(&doing(), e))?;
    let mut bytes = got.into_stream();
    let mut head = Vec::new();
    while head.len() < SAMPLE_BYTES {
        match bytes.try_next().await.map_err(|e| failed(&doing(), e))? {
            Some(more) => head.extend_from_slice(&more),
            None => {
                head.push(b'\n');
                break;
            }
        }
    }
    for line in head.split_inclusive(|b| *b == b'\n').take(SAMPLE_LINES) {
        // The last one may be cut.
        if line.ends_with(b"\n") && !line.trim_ascii().is_empty() {
            to.extend_from_slice(line);
        }
    }
    Ok(())
}

/// A column that is NULL in all lines that were looked at can be anything: text holds what comes.
fn typed(columns: &Schema) -> Schema {
    let fields = columns.fields().iter().map(|field| match field.data_type() {
        DataType::Null => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        _ => field.clone(),
    });
    Schema::new(fields.collect::<Vec<_>>())
}
