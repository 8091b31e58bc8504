//! Where objects are: a disk or a bucket of S3. Both list names and give the bytes of one version of an object.
//!
//! An error of class data is damage to one object: it is gone, it was overwritten, it is archived. A bucket that is not
//! there, or that must not be read, is one of configuration; the rest passes.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};
use parquet::arrow::async_reader::AsyncFileReader;
use tokio::sync::{OnceCell, mpsc};

use super::names::{Selection, is_visible};
use super::progress::Object;
use super::ranges::Ranges;
use crate::aws::{self, AwsOptions};

/// Files in a directory that is read, at most: each is remembered, in every checkpoint, as long as it is there.
const MOST_FILES: usize = 100_000;

/// Pieces of a download that wait to be unpacked, of up to 64 KiB each.
const CHUNKS: usize = 16;

const GONE: &str = "it was removed before it was read to its end";
const CHANGED: &str = "it was overwritten before it was read to its end";

/// A place that has objects.
pub(super) enum Store {
    Disk {
        /// Whether a path that does not exist holds no rows; else it is taken for a mistake.
        may_be_absent: bool,
    },
    S3 {
        bucket: String,
        aws: AwsOptions,
        client: OnceCell<Client>,
    },
}

/// What stopped the transport of bytes, as against what is wrong with them. Readers of formats know one kind of error
/// only; whoever gets one of theirs looks here first.
#[derive(Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    /// The error of the transport, else `other`.
    pub fn or(&self, other: Error) -> Error {
        self.lock().take().unwrap_or(other)
    }

    pub fn set(&self, e: Error) {
        self.lock().get_or_insert(e);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Error>> {
        self.0.lock().expect("nothing panics while it holds an error")
    }
}

/// The bytes of an object, to be read by a thread that may block.
pub(super) struct Download {
    pub bytes: Box<dyn Read + Send>,
    pub failure: Failure,
    /// Brings the bytes; to be run beside the reader.
    pub work: BoxFuture<'static, ()>,
}

impl Store {
    pub fn s3(bucket: String, aws: AwsOptions) -> Store {
        Store::S3 {
            bucket,
            aws,
            client: OnceCell::new(),
        }
    }

    /// What people call an object.
    pub fn url(&self, key: &str) -> String {
        match self {
            Store::Disk { .. } => key.into(),
            Store::S3 { bucket, .. } => format!("s3://{bucket}/{key}"),
        }
    }

    /// Gives each object of the selection there is.
    pub async fn list(&self, selection: &Selection, mut each: impl FnMut(Object) + Send) -> Result<()> {
        match self {
            Store::Disk { may_be_absent } => {
                let (selection, may_be_absent) = (selection.clone(), *may_be_absent);
                let files = tokio::task::spawn_blocking(move || files(&selection, may_be_absent)).await;
                let files = files.map_err(|e| Error::bug(format!("listing files: {e}")))??;
                files.into_iter().for_each(each);
                Ok(())
            }
            Store::S3 { bucket, .. } => {
                let doing = || format!("listing s3://{bucket}/{}", selection.prefix());
                let request = self.client().await?.list_objects_v2().bucket(bucket);
                let mut pages = request.prefix(selection.prefix()).into_paginator().send();
                while let Some(page) = pages.next().await {
                    let page = page.map_err(|e| aws::classify(e, doing()))?;
                    let objects = page.contents().iter().filter_map(of_listing);
                    objects.filter(|o| selection.takes(&o.key)).for_each(&mut each);
                }
                Ok(())
            }
        }
    }

    /// The object there is under a key of a bucket; none where there is none any more.
    pub async fn head(&self, key: &str) -> Result<Option<Object>> {
        let Store::S3 { bucket, .. } = self else {
            return Err(Error::bug("nobody tells of files"));
        };
        let got = self.client().await?.head_object().bucket(bucket).key(key).send();
        match got.await {
            Ok(head) => Ok(head.e_tag().zip(head.last_modified()).map(|(tag, at)| Object {
                modified: Timestamp(at.secs() * 1_000_000),
                key: key.into(),
                version: unquoted(tag),
                size: head.content_length().unwrap_or(0).max(0) as u64,
            })),
            Err(e) if e.raw_response().is_some_and(|r| r.status().as_u16() == 404) => Ok(None),
            Err(e) => Err(aws::classify(e, format!("looking at {}", self.url(key)))),
        }
    }

