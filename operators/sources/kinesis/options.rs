//! The keys of a `kinesis` source, as typed and checked.

use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::position::Position;
use crate::aws::AwsOptions;
use crate::formats::time::{TIMESTAMP_LAYOUT, timestamp};

/// Longest name of a stream or consumer.
const LONGEST_NAME: usize = 128;

/// Rows from an Amazon Kinesis data stream: each record holds one row, an array of rows, or one row per line, as
/// JSON, plain or packed with gzip or zstd, alone or in an aggregate of the Kinesis Producer Library.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct KinesisOptions {
    /// Name of the stream.
    pub stream: String,
    /// Where to begin when there is no checkpoint: `"trim_horizon"`, the oldest record that the stream still has;
    /// `"latest"`, what arrives from the first start on; or a time, such as `"2026-11-25T00:00:00Z"`, and then
    /// what arrived at that time or later.
    #[serde(default = "default_start")]
    pub start: String,
    /// Name of an enhanced fan-out consumer, which has 2 MiB/s of each shard for itself and is sent records as
    /// they arrive; it is registered if there is none. Absent: the shards are polled.
    #[serde(default)]
    pub consumer: Option<String>,
    /// The JSON key that holds the array of rows, which is then the only form a record may have. Absent: a
    /// record is one row, an array of rows, or one row per line.
    #[serde(default)]
    pub records: Option<String>,
    /// Where its requests go.
    #[serde(flatten)]
    pub aws: AwsOptions,
}

fn default_start() -> String {
    "trim_horizon".into()
}

/// Where to begin without a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    TrimHorizon,
    /// When that is, is found out at the first start.
    Latest,
    At(Timestamp),
}

impl KinesisOptions {
    /// Refuses what the schema cannot; gives where to begin.
    pub(super) fn check(&self) -> Result<Start> {
        self.aws.check()?;
        named("stream", &self.stream)?;
        if let Some(consumer) = &self.consumer {
            named("consumer", consumer)?;
        }
        if self.records.as_ref().is_some_and(String::is_empty) {
            return Err(Error::config(
                "records is empty; name the key that holds the rows, or leave it out",
            ));
        }
        match self.start.as_str() {
            "trim_horizon" => Ok(Start::TrimHorizon),
            "latest" => Ok(Start::Latest),
            time => timestamp(time)
                .map(|at| Start::At(Timestamp(at)))
                .ok_or_else(|| {
                    Error::config(format!(
                        "start {time:?} is neither \"trim_horizon\" nor \"latest\" nor a time; write {TIMESTAMP_LAYOUT}"
                    ))
                }),
        }
    }
}

impl Start {
    /// The position to begin at, unless that depends on when.
    pub fn position(self) -> Option<Position> {
        match self {
            Start::TrimHorizon => Some(Position::TrimHorizon),
            Start::At(at) => Some(Position::At(at)),
            Start::Latest => None,
        }
    }
}

fn named(key: &str, name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(allowed) {
        return Err(Error::config(format!(
            "{key} {name:?} is not a name of Kinesis: 1 to {LONGEST_NAME} letters, digits, _ . and -"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn mistakes_are_refused() {
        for (change, says) in [
            (json!({}), ""),
            (json!({"start": "latest", "consumer": "millstream-1"}), ""),
            (json!({"start": "2026-11-25 00:00:00"}), ""),
            (json!({"stream": ""}), "stream \"\" is not a name of Kinesis"),
            (
                json!({"stream": "arn:aws:kinesis"}),
                "stream \"arn:aws:kinesis\" is not",
            ),
            (json!({"consumer": "a b"}), "consumer \"a b\" is not a name"),
            (json!({"records": ""}), "records is empty"),
            (json!({"start": "yesterday"}), "start \"yesterday\" is neither"),
            (
                json!({"start": "TRIM_HORIZON"}),
                "start \"TRIM_HORIZON\" is neither",
            ),
        ] {
            let mut typed = json!({"stream": "impressions"});
            merge(&mut typed, &change);
            let options: KinesisOptions = serde_json::from_value(typed).unwrap();
            let said = options.check().err().map(|e| e.to_string()).unwrap_or_default();
            assert!(
                said.starts_with(says) && said.is_empty() == says.is_empty(),
                "{change}: {said}"
            );
        }
    }

    fn merge(into: &mut Value, change: &Value) {
        for (key, value) in change.as_object().unwrap() {
            into[key] = value.clone();
        }
    }
}
