//! Where finished files are published: a local directory or S3.
//!
//! Both take a file that is whole and fsynced under its staged name. On a local disk, staging is a hidden directory of
//! the lake itself, so that publishing is one atomic rename. For S3 it is a directory of the data directory, and publishing
//! is one upload, of the same bytes under the same key however often it is repeated. That keeps crash recovery
//! the same for both; the price is local disk for the files being written, about `roll.size` per partition.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use futures::{StreamExt, TryStreamExt};
use millstream_engine::{Error, Result};

use super::super::disk::{create_dirs, sync_dir};
use super::file::{Finished, Promised};
use crate::aws;

/// Up to here one request is simpler than several; a failed upload repeats at most this much.
const SINGLE_PUT_BYTES: u64 = 32 << 20;

/// S3 allows 10,000 parts: this makes files up to 160 GB, far beyond any sensible `roll.size`.
const PART_BYTES: u64 = 16 << 20;

/// Parts of one file uploaded at a time: hides the latency of a request, and reads 4 parts at most from disk.
const PARTS_AT_A_TIME: usize = 4;

/// What readers are told the objects are.
const CONTENT_TYPE: &str = "application/vnd.apache.parquet";

/// Where `path` points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// A directory.
    Local(PathBuf),
    /// A bucket, and a prefix that is empty or ends in `/`.
    S3 { bucket: String, prefix: String },
}

impl std::str::FromStr for Location {
    type Err = Error;

    fn from_str(path: &str) -> Result<Location> {
        let wrong = |why: &str| {
            Error::config(format!(
                "path: {path:?} {why}; write a local path, file:///path or s3://bucket/prefix"
            ))
        };
        match path.split_once("://") {
            None if path.is_empty() => Err(wrong("is empty")),
            None => Ok(Location::Local(path.into())),
            Some(("file", local)) if local.starts_with('/') => Ok(Location::Local(local.into())),
            Some(("file", _)) => Err(wrong("names a host")),
            Some(("s3", rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return Err(wrong("names no bucket"));
                }
                let prefix = prefix.trim_matches('/');
                let prefix = if prefix.is_empty() {
                    String::new()
                } else {
                    format!("{prefix}/")
                };
                Ok(Location::S3 {
                    bucket: bucket.into(),
                    prefix,
                })
            }
            Some(_) => Err(wrong("has a scheme this sink does not know")),
        }
    }
}

/// What publishing a file came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// It is there now.
    Now,
    /// It was there already, from before a crash.
    Before,
    /// It is neither staged nor there: published before a crash, and removed by somebody since.
    Gone,
}

/// A place to publish files.
pub(super) enum Store {
    /// A directory.
    Local(PathBuf),
    /// A bucket and a prefix.
    S3 {
        client: Box<Client>,
        bucket: String,
        prefix: String,
    },
}

impl Store {
    /// Opens a location. Makes no request.
    pub async fn open(location: Location, options: &aws::AwsOptions) -> Result<Store> {
        Ok(match location {
            Location::Local(root) => Store::Local(root),
            Location::S3 { bucket, prefix } => {
                let client = Box::new(aws::s3(options).await?);
                Store::S3 {
                    client,
                    bucket,
                    prefix,
                }
            }
        })
    }

    /// Where files of this store grow until they are whole.
    pub fn staging(&self, data_dir: &Path) -> PathBuf {
        match self {
            Store::Local(root) => root.join(".inprogress"),
            Store::S3 { .. } => data_dir.join("staging"),
        }
    }

    /// Makes a staged file visible under its key. Doing it again does no harm.
    pub async fn publish(&self, staging: &Path, file: &Finished) -> Result<Published> {
        let staged = staging.join(&file.staged);
        match self {
            Store::Local(root) => {
                let to = root.join(&file.key);
                let done = tokio::task::spawn_blocking(move || rename(&staged, &to));
                done.await.map_err(|e| Error::bug(format!("rename task: {e}")))?
            }
            Store::S3 {
                client,
                bucket,
                prefix,
            } => {
                let to = Object {
                    client,
                    bucket,
                    key: format!("{prefix}{}", file.key),
                };
                if !tokio::fs::try_exists(&staged)
                    .await
                    .map_err(|e| disk("read", &staged, e))?
                {
                    return to.exists(file.bytes).await;
                }
                to.upload(&staged, file.bytes).await?;
                tokio::fs::remove_file(&staged)
                    .await
                    .map_err(|e| disk("remove", &staged, e))?;
                Ok(Published::Now)
            }
        }
    }
}

