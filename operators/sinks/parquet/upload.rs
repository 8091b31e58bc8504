//! Multipart uploads that span checkpoints.
//!
//! What a durable checkpoint covers of a file never changes again: a crash cuts the file there, not before. So after
//! each checkpoint the full parts below that point are sent while the file goes on growing, and when it is closed only
//! its tail is left to send. The upload's id and the ETags of its parts stand in the next checkpoint, so that a
//! recovery goes on from them.
//!
//! Nothing depends on an upload. The file stays whole on the local disk until the object is there; an upload that
//! fails, or that somebody ends, only means that more is sent at the end. An upload that no checkpoint knows, because
//! the process died too early, is ended by the next recovery.

use std::path::{Path, PathBuf};

use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use futures::{StreamExt, TryStreamExt};
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::file::{Finished, Promised};
use super::object::{CONTENT_TYPE, Object, SINGLE_PUT_BYTES};
use super::store::Store;
use crate::aws;

/// S3 takes 10,000 parts of 5 MiB or more: these make files up to 80 GB, far beyond any sensible `roll.size`.
const PART_BYTES: u64 = 8 << 20;

/// Parts of one file uploaded at a time: hides the latency of a request, and reads 4 parts at most from disk.
const PARTS_AT_A_TIME: usize = 4;

/// An upload under way, as it stands in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upload {
    /// S3's name for it.
    pub id: String,
    /// Length of each part; the last one, sent at the end, is shorter.
    pub part_bytes: u64,
    /// The parts that were sent, from the first on.
    pub parts: Vec<Part>,
}

/// A part that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub etag: Option<String>,
    pub crc32: Option<String>,
}

/// Why a request to an upload failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The upload is no more, or not what it is taken for.
    Ended,
    /// Anything else.
    Error(Error),
}

impl Failure {
    /// For whom both are the same.
    pub fn into_error(self, of: &Object) -> Error {
        match self {
            Failure::Ended => Error::retry(format!("writing {of}: the upload was ended by somebody else")),
            Failure::Error(e) => e,
        }
    }
}

/// What S3 answers to a request to an upload that was completed, aborted, or holds other parts than we say.
const ENDED: [&str; 4] = [
    "NoSuchUpload",
    "InvalidPart",
    "InvalidPartOrder",
    "EntityTooSmall",
];

macro_rules! failure {
    ($doing:expr) => {
        |e| match e.code() {
            Some(code) if ENDED.contains(&code) => Failure::Ended,
            _ => Failure::Error(aws::classify(e, $doing)),
        }
    };
}

impl Object {
    /// Begins an upload.
    pub async fn begin(&self) -> Result<Upload> {
        let create = self.client.create_multipart_upload();
        let created = create
            .bucket(&self.bucket)
            .key(&self.key)
            .content_type(CONTENT_TYPE)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .send()
            .await;
        let created = created.map_err(|e| aws::classify(e, format!("starting to write {self}")))?;
        let id = created.upload_id;
        Ok(Upload {
            id: id
                .ok_or_else(|| Error::retry(format!("writing {self}: S3 answered without an upload id")))?,
            part_bytes: PART_BYTES,
            parts: Vec::new(),
        })
    }

    /// Sends the parts that are missing below `end`.
    async fn send(&self, from: &Path, upload: &mut Upload, end: u64) -> Result<(), Failure> {
        let id = upload.id.clone();
        let missing = parts(upload.parts.len(), upload.part_bytes, end);
        let mut sent = futures::stream::iter(missing)
            .map(|(number, start, length)| self.send_part(from, &id, number, start, length))
            .buffered(PARTS_AT_A_TIME);
        while let Some(part) = sent.try_next().await? {
            upload.parts.push(part);
        }
        Ok(())
    }

