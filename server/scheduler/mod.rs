//! Runs the dates of jobs.

pub mod backfill;