impl Store {
    /// Brings a file that was open at a checkpoint, and was published since, back to where it grew; nothing if it
    /// is there.
    pub async fn fetch_back(&self, staging: &Path, file: &Promised) -> Result<()> {
        let staged = staging.join(&file.staged);
        let there = tokio::fs::try_exists(&staged).await;
        if there.map_err(|e| disk("read", &staged, e))? {
            return Ok(());
        }
        match self {
            Store::Local(root) => match fs::rename(root.join(&file.key), &staged) {
                Err(e) if e.kind() != ErrorKind::NotFound => Err(disk("fetch", &staged, e)),
                _ => Ok(()),
            },
            Store::S3 {
                client,
                bucket,
                prefix,
            } => {
                let from = Object {
                    client,
                    bucket,
                    key: format!("{prefix}{}", file.key),
                };
                from.download(&staged).await
            }
        }
    }

    /// Removes the files whose names are `unwanted`; how many.
    pub async fn remove(&self, unwanted: &(dyn Fn(&str) -> bool + Sync)) -> Result<usize> {
        match self {
            Store::Local(root) => remove_below(root, unwanted),
            Store::S3 {
                client,
                bucket,
                prefix,
            } => {
                let list = client.list_objects_v2().bucket(bucket).prefix(prefix);
                let mut pages = list.into_paginator().send();
                let mut removed = 0;
                while let Some(page) = pages.next().await {
                    let page =
                        page.map_err(|e| aws::classify(e, format!("listing s3://{bucket}/{prefix}")))?;
                    let keys = page.contents().iter().filter_map(|object| object.key());
                    for key in keys.filter(|key| unwanted(key.rsplit('/').next().unwrap_or_default())) {
                        let gone = client.delete_object().bucket(bucket).key(key).send().await;
                        gone.map_err(|e| aws::classify(e, format!("removing s3://{bucket}/{key}")))?;
                        removed += 1;
                    }
                }
                Ok(removed)
            }
        }
    }
}

fn remove_below(dir: &Path, unwanted: &(dyn Fn(&str) -> bool + Sync)) -> Result<usize> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(disk("list", dir, e)),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry.map_err(|e| disk("list", dir, e))?;
        let path = entry.path();
        if entry.file_type().map_err(|e| disk("list", &path, e))?.is_dir() {
            removed += remove_below(&path, unwanted)?;
        } else if unwanted(&entry.file_name().to_string_lossy()) {
            fs::remove_file(&path).map_err(|e| disk("remove", &path, e))?;
            removed += 1;
        }
    }
    if removed > 0 {
        sync_dir(dir)?;
    }
    Ok(removed)
}

fn rename(staged: &Path, to: &Path) -> Result<Published> {
    let Some(dir) = to.parent() else {
        return Err(Error::bug(format!("{} has no directory", to.display())));
    };
    create_dirs(dir)?;
    match fs::rename(staged, to) {
        Ok(()) => sync_dir(dir).map(|()| Published::Now),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let there = to.try_exists().map_err(|e| disk("read", to, e))?;
            Ok(if there { Published::Before } else { Published::Gone })
        }
        Err(e) => Err(disk("publish", to, e)),
    }
}

/// Publishing can be repeated, so what may pass by itself is tried again.
fn disk(do_what: &str, path: &Path, e: io::Error) -> Error {
    let message = format!("cannot {do_what} {}: {e}", path.display());
    match e.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::IsADirectory => {
            Error::config(format!("{message}; check the directory's permissions"))
        }
        _ => Error::retry(message),
    }
}

/// One object of the lake.
struct Object<'a> {
    client: &'a Client,
    bucket: &'a str,
    key: String,
}

