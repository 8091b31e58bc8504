//! The two phases of a date's run.
//!
//! The transform runs the plan from the beginning of its sources to their end, which is known to come: windows close
//! there and nothing is late. Sinks prepare, and what they prepared is kept durably in the manifest of the run, below
//! `<data-dir>/<pipeline>/runs/<date>/`. The load opens the sinks afresh and has them commit it.
//!
//! A transform that died left no manifest: it is made again from the start. A load can be made again whenever it dies,
//! and also after it was done. Dropping a phase stops it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::disk::DiskStore;
use crate::checkpoint::store::CheckpointStore;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::run::DatedRun;
use crate::runtime::{RunOptions, Shared, run};

/// Where the runs of a pipeline's dates lie, in the directory of the pipeline.
const RUNS: &str = "runs";
/// The manifest of a run, in its directory.
const MANIFEST: &str = "manifest";

/// What a transform counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows read, by source.
    pub read: BTreeMap<String, u64>,
    /// Rows that could not be read, by source.
    pub invalid: BTreeMap<String, u64>,
    /// Rows taken, by sink.
    pub written: BTreeMap<String, u64>,
}

/// The directory of a date's run, where its sinks have theirs.
pub(super) fn directory(pipeline: &Path, run: &DatedRun) -> PathBuf {
    pipeline.join(RUNS).join(run.date.to_string())
}

/// Where the manifest of a run lies, given its directory.
pub(super) fn manifest(directory: &Path) -> PathBuf {
    directory.join(MANIFEST)
}

/// Makes the output of a date, durably and not yet visible.
///
/// # Errors
/// Those of sources, operators and sinks. What was prepared before is gone by then.
pub async fn transform(plan: Arc<Plan>, options: RunOptions) -> Result<Counts> {
    let shared = dated(plan, options)?;
    let manifest = manifest(&shared.data_dir);
    match tokio::fs::remove_dir_all(&manifest).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::retry(format!("cannot remove {}: {e}", manifest.display())));
        }
        _ => {}
    }
    let done = run::run(&shared).await;
    shared.metrics.running.set(0);
    done?;
    Ok(counts(&shared))
}

/// Makes visible what the transform of a date prepared, in place of what the date had before.
///
/// # Errors
/// Of class config: nothing is prepared. Else those of sinks.
pub async fn load(plan: Arc<Plan>, options: RunOptions) -> Result<()> {
    let shared = dated(plan, options)?;
    let store = DiskStore::open(manifest(&shared.data_dir))?;
    let prepared = store.latest().await?;
    let prepared = prepared.filter(|it| it.manifest.last).ok_or_else(|| {
        Error::config("nothing is prepared for this date; run it again from its transform".to_owned())
    })?;
    run::commit(&shared, &prepared.manifest).await
}

fn dated(plan: Arc<Plan>, mut options: RunOptions) -> Result<Arc<Shared>> {
    // Counts are those of this run.
    options.metrics = Arc::new(Metrics::new());
    match (&options.run, &plan.schedule) {
        (Some(_), Some(_)) => Ok(Arc::new(Shared::new(plan, options))),
        _ => Err(Error::bug("a dated run has a date, and its pipeline a schedule")),
    }
}

fn counts(shared: &Shared) -> Counts {
    let of = |kind: &str, count: fn(&crate::metrics::NodeMetrics) -> u64| {
        let nodes = shared.nodes.iter();
        nodes
            .filter_map(|(name, metrics)| Some((name.strip_prefix(kind)?.to_owned(), count(metrics))))
            .collect()
    };
    Counts {
        read: of("source.", |node| node.rows_out.get()),
        invalid: of("source.", |node| node.rows_invalid.get()),
        written: of("sink.", |node| node.rows_in.get()),
    }
}
