//! Where finished files are published: a local directory or S3.
//!
//! Both take a file that is whole and fsynced under its staged name. On a local disk, staging is a hidden directory of
//! the lake itself, so that publishing is one atomic rename. For S3 it is a directory of the data directory, and publishing
//! makes an object of the same bytes under the same key however often it is repeated (`object.rs`); most of a large file
//! has been sent before it is closed (`upload.rs`). That keeps crash recovery the same for both; the price is local disk
//! for the files being written, about `roll.size` per partition.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use aws_sdk_s3::Client;
use millstream_engine::{Error, Result};

use super::super::disk::{create_dirs, sync_dir};
use super::file::{Finished, Promised};
use super::files::{key as key_of, name_of};
use super::object::Object;
use crate::aws;

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

    /// Makes a staged file visible under its key; with `replaces`, over one of other rows. Doing it again does no harm.
    pub async fn publish(&self, staging: &Path, file: &Finished, replaces: bool) -> Result<Published> {
        let staged = staging.join(&file.staged);
        match self {
            Store::Local(root) => {
                let (to, bytes) = (root.join(&file.key), file.bytes);
                let done = tokio::task::spawn_blocking(move || rename(&staged, &to, bytes));
                done.await.map_err(|e| Error::bug(format!("rename task: {e}")))?
            }
            Store::S3 { .. } => {
                let to = self.object(&file.key).ok_or_else(not_s3)?;
                let there = tokio::fs::try_exists(&staged).await;
                if !there.map_err(|e| disk("read", &staged, e))? {
                    return to.published(file.bytes).await;
                }
                let done = to
                    .write(&staged, file.bytes, file.upload.as_ref(), replaces)
                    .await?;
                tokio::fs::remove_file(&staged)
                    .await
                    .map_err(|e| disk("remove", &staged, e))?;
                Ok(done)
            }
        }
    }

    /// The object of a key; none on a local disk.
    pub fn object(&self, key: &str) -> Option<Object> {
        let Store::S3 {
            client,
            bucket,
            prefix,
        } = self
        else {
            return None;
        };
        Some(Object {
            client: client.as_ref().clone(),
            bucket: bucket.clone(),
            key: format!("{prefix}{key}"),
        })
    }

    /// Ends the uploads to files whose names are `unwanted`; how many. Where they may not be listed, they stay.
    pub async fn end_uploads(&self, unwanted: &(dyn Fn(&str) -> bool + Sync)) -> Result<usize> {
        let Store::S3 {
            client,
            bucket,
            prefix,
        } = self
        else {
            return Ok(0);
        };
        let list = client.list_multipart_uploads().bucket(bucket).prefix(prefix);
        let (mut ended, mut after) = (0, (None, None));
        loop {
            let page = list.clone().set_key_marker(after.0).set_upload_id_marker(after.1);
            let page = match page.send().await {
                Ok(page) => page,
                Err(e) => {
                    return unlisted(aws::classify(
                        e,
                        format!("listing uploads to s3://{bucket}/{prefix}"),
                    ));
                }
            };
            let uploads = page.uploads().iter();
            for (key, id) in uploads.filter_map(|upload| upload.key().zip(upload.upload_id())) {
                if let Some(key) = key.strip_prefix(prefix.as_str())
                    && unwanted(name_of(key))
                    && let Some(object) = self.object(key)
                {
                    object.abort(id).await;
                    ended += 1;
                }
            }
            if page.is_truncated() != Some(true) {
                return Ok(ended);
            }
            after = (page.next_key_marker, page.next_upload_id_marker);
        }
    }
}

/// Leftover uploads cost space, not correctness: only what may pass by itself is tried again.
fn unlisted(error: Error) -> Result<usize> {
    if matches!(error, Error::Retry { .. }) {
        return Err(error);
    }
    tracing::warn!(%error, "unfinished uploads of an earlier run may stay behind; a lifecycle rule of the bucket ends them");
    Ok(0)
}

