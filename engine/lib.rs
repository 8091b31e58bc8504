//! The dataflow machine of Millstream: messages, the traits third parties implement, pipeline files, plans,
//! checkpoints and the runtime. It knows no AWS, no HTTP and no SQL text.
//!
//! Dependencies inside the crate point one way:
//! time, message, error ← traits (source, operator, sink, table, sql) ← pipeline, plan ← config, explain, checkpoint ←
//! runtime.

pub mod checkpoint;
pub mod config;
pub mod error;
pub mod explain;
pub mod message;
pub mod metrics;
pub mod operator;
pub mod pipeline;
pub mod plan;
pub mod registry;
pub mod run;
pub mod runtime;
pub mod schedule;
pub mod secret;
pub mod sink;
pub mod source;
pub mod sql;
pub mod state;
pub mod table;
pub mod time;
pub mod window;

pub use error::{Error, ErrorClass, Result};
