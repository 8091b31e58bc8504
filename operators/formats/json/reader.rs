//! Files of rows: JSON lines of any length piece by piece; an array, an envelope or a single row as a whole.
//!
//! A file is taken by what is in it, not by its name: one that starts with `[` is an array, one whose first
//! line is a whole object is JSON lines, and everything else is read to its end and decoded as a request's body
//! would be. Where that fails, its lines are decoded one by one, so that a broken first line does not cost the
//! others.

use std::io::{self, Read};
use std::ops::Range;

use memchr::{memchr_iter, memrchr};
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use super::{BodyError, Decoded, Decoder, is_lines};
use crate::formats::{BadRow, Piece, Place};

/// Lines are decoded together in pieces of this many bytes: some thousand rows, as many as a batch should have.
const PIECE_BYTES: usize = 1 << 20;

/// A file that is not JSON lines is held in memory as a whole, and so is a line: where nobody sets another limit.
const DOCUMENT_BYTES: usize = 1 << 30;

/// Reads rows out of bytes.
pub struct Reader {
    from: Box<dyn Read + Send>,
    /// What is read, into the same memory each time: fresh pages cost about as much as decoding what is put there.
    text: Vec<u8>,
    /// Bytes of `text` that are read, and how many of them were given as a piece.
    read: usize,
    given: usize,
    decoder: Decoder,
    /// Lines before the next piece.
    lines: u64,
    /// Bytes before the next piece.
    bytes: u64,
    /// The largest document and the longest line, in bytes.
    limit: usize,
    /// What stopped reading, behind the piece before.
    broken: Option<Error>,
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
            from,
            text: Vec::new(),
            read: 0,
            given: 0,
            decoder,
            lines: 0,
            bytes: 0,
            limit: DOCUMENT_BYTES,
            broken: None,
            state: State::Start,
        }
    }

    /// Refuses documents and lines of more bytes.
    pub fn limit(mut self, bytes: usize) -> Reader {
        self.limit = bytes;
        self
    }

    /// Goes on in the middle of JSON lines, where [`Reader::position`] stood before.
    pub fn resume(mut self, (lines, bytes): (u64, u64)) -> Reader {
        (self.lines, self.bytes, self.state) = (lines, bytes, State::Lines);
        self
    }

    /// Lines and bytes before the next piece.
    pub fn position(&self) -> (u64, u64) {
        (self.lines, self.bytes)
    }

    /// The next rows; none at the end. Rows without `received_at` take `arrived`, if the decoder says so.
    ///
    /// # Errors
    /// Of class data: the bytes cannot be read, or the file as a whole is nothing that has rows. The whole lines in front
    /// of bytes that cannot be read have been given before.
    pub fn next(&mut self, arrived: Timestamp) -> Result<Option<Piece>> {
        loop {
            if matches!(self.state, State::End) {
                return Ok(None);
            }
            self.piece()?;
            let text = std::mem::take(&mut self.text);
            let lines = &text[..self.given];
            match lines.trim_ascii_start().first() {
                None if lines.is_empty() => self.state = State::End,
                None => self.passed(lines),
                Some(first) => {
                    if matches!(self.state, State::Start) && matches!(first, b'{' | b'[') && !is_lines(lines)
                    {
                        return self.document(text, arrived).map(Some);
                    }
                    self.state = State::Lines;
                    let piece = self.of_lines(lines, arrived);
                    self.text = text;
                    return piece.map(Some);
                }
            }
            self.text = text;
        }
    }

    /// Reads whole lines, of [`PIECE_BYTES`] or a little less together unless one is longer.
    fn piece(&mut self) -> Result<()> {
        if let Some(e) = self.broken.take() {
            return Err(self.end(e));
        }
        self.text.copy_within(self.given..self.read, 0);
        self.read -= self.given;
        if self.read < PIECE_BYTES && self.text.len() > PIECE_BYTES {
            self.text.truncate(PIECE_BYTES);
            self.text.shrink_to_fit();
        }
        self.given = self.whole_lines()?;
        Ok(())
    }

    /// Reads until there are lines; how many bytes of them.
    fn whole_lines(&mut self) -> Result<usize> {
        let mut searched = self.read;
        loop {
            if self.read >= PIECE_BYTES {
                if let Some(length) = lines_of(&self.text[searched..self.read]) {
                    return Ok(searched + length);
                }
                searched = self.read;
            }
            self.bounded(self.read)?;
            let room = (2 * self.read).clamp(PIECE_BYTES, self.limit.max(PIECE_BYTES));
            self.text.resize(room.max(self.text.len()), 0);
            match self.from.read(&mut self.text[self.read..room]) {
                Ok(0) => return Ok(self.read),
                Ok(more) => self.read += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.damaged(unreadable(e)),
            }
        }
    }

    /// The lines in front of damage are good; the one it cut is part of it.
    fn damaged(&mut self, e: Error) -> Result<usize> {
        let Some(length) = lines_of(&self.text[..self.read]) else {
            return Err(self.end(e));
        };
        self.read = length;
        self.broken = Some(e);
        Ok(length)
    }

    fn end(&mut self, e: Error) -> Error {
        self.state = State::End;
        e
    }

    fn passed(&mut self, text: &[u8]) {
        self.lines += newlines(text);
        self.bytes += text.len() as u64;
    }

    fn of_lines(&mut self, text: &[u8], arrived: Timestamp) -> Result<Piece> {
        let decoded = self
            .decoder
            .decode_lines(text, arrived)
            .map_err(|e| Error::data(e.to_string()))?;
        let first = self.lines;
        self.passed(text);
        let line = |_: usize, span: &Range<usize>| Place::Line(first + newlines(&text[..span.start]) + 1);
        self.finish(text, decoded, line)
    }

    fn document(&mut self, mut text: Vec<u8>, arrived: Timestamp) -> Result<Piece> {
        self.state = State::End;
        if let Some(e) = self.broken.take() {
            return Err(e);
        }
        text.truncate(self.read);
        let left = (self.limit + 1).saturating_sub(text.len()) as u64;
        let read = self.from.by_ref().take(left).read_to_end(&mut text);
        read.map_err(unreadable)?;
        self.bounded(text.len())?;
        let row = |index: usize, _: &Range<usize>| Place::Row(index as u64 + 1);
        let decoded = self.decode_document(&text, arrived);
        self.passed(&text);
        match decoded {
            Ok(decoded) => self.finish(&text, decoded, row),
            Err(BodyError::Empty) => self.finish(&text, Decoded::default(), row),
            Err(error) => self.of_broken_lines(&text, arrived, &error),
        }
    }

    fn bounded(&mut self, bytes: usize) -> Result<()> {
        if bytes < self.limit {
            return Ok(());
        }
        let mib = self.limit >> 20;
        Err(self.end(Error::data(format!(
            "it is larger than {mib} MiB and not one row per line; write one row per line"
        ))))
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
        (self.lines, self.bytes) = (0, 0);
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
        place: impl Fn(usize, &Range<usize>) -> Place,
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

/// Bytes of whole lines, if there are any.
fn lines_of(text: &[u8]) -> Option<usize> {
    memrchr(b'\n', text).map(|at| at + 1)
}

fn newlines(text: &[u8]) -> u64 {
    memchr_iter(b'\n', text).count() as u64
}

fn unreadable(e: io::Error) -> Error {
    Error::data(e.to_string())
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
                    bad.extend(piece.bad.into_iter().map(|b| b.place.to_string()));
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
            bad.extend(piece.bad.into_iter().map(|b| b.place.to_string()));
        }
        assert!(pieces > 3, "{pieces}");
        assert_eq!(bad, ["line 17"]);
    }

    /// Bytes, and then an error.
    struct Damaged(Cursor<Vec<u8>>);

    impl Read for Damaged {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            match self.0.read(to)? {
                0 => Err(io::Error::other("damaged")),
                read => Ok(read),
            }
        }
    }

    #[test]
    fn lines_in_front_of_damage_are_good() {
        for (text, expect) in [
            ("{\"n\":1}\n{\"n\":2}\n{\"n\":3", "2 then damaged then the end"),
            ("{\"n\":1}\n{\"n\":2}\n", "2 then damaged then the end"),
            ("{\"n\":1", "0 then damaged then the end"),
            ("[{\"n\":1},\n{\"n\":2}", "0 then damaged then the end"),
            ("", "0 then damaged then the end"),
        ] {
            let mut reader = reader("", None);
            let damaged: Box<dyn Read + Send> = Box::new(Damaged(Cursor::new(text.into())));
            reader.from = damaged;
            let mut rows = 0;
            let error = loop {
                match reader.next(Timestamp::MIN) {
                    Ok(piece) => rows += piece.expect("damage comes before the end").rows.num_rows(),
                    Err(e) => break e,
                }
            };
            let after = reader.next(Timestamp::MIN).unwrap();
            let got = format!("{rows} then {error} then {}", after.map_or("the end", |_| "more"));
            assert_eq!(got, expect, "{text:?}");
        }
    }

    #[test]
    fn reading_goes_on_where_it_stood() {
        let padding = " ".repeat(PIECE_BYTES / 4);
        let rows: Vec<String> = (1..=20).map(|n| format!("{{\"n\":{n}}}{padding}")).collect();
        let text = rows.join("\n\n").replace("{\"n\":17}", "{\"n\":x}");
        let mut whole = reader(&text, None);
        let mut read = 0;
        while let Some(piece) = whole.next(Timestamp::MIN).unwrap() {
            read += piece.rows.num_rows() + piece.bad.len();
            let (lines, bytes) = whole.position();
            let mut rest = reader(&text[bytes as usize..], None).resume((lines, bytes));
            let (mut left, mut bad) = (0, Vec::new());
            while let Some(piece) = rest.next(Timestamp::MIN).unwrap() {
                left += piece.rows.num_rows() + piece.bad.len();
                bad.extend(piece.bad.into_iter().map(|b| b.place));
            }
            assert_eq!((read + left, rest.position()), (20, (38, text.len() as u64)));
            assert!(
                bad.is_empty() && read >= 17 || bad == [Place::Line(33)],
                "{bad:?}"
            );
        }
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
