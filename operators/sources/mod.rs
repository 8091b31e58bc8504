//! Sources, one file each.

pub mod generate;
pub mod http;
pub mod invalid;
pub mod kinesis;
pub mod objects;
