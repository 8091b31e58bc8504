//! JSON bodies to Arrow rows, straight into the builders.
//!
//! simd-json turns the body into a flat tape of nodes; the rows on it are checked against the schema and
//! appended, without a tree of values in between. A row that does not fit fails alone, with a code and a
//! message for the client and its bytes for the `.invalid` stream. A body that is no JSON, or not in the
//! form the source wants, fails as a whole and appends nothing.
//!
//! Taken: the envelope `{"<key>": [row, …]}` where a key is configured; otherwise one row, an array of
//! rows, or one row per line. Fields without a column are ignored.

mod column;
mod guided;
mod reader;
mod rows;
mod spans;
mod tape;
mod values;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use memchr::memchr;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

pub use self::reader::Reader;
use self::rows::{Arrival, Rows};
use self::tape::{Parser, Place, push_all};

/// Why a row was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// A word for programs, such as `missing_field`.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl RowError {
    /// An error with a code for programs and a message for people.
    pub fn new(code: &'static str, message: impl Into<String>) -> RowError {
        RowError {
            code,
            message: message.into(),
        }
    }
}

/// Why a body was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is no JSON, or not in the form the source wants.
    Unreadable(String),
    /// It has no rows.
    Empty,
    /// It has more rows than the limit.
    TooManyRows {
        /// Rows it has.
        given: usize,
        /// Rows it may have.
        limit: usize,
    },
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::Unreadable(why) => f.write_str(why),
            BodyError::Empty => f.write_str("no rows given"),
            BodyError::TooManyRows { given, limit } => {
                write!(f, "too many rows: {given}, at most {limit} in one request")
            }
        }
    }
}

/// What became of a body's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Rows in the body, good and bad.
    pub rows: usize,
    /// The bad ones, in order.
    pub failed: Vec<FailedRow>,
}

/// A row that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRow {
    /// Position among the rows of the body, from 0.
    pub index: usize,
    /// Why.
    pub error: RowError,
    /// Where its text is in the body.
    pub span: Range<usize>,
}

impl FailedRow {
    /// A failed row whose place is filled in later: finding it takes another look at the body.
    fn new(index: usize, error: RowError) -> FailedRow {
        let span = 0..0;
        FailedRow { index, error, span }
    }
}

/// Collects rows of one schema from any number of bodies until [`Decoder::finish`].
pub struct Decoder {
    records: Option<String>,
    max_rows: usize,
    rows: Rows,
    parser: Parser,
    /// Rows that were handed to the parser last, one after the other.
    handed: usize,
}

impl Decoder {
    /// A decoder of rows of `schema`, whose columns may be Utf8, Int32, Int64, Float64, Boolean, Date32 and
    /// timestamps of microseconds without a zone. Any other type is an error of class config.
    pub fn new(schema: SchemaRef) -> Result<Decoder> {
        Decoder::with(schema, Arrival::Given)
    }

    /// The same, but `received_at` is the time of arrival whatever the input says.
    pub fn stamping_arrival(schema: SchemaRef) -> Result<Decoder> {
        Decoder::with(schema, Arrival::Stamped)
    }

    /// The same, but `received_at` is the time of arrival where the input does not say: for rows that were
    /// taken before.
    pub fn filling_arrival(schema: SchemaRef) -> Result<Decoder> {
        Decoder::with(schema, Arrival::Filled)
    }

    fn with(schema: SchemaRef, arrival: Arrival) -> Result<Decoder> {
        Ok(Decoder {
            records: None,
            max_rows: usize::MAX,
            rows: Rows::new(schema, arrival)?,
            parser: Parser::default(),
            handed: 0,
        })
    }

    /// Bodies must be envelopes `{"<key>": [row, …]}`.
    pub fn enveloped(mut self, key: Option<String>) -> Decoder {
        self.records = key;
        self
    }

    /// Refuses bodies with more rows.
    pub fn max_rows(mut self, limit: usize) -> Decoder {
        self.max_rows = limit;
        self
    }

    /// Appends the good rows of `body`. On an error nothing was appended.
    pub fn decode(&mut self, body: &[u8], arrived: Timestamp) -> Result<Decoded, BodyError> {
        if self.records.is_none() && is_lines(body) {
            return self.decode_lines(body, arrived);
        }
        match self.decode_guided(body, arrived) {
            Some(decoded) => Ok(decoded),
            None => self.decode_document(body, arrived),
        }
    }

    /// The same by way of the parser, as a whole.
    fn decode_document(&mut self, body: &[u8], arrived: Timestamp) -> Result<Decoded, BodyError> {
        let Decoder { records, rows, .. } = self;
        let (key, limit) = (records.as_deref(), self.max_rows);
        let decoded = self.parser.parse(body, |tape| {
            let place = Place::of(tape, key)?;
            if place.rows > limit {
                let given = place.rows;
                return Err(BodyError::TooManyRows { given, limit });
            }
            Ok(push_all(rows, tape, &place, arrived))
        });
        let mut decoded = decoded.map_err(|e| BodyError::Unreadable(format!("invalid JSON: {e}")))??;
        if decoded.rows == 0 {
            return Err(BodyError::Empty);
        }
        locate(body, self.records.is_some(), &mut decoded);
        Ok(decoded)
    }

