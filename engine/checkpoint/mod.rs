//! Checkpoints: what a pipeline knows at a barrier, made durable, so that it can go on from there.
//!
//! `coordinator` decides when, `manifest` says what, `store` says what a place that keeps
//! it must promise, `disk` is the local one.

pub mod changes;
pub mod coordinator;
pub mod disk;
pub mod manifest;
pub mod store;
