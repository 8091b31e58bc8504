//! Dates and times as text, in JSON: `2026-11-24` and RFC 3339.

use chrono::{DateTime, NaiveDate};
use millstream_engine::time::Timestamp;

/// How dates are written.
const DATE: &str = "%Y-%m-%d";

/// Reads `2026-11-24`.
pub fn read_date(text: &str) -> Result<NaiveDate, String> {
    // The parser takes 2026-1-2, too, which as a key would be another date.
    let date = NaiveDate::parse_from_str(text, DATE).ok();
    let date = date.filter(|date| date.to_string() == text);
    date.ok_or_else(|| format!("{text:?} is not a date; write it like 2026-11-24"))
}

/// Reads RFC 3339.
pub fn read_time(text: &str) -> Result<Timestamp, String> {
    let at = DateTime::parse_from_rfc3339(text);
    at.map(|at| Timestamp(at.timestamp_micros()))
        .map_err(|e| format!("{text:?} is not a time: {e}"))
}

macro_rules! as_text {
    ($one:ident, $optional:ident, $of:ty, $read:path) => {
        pub mod $one {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            pub fn serialize<S: Serializer>(value: &$of, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(value)
            }

            #[allow(dead_code, reason = "times are shown, and never asked for")]
            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$of, D::Error> {
                let text = String::deserialize(from)?;
                $read(&text).map_err(D::Error::custom)
            }
        }

        pub mod $optional {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            pub fn serialize<S: Serializer>(value: &Option<$of>, to: S) -> Result<S::Ok, S::Error> {
                match value {
                    Some(value) => to.collect_str(value),
                    None => to.serialize_none(),
                }
            }

            #[allow(dead_code, reason = "times are shown, and never asked for")]
            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<$of>, D::Error> {
                let text = Option::<String>::deserialize(from)?;
                let text = text.filter(|text| !text.is_empty());
                text.map(|text| $read(&text))
                    .transpose()
                    .map_err(D::Error::custom)
            }
        }
    };
}

as_text!(
    date,
    date_or_none,
    chrono::NaiveDate,
    crate::catalog::text::read_date
);
as_text!(
    time,
    time_or_none,
    millstream_engine::time::Timestamp,
    crate::catalog::text::read_time
);
