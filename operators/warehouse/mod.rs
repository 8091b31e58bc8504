//! What a warehouse wants to know about tables: the types of its columns, in its own words.

pub mod types;
