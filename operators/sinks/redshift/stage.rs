//! Where rows wait to be loaded: Parquet files of bounded size, and a manifest that names those of a load.
//!
//! A file grows on the local disk; when it is full, or at a checkpoint, it is closed and sent to S3, or, without
//! `staging`, made durable where it is. Names follow from what is loaded, so what is staged again replaces what was
//! staged before. Files are sent in the background; what could not be sent is sent at the checkpoint, which fails
//! without it.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use millstream_engine::{Error, Result};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;

use super::super::disk::{cannot, create_dirs, sync_dir};
use super::super::outbox::unreadable;
use crate::aws::{self, AwsOptions};

/// A file is closed at this size: Redshift wants several per slice, and one is read into memory to load PostgreSQL.
const PART_BYTES: usize = 64 << 20;

/// A row group is written out at this encoded size, which bounds the memory of the sink.
const ROW_GROUP_BYTES: usize = 16 << 20;

/// Files sent at a time: as many more may wait on the local disk.
const SENDING: usize = 4;

/// Objects that S3 lists, and removes, in one request.
const S3_PAGE: usize = 1000;

/// A staged file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Name below the sink's staging directory.
    pub name: String,
    pub bytes: u64,
    /// Of its contents.
    pub hash: String,
}

/// Where staged files are kept.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In this directory.
    Local(PathBuf),
    /// In S3, below a prefix that ends in `/`.
    S3 {
        client: Box<Client>,
        bucket: String,
        prefix: String,
    },
}

/// The staged files of a sink.
pub(super) struct Stage {
    pub place: Place,
    /// Where files grow.
    dir: PathBuf,
    open: Option<Open>,
    sending: JoinSet<Result<Part>>,
    /// Closed and not known to be kept.
    closed: Vec<Part>,
    /// Closed and kept, since they were asked for last.
    kept: Vec<Part>,
}

struct Open {
    name: String,
    writer: ArrowWriter<BufWriter<Hashed>>,
}

