//! Checkpoints in S3.
//!
//! ```text
//! <prefix>/<pipeline>/<epoch>-<crc>-<bytes>.state    what of the state is new; the name is its content's
//! <prefix>/<pipeline>/<epoch>.manifest.json          the checkpoint exists once this object does
//! ```
//!
//! The manifest is put last, with `If-None-Match: *`: S3 refuses it (412) when the epoch is taken, whoever took it,
//! so that one writer owns an epoch and a stale process is fenced off. One that was stopped for so long that its epoch's
//! manifest has come and gone sees a newer one behind its own, and owns nothing. Needs a service that knows conditional
//! puts. What is in flight when a process dies leaves a state object without a manifest; it goes with the epochs around it.

use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use bytes::Bytes;
use millstream_engine::checkpoint::garbage::{Named, epochs, garbage, kept};
use millstream_engine::checkpoint::manifest::Manifest;
use millstream_engine::checkpoint::parts::{Earlier, decode};
use millstream_engine::checkpoint::store::{
    CheckpointStore, MANIFEST, Restored, STATE, States, decode_manifest, encode_manifest, taken,
};
use millstream_engine::message::Epoch;
use millstream_engine::{Error, Result};

use crate::aws::{self, AwsOptions};

/// The checkpoints of one pipeline below a prefix.
#[derive(Debug)]
pub struct S3Store {
    client: Client,
    bucket: String,
    /// Ends with a slash.
    prefix: String,
    known: Mutex<Known>,
}

/// What is there, as far as this process has seen it.
#[derive(Debug, Default)]
struct Known {
    earlier: Earlier,
    named: Named,
}

impl S3Store {
    /// The store of `pipeline` below `s3://bucket/prefix`. Makes no request.
    ///
    /// Behind a `?` stand the keys of [`AwsOptions`], with those of the role beside them:
    /// `s3://bucket/prefix?region=eu-west-1&role_arn=arn:aws:iam::123456789012:role/lake`.
    pub async fn open(url: &str, pipeline: &str) -> Result<S3Store> {
        let (place, options) = url.split_once('?').unwrap_or((url, ""));
        let wrong = || {
            Error::config(format!(
                "{place:?} is no place for checkpoints; write s3://bucket/prefix"
            ))
        };
        let rest = place.strip_prefix("s3://").ok_or_else(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(wrong());
        }
        let options = AwsOptions::from_query(options).map_err(|e| e.within(place))?;
        let prefix = match prefix.trim_matches('/') {
            "" => format!("{pipeline}/"),
            prefix => format!("{prefix}/{pipeline}/"),
        };
        Ok(S3Store {
            client: aws::s3(&options).await?,
            bucket: bucket.into(),
            prefix,
            known: Mutex::default(),
        })
    }

    /// Puts the manifest if its epoch is free; false if it is not.
    async fn create(&self, key: &str, text: &[u8]) -> Result<bool> {
        let put = self.client.put_object().bucket(&self.bucket).key(key);
        let put = put.if_none_match("*").body(ByteStream::from(text.to_vec()));
        match put.send().await {
            Ok(_) => Ok(true),
            Err(e) if status(&e) == Some(412) => Ok(false),
            // Another conditional put of the same key is under way.
            Err(e) if status(&e) == Some(409) => Err(Error::retry(format!(
                "writing {}: another writer is at it",
                self.place(key)
            ))),
            Err(e) => Err(aws::classify(e, format!("writing {}", self.place(key)))),
        }
    }

    /// An object that is not there is damage.
    async fn get(&self, key: &str) -> Result<Bytes> {
        let place = || format!("reading {}", self.place(key));
        let got = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .send()
            .await;
        let got = got.map_err(|e| match e.code() {
            Some("NoSuchKey") => Error::data(format!("{}: it is not there", place())),
            _ => aws::classify(e, place()),
        })?;
        let body = got.body.collect().await;
        let body = body.map_err(|e| Error::retry(format!("{}: {e}", place())))?;
        Ok(body.into_bytes())
    }

    async fn read(&self, epoch: Epoch) -> Result<Restored> {
        let manifest = self.read_manifest(epoch).await?;
        let mut files = Vec::with_capacity(manifest.files.len());
        for file in &manifest.files {
            files.push(self.get(&self.key(&file.name)).await?);
        }
        let decoded = decode(&manifest, &files, &self.place(&self.prefix))?;
        self.known().earlier = decoded.next;
        Ok(Restored {
            manifest,
            states: decoded.states,
            newest: epoch,
        })
    }

