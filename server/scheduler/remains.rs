//! What a job that is gone leaves behind: the directories of its runs, and in S3 what waited there to be loaded. What it
//! has loaded stays.
//!
//! Every process that knew the job removes what is its own. How it fails: a process that is not there then, or that is
//! killed in the middle, leaves files that nothing reads.

use std::path::{Path, PathBuf};

use anyhow::Context;
use millstream_operators::aws::AwsOptions;
use millstream_operators::sinks::redshift;

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
        Some(staging) => {
            let load = loads::name(&job.uuid);
            Ok(redshift::remove_staged(&staging, &load, &AwsOptions::default()).await?)
        }
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
