//! Rows straight out of the bytes, guided by the schema and by the order of keys in the rows before.
//!
//! simd-json marks every bracket, quote and comma of a body and makes a node of every value before the first row is
//! looked at, which is most of the time of decoding. Here a row is read once, from left to right, and each value goes
//! into its column as it is met. What is taken so is taken exactly as [`super::tape`] would. Anything else (a value of
//! the wrong type, a missing field, bytes that are no JSON) is left to it, so that there is one place that says what
//! is wrong: a row that cannot be taken is undone, and the caller asks simd-json about its bytes.

mod bodies;
mod number;
mod order;
mod scan;
mod skip;

use millstream_engine::time::Timestamp;

use self::order::{Found, Order};
use self::scan::Text;
use super::column::Column;
use super::rows::Rows;
use super::values::Values;
use crate::formats::time;

/// What is remembered from row to row.
#[derive(Default)]
pub(super) struct Guide {
    order: Order,
    /// The row that each column was last given a value in.
    set: Vec<u64>,
    row: u64,
}

impl Guide {
    pub fn new(columns: usize) -> Guide {
        Guide {
            set: vec![0; columns],
            ..Guide::default()
        }
    }

    fn begin(&mut self) {
        self.order.begin();
        self.row += 1;
    }

    /// Nothing if the column has its value.
    fn give(&mut self, column: usize) -> Option<()> {
        let before = std::mem::replace(&mut self.set[column], self.row);
        (before != self.row).then_some(())
    }
}

impl Rows {
    /// Appends the row at `at`, if it is good beyond doubt and `after` agrees with what follows it. What `after` says
    /// is the result. Otherwise nothing is appended.
    fn take(
        &mut self,
        text: Text<'_>,
        at: usize,
        arrived: Timestamp,
        after: impl FnOnce(usize) -> Option<usize>,
    ) -> Option<usize> {
        let end = self.fields(text, at);
        let next = end.and_then(after).filter(|_| self.complete(arrived));
        match next {
            Some(_) => self.appended += 1,
            None => self.truncate(self.appended),
        }
        next
    }

    /// Reads the fields of the row at `at` into their columns. The end of the row.
    fn fields(&mut self, text: Text<'_>, at: usize) -> Option<usize> {
        self.guide.begin();
        let mut at = text.expect(at, b'{')?;
        if text.get(at)? != b'"' && text.get(text.blanks(at))? == b'}' {
            return Some(text.blanks(at) + 1);
        }
        loop {
            let Found { column, value } = self.guide.order.field(text, at, &self.by_name)?;
            // Blanks there: a producer with more of them than the one before it.
            let value = text.past_blanks(value)?;
            at = match column {
                Some(column) => {
                    self.guide.give(column)?;
                    self.columns[column].take(text, value, self.appended)?
                }
                None => skip::value(text, value)?,
            };
            at = text.past_blanks(at)?;
            match text.get(at)? {
                b',' => at += 1,
                b'}' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// Whether the row may leave out the columns that it has not given. The time of arrival is filled in.
    fn complete(&mut self, arrived: Timestamp) -> bool {
        let row = self.guide.row;
        if let Some(arrival) = self.arrival
            && self.guide.set[arrival] != row
        {
            let column = &mut self.columns[arrival];
            column.begin(self.appended);
            let Values::Timestamp(times) = &mut column.values else {
                return false;
            };
            times.push(arrived.0);
            self.guide.set[arrival] = row;
        }
        self.required.iter().all(|column| self.guide.set[*column] == row)
    }
}

impl Column {
    /// Appends the value at `at` as that of `row`, if it is good beyond doubt. Its end.
    #[inline]
    fn take(&mut self, text: Text<'_>, at: usize, row: usize) -> Option<usize> {
        let first = text.get(at)?;
        if first == b'n' {
            return text.word(at, b"null").filter(|_| self.nullable);
        }
        self.begin(row);
        match (&mut self.values, first) {
            (Values::Text(texts), b'"') => {
                let plain = text.plain(at + 1)?;
                let bytes = &text.bytes[at + 1..plain.end];
                let whole = text.bytes[plain.end] == b'"';
                if whole && (plain.ascii || std::str::from_utf8(bytes).is_ok()) {
                    texts.push(bytes);
                    return Some(plain.end + 1);
                }
                let end = text.unescape(at + 1, &mut |piece| texts.extend(piece))?;
                texts.end();
                Some(end)
            }
            (Values::Timestamp(times), b'"') => {
                let (micros, quote) = self.clock.quoted(text.bytes, at + 1)?;
                times.push(micros);
                Some(quote + 1)
            }
            (Values::Timestamp(times), _) => {
                let (millis, end) = number::integer(text, at)?;
                times.push(time::timestamp_from_millis(millis)?);
                Some(end)
            }
            (Values::Int64(values), _) => {
                let (value, end) = number::integer(text, at)?;
                values.push(value);
                Some(end)
            }
            (Values::Int32(values), _) => {
                let (value, end) = number::integer(text, at)?;
                values.push(i32::try_from(value).ok()?);
                Some(end)
            }
            (Values::Float64(values), _) => {
                let (value, end) = number::float(text, at)?;
                values.push(value);
                Some(end)
            }
            (Values::Boolean(values), _) => {
                let end = text.word(at, if first == b't' { b"true" } else { b"false" })?;
                values.append(first == b't');
                Some(end)
            }
            (Values::Date(days), b'"') => {
                let date = text.bytes.get(at + 1..at + 11)?;
                days.push(time::date(std::str::from_utf8(date).ok()?)?);
                text.expect(at + 11, b'"')
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
