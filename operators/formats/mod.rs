//! Bytes to rows and back.

pub mod json;
pub mod time;