    /// Appends the row that the pairs of a query string write.
    pub fn decode_pairs(
        &mut self,
        pairs: &[(Cow<'_, str>, Cow<'_, str>)],
        arrived: Timestamp,
    ) -> Result<(), RowError> {
        self.rows.push_pairs(pairs, arrived)
    }

    /// Rows appended since the last [`Decoder::finish`].
    pub fn len(&self) -> usize {
        self.rows.appended()
    }

    /// Whether nothing was appended since the last [`Decoder::finish`].
    pub fn is_empty(&self) -> bool {
        self.rows.appended() == 0
    }

    /// About how many bytes the appended rows take in memory.
    pub fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// Takes the rows appended so far.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        self.rows.finish()
    }

    /// Lines by way of the parser: together, and if that fails, one by one, so that a broken line fails alone.
    fn parse_lines(&mut self, body: &[u8], lines: &[Range<usize>], arrived: Timestamp) -> Decoded {
        // Otherwise a line could lend its brackets to the next.
        let is_object = |line: &Range<usize>| body[line.start] == b'{' && spans::is_one(&body[line.clone()]);
        let joined = match lines.iter().all(is_object) {
            true => self.parse_joined(body, lines, 1, arrived),
            false => None,
        };
        joined.unwrap_or_else(|| self.parse_each(body, lines, arrived))
    }

    /// Rows as the elements of one array, itself in an array where they stand in an envelope: they are as deep as there.
    /// That spares the parser its start for each. Nothing if they are not one value each.
    fn parse_joined(
        &mut self,
        body: &[u8],
        all: &[Range<usize>],
        depth: usize,
        arrived: Timestamp,
    ) -> Option<Decoded> {
        let join = |text: &mut Vec<u8>| {
            text.extend(std::iter::repeat_n(b'[', depth));
            for (at, one) in all.iter().enumerate() {
                if at > 0 {
                    text.push(b',');
                }
                text.extend_from_slice(&body[one.clone()]);
            }
            text.extend(std::iter::repeat_n(b']', depth));
        };
        let rows = &mut self.rows;
        let decoded = self.parser.parse_from(join, |tape| {
            let place = Place::of_array(tape, depth - 1)?;
            (place.rows == all.len()).then(|| push_all(rows, tape, &place, arrived))
        });
        decoded.ok().flatten()
    }

    fn parse_each(&mut self, body: &[u8], lines: &[Range<usize>], arrived: Timestamp) -> Decoded {
        let mut decoded = Decoded {
            rows: lines.len(),
            failed: Vec::new(),
        };
        for (index, line) in lines.iter().enumerate() {
            let rows = &mut self.rows;
            let pushed = self
                .parser
                .parse(&body[line.clone()], |tape| rows.push(tape, 0, arrived))
                .unwrap_or_else(|e| Err(RowError::new("invalid_json", format!("invalid JSON: {e}"))));
            if let Err(error) = pushed {
                decoded.failed.push(FailedRow::new(index, error));
            }
        }
        decoded
    }
}

/// Decodes rows given as JSON objects, all of which must fit: for tests and small tables. `received_at` is
/// an ordinary column here.
pub fn decode_rows(schema: SchemaRef, rows: &[serde_json::Value]) -> Result<RecordBatch> {
    let mut decoder = Decoder::new(schema)?;
    for (at, row) in rows.iter().enumerate() {
        let place = format!("row {}", at + 1);
        let decoded = decoder
            .decode(row.to_string().as_bytes(), Timestamp::MIN)
            .map_err(|e| Error::data(e.to_string()).within(&place))?;
        if let Some(failed) = decoded.failed.first() {
            return Err(Error::data(failed.error.message.clone()).within(&place));
        }
    }
    decoder.finish()
}

/// Finds the text of the failed rows.
fn locate(body: &[u8], enveloped: bool, decoded: &mut Decoded) {
    if decoded.failed.is_empty() {
        return;
    }
    let whole = spans::trim(body, 0..body.len());
    let spans = match body[whole.start] {
        b'{' if !enveloped => vec![whole],
        _ => spans::of_array(body),
    };
    for failed in &mut decoded.failed {
        failed.span = spans.get(failed.index).cloned().unwrap_or_default();
    }
}

/// Whether `body` is one row per line rather than one document: its first line break stands where a
/// document cannot have one, because neither side of it is a bracket, a comma or a colon.
fn is_lines(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    let Some(line_end) = memchr(b'\n', body) else {
        return false;
    };
    let before = body[..line_end].trim_ascii_end().last();
    let after = body[line_end..].trim_ascii_start().first();
    let opens = matches!(before, Some(b'{' | b'[' | b',' | b':'));
    let goes_on = matches!(after, Some(b'}' | b']' | b',' | b':'));
    body[0] == b'{' && !opens && !goes_on
}

#[cfg(test)]
mod tests;
