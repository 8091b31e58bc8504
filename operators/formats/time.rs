//! Timestamps and dates as text, by a parser for the fixed layout they have in practice.
//!
//! Ingest parses one timestamp per row, so this is hot: no format string, no allocation, digits read in
//! place, and days counted by arithmetic. Everything else about calendars is chrono's.

/// What [`timestamp`] accepts, for error messages.
pub const TIMESTAMP_LAYOUT: &str = "YYYY-MM-DD HH:MM:SS[.mmm] in UTC, or RFC 3339";

/// What [`date`] accepts, for error messages.
pub const DATE_LAYOUT: &str = "YYYY-MM-DD";

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// The years 0001 to 9999 in microseconds since the epoch: what four digits can write, and what every
/// reader of our Parquet can show.
const TIMESTAMP_RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// Microseconds since the epoch of `YYYY-MM-DD HH:MM:SS[.fraction][offset]`. A `T` may stand for the space;
/// without an offset (`Z`, `+01:00`, `+0100`) the time is UTC. Digits beyond the microsecond are dropped.
pub fn timestamp(text: &str) -> Option<i64> {
    let text = text.as_bytes();
    let (head, tail) = text.split_at_checked(19)?;
    if !matches!(head[10], b' ' | b'T' | b't') || head[13] != b':' || head[16] != b':' {
        return None;
    }
    let days = i64::from(days(&head[..10])?);
    let (hour, minute, second) = (two(&head[11..13])?, two(&head[14..16])?, two(&head[17..19])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, zone) = fraction(tail)?;
    let seconds = days * 86_400 + i64::from(hour * 3_600 + minute * 60 + second) - offset(zone)?;
    let micros = seconds * MICROS_PER_SECOND + fraction;
    TIMESTAMP_RANGE.contains(&micros).then_some(micros)
}

/// Reads timestamps that stand between quotes in a text, and remembers the last date: the rows of a body are nearly
/// always of one day, so that the calendar is asked once.
#[derive(Default)]
pub struct Clock {
    date: [u8; 10],
    /// Midnight in microseconds since the epoch, if `date` is one.
    midnight: Option<i64>,
}

impl Clock {
    /// What [`timestamp`] says of the text that starts at `at` and ends in front of the next quote, and where that is.
    /// The quotation must be free of escapes, as a backslash is in no timestamp. Nothing if it is no timestamp.
    pub fn quoted(&mut self, text: &[u8], at: usize) -> Option<(i64, usize)> {
        let text = text.get(at..)?;
        self.usual_layout(text, at).or_else(|| any_layout(text, at))
    }

    /// What most producers write: whole seconds or milliseconds, with or without `Z`.
    fn usual_layout(&mut self, text: &[u8], at: usize) -> Option<(i64, usize)> {
        let head = text.first_chunk::<25>()?;
        if !matches!(head[10], b' ' | b'T') {
            return None;
        }
        let time = time_of_day(u64::from_le_bytes(*head[11..].first_chunk()?))?;
        let (micros, end) = match (head[19], head[23]) {
            (b'.', b'"') => (millis(&head[20..23])?, 23),
            (b'.', b'Z') if head[24] == b'"' => (millis(&head[20..23])?, 24),
            (b'"', _) => (0, 19),
            (b'Z', _) if head[20] == b'"' => (0, 20),
            _ => return None,
        };
        Some((self.midnight(head.first_chunk()?)? + time + micros, at + end))
    }

    fn midnight(&mut self, date: &[u8; 10]) -> Option<i64> {
        if self.date != *date {
            self.date = *date;
            self.midnight = days(date).map(|days| i64::from(days) * MICROS_PER_DAY);
        }
        self.midnight
    }
}

fn any_layout(text: &[u8], at: usize) -> Option<(i64, usize)> {
    /// `2026-11-23 12:00:00.123456789+01:00` and the quote behind it.
    const LONGEST: usize = 36;
    let text = &text[..text.len().min(LONGEST)];
    let end = text.iter().position(|byte| *byte == b'"')?;
    let micros = timestamp(std::str::from_utf8(&text[..end]).ok()?)?;
    Some((micros, at + end))
}

