//! Sources, one file each.

pub mod http;
pub mod invalid;
