//! Files of rows: JSON lines of any length piece by piece; an array, an envelope or a single row as a whole.
//!
//! A file is taken by what is in it, not by its name: one that starts with `[` is an array, one whose first
//! line is a whole object is JSON lines, and everything else is read to its end and decoded as a request's body
//! would be. Where that fails, its lines are decoded one by one, so that a broken first line does not cost the
//! others.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

use arrow::array::RecordBatch;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use super::{BodyError, Decoded, Decoder, RowError, is_lines};

/// Lines are decoded together in pieces of this many bytes: some thousand rows, as many as a batch should have.
const PIECE_BYTES: usize = 1 << 20;

/// A file that is not JSON lines is held in memory as a whole, and so is a line.
const DOCUMENT_BYTES: usize = 1 << 30;

/// Rows read together.
pub struct Piece {
    /// The good ones, in order.
    pub rows: RecordBatch,
    /// The others, in order.
    pub bad: Vec<BadRow>,
}

/// A row that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Where it stands: `line 7`, or `row 7` of an array.
    pub place: String,
    /// What is wrong.
    pub error: RowError,
    /// Its text.
    pub raw: Vec<u8>,
}

/// Reads rows out of bytes.
pub struct Reader {
    from: BufReader<Box<dyn Read + Send>>,
    decoder: Decoder,
    /// Lines before the next piece.
    lines: usize,
    state: State,
}

enum State {
    Start,
    Lines,
    End,
}

impl Reader {
    /// Rows for `decoder`, which may be of envelopes; then lines and arrays of rows are taken as well.
    pub fn new(from: Box<dyn Read + Send>, decoder: Decoder) -> Reader {
        Reader {
            from: BufReader::with_capacity(PIECE_BYTES, from),
            decoder,
            lines: 0,
            state: State::Start,
        }
    }

    /// The next rows; none at the end. Rows without `received_at` take `arrived`, if the decoder says so.
    ///
    /// # Errors
    /// Of class data: the bytes cannot be read, or the file as a whole is nothing that has rows.
    pub fn next(&mut self, arrived: Timestamp) -> Result<Option<Piece>> {
        let text = match self.state {
            State::End => return Ok(None),
            State::Start | State::Lines => self.piece()?,
        };
        if text.trim_ascii().is_empty() {
            if text.is_empty() {
                self.state = State::End;
                return Ok(None);
            }
            self.lines += newlines(&text);
            return self.next(arrived);
        }
        if matches!(self.state, State::Start) {
            let first = text.trim_ascii_start()[0];
            match (first, is_lines(&text)) {
                (b'{', true) => self.state = State::Lines,
                (b'{' | b'[', _) => return self.document(text, arrived).map(Some),
                _ => self.state = State::Lines,
            }
        }
        self.of_lines(&text, arrived).map(Some)
    }

    /// Whole lines, of [`PIECE_BYTES`] or a little more together.
    fn piece(&mut self) -> Result<Vec<u8>> {
        let mut text = Vec::with_capacity(PIECE_BYTES);
        let mut read = || -> io::Result<()> {
            self.from
                .by_ref()
                .take(PIECE_BYTES as u64)
                .read_to_end(&mut text)?;
            if text.len() == PIECE_BYTES && text.last() != Some(&b'\n') {
                let rest = (DOCUMENT_BYTES - PIECE_BYTES) as u64;
                self.from.by_ref().take(rest).read_until(b'\n', &mut text)?;
            }
            Ok(())
        };
        read().map_err(unreadable)?;
        bounded(text)
    }

    fn of_lines(&mut self, text: &[u8], arrived: Timestamp) -> Result<Piece> {
        let decoded = self
            .decoder
            .decode_lines(text, arrived)
            .map_err(|e| Error::data(e.to_string()))?;
        let first = self.lines;
        self.lines += newlines(text);
        let line =
            |_: usize, span: &Range<usize>| format!("line {}", first + newlines(&text[..span.start]) + 1);
        self.finish(text, decoded, line)
    }

    fn document(&mut self, mut text: Vec<u8>, arrived: Timestamp) -> Result<Piece> {
        self.state = State::End;
        let left = (DOCUMENT_BYTES + 1).saturating_sub(text.len()) as u64;
        let read = self.from.by_ref().take(left).read_to_end(&mut text);
        read.map_err(unreadable)?;
        let text = bounded(text)?;
        match self.decode_document(&text, arrived) {
            Ok(decoded) => self.finish(&text, decoded, |index, _| format!("row {}", index + 1)),
            Err(BodyError::Empty) => self.finish(&text, Decoded::default(), |_, _| String::new()),
            Err(error) => self.of_broken_lines(&text, arrived, &error),
        }
    }

    /// As an envelope, where the decoder wants one, else as rows.
    fn decode_document(&mut self, text: &[u8], arrived: Timestamp) -> Result<Decoded, BodyError> {
        let as_body = self.decoder.decode(text, arrived);
        let Err(BodyError::Unreadable(_)) = as_body else {
            return as_body;
        };
        let Some(key) = self.decoder.records.take() else {
            return as_body;
        };
        let as_rows = self.decoder.decode(text, arrived);
        self.decoder.records = Some(key);
        match as_rows {
            // A single bad "row" is an envelope with another key.
            Ok(decoded) if decoded.rows > decoded.failed.len() => Ok(decoded),
            _ => as_body,
        }
    }

