//! Event time and durations.
//!
//! Every time in Millstream is UTC and travels as microseconds since the Unix epoch, the unit of the
//! Arrow `timestamp` columns. A newtype keeps it apart from row counts and from wall-clock instants.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::datatypes::{DataType, TimeUnit};

/// A point in event time or processing time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Before every row: the watermark of a stream that has promised nothing yet.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// After every row: the watermark of a bounded stream that has ended.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// The wall clock. Only sources and the runtime may call this; operators learn time from watermarks.
    pub fn now() -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Timestamp(since.as_micros() as i64)
    }

    /// Later by `by`, stopping at [`Timestamp::MAX`].
    pub fn plus(self, by: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(micros(by)))
    }

    /// Earlier by `by`, stopping at [`Timestamp::MIN`].
    pub fn minus(self, by: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(micros(by)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match arrow::temporal_conversions::timestamp_us_to_datetime(self.0) {
            Some(at) => write!(f, "{}Z", at.format("%Y-%m-%dT%H:%M:%S%.f")),
            None if self.0 < 0 => f.write_str("the beginning"),
            None => f.write_str("the end"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The Arrow type of every `timestamp` column: microseconds, UTC by convention, no zone attached.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// Whole microseconds of a duration, stopping at `i64::MAX`.
pub fn micros(of: Duration) -> i64 {
    i64::try_from(of.as_micros()).unwrap_or(i64::MAX)
}
