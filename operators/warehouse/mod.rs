//! What a warehouse wants to know about tables: the types of its columns, how a table is made, and how it can change.
//! Everything here is text from values; nothing is opened or asked.

pub mod column;
pub mod ddl;
pub mod evolve;
pub mod types;
