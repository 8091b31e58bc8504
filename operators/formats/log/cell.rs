//! One value of a row: from what is in the line to what its column holds, before it is known whether the whole row is
//! good. Text stays where it is; what had to be rewritten is in a scratch text.
//!
//! The predecessor wrote text and let the warehouse read it, so a number in quotes is taken for a number and a number
//! for a text. What it let the warehouse cut or change is an error here: widths are counted in bytes as the warehouse
//! does, and no digit is lost.
//!
//! A cell is sixteen bytes, and so is one with its error in a box: what goes through registers costs a third less of the
//! mapping than what is copied from place to place.

use super::errors::Bad;
use super::number;
use super::scan::{Kind, Raw};
use super::strings;
use crate::formats::time;
use crate::warehouse::types::{SqlType, VARCHAR_MAX};

/// Room for the text of one value in a message.
const SHOWN_CHARS: usize = 64;

/// The years 0001 to 9999 in microseconds since the epoch.
const MICROS: std::ops::RangeInclusive<i128> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// Microseconds of the epoch seconds from which on a number is milliseconds: the year 5138, or 1973.
const MILLIS_FROM: i128 = 100_000_000_000 * 1_000_000;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A value that fits its column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    /// Integers, days of a date, microseconds of a timestamp.
    Int(i64),
    /// Units of a decimal: which one of the scratch's.
    Wide(u32),
    Float(f64),
    Bool(bool),
    /// Bytes of the line.
    Line(u32, u32),
    /// Bytes of the scratch text.
    Scratch(u32, u32),
}

/// What was made of the values of a row and has no room in their cells.
#[derive(Default)]
pub(super) struct Scratch {
    pub text: String,
    pub wide: Vec<i128>,
}

impl Scratch {
    pub fn clear(&mut self) {
        self.text.clear();
        self.wide.clear();
    }
}

/// A cell, or why there is none.
pub(super) type Made = Result<Cell, Box<Bad>>;

/// What a column takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takes {
    pub of: SqlType,
    /// Whether the value is written as JSON, whatever it is.
    pub json: bool,
}

impl Takes {
    /// The cell of what is at `raw` in `text`.
    ///
    /// # Errors
    /// It does not fit; the detail is to be put behind the column's name.
    pub fn cell(self, raw: Raw, text: &str, scratch: &mut Scratch) -> Made {
        match (raw.kind, self.of) {
            (Kind::Missing | Kind::Null, _) => Ok(Cell::Null),
            _ if self.json => self.json(raw, text, scratch),
            (_, SqlType::Char(_) | SqlType::Varchar(_) | SqlType::Super) => self.text(raw, text, scratch),
            (Kind::Number, of) => number_cell(of, raw.text(text), scratch),
            (Kind::True, SqlType::Boolean) => Ok(Cell::Bool(true)),
            (Kind::False, SqlType::Boolean) => Ok(Cell::Bool(false)),
            (Kind::String, of) if raw.escaped => {
                let mut plain = String::new();
                strings::unescape(raw.text(text), &mut plain)?;
                string_cell(of, plain.trim(), scratch)
            }
            (Kind::String, of) => string_cell(of, raw.text(text).trim(), scratch),
            _ => Err(wrong_type(self.of, &shown(raw, text))),
        }
    }

    /// The cell of a number that stands nowhere, where the column takes integers and this is one of them.
    pub fn integer(self, value: u64) -> Option<Cell> {
        let most = match self.of {
            SqlType::SmallInt => i16::MAX as u64,
            SqlType::Integer => i32::MAX as u64,
            SqlType::BigInt => i64::MAX as u64,
            _ => return None,
        };
        (!self.json && value <= most).then_some(Cell::Int(value as i64))
    }

    fn json(self, raw: Raw, text: &str, scratch: &mut Scratch) -> Made {
        let cell = match raw.kind {
            Kind::Object | Kind::Array => in_scratch(&mut scratch.text, |to| {
                strings::compact(raw.text(text), to);
                Ok(())
            })?,
            // With its quotes, as it stands in the line.
            Kind::String => Cell::Line(raw.start - 1, raw.end + 1),
            _ => Cell::Line(raw.start, raw.end),
        };
        self.fitting(cell, text, &scratch.text)
    }

    fn text(self, raw: Raw, text: &str, scratch: &mut Scratch) -> Made {
        let cell = match raw.kind {
            Kind::String if raw.escaped => {
                in_scratch(&mut scratch.text, |to| strings::unescape(raw.text(text), to))?
            }
            Kind::Object | Kind::Array => return self.json(raw, text, scratch),
            _ => Cell::Line(raw.start, raw.end),
        };
        self.fitting(cell, text, &scratch.text)
    }

    /// The text, if its column is wide enough and the warehouse can hold it.
    fn fitting(self, cell: Cell, line: &str, scratch: &str) -> Made {
        let text = match cell {
            Cell::Line(start, end) => &line[start as usize..end as usize],
            Cell::Scratch(start, end) => &scratch[start as usize..end as usize],
            _ => return Ok(cell),
        };
        let width = self.of.width().unwrap_or(VARCHAR_MAX);
        if text.len() > width as usize {
            let (bytes, of) = (text.len(), self.of);
            return Err(Bad::new("too_wide", format!("{bytes} bytes do not fit {of}")).into());
        }
        // Only an escape can have written a zero.
        if matches!(cell, Cell::Scratch(..)) && text.contains('\0') {
            let why = "a text with the character zero, which a warehouse does not hold";
            return Err(Bad::new("bad_text", why).into());
        }
        if matches!(self.of, SqlType::Char(_)) && !text.is_ascii() {
            let why = "char holds ASCII only; use varchar";
            return Err(Bad::new("bad_text", why).into());
        }
        Ok(cell)
    }
}

