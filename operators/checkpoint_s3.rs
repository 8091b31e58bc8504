//! Checkpoints in S3.
//!
//! ```text
//! <prefix>/<pipeline>/<epoch>-<crc>-<bytes>.state    the states; the name is their content's, so writers never meet
//! <prefix>/<pipeline>/<epoch>.manifest.json          the checkpoint exists once this object does
//! ```
//!
//! The manifest is put last, with `If-None-Match: *`: S3 refuses it (412) when the epoch is taken, whoever took it,
//! so that one writer owns an epoch and a stale process is fenced off. Needs a service that knows conditional puts.
//! What is in flight when a process dies leaves a state object without a manifest; it goes with the epochs around it.

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use bytes::Bytes;
use millstream_engine::checkpoint::manifest::Manifest;
use millstream_engine::checkpoint::store::{
    CheckpointStore, Restored, States, decode_manifest, decode_states, encode, encode_manifest, taken,
};
use millstream_engine::message::Epoch;
use millstream_engine::{Error, Result};

use crate::aws::{self, AwsOptions};

/// Checkpoints kept: the newest, and two to fall back to.
const KEPT: usize = 3;
const MANIFEST: &str = ".manifest.json";
const STATE: &str = ".state";

/// The checkpoints of one pipeline below a prefix.
#[derive(Clone, Debug)]
pub struct S3Store {
    client: Client,
    bucket: String,
    /// Ends with a slash.
    prefix: String,
}

impl S3Store {
    /// The store of `pipeline` below `s3://bucket/prefix`. Makes no request.
    pub async fn open(url: &str, pipeline: &str) -> Result<S3Store> {
        let wrong = || {
            Error::config(format!(
                "{url:?} is no place for checkpoints; write s3://bucket/prefix"
            ))
        };
        let rest = url.strip_prefix("s3://").ok_or_else(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(wrong());
        }
        let prefix = match prefix.trim_matches('/') {
            "" => format!("{pipeline}/"),
            prefix => format!("{prefix}/{pipeline}/"),
        };
        Ok(S3Store {
            client: aws::s3(&AwsOptions::default()).await?,
            bucket: bucket.into(),
            prefix,
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
        let key = self.manifest(epoch);
        let manifest = decode_manifest(&self.get(&key).await?, &self.place(&key))?;
        let key = self.state(&manifest);
        let states = decode_states(&manifest, &self.get(&key).await?, &self.place(&key))?;
        Ok(Restored {
            manifest,
            states,
            newest: epoch,
        })
    }

    /// Everything there is: epochs and keys, in order.
    async fn list(&self) -> Result<Vec<(Epoch, String)>> {
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
            all.extend(keys.filter_map(|key| {
                let name = key.strip_prefix(&self.prefix)?;
                let epoch = name.split(['.', '-']).next()?.parse().ok()?;
                Some((Epoch(epoch), key.to_string()))
            }));
        }
        all.sort();
        Ok(all)
    }

    /// Deletes what is older than the kept checkpoints, manifests before the states they name. Leftovers cost space,
    /// not correctness, so a failure is only logged.
    async fn collect(&self) {
        if let Err(error) = self.try_collect().await {
            tracing::warn!(%error, "cannot delete old checkpoints");
        }
    }

    async fn try_collect(&self) -> Result<()> {
        let all = self.list().await?;
        let manifests = epochs(&all);
        let Some(oldest) = manifests.len().checked_sub(KEPT).map(|old| manifests[old]) else {
            return Ok(());
        };
        let (mut old, states): (Vec<_>, Vec<_>) = all
            .into_iter()
            .filter(|(epoch, _)| *epoch < oldest)
            .map(|(_, key)| key)
            .partition(|key| key.ends_with(MANIFEST));
        old.extend(states);
        for key in old {
            let delete = self.client.delete_object().bucket(&self.bucket).key(&key).send();
            delete
                .await
                .map_err(|e| aws::classify(e, format!("deleting {}", self.place(&key))))?;
        }
        Ok(())
    }

    fn manifest(&self, epoch: Epoch) -> String {
        format!("{}{:020}{MANIFEST}", self.prefix, epoch.0)
    }

    fn state(&self, of: &Manifest) -> String {
        let (epoch, crc, bytes) = (of.epoch.0, of.state_crc, of.state_bytes);
        format!("{}{epoch:020}-{crc:08x}-{bytes}{STATE}", self.prefix)
    }

    fn place(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }
}

#[async_trait]
impl CheckpointStore for S3Store {
    async fn save(&self, mut manifest: Manifest, states: States) -> Result<Manifest> {
        let bytes = encode(&mut manifest, states)?;
        let text = encode_manifest(&manifest)?;
        let key = self.state(&manifest);
        let put = self.client.put_object().bucket(&self.bucket).key(&key);
        let put = put.body(ByteStream::from(bytes)).send().await;
        put.map_err(|e| aws::classify(e, format!("writing {}", self.place(&key))))?;
        let key = self.manifest(manifest.epoch);
        if self.create(&key, &text).await? {
            self.collect().await;
        } else if self.get(&key).await? != text {
            // Not ours from an earlier try whose answer was lost.
            return Err(taken(self.place(&key)));
        }
        Ok(manifest)
    }

    async fn latest(&self) -> Result<Option<Restored>> {
        let epochs = epochs(&self.list().await?);
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

/// The epochs that have a manifest, in order.
fn epochs(all: &[(Epoch, String)]) -> Vec<Epoch> {
    let manifests = all.iter().filter(|(_, key)| key.ends_with(MANIFEST));
    manifests.map(|(epoch, _)| *epoch).collect()
}

fn status<E>(e: &SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>) -> Option<u16> {
    e.raw_response().map(|response| response.status().as_u16())
}
