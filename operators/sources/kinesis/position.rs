//! Where reading stands in a shard, and its text in a checkpoint.

use millstream_engine::source::Offset;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use crate::formats::time::timestamp;

const TRIM_HORIZON: &str = "trim_horizon";
const END: &str = "end";

/// Where reading stands in a shard.
///
/// | text | meaning |
/// |---|---|
/// | `trim_horizon` | before the oldest record there is |
/// | `2026-11-25T00:00:00Z` | before the first record that arrived then or later |
/// | `4961…` | behind the record with this sequence number |
/// | `end` | the shard is closed and has been read to its end |
///
/// All rows of a record, also those of an aggregate, leave in one batch, so no text stands inside of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Position {
    TrimHorizon,
    At(Timestamp),
    After(String),
    End,
}

impl Position {
    pub fn parse(offset: &Offset) -> Result<Position> {
        let text = offset.0.as_str();
        match text {
            TRIM_HORIZON => Ok(Position::TrimHorizon),
            END => Ok(Position::End),
            _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Position::After(text.into()))
            }
            _ => timestamp(text)
                .map(|at| Position::At(Timestamp(at)))
                .ok_or_else(|| Error::config(format!("offset {text:?} is not one of a kinesis source"))),
        }
    }

    pub fn offset(&self) -> Offset {
        Offset(match self {
            Position::TrimHorizon => TRIM_HORIZON.into(),
            Position::At(at) => at.to_string(),
            Position::After(sequence) => sequence.clone(),
            Position::End => END.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_reads_back() {
        for position in [
            Position::TrimHorizon,
            Position::At(Timestamp(1_795_435_200_123_000)),
            Position::At(Timestamp(0)),
            Position::After("49590338271490256608559692538361571095921575989136588898".into()),
            Position::End,
        ] {
            let offset = position.offset();
            assert_eq!(Position::parse(&offset).unwrap(), position, "{offset:?}");
        }
        for text in ["", "latest", "12a", "-1", "2026-11-25"] {
            assert!(Position::parse(&Offset(text.into())).is_err(), "{text:?}");
        }
    }
}