/// Microseconds of `HH:MM:SS`, whose first byte is the lowest: eight digits and colons checked and added at once.
fn time_of_day(text: u64) -> Option<i64> {
    let digits = text ^ u64::from_le_bytes(*b"00:00:00");
    // A digit is at most 9, and a colon has become 0: anything more reaches the top bit.
    let beyond = digits.wrapping_add(0x7676_7f76_767f_7676) | digits;
    if beyond & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = digits * 10 + (digits >> 8);
    let (hour, minute, second) = (pairs & 0xff, (pairs >> 24) & 0xff, (pairs >> 48) & 0xff);
    let seconds = (hour * 3_600 + minute * 60 + second) as i64;
    (hour < 24 && minute < 60 && second < 60).then_some(seconds * MICROS_PER_SECOND)
}

/// Microseconds of three digits behind the point.
fn millis(text: &[u8]) -> Option<i64> {
    let digit = |at: usize| Some(text[at].wrapping_sub(b'0')).filter(|digit| *digit <= 9);
    let (a, b, c) = (digit(0)?, digit(1)?, digit(2)?);
    Some((i64::from(a) * 100 + i64::from(b) * 10 + i64::from(c)) * 1_000)
}

/// Microseconds since the epoch of epoch milliseconds, if they fall in the years 0001 to 9999.
pub fn timestamp_from_millis(millis: i64) -> Option<i64> {
    millis
        .checked_mul(1_000)
        .filter(|micros| TIMESTAMP_RANGE.contains(micros))
}

/// Days since the epoch of `YYYY-MM-DD`.
pub fn date(text: &str) -> Option<i32> {
    days(text.as_bytes())
}

fn days(text: &[u8]) -> Option<i32> {
    if text.len() != 10 || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let year = two(&text[0..2])? * 100 + two(&text[2..4])?;
    let (month, day) = (two(&text[5..7])?, two(&text[8..10])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    (year > 0 && (1..=longest).contains(&day)).then(|| days_from_civil(year as i32, month as i32, day as i32))
}

/// Days since the epoch of a date in the Gregorian calendar. Years are counted from March, so that the
/// leap day comes last (Howard Hinnant, "chrono-compatible low-level date algorithms", 2013).
fn days_from_civil(year: i32, month: i32, day: i32) -> i32 {
    const EPOCH: i32 = 719_468;
    let year = year - i32::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - EPOCH
}

fn two(text: &[u8]) -> Option<u32> {
    let (tens, ones) = (text[0].wrapping_sub(b'0'), text[1].wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| u32::from(tens) * 10 + u32::from(ones))
}

/// Reads `.123` at the start of `tail`: its microseconds and what follows.
fn fraction(tail: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', rest)) = tail.split_first() else {
        return Some((0, tail));
    };
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    // Nine digits are nanoseconds, the finest that any producer writes.
    if digits == 0 || digits > 9 {
        return None;
    }
    let mut micros = 0;
    for place in 0..6 {
        let digit = rest[..digits].get(place).map_or(0, |digit| digit - b'0');
        micros = micros * 10 + i64::from(digit);
    }
    Some((micros, &rest[digits..]))
}