    async fn read_manifest(&self, epoch: Epoch) -> Result<Manifest> {
        let key = self.manifest(epoch);
        let first_name = |epoch, crc, bytes| format!("{epoch:020}-{crc:08x}-{bytes}{STATE}");
        decode_manifest(&self.get(&key).await?, &self.place(&key), first_name)
    }

    /// The names of everything there is.
    async fn names(&self) -> Result<Vec<String>> {
        let list = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(&self.prefix);
        let mut pages = list.into_paginator().send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| aws::classify(e, format!("listing {}", self.place(&self.prefix))))?;
            let keys = page.contents().iter().filter_map(|object| object.key());
            all.extend(keys.filter_map(|key| Some(key.strip_prefix(&self.prefix)?.to_string())));
        }
        Ok(all)
    }

    /// Deletes what no kept checkpoint needs. Leftovers cost space, not correctness, so a failure is only logged.
    async fn collect(&self, names: &[String]) {
        if let Err(error) = self.try_collect(names).await {
            tracing::warn!(%error, "cannot delete old checkpoints");
        }
    }

    async fn try_collect(&self, names: &[String]) -> Result<()> {
        let epochs = epochs(names.iter().map(String::as_str));
        let kept = kept(&epochs);
        let unread = self.known().named.unread(kept);
        for epoch in unread {
            // One that cannot be read is warned about by recovery.
            if let Ok(manifest) = self.read_manifest(epoch).await {
                self.known().named.learn(&manifest);
            }
        }
        let named = self.known().named.by(kept);
        for name in garbage(names.iter().map(String::as_str), kept, named.as_ref()) {
            let key = self.key(name);
            let delete = self.client.delete_object().bucket(&self.bucket).key(&key).send();
            delete
                .await
                .map_err(|e| aws::classify(e, format!("deleting {}", self.place(&key))))?;
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds this")
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn manifest(&self, epoch: Epoch) -> String {
        self.key(&format!("{:020}{MANIFEST}", epoch.0))
    }

    fn place(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }
}

#[async_trait]
impl CheckpointStore for S3Store {
    async fn save(&self, mut manifest: Manifest, states: States) -> Result<Manifest> {
        let encoded = self.known().earlier.encode(&mut manifest, states)?;
        let text = encode_manifest(&manifest)?;
        if let Some((file, bytes)) = encoded.file {
            let key = self.key(&file.name);
            let put = self.client.put_object().bucket(&self.bucket).key(&key);
            let timeout = aws::upload_timeout(file.bytes);
            let put = put
                .body(ByteStream::from(bytes))
                .customize()
                .config_override(timeout);
            put.send()
                .await
                .map_err(|e| aws::classify(e, format!("writing {}", self.place(&key))))?;
        }
        let key = self.manifest(manifest.epoch);
        if !self.create(&key, &text).await? && self.get(&key).await? != text {
            // Not ours from an earlier try whose answer was lost.
            return Err(taken(self.place(&key)));
        }
        let names = self.names().await?;
        if epochs(names.iter().map(String::as_str)).last() > Some(&manifest.epoch) {
            return Err(taken(self.place(&key)));
        }
        self.known().earlier = encoded.next;
        self.known().named.learn(&manifest);
        self.collect(&names).await;
        Ok(manifest)
    }

    async fn latest(&self) -> Result<Option<Restored>> {
        let epochs = epochs(self.names().await?.iter().map(String::as_str));
        let Some(&newest) = epochs.last() else {
            return Ok(None);
        };
        for epoch in epochs.into_iter().rev() {
            match self.read(epoch).await {
                Ok(restored) => return Ok(Some(Restored { newest, ..restored })),
                Err(e @ (Error::Config(_) | Error::Retry { .. })) => return Err(e),
                Err(error) => tracing::warn!(%error, epoch = epoch.0, "passing over a damaged checkpoint"),
            }
        }
        Err(Error::config(format!(
            "{}: every checkpoint is damaged; put back a copy, or choose another prefix to start from nothing",
            self.place(&self.prefix)
        )))
    }
}

fn status<E>(e: &SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>) -> Option<u16> {
    e.raw_response().map(|response| response.status().as_u16())
}