    /// The bytes of an object from one on.
    pub async fn download(&self, object: &Object, from: u64) -> Result<Download> {
        let failure = Failure::default();
        match self {
            Store::Disk { .. } => {
                let mut file = open(object)?;
                let moved = file.seek(SeekFrom::Start(from));
                moved.map_err(|e| cannot_read(&object.key, &e))?;
                let bytes = OnDisk {
                    path: object.key.clone(),
                    file,
                    failure: failure.clone(),
                };
                Ok(Download {
                    bytes: Box::new(bytes),
                    failure,
                    work: std::future::ready(()).boxed(),
                })
            }
            Store::S3 { .. } => {
                let body = match from < object.size {
                    true => self.get(object, format!("bytes={from}-")).await?,
                    false => ByteStream::from_static(b""),
                };
                let (to, chunks) = mpsc::channel(CHUNKS);
                let bytes = Body {
                    chunks,
                    now: Bytes::new(),
                    has_ended: false,
                    failure: failure.clone(),
                };
                Ok(Download {
                    bytes: Box::new(bytes),
                    failure,
                    work: bring(body, self.url(&object.key), to).boxed(),
                })
            }
        }
    }

    /// The ranges of an object, for Parquet.
    pub async fn ranges(
        self: &Arc<Store>,
        object: &Object,
        failure: &Failure,
    ) -> Result<Box<dyn AsyncFileReader>> {
        Ok(match self.as_ref() {
            Store::Disk { .. } => Box::new(tokio::fs::File::from_std(open(object)?)),
            Store::S3 { .. } => Box::new(Ranges::new(self, object, failure)),
        })
    }

    /// Some bytes of an object in S3, which must still be the version that was found.
    pub async fn get(&self, object: &Object, range: String) -> Result<ByteStream> {
        let Store::S3 { bucket, .. } = self else {
            return Err(Error::bug("a file is opened, not fetched"));
        };
        let url = self.url(&object.key);
        let get = self.client().await?.get_object().bucket(bucket).key(&object.key);
        let get = get.if_match(format!("\"{}\"", object.version)).range(range);
        let got = get.send().await.map_err(|e| match e.code() {
            Some("NoSuchKey") => Error::data(GONE),
            Some("PreconditionFailed") => Error::data(CHANGED),
            Some("InvalidObjectState") => Error::data("it is archived; restore it first"),
            _ => aws::classify(e, format!("reading {url}")),
        })?;
        match got.e_tag() {
            // Not every service knows the condition.
            Some(tag) if unquoted(tag) != object.version => Err(Error::data(CHANGED)),
            _ => Ok(got.body),
        }
    }

    async fn client(&self) -> Result<&Client> {
        match self {
            Store::Disk { .. } => Err(Error::bug("a disk has no client")),
            Store::S3 { aws, client, .. } => client.get_or_try_init(|| aws::s3(aws)).await,
        }
    }
}

fn of_listing(found: &aws_sdk_s3::types::Object) -> Option<Object> {
    Some(Object {
        // Whole seconds, as every other request gives them.
        modified: Timestamp(found.last_modified()?.secs() * 1_000_000),
        key: found.key()?.into(),
        version: unquoted(found.e_tag()?),
        size: found.size().unwrap_or(0).max(0) as u64,
    })
}

fn unquoted(tag: &str) -> String {
    tag.trim_matches('"').into()
}

/// Sends a body in pieces, and whether it was whole.
async fn bring(mut body: ByteStream, url: String, to: mpsc::Sender<Result<Option<Bytes>>>) {
    loop {
        let next = body.try_next().await;
        let next = next.map_err(|e| Error::retry(format!("reading {url}: {e}")));
        let more = matches!(next, Ok(Some(_)));
        if to.send(next).await.is_err() || !more {
            return;
        }
    }
}

/// The body of a response, read by a thread of its own.
struct Body {
    chunks: mpsc::Receiver<Result<Option<Bytes>>>,
    now: Bytes,
    has_ended: bool,
    failure: Failure,
}

