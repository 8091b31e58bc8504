//! What a job that is gone leaves behind: the directories of its runs, and in S3 what waited there to be loaded. What it
//! has loaded stays.
//!
//! Every process that knew the job removes what is its own. How it fails: a process that is not there then, or that is
//! killed in the middle, leaves files that nothing reads.

use std::path::{Path, PathBuf};

use anyhow::Context;
use millstream_operators::aws::{self, AwsOptions};

use crate::catalog::Catalog;
use crate::catalog::model::{Job, JobKind};
use crate::scheduler::loads;

/// Removes what is left of a job.
///
/// # Errors
/// The disk or S3 refuses.
pub async fn remove(job: &Job, catalog: &Catalog, data_dir: &Path) -> anyhow::Result<()> {
    let dir = directory(job, data_dir);
    match tokio::fs::remove_dir_all(&dir).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot remove {}", dir.display()));
        }
        _ => {}
    }
    if job.kind != JobKind::Load {
        return Ok(());
    }
    // Without its cluster nobody knows where it was.
    let staging = catalog.cluster(&job.redshift_id).await.ok();
    match staging.and_then(|cluster| cluster.staging) {
        Some(staging) => staged(&staging, &loads::name(&job.uuid)).await,
        None => Ok(()),
    }
}

/// A load has a directory of its own, a pipeline's file may have others than those of its runs.
fn directory(job: &Job, data_dir: &Path) -> PathBuf {
    match job.kind {
        JobKind::Load => data_dir.join(loads::name(&job.uuid)),
        JobKind::Pipeline => data_dir.join(&job.log_name).join("runs"),
    }
}

/// Removes what a load has staged below `staging`, `s3://bucket/prefix`.
async fn staged(staging: &str, load: &str) -> anyhow::Result<()> {
    let path = staging.trim_start_matches("s3://");
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let prefix = match prefix.trim_matches('/') {
        "" => format!("{load}/"),
        prefix => format!("{prefix}/{load}/"),
    };
    let client = aws::s3(&AwsOptions::default()).await?;
    let list = client.list_objects_v2().bucket(bucket).prefix(&prefix);
    let mut pages = list.into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|e| aws::classify(e, format!("listing s3://{bucket}/{prefix}")))?;
        for key in page.contents().iter().filter_map(|object| object.key()) {
            let gone = client.delete_object().bucket(bucket).key(key).send().await;
            gone.map_err(|e| aws::classify(e, format!("removing s3://{bucket}/{key}")))?;
        }
    }
    Ok(())
}
