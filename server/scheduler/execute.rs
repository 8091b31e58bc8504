//! What the scheduler needs to have done: everything that is not bookkeeping.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::NaiveDate;
use millstream_engine::error::{Error, ErrorClass};
use millstream_engine::time::Timestamp;

use crate::catalog::CatalogError;
use crate::catalog::model::Job;
use crate::scheduler::rules::Rules;

/// One try of one date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunKey {
    pub date: NaiveDate,
    /// Counted from 1.
    pub attempt: u32,
}

/// What a transform counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that each sink took.
    pub rows: BTreeMap<String, u64>,
    /// Rows that could not be read.
    pub invalid: u64,
}

/// Why a phase failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunError {
    /// What happened, without secrets.
    pub message: String,
    /// Trying again does not help: someone has to change something.
    pub hopeless: bool,
}

impl From<CatalogError> for RunError {
    fn from(error: CatalogError) -> RunError {
        RunError {
            message: error.to_string(),
            // A catalog that is busy is not for long.
            hopeless: !matches!(error, CatalogError::Failed(_)),
        }
    }
}

impl From<Error> for RunError {
    fn from(error: Error) -> RunError {
        RunError {
            message: error.to_string(),
            hopeless: error.class() == ErrorClass::Config,
        }
    }
}

/// Does what the scheduler decides. Dropping a future of it stops what it does.
#[async_trait]
pub trait Execute: Send + Sync {
    /// What the job's schedule says now; none: another process has to run it, as this one was not given its
    /// pipeline.
    ///
    /// # Errors
    /// Hopeless: the pipeline cannot be run as it is written. Else it cannot be said now.
    async fn rules(&self, job: &Job, now: Timestamp) -> Result<Option<Rules>, RunError>;

    /// Whether the marker of a date is there.
    async fn ready(&self, job: &Job, date: NaiveDate) -> Result<bool, RunError>;

    /// Makes a date's output, durably and not yet visible.
    async fn transform(&self, job: &Job, run: &RunKey) -> Result<Counts, RunError>;

    /// Makes what the transform made visible, in place of what the date held before. Made again, it changes nothing.
    async fn load(&self, job: &Job, run: &RunKey) -> Result<(), RunError>;

    /// Removes what a job that is gone has left behind, as far as that is possible.
    async fn forget(&self, job: &Job);
}
