//! The keys of a `sqlite` sink.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// The keys of a `sqlite` sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct SqliteOptions {
    /// The database file; it is created if it does not exist. Default: `serving.db` in the data directory.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Name of the table; it is created if it does not exist, and gets the columns that it lacks.
    pub table: String,
    /// The columns that are the table's primary key: a row replaces the one with the same key.
    #[schemars(length(min = 1))]
    pub key: Vec<String>,
    /// The column that says which of two rows with one key is the newer one, such as `window_end`. Where it is given, a
    /// row with a greater value is not replaced; of equal ones that with the greater `revision` stays, where rows have
    /// one.
    #[serde(default)]
    pub version: Option<String>,
}