/// Seconds east of UTC of `Z`, `+01:00`, `+0100` or nothing.
fn offset(zone: &[u8]) -> Option<i64> {
    let (sign, rest) = match zone.split_first() {
        None | Some((b'Z' | b'z', [])) => return Some(0),
        Some((b'+', rest)) => (1, rest),
        Some((b'-', rest)) => (-1, rest),
        Some(_) => return None,
    };
    let (hours, minutes) = match rest {
        [_, _, b':', _, _] => (two(&rest[..2])?, two(&rest[3..])?),
        [_, _, _, _] => (two(&rest[..2])?, two(&rest[2..])?),
        _ => return None,
    };
    (hours <= 23 && minutes <= 59).then(|| sign * i64::from(hours * 3_600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    #[test]
    fn timestamps() {
        let cases: &[(&str, Option<i64>)] = &[
            ("1970-01-01 00:00:00", Some(0)),
            ("2026-03-01 12:30:45.123", Some(1_772_368_245_123_000)),
            ("2026-03-01T12:30:45.123Z", Some(1_772_368_245_123_000)),
            ("2026-03-01T13:30:45.123+01:00", Some(1_772_368_245_123_000)),
            ("2026-03-01 07:00:45.123456789-0530", Some(1_772_368_245_123_456)),
            ("1969-12-31 23:59:59.999999", Some(-1)),
            ("2024-02-29 00:00:00", Some(1_709_164_800_000_000)),
            ("0001-01-01 00:00:00", Some(-62_135_596_800_000_000)),
            ("9999-12-31 23:59:59.999999", Some(253_402_300_799_999_999)),
            ("9999-12-31T23:59:59-01:00", None),
            ("0000-01-01 00:00:00", None),
            ("2023-02-29 00:00:00", None),
            ("2026-13-01 00:00:00", None),
            ("2026-03-00 00:00:00", None),
            ("2026-03-01 24:00:00", None),
            ("2026-03-01 00:60:00", None),
            ("2026-03-01 00:00:60", None),
            ("2026-03-01 00:00:00.", None),
            ("2026-03-01 00:00:00.1234567890", None),
            ("2026-03-01 00:00:00+1", None),
            ("2026-03-01 00:00:00+24:00", None),
            ("2026-03-01 00:00:00 UTC", None),
            ("2026-03-01", None),
            ("2026/03/01 00:00:00", None),
            ("2026-03-01_00:00:00", None),
            ("２026-03-01 00:00:00", None),
            ("", None),
        ];
        let mut clock = Clock::default();
        for (text, expect) in cases {
            assert_eq!(timestamp(text), *expect, "{text}");
            // The same again from inside a row, at its very end, and with the date known.
            for after in ["", "\"", "\",\"and\":\"more than a word\"", "x\""] {
                let row = format!(":\"{text}{after}");
                let quoted = clock.quoted(row.as_bytes(), 2);
                let expect = expect.filter(|_| after.starts_with('"'));
                assert_eq!(quoted, expect.map(|micros| (micros, 2 + text.len())), "{row}");
            }
        }
    }

    /// One byte of a timestamp changed, in all ways: the quick look at a fixed layout takes nothing that
    /// [`timestamp`] does not.
    #[test]
    fn a_clock_agrees_on_every_wrong_byte() {
        let texts = [
            "2026-03-01 12:30:45.123",
            "2026-03-01T19:59:59.999Z",
            "2026-03-01 00:00:00",
            "2026-03-01T23:09:09Z",
            "2026-03-01 23:59:59.123456",
        ];
        for text in texts {
            for at in 0..text.len() {
                for byte in (0..=127).filter(|byte| *byte != b'"') {
                    let mut changed = text.as_bytes().to_vec();
                    changed[at] = byte;
                    let changed = String::from_utf8(changed).expect("it is ASCII");
                    let row = format!("\"{changed}\",\"n\":1234567890}}");
                    let quoted = Clock::default().quoted(row.as_bytes(), 1);
                    assert_eq!(quoted.map(|(micros, _)| micros), timestamp(&changed), "{row}");
                }
            }
        }
    }

    #[test]
    fn agrees_with_chrono_on_every_day_of_four_centuries() {
        let mut day = NaiveDate::from_ymd_opt(1799, 12, 31).expect("a day");
        for _ in 0..146_097 + 400 {
            day = day.succ_opt().expect("a day");
            let epoch = day.and_hms_opt(0, 0, 0).expect("midnight").and_utc().timestamp();
            assert_eq!(
                date(&day.to_string()).map(i64::from),
                Some(epoch / 86_400),
                "{day}"
            );
        }
    }

    #[test]
    fn millis_stay_in_range() {
        assert_eq!(
            timestamp_from_millis(1_772_368_245_123),
            Some(1_772_368_245_123_000)
        );
        assert_eq!(timestamp_from_millis(i64::MAX), None);
        assert_eq!(timestamp_from_millis(253_402_300_800_000), None);
    }
}
