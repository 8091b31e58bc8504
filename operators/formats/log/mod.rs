//! Logs: JSON lines that feed typed tables, as a schema in YAML says.
//!
//! [`LogSchema`] reads the YAML and finds everything that is wrong with it at once. [`LogMapper`] takes lines and gives
//! batches of each table, and of `pipeline_errors` what it could not take. [`infer`] makes a schema from lines.
//!
//! | what fails | what happens |
//! |---|---|
//! | a line that is no JSON object | one row of `pipeline_errors`, with its line number |
//! | a row of a table, because a value does not fit | one row of `pipeline_errors`; other rows of the line are good |
//! | more than the budget of them | an error of class data |

mod cell;
mod column;
mod errors;
pub mod infer;
mod lex;
mod mapper;
pub mod merge;
mod number;
mod paths;
mod read;
mod reader;
mod row;
mod scan;
mod schema;
mod strings;
pub mod tree;
mod yaml;

pub use self::errors::{Budget, PIPELINE_ERRORS, error_schema};
pub use self::mapper::LogMapper;
pub use self::read::Problems;
pub use self::reader::Reader;
pub use self::schema::{Column, From as Origin, LogSchema, NOOP, SourceType, Table};

#[cfg(test)]
mod tests;