/// A file, and the hash of what was written to it.
struct Hashed {
    file: File,
    hash: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let taken = self.file.write(from)?;
        self.hash.update(&from[..taken]);
        self.bytes += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Stage {
    pub fn new(place: Place, data_dir: &Path) -> Stage {
        let dir = match &place {
            Place::Local(dir) => dir.clone(),
            Place::S3 { .. } => data_dir.join("staging"),
        };
        Stage {
            place,
            dir,
            open: None,
            sending: JoinSet::new(),
            closed: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Adds rows to the open file, or to a new one under the name that `name` gives.
    pub async fn write(&mut self, rows: &RecordBatch, name: impl FnOnce() -> String) -> Result<()> {
        if self.open.is_none() {
            self.open = Some(self.create(name(), rows.schema())?);
        }
        let Some(open) = &mut self.open else {
            return Err(Error::bug("a staged file that was just opened is not open"));
        };
        let path = self.dir.join(&open.name);
        open.writer.write(rows).map_err(|e| cannot("write", &path, e))?;
        if open.writer.bytes_written() + open.writer.in_progress_size() >= PART_BYTES {
            self.close()?;
            self.send_in_background().await;
        }
        Ok(())
    }

    /// Keeps everything that was written: gives the files since this was called last. May be called again.
    pub async fn keep(&mut self) -> Result<Vec<Part>> {
        self.close()?;
        while let Some(sent) = self.sending.join_next().await {
            self.note(sent);
        }
        while let Some(part) = self.closed.first().cloned() {
            let kept = self.place.keep(&self.dir, part).await?;
            self.closed.remove(0);
            self.kept.push(kept);
        }
        let mut kept = std::mem::take(&mut self.kept);
        kept.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(kept)
    }

    /// Removes what an earlier life wrote below `prefix` and did not send, where it is `unwanted`. Without S3 it is where
    /// kept files are, too.
    pub async fn forget(&mut self, prefix: &str, unwanted: impl Fn(&str) -> bool) -> Result<()> {
        match self.place {
            Place::Local(_) => Ok(()),
            Place::S3 { .. } => Place::Local(self.dir.clone()).clear(prefix, unwanted).await,
        }
    }

    fn create(&self, name: String, schema: SchemaRef) -> Result<Open> {
        let path = self.dir.join(&name);
        create_dirs(path.parent().unwrap_or(&self.dir))?;
        let file = File::create(&path).map_err(|e| cannot("create", &path, e))?;
        let to = BufWriter::new(Hashed {
            file,
            hash: blake3::Hasher::new(),
            bytes: 0,
        });
        let writer = ArrowWriter::try_new(to, schema, Some(properties()));
        let writer = writer.map_err(|e| cannot("write", &path, e))?;
        Ok(Open { name, writer })
    }

    fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let path = self.dir.join(&open.name);
        let to = open.writer.into_inner().map_err(|e| cannot("write", &path, e))?;
        let to = to.into_inner().map_err(|e| cannot("write", &path, e))?;
        self.closed.push(Part {
            name: open.name,
            bytes: to.bytes,
            hash: to.hash.finalize().to_hex().to_string(),
        });
        Ok(())
    }

    async fn send_in_background(&mut self) {
        while self.sending.len() >= SENDING {
            if let Some(sent) = self.sending.join_next().await {
                self.note(sent);
            }
        }
        while let Some(sent) = self.sending.try_join_next() {
            self.note(sent);
        }
        if let Some(part) = self.closed.last().cloned() {
            let (place, dir) = (self.place.clone(), self.dir.clone());
            self.sending.spawn(async move { place.keep(&dir, part).await });
        }
    }

    /// A file that was not kept is tried again at the checkpoint.
    fn note(&mut self, sent: Result<Result<Part>, tokio::task::JoinError>) {
        match sent {
            Ok(Ok(part)) => {
                self.closed.retain(|p| p.name != part.name);
                self.kept.push(part);
            }
            Ok(Err(error)) => tracing::warn!(%error, "a staged file waits for the checkpoint"),
            Err(error) => tracing::error!(%error, "the task that sends a staged file is gone"),
        }
    }
}

fn properties() -> WriterProperties {
    let level = ZstdLevel::try_new(1).unwrap_or_default();
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_created_by(concat!("millstream version ", env!("CARGO_PKG_VERSION")).into())
        .build()
}

impl Place {
    /// Below `staging`, `s3://bucket/prefix`, and the folders `below` it.
    pub async fn in_s3(staging: &str, below: &[&str], options: &AwsOptions) -> Result<Place> {
        let (bucket, prefix) = split(staging)?;
        let parts = [prefix.trim_matches('/')]
            .into_iter()
            .chain(below.iter().copied());
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        Ok(Place::S3 {
            client: Box::new(aws::s3(options).await?),
            bucket: bucket.into(),
            prefix: format!("{}/", parts.join("/")),
        })
    }

    /// The address of a staged file.
    pub fn url(&self, name: &str) -> String {
        match self {
            Place::Local(dir) => dir.join(name).display().to_string(),
            Place::S3 { bucket, prefix, .. } => format!("s3://{bucket}/{prefix}{name}"),
        }
    }

    /// Keeps a file that has been closed. Doing it again does no harm.
    async fn keep(&self, dir: &Path, part: Part) -> Result<Part> {
        let path = dir.join(&part.name);
        match self {
            Place::Local(_) => {
                let done = tokio::task::spawn_blocking(move || {
                    let file = File::open(&path).map_err(|e| cannot("open", &path, e))?;
                    file.sync_all().map_err(|e| cannot("sync", &path, e))?;
                    sync_dir(path.parent().unwrap_or(&path))
                });
                done.await.map_err(|e| Error::bug(format!("fsync task: {e}")))??;
            }
            Place::S3 { .. } => {
                let there = tokio::fs::try_exists(&path).await;
                // It was sent, but the answer that said so was lost to a call that was given up.
                if !there.map_err(|e| cannot("read", &path, e))? {
                    return Ok(part);
                }
                let body = ByteStream::from_path(&path).await;
                let body = body.map_err(|e| Error::retry(format!("reading {}: {e}", path.display())))?;
                self.put(&part.name, body, part.bytes).await?;
                tokio::fs::remove_file(&path)
                    .await
                    .map_err(|e| cannot("remove", &path, e))?;
            }
        }
        Ok(part)
    }

    /// Writes the manifest of files, as COPY reads it; gives its address.
    pub async fn write_manifest(&self, name: &str, parts: &[Part]) -> Result<String> {
        let entry = |part: &Part| json!({ "url": self.url(&part.name), "mandatory": true, "meta": { "content_length": part.bytes } });
        let entries: Vec<_> = parts.iter().map(entry).collect();
        let text = json!({ "entries": entries }).to_string();
        match self {
            Place::Local(dir) => {
                let path = dir.join(name);
                create_dirs(path.parent().unwrap_or(dir))?;
                let open = path.with_extension("open");
                fs::write(&open, &text).map_err(|e| cannot("write", &open, e))?;
                let file = File::open(&open).map_err(|e| cannot("open", &open, e))?;
                file.sync_all().map_err(|e| cannot("sync", &open, e))?;
                fs::rename(&open, &path).map_err(|e| cannot("rename", &open, e))?;
                sync_dir(path.parent().unwrap_or(dir))?;
            }
            Place::S3 { .. } => {
                let bytes = text.len() as u64;
                self.put(name, ByteStream::from(text.into_bytes()), bytes).await?;
            }
        }
        Ok(self.url(name))
    }

    /// The addresses that a manifest names.
    pub async fn read_manifest(&self, url: &str) -> Result<Vec<String>> {
        let bytes = self.read(url).await?;
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|e| Error::data(format!("{url} is no manifest: {e}; somebody else wrote it")))?;
        Ok(manifest.entries.into_iter().map(|e| e.url).collect())
    }

    /// A staged file's contents.
    pub async fn read(&self, url: &str) -> Result<Bytes> {
        match self {
            Place::Local(_) => {
                let path = Path::new(url);
                let read = tokio::fs::read(path).await;
                read.map(Bytes::from).map_err(|e| match e.kind() {
                    ErrorKind::NotFound => Error::config(format!(
                        "{url} was staged and is gone: somebody removed it; run the date again, or start the sink anew \
                         with --reset"
                    )),
                    _ => unreadable(path, e),
                })
            }
            Place::S3 { client, .. } => {
                let (bucket, key) = split(url)?;
                let got = client.get_object().bucket(bucket).key(key).send().await;
                let got = got.map_err(|e| aws::classify(e, format!("reading {url}")))?;
                let body = got.body.collect().await;
                let body = body.map_err(|e| Error::retry(format!("reading {url}: {e}")))?;
                Ok(body.into_bytes())
            }
        }
    }

    /// Removes what has been loaded; what stays behind is removed with the next of its kind.
    pub async fn remove(&self, urls: &[String]) -> Result<()> {
        match self {
            Place::Local(_) => {
                for url in urls {
                    match fs::remove_file(url) {
                        Err(e) if e.kind() != ErrorKind::NotFound => {
                            return Err(cannot("remove", Path::new(url), e));
                        }
                        _ => {}
                    }
                }
                Ok(())
            }
            Place::S3 { client, .. } => {
                for url in urls {
                    let (bucket, key) = split(url)?;
                    let gone = client.delete_object().bucket(bucket).key(key).send().await;
                    gone.map_err(|e| aws::classify(e, format!("removing {url}")))?;
                }
                Ok(())
            }
        }
    }

    /// Removes everything below `prefix`, itself below the sink's staging directory, that satisfies `unwanted`.
    pub async fn clear(&self, prefix: &str, unwanted: impl Fn(&str) -> bool) -> Result<()> {
        let found = self.list(prefix).await?;
        let found: Vec<String> = found.into_iter().filter(|url| unwanted(url)).collect();
        self.remove(&found).await
    }

    async fn list(&self, below: &str) -> Result<Vec<String>> {
        match self {
            Place::Local(dir) => {
                let mut found = Vec::new();
                files(&dir.join(below), &mut found)?;
                Ok(found)
            }
            Place::S3 {
                client,
                bucket,
                prefix,
            } => {
                let list = client.list_objects_v2().bucket(bucket);
                let list = list.prefix(format!("{prefix}{below}")).max_keys(S3_PAGE as i32);
                let mut pages = list.into_paginator().send();
                let mut found = Vec::new();
                while let Some(page) = pages.next().await {
                    let page =
                        page.map_err(|e| aws::classify(e, format!("listing s3://{bucket}/{prefix}")))?;
                    let keys = page.contents().iter().filter_map(|o| o.key());
                    found.extend(keys.map(|key| format!("s3://{bucket}/{key}")));
                }
                Ok(found)
            }
        }
    }

    async fn put(&self, name: &str, body: ByteStream, bytes: u64) -> Result<()> {
        let Place::S3 {
            client,
            bucket,
            prefix,
        } = self
        else {
            return Err(Error::bug("an object is put into a directory"));
        };
        let put = client.put_object().bucket(bucket).key(format!("{prefix}{name}"));
        let put = put
            .body(body)
            .customize()
            .config_override(aws::upload_timeout(bytes));
        let put = put.send().await;
        put.map(drop)
            .map_err(|e| aws::classify(e, format!("writing {}", self.url(name))))
    }
}

/// Adds the files below a directory, which may not be there.
fn files(dir: &Path, found: &mut Vec<String>) -> Result<()> {
    let failed = |e| cannot("list", dir, e);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        match entry.file_type().map_err(failed)?.is_dir() {
            true => files(&entry.path(), found)?,
            false => found.push(entry.path().display().to_string()),
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Manifest {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    url: String,
}

/// Bucket and key, or prefix, of `s3://bucket/key`.
pub(super) fn split(url: &str) -> Result<(&str, &str)> {
    let rest = url.strip_prefix("s3://");
    let parts = rest.map(|rest| rest.split_once('/').unwrap_or((rest, "")));
    match parts {
        Some((bucket, key)) if !bucket.is_empty() => Ok((bucket, key)),
        _ => Err(Error::config(format!(
            "{url:?} is no address in S3; write s3://bucket/prefix"
        ))),
    }
}