/// What `write` appends to the scratch text.
fn in_scratch(scratch: &mut String, write: impl FnOnce(&mut String) -> Result<(), Bad>) -> Made {
    let start = scratch.len();
    write(scratch)?;
    Ok(Cell::Scratch(start as u32, scratch.len() as u32))
}

fn number_cell(of: SqlType, text: &str, scratch: &mut Scratch) -> Made {
    let wrong = || wrong_type(of, text);
    match of {
        SqlType::SmallInt | SqlType::Integer | SqlType::BigInt => {
            integer_cell(of, number::integer(text).ok_or_else(wrong)?)
        }
        SqlType::Double => number::float(text)
            .map(Cell::Float)
            .ok_or_else(|| out_of_range(of, text)),
        SqlType::Real => {
            let value = number::float(text).filter(|v| (*v as f32).is_finite());
            value.map(Cell::Float).ok_or_else(|| out_of_range(of, text))
        }
        SqlType::Decimal(digits, behind) => {
            let value = number::decimal(text, u32::from(behind));
            let most = 10_i128.checked_pow(u32::from(digits));
            let fits = |v: &i128| most.is_some_and(|most| -most < *v && *v < most);
            let value = value.filter(fits).ok_or_else(|| out_of_range(of, text))?;
            scratch.wide.push(value);
            Ok(Cell::Wide(scratch.wide.len() as u32 - 1))
        }
        SqlType::Boolean => match text {
            "0" => Ok(Cell::Bool(false)),
            "1" => Ok(Cell::Bool(true)),
            _ => Err(wrong()),
        },
        SqlType::Timestamp | SqlType::TimestampTz => {
            epoch(text).map(Cell::Int).ok_or_else(|| out_of_range(of, text))
        }
        SqlType::Date => {
            let day = epoch(text).map(|micros| micros.div_euclid(MICROS_PER_DAY));
            day.map(Cell::Int).ok_or_else(|| out_of_range(of, text))
        }
        SqlType::Char(_) | SqlType::Varchar(_) | SqlType::Super => Err(wrong()),
    }
}

fn string_cell(of: SqlType, text: &str, scratch: &mut Scratch) -> Made {
    match of {
        SqlType::Timestamp | SqlType::TimestampTz => {
            let days = || time::date(text).map(|days| i64::from(days) * MICROS_PER_DAY);
            let number = || number::decimal(text, 0).and_then(|_| epoch(text));
            let micros = time::timestamp(text).or_else(days).or_else(number);
            micros.map(Cell::Int).ok_or_else(|| {
                let text = shorter(text);
                let layout = time::TIMESTAMP_LAYOUT;
                let detail = format!("{text:?} is not {layout}, or seconds since 1970");
                Box::new(Bad::new("bad_timestamp", detail))
            })
        }
        SqlType::Date => {
            let days = || time::date(text).map(i64::from);
            let of_time = || time::timestamp(text).map(|micros| micros.div_euclid(MICROS_PER_DAY));
            days().or_else(of_time).map(Cell::Int).ok_or_else(|| {
                let text = shorter(text);
                let detail = format!("{text:?} is not {}", time::DATE_LAYOUT);
                Box::new(Bad::new("bad_date", detail))
            })
        }
        SqlType::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" => Ok(Cell::Bool(true)),
            "false" | "f" | "no" | "n" | "0" => Ok(Cell::Bool(false)),
            _ => Err(wrong_type(of, &format!("{:?}", shorter(text)))),
        },
        // Letters such as of `nan` are numbers to some, but not to JSON.
        _ if number::float(text).is_some() => number_cell(of, text, scratch),
        _ => Err(wrong_type(of, &format!("{:?}", shorter(text)))),
    }
}

fn integer_cell(of: SqlType, value: i128) -> Made {
    let fits = match of {
        SqlType::SmallInt => i16::try_from(value).map(i64::from).ok(),
        SqlType::Integer => i32::try_from(value).map(i64::from).ok(),
        _ => i64::try_from(value).ok(),
    };
    fits.map(Cell::Int)
        .ok_or_else(|| out_of_range(of, &value.to_string()))
}

/// Microseconds since the epoch of seconds, or of milliseconds if there are so many.
fn epoch(text: &str) -> Option<i64> {
    let micros = number::decimal(text, 6)?;
    let micros = match micros.abs() < MILLIS_FROM {
        true => micros,
        false => micros / 1_000,
    };
    MICROS.contains(&micros).then_some(micros as i64)
}

fn wrong_type(of: SqlType, got: &str) -> Box<Bad> {
    Box::new(Bad::new("wrong_type", format!("expected {of}, got {got}")))
}

fn out_of_range(of: SqlType, text: &str) -> Box<Bad> {
    let detail = format!("{} does not fit {of}", shorter(text));
    Box::new(Bad::new("out_of_range", detail))
}

/// A value, for messages.
fn shown(raw: Raw, text: &str) -> String {
    match raw.kind {
        Kind::String => format!("\"{}\"", shorter(raw.text(text))),
        Kind::Object => "an object".into(),
        Kind::Array => "a list".into(),
        _ => shorter(raw.text(text)),
    }
}

fn shorter(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_fit_two_registers() {
        assert_eq!((size_of::<Cell>(), size_of::<Made>()), (16, 16));
    }
}
