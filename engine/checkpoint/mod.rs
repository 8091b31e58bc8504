//! Checkpoints: what a pipeline knows at a barrier, made durable, so that it can go on from there.
//!
//! `coordinator` decides when, `manifest` says what, `store` says what a place that keeps
//! it must promise, `disk` is the local one. `parts` writes only what changed, `garbage` says what nobody needs any
//! more, `upgrade` reads what earlier versions wrote.

pub mod changes;
pub mod coordinator;
pub mod disk;
pub mod garbage;
pub mod manifest;
pub mod parts;
pub mod store;
pub mod upgrade;
