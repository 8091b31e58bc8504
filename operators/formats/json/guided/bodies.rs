//! Bodies and files: row after row, and simd-json for those in between that cannot be taken.
//!
//! A row that cannot be taken is handed to simd-json alone, the next one in a row of them with its neighbour, then
//! four, eight: a body of rows that are all beyond us costs hardly more than if nothing had been tried.

use std::ops::Range;

use millstream_engine::time::Timestamp;

use super::super::{BodyError, Decoded, Decoder, spans};
use super::scan::Text;

/// Rows that are handed over together at most: a pass of simd-json over them costs little beside its start.
const MAX_HANDED: usize = 512;

impl Decoder {
    /// Appends the good ones of rows that stand one per line.
    pub(in super::super) fn decode_lines(
        &mut self,
        body: &[u8],
        arrived: Timestamp,
    ) -> Result<Decoded, BodyError> {
        self.rows.make_room();
        let before = self.rows.appended();
        let text = Text {
            bytes: body,
            lines: true,
        };
        let mut decoded = Decoded::default();
        let mut at = 0;
        while let Some(start) = spans::line_start(body, at) {
            let behind = |end| spans::line_end(body, end);
            at = match self.rows.take(text, start, arrived, behind) {
                Some(next) => {
                    decoded.rows += 1;
                    self.handed = 0;
                    next
                }
                None => self.hand_over_lines(body, start, arrived, &mut decoded),
            };
            if decoded.rows > self.max_rows {
                self.rows.truncate(before);
                let (given, limit) = (spans::of_lines(body).count(), self.max_rows);
                return Err(BodyError::TooManyRows { given, limit });
            }
        }
        Ok(decoded)
    }

    /// Appends the good rows of an envelope, an array of rows or a single row. Nothing is appended, and nothing said,
    /// if it is none or has too many rows.
    pub(in super::super) fn decode_guided(&mut self, body: &[u8], arrived: Timestamp) -> Option<Decoded> {
        self.rows.make_room();
        let before = self.rows.appended();
        let decoded = self.document(body, arrived);
        if decoded.is_none() {
            self.rows.truncate(before);
        }
        decoded
    }

    fn document(&mut self, body: &[u8], arrived: Timestamp) -> Option<Decoded> {
        let text = Text {
            bytes: body,
            lines: false,
        };
        let ends = |at| (text.blanks(at) == body.len()).then_some(at);
        let mut at = text.blanks(0);
        let mut decoded = Decoded::default();
        match &self.records {
            Some(key) => at = envelope(text, at, key)?,
            None if text.get(at)? == b'{' => {
                self.rows.take(text, at, arrived, ends)?;
                decoded.rows = 1;
                return Some(decoded);
            }
            None => {}
        }
        at = self.array(text, at, arrived, &mut decoded)?;
        if self.records.is_some() {
            at = text.expect(text.blanks(at), b'}')?;
        }
        ends(at).map(|_| decoded)
    }

    /// The rows of the array at `at`, of which there must be one. Its end.
    fn array(
        &mut self,
        text: Text<'_>,
        at: usize,
        arrived: Timestamp,
        decoded: &mut Decoded,
    ) -> Option<usize> {
        let mut at = text.expect(at, b'[')?;
        loop {
            at = text.blanks(at);
            let behind = |end| {
                let end = text.blanks(end);
                matches!(text.get(end)?, b',' | b']').then_some(end)
            };
            at = match self.rows.take(text, at, arrived, behind) {
                Some(behind) => {
                    decoded.rows += 1;
                    self.handed = 0;
                    behind
                }
                None => self.hand_over_elements(text.bytes, at, arrived, decoded)?,
            };
            if decoded.rows > self.max_rows {
                return None;
            }
            match text.get(at)? {
                b',' => at += 1,
                _ => return text.expect(at, b']'),
            }
        }
    }

    /// Lets simd-json decode some of the lines from `at` on. Where the last of them ends.
    fn hand_over_lines(
        &mut self,
        body: &[u8],
        at: usize,
        arrived: Timestamp,
        decoded: &mut Decoded,
    ) -> usize {
        let count = self.hand_over();
        let lines: Vec<Range<usize>> = spans::of_lines_from(body, at).take(count).collect();
        let of_these = self.parse_lines(body, &lines, arrived);
        decoded.append(of_these, &lines);
        lines.last().map_or(body.len(), |line| line.end)
    }

    /// Lets simd-json decode some elements of an array from `at` on. The comma or bracket behind the last of them; nothing
    /// if they are no JSON.
    fn hand_over_elements(
        &mut self,
        body: &[u8],
        mut at: usize,
        arrived: Timestamp,
        decoded: &mut Decoded,
    ) -> Option<usize> {
        let count = self.hand_over();
        let mut elements = Vec::new();
        let end = loop {
            let end = spans::element_end(body, at)?;
            elements.push(spans::trim(body, at..end));
            if elements.len() == count || body[end] != b',' {
                break end;
            }
            at = end + 1;
        };
        let depth = if self.records.is_some() { 2 } else { 1 };
        let of_these = self.parse_joined(body, &elements, depth, arrived)?;
        decoded.append(of_these, &elements);
        Some(end)
    }

    /// How many rows to hand over now.
    fn hand_over(&mut self) -> usize {
        self.handed = (self.handed * 2).clamp(1, MAX_HANDED);
        self.handed
    }
}

impl Decoded {
    /// Adds what became of the next rows, which stand at `spans`.
    fn append(&mut self, next: Decoded, spans: &[Range<usize>]) {
        self.failed.extend(next.failed.into_iter().map(|mut failed| {
            failed.span = spans[failed.index].clone();
            failed.index += self.rows;
            failed
        }));
        self.rows += next.rows;
    }
}

/// Where the array of the envelope at `at` is, if its first key is `key`, written without escapes.
fn envelope(text: Text<'_>, at: usize, key: &str) -> Option<usize> {
    let plain = |byte| !matches!(byte, b'"' | b'\\' | ..b' ');
    let at = text.blanks(text.expect(at, b'{')?);
    let at = text.word(text.expect(at, b'"')?, key.as_bytes())?;
    let at = text.blanks(text.expect(at, b'"')?);
    let at = text.blanks(text.expect(at, b':')?);
    key.bytes().all(plain).then_some(at)
}
