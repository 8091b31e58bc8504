//! What CloudWatch would refuse a whole request for, found while the row is at hand.

use std::time::Duration;

use millstream_engine::time::Timestamp;

use super::{FARTHEST_AHEAD, OLDEST};

/// A row may wait this long from here to CloudWatch before it is too old there: for its checkpoint, and while
/// CloudWatch is away.
const ON_THE_WAY: Duration = Duration::from_secs(3600);

/// Two clocks that are kept by NTP do not differ as much.
const CLOCKS: Duration = Duration::from_secs(300);

/// Why a row gives no datapoint of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing was measured.
    Null,
    NotANumber,
    OutOfRange,
    Inconsistent,
    Dimension,
    NoTimestamp,
    TooOld,
    TooFarAhead,
}

impl Refusal {
    /// What it is counted under.
    pub fn counter(self) -> &'static str {
        match self {
            Refusal::Null => "values_null",
            Refusal::NotANumber => "values_not_a_number",
            Refusal::OutOfRange => "values_out_of_range",
            Refusal::Inconsistent => "values_inconsistent",
            Refusal::Dimension => "dimensions_invalid",
            Refusal::NoTimestamp => "timestamps_null",
            Refusal::TooOld => "points_too_old",
            Refusal::TooFarAhead => "points_too_far_ahead",
        }
    }

    /// For people; none where nothing is wrong with the row.
    pub fn reason(self) -> Option<&'static str> {
        Some(match self {
            Refusal::Null => return None,
            Refusal::NotANumber => "the value is not a number",
            Refusal::OutOfRange => "the value is larger or smaller than CloudWatch takes",
            Refusal::Inconsistent => "the values contradict one another",
            Refusal::Dimension => "a dimension is empty, too long or not printable ASCII",
            Refusal::NoTimestamp => "there is no timestamp",
            Refusal::TooOld => "the timestamp is almost two weeks old, or older",
            Refusal::TooFarAhead => "the timestamp is almost two hours in the future, or more",
        })
    }
}

/// The times of datapoints that are taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted {
    from: Timestamp,
    until: Timestamp,
}

impl Accepted {
    /// Of rows that come now.
    pub fn at(now: Timestamp) -> Accepted {
        Accepted {
            from: now.minus(OLDEST - ON_THE_WAY),
            until: now.plus(FARTHEST_AHEAD - CLOCKS),
        }
    }

    pub fn check(&self, at: Option<Timestamp>) -> Result<Timestamp, Refusal> {
        match at {
            None => Err(Refusal::NoTimestamp),
            Some(at) if at < self.from => Err(Refusal::TooOld),
            Some(at) if at > self.until => Err(Refusal::TooFarAhead),
            Some(at) => Ok(at),
        }
    }
}