impl Object<'_> {
    async fn exists(&self, bytes: u64) -> Result<Published> {
        match self
            .client
            .head_object()
            .bucket(self.bucket)
            .key(&self.key)
            .send()
            .await
        {
            Ok(head) if head.content_length() == Some(bytes as i64) => Ok(Published::Before),
            Ok(head) => Err(Error::data(format!(
                "{self} has {} bytes, but the checkpoint published {bytes}: somebody else wrote it; move it away",
                head.content_length().unwrap_or_default()
            ))),
            Err(e) if e.as_service_error().is_some_and(|e| e.is_not_found()) => Ok(Published::Gone),
            Err(e) => Err(aws::classify(e, format!("reading {self}"))),
        }
    }

    /// Nothing if the object does not exist.
    async fn download(&self, to: &Path) -> Result<()> {
        let got = self
            .client
            .get_object()
            .bucket(self.bucket)
            .key(&self.key)
            .send()
            .await;
        let mut body = match got {
            Ok(got) => got.body.into_async_read(),
            Err(e) if e.as_service_error().is_some_and(|e| e.is_no_such_key()) => return Ok(()),
            Err(e) => return Err(aws::classify(e, format!("reading {self}"))),
        };
        // Under its name only once it is whole.
        let part = to.with_extension("fetched");
        let mut file = tokio::fs::File::create(&part)
            .await
            .map_err(|e| disk("create", &part, e))?;
        tokio::io::copy(&mut body, &mut file)
            .await
            .map_err(|e| Error::retry(format!("reading {self}: {e}")))?;
        file.sync_all().await.map_err(|e| disk("sync", &part, e))?;
        tokio::fs::rename(&part, to)
            .await
            .map_err(|e| disk("rename", to, e))
    }

    async fn upload(&self, from: &Path, bytes: u64) -> Result<()> {
        if bytes > SINGLE_PUT_BYTES {
            return self.upload_parts(from, bytes).await;
        }
        let body = ByteStream::from_path(from)
            .await
            .map_err(|e| Error::retry(format!("reading {from:?}: {e}")))?;
        let put = self
            .client
            .put_object()
            .bucket(self.bucket)
            .key(&self.key)
            .content_type(CONTENT_TYPE);
        let sent = put.body(body).send().await;
        sent.map(drop)
            .map_err(|e| aws::classify(e, format!("writing {self}")))
    }

    async fn upload_parts(&self, from: &Path, bytes: u64) -> Result<()> {
        let create = self
            .client
            .create_multipart_upload()
            .bucket(self.bucket)
            .key(&self.key);
        let created = create
            .content_type(CONTENT_TYPE)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .send()
            .await;
        let created = created.map_err(|e| aws::classify(e, format!("starting to write {self}")))?;
        let id = created
            .upload_id()
            .ok_or_else(|| Error::retry(format!("writing {self}: S3 answered without an upload id")))?;
        let done = self.send_parts(from, bytes, id).await;
        if done.is_err() {
            // Parts of an upload that nobody completes cost money until a lifecycle rule ends it.
            let abort = self
                .client
                .abort_multipart_upload()
                .bucket(self.bucket)
                .key(&self.key)
                .upload_id(id);
            if let Err(e) = abort.send().await {
                tracing::warn!(object = %self, error = %e, "an unfinished upload stays behind");
            }
        }
        done
    }

    async fn send_parts(&self, from: &Path, bytes: u64, id: &str) -> Result<()> {
        let parts: Vec<CompletedPart> = futures::stream::iter(parts(bytes))
            .map(|(number, start, length)| self.send_part(from, id, number, start, length))
            .buffered(PARTS_AT_A_TIME)
            .try_collect()
            .await?;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = self
            .client
            .complete_multipart_upload()
            .bucket(self.bucket)
            .key(&self.key)
            .upload_id(id);
        let done = complete.multipart_upload(parts).send().await;
        done.map(drop)
            .map_err(|e| aws::classify(e, format!("completing {self}")))
    }

    async fn send_part(
        &self,
        from: &Path,
        id: &str,
        number: i32,
        start: u64,
        length: u64,
    ) -> Result<CompletedPart> {
        let body = ByteStream::read_from()
            .path(from)
            .offset(start)
            .length(Length::Exact(length))
            .build()
            .await;
        let body = body.map_err(|e| Error::retry(format!("reading {from:?}: {e}")))?;
        let part = self
            .client
            .upload_part()
            .bucket(self.bucket)
            .key(&self.key)
            .upload_id(id)
            .part_number(number);
        let sent = part
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(body)
            .send()
            .await;
        let sent = sent.map_err(|e| aws::classify(e, format!("writing part {number} of {self}")))?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(sent.e_tag)
            .set_checksum_crc32(sent.checksum_crc32)
            .build())
    }
}

impl std::fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// Number from 1, start and length of each part.
fn parts(bytes: u64) -> impl Iterator<Item = (i32, u64, u64)> {
    (1..)
        .zip((0..bytes).step_by(PART_BYTES as usize))
        .map(move |(number, start)| (number, start, PART_BYTES.min(bytes - start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let s3 = |bucket: &str, prefix: &str| Location::S3 {
            bucket: bucket.into(),
            prefix: prefix.into(),
        };
        let cases = [
            ("lake/clicks", Ok(Location::Local("lake/clicks".into()))),
            ("file:///lake", Ok(Location::Local("/lake".into()))),
            ("file://lake", Err("names a host")),
            ("s3://b", Ok(s3("b", ""))),
            ("s3://b/a/b/", Ok(s3("b", "a/b/"))),
            ("s3:///a", Err("names no bucket")),
            ("gs://b/a", Err("does not know")),
            ("", Err("is empty")),
        ];
        for (typed, expect) in cases {
            match (typed.parse::<Location>(), expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got, expect),
                (Err(got), Err(expect)) => assert!(got.to_string().contains(expect), "{got}"),
                (got, _) => panic!("{typed}: {got:?}"),
            }
        }
    }

    #[test]
    fn parts_cover_the_file() {
        for bytes in [1, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES - 1] {
            let mut end = 0;
            for (number, (n, start, length)) in (1..).zip(parts(bytes)) {
                assert_eq!((n, start), (number, end));
                assert!(length > 0);
                end = start + length;
            }
            assert_eq!(end, bytes);
        }
    }
}
