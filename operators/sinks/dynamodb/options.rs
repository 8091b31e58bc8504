//! The keys of a `dynamodb` sink.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::aws::AwsOptions;

/// The keys of a `dynamodb` sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct DynamodbOptions {
    /// Name of the table.
    pub table: String,
    /// The columns that are the table's key: its partition key, and its sort key where it has one. A row replaces the
    /// item with the same key.
    #[schemars(length(min = 1, max = 2))]
    pub key: Vec<String>,
    /// The column that says which of two rows with one key is the newer one, such as `window_end`. Where it is given, an
    /// item with a greater value is not replaced; of equal ones that with the greater `revision` stays, where rows have
    /// one. It costs a request per row instead of one for 25.
    #[serde(default)]
    pub version: Option<String>,
    /// Create the table if it does not exist, with on-demand capacity.
    #[serde(default)]
    pub create: bool,
    /// Where requests go.
    #[serde(flatten)]
    pub aws: AwsOptions,
}