impl Read for Body {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() && !self.has_ended {
            match self.chunks.blocking_recv() {
                Some(Ok(Some(chunk))) => self.now = chunk,
                Some(Ok(None)) => self.has_ended = true,
                Some(Err(e)) => return Err(failed(&self.failure, e)),
                // Nobody wants the rows any more.
                None => return Err(failed(&self.failure, Error::retry("reading was given up"))),
            }
        }
        let some = to.len().min(self.now.len());
        self.now.copy_to_slice(&mut to[..some]);
        Ok(some)
    }
}

/// A file whose errors are those of its disk.
struct OnDisk {
    path: String,
    file: File,
    failure: Failure,
}

impl Read for OnDisk {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(to);
        read.map_err(|e| failed(&self.failure, cannot_read(&self.path, &e)))
    }
}

fn failed(failure: &Failure, e: Error) -> io::Error {
    let text = e.to_string();
    failure.set(e);
    io::Error::other(text)
}

/// Opens the file that was found, not another one that took its place.
fn open(object: &Object) -> Result<File> {
    let file = File::open(&object.key).map_err(|e| cannot_read(&object.key, &e))?;
    let metadata = file.metadata().map_err(|e| cannot_read(&object.key, &e))?;
    match version(&metadata) == object.version {
        true => Ok(file),
        false => Err(Error::data(CHANGED)),
    }
}

fn version(of: &std::fs::Metadata) -> String {
    format!("{}-{}.{:09}", of.len(), of.mtime(), of.mtime_nsec())
}

fn cannot_read(path: &str, e: &io::Error) -> Error {
    match e.kind() {
        ErrorKind::NotFound => Error::data(GONE),
        ErrorKind::PermissionDenied => Error::config(format!("cannot read {path}: {e}")),
        _ => Error::retry(format!("reading {path}: {e}")),
    }
}

/// The files of a selection.
fn files(selection: &Selection, may_be_absent: bool) -> Result<Vec<Object>> {
    let root = selection.root();
    let from = if root.is_empty() { "." } else { root };
    let mut found = Vec::new();
    let metadata = match std::fs::metadata(from) {
        Err(e) if e.kind() == ErrorKind::NotFound && may_be_absent => {
            tracing::info!(path = from, "there is no such directory: no rows");
            return Ok(found);
        }
        metadata => metadata.map_err(|e| Error::config(format!("cannot read {from}: {e}; check path")))?,
    };
    match metadata.is_dir() {
        true => walk(root, selection, &mut found)?,
        false if selection.takes(root) => found.push(of_file(root.into(), &metadata)),
        false => {}
    }
    Ok(found)
}

fn walk(folder: &str, selection: &Selection, found: &mut Vec<Object>) -> Result<()> {
    let here = if folder.is_empty() { "." } else { folder };
    let entries = match std::fs::read_dir(here) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| cannot_read(here, &e))?,
    };
    for entry in entries {
        let entry = entry.map_err(|e| cannot_read(here, &e))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            tracing::warn!(path = %entry.path().display(), "a file whose name is not UTF-8 is not read");
            continue;
        };
        let path = match folder {
            "" => name.clone(),
            folder => format!("{}/{name}", folder.trim_end_matches('/')),
        };
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if is_visible(&name) {
                walk(&path, selection, found)?;
            }
            continue;
        }
        // What is removed meanwhile is not there; a link counts as what it points to.
        let metadata = std::fs::metadata(Path::new(&path)).ok().filter(|m| m.is_file());
        if let Some(metadata) = metadata.filter(|_| selection.takes(&path)) {
            found.push(of_file(path, &metadata));
        }
        if found.len() > MOST_FILES {
            return Err(Error::config(format!(
                "{} has more than {MOST_FILES} files to read; narrow path or include, or move away what was read",
                selection.root()
            )));
        }
    }
    Ok(())
}

fn of_file(path: String, metadata: &std::fs::Metadata) -> Object {
    Object {
        modified: Timestamp(metadata.mtime() * 1_000_000 + metadata.mtime_nsec() / 1_000),
        version: version(metadata),
        size: metadata.len(),
        key: path,
    }
}
