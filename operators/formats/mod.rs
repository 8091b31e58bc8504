//! Bytes to rows and back.

pub mod files;
pub mod json;
pub mod time;