    /// A file that is no document may be lines after all, the first of them broken.
    fn of_broken_lines(&mut self, text: &[u8], arrived: Timestamp, error: &BodyError) -> Result<Piece> {
        self.lines = 0;
        let piece = self.of_lines(text, arrived)?;
        match piece.rows.num_rows() {
            0 => Err(Error::data(error.to_string())),
            _ => Ok(piece),
        }
    }

    fn finish(
        &mut self,
        text: &[u8],
        decoded: Decoded,
        place: impl Fn(usize, &Range<usize>) -> String,
    ) -> Result<Piece> {
        let bad = decoded.failed.into_iter().map(|failed| BadRow {
            place: place(failed.index, &failed.span),
            error: failed.error,
            raw: text[failed.span].to_vec(),
        });
        Ok(Piece {
            bad: bad.collect(),
            rows: self.decoder.finish()?,
        })
    }
}

fn newlines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

fn unreadable(e: io::Error) -> Error {
    Error::data(e.to_string())
}

fn bounded(text: Vec<u8>) -> Result<Vec<u8>> {
    if text.len() < DOCUMENT_BYTES {
        return Ok(text);
    }
    Err(Error::data(format!(
        "it is larger than {} MiB and not one row per line; write one row per line",
        DOCUMENT_BYTES >> 20
    )))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use millstream_engine::source::RECEIVED_AT;
    use millstream_engine::time::timestamp_type;

    use super::*;

    fn reader(text: &str, records: Option<&str>) -> Reader {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let decoder = Decoder::new(schema)
            .unwrap()
            .enveloped(records.map(str::to_owned));
        Reader::new(Box::new(Cursor::new(text.to_owned().into_bytes())), decoder)
    }

    /// The numbers, then the places of what is bad; or the error.
    fn read(text: &str, records: Option<&str>) -> String {
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        let mut reader = reader(text, records);
        loop {
            match reader.next(Timestamp::MIN) {
                Ok(Some(piece)) => {
                    let numbers = piece.rows.column(0).as_primitive::<Int64Type>();
                    rows.extend(numbers.values().iter().map(i64::to_string));
                    bad.extend(piece.bad.into_iter().map(|b| b.place));
                }
                Ok(None) => return format!("{} | {}", rows.join(" "), bad.join(", ")),
                Err(e) => return e.to_string(),
            }
        }
    }

    #[test]
    fn every_form_is_read() {
        let of_b = Some("b");
        for (text, records, expect) in [
            ("", None, " | "),
            ("\n \n", None, " | "),
            ("{\"n\":1}", None, "1 | "),
            ("{\"n\":1}\n{\"n\":2}\n", None, "1 2 | "),
            (
                "{\"n\":1}\n\n{\"m\":2}\nnonsense\n {\"n\":3}",
                None,
                "1 3 | line 3, line 4",
            ),
            ("nonsense\n{\"n\":3}\n", None, "3 | line 1"),
            ("{\"n\":\n{\"n\":3}\n", None, "3 | line 1"),
            ("[{\"n\":1},\n {\"n\":\"x\"},{\"n\":3}]", None, "1 3 | row 2"),
            ("[]", None, " | "),
            ("{\n \"n\": 1\n}\n", None, "1 | "),
            ("{\"b\":[{\"n\":1},{}]}", of_b, "1 | row 2"),
            ("{\"n\":1}\n{\"n\":2}\n", of_b, "1 2 | "),
            ("{\"n\":1}", of_b, "1 | "),
            ("[{\"n\":1}]", of_b, "1 | "),
            ("{\"c\":[{\"n\":1}]}", of_b, "batch key \"b\" not given"),
            ("{\"n\":1", None, "invalid JSON: "),
            ("[{\"n\":1}", None, "invalid JSON: "),
        ] {
            let got = read(text, records);
            assert!(got.starts_with(expect), "{text:?}: {got:?}, not {expect:?}");
        }
    }

    #[test]
    fn lines_are_counted_across_pieces() {
        let padding = " ".repeat(PIECE_BYTES / 4);
        let rows: Vec<String> = (1..=20).map(|n| format!("{{\"n\":{n}}}{padding}")).collect();
        let text = rows.join("\n").replace("{\"n\":17}", "{\"n\":x}");
        let mut reader = reader(&text, None);
        let mut pieces = 0;
        let mut bad = Vec::new();
        while let Some(piece) = reader.next(Timestamp::MIN).unwrap() {
            pieces += 1;
            bad.extend(piece.bad.into_iter().map(|b| b.place));
        }
        assert!(pieces > 3, "{pieces}");
        assert_eq!(bad, ["line 17"]);
    }

    #[test]
    fn arrival_is_filled_where_it_is_not_given() {
        let schema = Arc::new(Schema::new(vec![Field::new(
            RECEIVED_AT,
            timestamp_type(),
            false,
        )]));
        let mut decoder = Decoder::filling_arrival(schema).unwrap();
        let text = b"{\"received_at\":\"1970-01-01 00:00:01\"}\n{}";
        assert_eq!(decoder.decode(text, Timestamp(7)).unwrap().failed, []);
        let rows = decoder.finish().unwrap();
        let times = rows
            .column(0)
            .as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        assert_eq!(times.values().to_vec(), [1_000_000, 7]);
    }
}
