//! One object of a lake in S3: whether it is there, writing it from a file, reading it back into one.
//!
//! A large object is written as a multipart upload, which may have begun while the file still grew (`upload.rs`). Whatever
//! becomes of that upload, the file is kept until the object is there, so it can always be sent again from the start.

use std::path::Path;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use millstream_engine::{Error, Result};

use super::store::{Published, disk};
use super::upload::{Failure, Upload};
use crate::aws;

/// Up to here one request is simpler than several; a failed upload repeats at most this much.
pub(super) const SINGLE_PUT_BYTES: u64 = 32 << 20;

/// What readers are told the objects are.
pub(super) const CONTENT_TYPE: &str = "application/vnd.apache.parquet";

/// One object of the lake.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub client: Client,
    pub bucket: String,
    pub key: String,
}

/// What S3 says of an object.
struct Head {
    bytes: u64,
    etag: String,
}

impl Object {
    /// Whether the object is there, for a file that is no longer staged: it was published, unless somebody took it away.
    pub async fn published(&self, bytes: u64) -> Result<Published> {
        match self.head().await? {
            None => Ok(Published::Gone),
            Some(head) if head.bytes == bytes => Ok(Published::Before),
            Some(head) => Err(Error::data(format!(
                "{self} has {} bytes, but the checkpoint published {bytes}: somebody else wrote it; move it away",
                head.bytes
            ))),
        }
    }

    /// Makes the file the object, by the upload that has begun if it is still of use. Doing it again does no harm. With
    /// `replaces` there may be an object of other rows, even one of the same length.
    pub async fn write(
        &self,
        from: &Path,
        bytes: u64,
        begun: Option<&Upload>,
        replaces: bool,
    ) -> Result<Published> {
        let done = self.write_once(from, bytes, begun, replaces).await?;
        if begun.is_some() || bytes > SINGLE_PUT_BYTES {
            // An upload that S3 began without an answer, so that another was begun.
            self.end_others().await;
        }
        Ok(done)
    }

    async fn write_once(
        &self,
        from: &Path,
        bytes: u64,
        begun: Option<&Upload>,
        replaces: bool,
    ) -> Result<Published> {
        if let Some(upload) = begun {
            match self.finish(from, bytes, upload.clone()).await {
                Ok(etag) => return self.check(bytes, &etag).await,
                Err(Failure::Error(e)) => return Err(e),
                // Completed before a crash, or ended by somebody, such as a lifecycle rule of the bucket.
                Err(Failure::Ended) => {}
            }
            let parts = bytes.div_ceil(upload.part_bytes);
            if !replaces && self.head().await?.is_some_and(|head| head.is_of(bytes, parts)) {
                return Ok(Published::Before);
            }
            tracing::warn!(object = %self, "its upload was ended by somebody else; sending the file again");
            self.abort(&upload.id).await;
        }
        if bytes <= SINGLE_PUT_BYTES {
            self.put(from, bytes).await?;
            return Ok(Published::Now);
        }
        let upload = self.begin().await?;
        match self.finish(from, bytes, upload.clone()).await {
            Ok(etag) => self.check(bytes, &etag).await,
            Err(failure) => {
                self.abort(&upload.id).await;
                Err(failure.into_error(self))
            }
        }
    }

    /// Completion is believed when the object is seen.
    async fn check(&self, bytes: u64, etag: &str) -> Result<Published> {
        match self.head().await? {
            Some(head) if head.bytes == bytes && (etag.is_empty() || head.etag == etag) => Ok(Published::Now),
            Some(head) => Err(Error::data(format!(
                "{self} was completed with {bytes} bytes as {etag}, but has {} as {}: somebody else wrote it; move it \
                 away",
                head.bytes, head.etag
            ))),
            None => Err(Error::retry(format!("{self} was completed, but is not there"))),
        }
    }

    async fn head(&self) -> Result<Option<Head>> {
        let head = self.client.head_object().bucket(&self.bucket).key(&self.key);
        match head.send().await {
            Ok(head) => Ok(Some(Head {
                bytes: head.content_length().unwrap_or_default().unsigned_abs(),
                etag: head.e_tag.unwrap_or_default(),
            })),
            Err(e) if e.as_service_error().is_some_and(|e| e.is_not_found()) => Ok(None),
            Err(e) => Err(aws::classify(e, format!("reading {self}"))),
        }
    }

    async fn put(&self, from: &Path, bytes: u64) -> Result<()> {
        let body = ByteStream::from_path(from)
            .await
            .map_err(|e| Error::retry(format!("reading {from:?}: {e}")))?;
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(&self.key)
            .content_type(CONTENT_TYPE);
        let timeout = aws::upload_timeout(bytes);
        let sent = put.body(body).customize().config_override(timeout).send().await;
        sent.map(drop)
            .map_err(|e| aws::classify(e, format!("writing {self}")))
    }

    /// Brings the object into a file; nothing if it does not exist.
    pub async fn download(&self, to: &Path) -> Result<()> {
        let got = self
            .client
            .get_object()
            .bucket(&self.bucket)
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

    /// Removes the object; nothing if it does not exist.
    pub async fn remove(&self) -> Result<()> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(&self.key);
        let gone = delete.send().await;
        gone.map(drop)
            .map_err(|e| aws::classify(e, format!("removing {self}")))
    }
}

impl Head {
    /// Whether this is an object of that length, made of that many parts: S3 writes their number into the ETag.
    fn is_of(&self, bytes: u64, parts: u64) -> bool {
        self.bytes == bytes && self.etag.trim_matches('"').ends_with(&format!("-{parts}"))
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}
