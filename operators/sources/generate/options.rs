//! The keys of a `generate` source, as typed and checked.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_engine::pipeline::Span;
use millstream_engine::source::{RECEIVED_AT, SourceContext};
use millstream_engine::time::micros;
use millstream_engine::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::formats::time::{TIMESTAMP_LAYOUT, timestamp};

/// One task each; a machine with more cores than this does not exist.
const MOST_PARTITIONS: u64 = 1024;

/// One a microsecond, the resolution of event times.
const HIGHEST_RATE: u64 = 1_000_000;

/// From one row to the next when neither `interval` nor `rate` says: a thousand rows per second.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(1);

/// Rows that are made up, for demos, tests and benchmarks.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateOptions {
    /// What makes the rows.
    pub generator: Kind,
    /// `nexmark`: which of its three streams. Sources with the same seed belong together: bids are for auctions
    /// that the auction stream has.
    #[serde(default)]
    pub stream: Option<NexmarkStream>,
    /// `columns`: what each column holds, but for the event time.
    #[serde(default)]
    pub values: BTreeMap<String, ValueSpec>,
    /// Rows before the source ends; absent: it never does. `nexmark`: of all three streams together, of which 46 in
    /// 50 are bids.
    #[serde(default)]
    pub rows: Option<u64>,
    /// Rows per second by the wall clock, counted as `rows` are; absent: as fast as they are taken.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub rate: Option<u64>,
    /// Another seed, other rows.
    #[serde(default)]
    pub seed: u64,
    /// Tasks that make rows beside each other.
    #[serde(default = "default_partitions")]
    #[schemars(range(min = 1))]
    pub partitions: u64,
    /// Event time of the first row.
    #[serde(default = "default_start")]
    pub start: String,
    /// From the event time of one row to the next one's; absent: as `rate` says, or `"1ms"`.
    #[serde(default)]
    pub interval: Option<Span>,
}

/// What makes the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Each column by a rule of its own, see `values`.
    Columns,
    /// The auction site of the Nexmark benchmark: persons, auctions and bids, 1 : 3 : 46.
    Nexmark,
}

/// A stream of the Nexmark benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NexmarkStream {
    /// People who registered.
    Person,
    /// Auctions that were opened.
    Auction,
    /// Bids that were made.
    Bid,
}

/// What a column holds: one of `sequence`, `uniform` and `choice`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValueSpec {
    /// Numbers that count up from this one.
    #[serde(default)]
    pub sequence: Option<i64>,
    /// Numbers from the first up to the second, which is left out; each as likely as the others.
    #[serde(default)]
    pub uniform: Option<[f64; 2]>,
    /// One of these values, each as likely as the others.
    #[serde(default)]
    pub choice: Option<Vec<serde_json::Value>>,
    /// What stands before the number in a column of type string.
    #[serde(default)]
    pub prefix: Option<String>,
}

fn default_partitions() -> u64 {
    1
}

/// When the Nexmark benchmark begins. In the past, so that a fast run does not overtake the wall clock.
fn default_start() -> String {
    "2015-07-15 00:00:00".into()
}

/// Which event time a row has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Microseconds since the epoch.
    pub start: i64,
    /// Nanoseconds, so that three thousand rows a second have a thousandth of three seconds each.
    interval: u128,
}

impl Schedule {
    /// Event time of row `number`, in microseconds since the epoch.
    pub fn at(&self, number: u64) -> i64 {
        let since = self.interval.saturating_mul(u128::from(number)) / 1_000;
        self.start
            .saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }
}

impl GenerateOptions {
    /// Refuses what the schema cannot; gives the event times.
    pub(super) fn check(&self, cx: &SourceContext) -> Result<Schedule> {
        let refuse = |what: String| Err(Error::config(what));
        if !(1..=MOST_PARTITIONS).contains(&self.partitions) {
            return refuse(format!("partitions must be from 1 to {MOST_PARTITIONS}"));
        }
        if let Some(rate) = self.rate.filter(|rate| !(1..=HIGHEST_RATE).contains(rate)) {
            return refuse(format!("rate must be from 1 to {HIGHEST_RATE}, not {rate}"));
        }
        if cx.schema.field(cx.event_time).name() == RECEIVED_AT {
            return refuse(
                "generated rows do not arrive; name their event-time column with event_time".into(),
            );
        }
        let Some(start) = timestamp(&self.start) else {
            return refuse(format!(
                "start {:?} is not a time; write {TIMESTAMP_LAYOUT}",
                self.start
            ));
        };
        let by_rate = self.rate.map(|rate| Duration::from_nanos(1_000_000_000 / rate));
        let interval = self
            .interval
            .map(|span| span.0)
            .or(by_rate)
            .unwrap_or(DEFAULT_INTERVAL);
        if micros(interval) == 0 {
            return refuse("interval must be at least 1us".into());
        }
        Ok(Schedule {
            start,
            interval: interval.as_nanos(),
        })
    }
}