    /// Sends what is missing of the whole file and makes the object; gives its ETag.
    pub async fn finish(&self, from: &Path, bytes: u64, mut upload: Upload) -> Result<String, Failure> {
        self.send(from, &mut upload, bytes).await?;
        let parts = (1..).zip(upload.parts).map(|(number, part)| {
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(part.etag)
                .set_checksum_crc32(part.crc32)
                .build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect()));
        let complete = self.client.complete_multipart_upload();
        let done = complete
            .bucket(&self.bucket)
            .key(&self.key)
            .upload_id(upload.id)
            .multipart_upload(parts.build())
            .customize()
            .config_override(aws::s3_timeout(aws::COMPLETE_TIMEOUT))
            .send()
            .await;
        let done = done.map_err(failure!(format!("completing {self}")))?;
        Ok(done.e_tag.unwrap_or_default())
    }

    async fn send_part(
        &self,
        from: &Path,
        id: &str,
        number: i32,
        start: u64,
        length: u64,
    ) -> Result<Part, Failure> {
        let body = ByteStream::read_from()
            .path(from)
            .offset(start)
            .length(Length::Exact(length))
            .build()
            .await;
        let body = body.map_err(|e| Failure::Error(Error::retry(format!("reading {from:?}: {e}"))))?;
        let part = self.client.upload_part().bucket(&self.bucket).key(&self.key);
        let sent = part
            .upload_id(id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(body)
            .customize()
            .config_override(aws::upload_timeout(length))
            .send()
            .await;
        let sent = sent.map_err(failure!(format!("writing part {number} of {self}")))?;
        Ok(Part {
            etag: sent.e_tag,
            crc32: sent.checksum_crc32,
        })
    }

    /// Ends an upload. Parts of one that nobody completes cost money until a lifecycle rule ends it, so a failure is
    /// only logged.
    pub async fn abort(&self, id: &str) {
        let abort = self.client.abort_multipart_upload();
        let ended = abort
            .bucket(&self.bucket)
            .key(&self.key)
            .upload_id(id)
            .send()
            .await;
        if let Err(e) = ended
            && e.code() != Some("NoSuchUpload")
        {
            let error = aws::classify(e, "ending it");
            tracing::warn!(object = %self, %error, "an unfinished upload stays behind");
        }
    }

    /// Ends every upload to this object, once it is there.
    pub async fn end_others(&self) {
        let list = self.client.list_multipart_uploads().bucket(&self.bucket);
        let found = match list.prefix(&self.key).send().await {
            Ok(found) => found,
            Err(e) => {
                let error = aws::classify(e, "listing its uploads");
                tracing::debug!(object = %self, %error, "an unfinished upload may stay behind");
                return;
            }
        };
        let ours = found
            .uploads()
            .iter()
            .filter(|upload| upload.key() == Some(&self.key));
        for id in ours.filter_map(|upload| upload.upload_id()) {
            self.abort(id).await;
        }
    }

    /// Sends the full parts of a whole file before the object is to be there; none where one request will do, or nothing
    /// could be sent.
    pub async fn send_ahead(&self, from: &Path, begun: Option<Upload>, bytes: u64) -> Option<Upload> {
        match bytes > SINGLE_PUT_BYTES {
            true => self.grow(from, begun, bytes).await,
            false => None,
        }
    }

    /// Sends what is full below `end`. What was sent is kept when the rest fails; none when the upload is of no use.
    async fn grow(&self, from: &Path, begun: Option<Upload>, end: u64) -> Option<Upload> {
        let mut upload = match begun {
            Some(upload) => upload,
            None => self.begin().await.map_err(|e| postponed(self, &e)).ok()?,
        };
        let full = end - end % upload.part_bytes;
        match self.send(from, &mut upload, full).await {
            Ok(()) => Some(upload),
            Err(Failure::Ended) => None,
            Err(Failure::Error(e)) => {
                postponed(self, &e);
                Some(upload)
            }
        }
    }
}

fn postponed(object: &Object, error: &Error) {
    tracing::warn!(%object, %error, "cannot send a part of a file that is still open; trying again after the next checkpoint");
}

/// Number from 1, start and length of each part below `end` behind the first `sent`.
fn parts(sent: usize, part_bytes: u64, end: u64) -> impl Iterator<Item = (i32, u64, u64)> {
    let start = sent as u64 * part_bytes;
    (sent as i32 + 1..)
        .zip((start..end).step_by(part_bytes as usize))
        .map(move |(number, start)| (number, start, part_bytes.min(end - start)))
}

/// The uploads of a sink's open files, by staged name, and the one task that feeds them. Dropping it ends the task.
#[derive(Default)]
pub(super) struct Uploads {
    begun: std::collections::BTreeMap<String, Upload>,
    feeding: JoinSet<Vec<(String, Option<Upload>)>>,
}

/// A file to send from.
struct Feed {
    staged: String,
    from: PathBuf,
    to: Object,
    begun: Option<Upload>,
    end: u64,
}

impl Uploads {
    /// What is known now of the upload of a file, for the checkpoint.
    pub fn of(&mut self, staged: &str) -> Option<Upload> {
        while let Some(fed) = self.feeding.try_join_next() {
            self.learn(fed);
        }
        self.begun.get(staged).cloned()
    }