fn not_s3() -> Error {
    Error::bug("a lake in S3 has no objects")
}

impl Store {
    /// Brings a file that was open at a checkpoint, and was published since, back to where it grew. It is out of the
    /// lake then.
    pub async fn fetch_back(&self, staging: &Path, file: &Promised) -> Result<()> {
        let staged = staging.join(&file.staged);
        let there = tokio::fs::try_exists(&staged).await;
        let there = there.map_err(|e| disk("read", &staged, e))?;
        match self {
            Store::Local(root) if !there => match fs::rename(root.join(&file.key), &staged) {
                Err(e) if e.kind() != ErrorKind::NotFound => Err(disk("fetch", &staged, e)),
                _ => Ok(()),
            },
            Store::Local(_) => Ok(()),
            Store::S3 { .. } => {
                let from = self.object(&file.key).ok_or_else(not_s3)?;
                if !there {
                    from.download(&staged).await?;
                }
                from.remove().await
            }
        }
    }

    /// Removes the files in and below the directory `below` whose keys are `unwanted`; how many.
    pub async fn remove(&self, below: &str, unwanted: &(dyn Fn(&str) -> bool + Sync)) -> Result<usize> {
        match self {
            Store::Local(root) => remove_below(root, below, unwanted),
            Store::S3 {
                client,
                bucket,
                prefix,
            } => {
                let below = match below {
                    "" => prefix.clone(),
                    below => format!("{prefix}{below}/"),
                };
                let list = client.list_objects_v2().bucket(bucket).prefix(&below);
                let mut pages = list.into_paginator().send();
                let mut removed = 0;
                while let Some(page) = pages.next().await {
                    let page =
                        page.map_err(|e| aws::classify(e, format!("listing s3://{bucket}/{below}")))?;
                    let keys = page.contents().iter().filter_map(|object| object.key());
                    let is_unwanted = |key: &&str| key.strip_prefix(prefix.as_str()).is_some_and(unwanted);
                    for key in keys.filter(is_unwanted) {
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

fn remove_below(root: &Path, below: &str, unwanted: &(dyn Fn(&str) -> bool + Sync)) -> Result<usize> {
    let dir = root.join(below);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(disk("list", &dir, e)),
    };
    let (mut removed, mut deeper) = (0, 0);
    for entry in entries {
        let entry = entry.map_err(|e| disk("list", &dir, e))?;
        let path = entry.path();
        let key = key_of(below, &entry.file_name().to_string_lossy());
        if entry.file_type().map_err(|e| disk("list", &path, e))?.is_dir() {
            deeper += remove_below(root, &key, unwanted)?;
        } else if unwanted(&key) {
            fs::remove_file(&path).map_err(|e| disk("remove", &path, e))?;
            removed += 1;
        }
    }
    if removed > 0 {
        sync_dir(&dir)?;
    }
    Ok(removed + deeper)
}

fn rename(staged: &Path, to: &Path, bytes: u64) -> Result<Published> {
    let Some(dir) = to.parent() else {
        return Err(Error::bug(format!("{} has no directory", to.display())));
    };
    create_dirs(dir)?;
    match fs::rename(staged, to) {
        Ok(()) => sync_dir(dir).map(|()| Published::Now),
        Err(e) if e.kind() == ErrorKind::NotFound => match fs::metadata(to) {
            Ok(there) if there.len() == bytes => Ok(Published::Before),
            Err(e) if e.kind() != ErrorKind::NotFound => Err(disk("read", to, e)),
            // Not there, or not this one.
            _ => Ok(Published::Gone),
        },
        Err(e) => Err(disk("publish", to, e)),
    }
}

/// Publishing can be repeated, so what may pass by itself is tried again.
pub(super) fn disk(do_what: &str, path: &Path, e: io::Error) -> Error {
    let message = format!("cannot {do_what} {}: {e}", path.display());
    match e.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::IsADirectory => {
            Error::config(format!("{message}; check the directory's permissions"))
        }
        _ => Error::retry(message),
    }
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
}