    /// Sends the full parts of files that a durable checkpoint promised, in the background, one round at a time.
    pub fn feed(&mut self, store: &Store, staging: &Path, open: &[Promised]) {
        if !self.feeding.is_empty() {
            return;
        }
        let feeds: Vec<Feed> = open
            .iter()
            .filter_map(|file| {
                let begun = self.begun.get(&file.staged).cloned();
                let (sent, size) = begun
                    .as_ref()
                    .map_or((0, PART_BYTES), |u| (u.parts.len(), u.part_bytes));
                (file.bytes >= (sent as u64 + 1) * size).then_some(())?;
                Some(Feed {
                    staged: file.staged.clone(),
                    from: staging.join(&file.staged),
                    to: store.object(&file.key)?,
                    begun,
                    end: file.bytes,
                })
            })
            .collect();
        if feeds.is_empty() {
            return;
        }
        self.feeding.spawn(async move {
            let mut fed = Vec::with_capacity(feeds.len());
            for feed in feeds {
                let upload = feed.to.grow(&feed.from, feed.begun, feed.end).await;
                fed.push((feed.staged, upload));
            }
            fed
        });
    }

    /// Waits until nothing is being sent.
    pub async fn settle(&mut self) {
        while let Some(fed) = self.feeding.join_next().await {
            self.learn(fed);
        }
    }

    /// The file as promised, with all that is known of its upload by now.
    pub fn newest(&self, file: &Finished) -> Finished {
        let upload = self.begun.get(&file.staged).or(file.upload.as_ref());
        Finished {
            upload: upload.cloned(),
            ..file.clone()
        }
    }

    /// The file is published.
    pub fn forget(&mut self, staged: &str) {
        self.begun.remove(staged);
    }

    fn learn(&mut self, fed: Result<Vec<(String, Option<Upload>)>, tokio::task::JoinError>) {
        let fed = match fed {
            Ok(fed) => fed,
            Err(error) => return tracing::error!(%error, "the task that feeds uploads is gone"),
        };
        for (staged, upload) in fed {
            match upload {
                Some(upload) => drop(self.begun.insert(staged, upload)),
                None => drop(self.begun.remove(&staged)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_file() {
        for sent in 0..3 {
            for bytes in [1, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES - 1] {
                let begin = sent as u64 * PART_BYTES;
                let mut end = begin;
                for (number, (n, start, length)) in (sent as i32 + 1..).zip(parts(sent, PART_BYTES, bytes)) {
                    assert_eq!((n, start), (number, end));
                    assert!(length > 0);
                    end = start + length;
                }
                assert_eq!(end, bytes.max(begin));
            }
        }
    }
}
