//! CSV with a header. Values are written as in query strings; an empty field is null, but in a `string not null`
//! column it is the empty text.

use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::{DataType, SchemaRef};
use csv::{ByteRecord, ErrorKind, ReaderBuilder, StringRecord, Trim};
use millstream_engine::config::did_you_mean;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use super::json::{Decoder, RowError};
use super::{Absent, BadRow, Piece, Place};

/// Rows of one piece, at most.
const PIECE_ROWS: usize = 16_384;

/// What the rows of one piece take in memory, about.
const PIECE_BYTES: usize = 2 << 20;

/// A row of more bytes than this has a quote that was never closed: it would take the rest of the file with it.
const ROW_BYTES: u64 = 16 << 20;

/// A column: where it stands in the file, its name, and whether an empty field is a text.
struct Field {
    at: usize,
    name: String,
    keeps_empty: bool,
}

/// Reads rows out of bytes.
pub struct Reader {
    from: csv::Reader<Rationed>,
    /// What may be read before the row is too long.
    ration: Arc<AtomicU64>,
    /// Columns in the header.
    columns: usize,
    fields: Vec<Field>,
    decoder: Decoder,
    row: ByteRecord,
    /// What stopped reading, behind the piece before.
    broken: Option<Error>,
}

impl Reader {
    /// The rows of `schema` in `from`, which starts with the header. Of a file without one byte there are no rows.
    ///
    /// # Errors
    /// Of class data: there is no header, or it lacks a column.
    pub fn open(from: Box<dyn Read + Send>, schema: &SchemaRef, absent: Absent) -> Result<Reader> {
        let ration = Arc::new(AtomicU64::new(ROW_BYTES));
        let rationed = Rationed {
            from,
            left: Arc::clone(&ration),
        };
        let mut from = ReaderBuilder::new()
            .trim(Trim::Headers)
            .flexible(true)
            .from_reader(rationed);
        let header = from.headers().map_err(|e| broken(&e))?;
        let fields = match absent {
            Absent::Filled(_) if header.is_empty() => Vec::new(),
            _ => fields(header, schema, absent)?,
        };
        let columns = header.len();
        let decoder = match absent {
            Absent::Refused => Decoder::new(Arc::clone(schema))?,
            Absent::Filled(_) => Decoder::filling_arrival(Arc::clone(schema))?,
        };
        Ok(Reader {
            from,
            ration,
            columns,
            fields,
            decoder,
            row: ByteRecord::new(),
            broken: None,
        })
    }

    /// Passes over what stands before a byte of the file, which [`Reader::position`] gave before.
    pub fn skip(&mut self, bytes: u64) -> Result<()> {
        while self.from.position().byte() < bytes && self.more()? {}
        Ok(())
    }

    /// Lines and bytes before the next piece.
    pub fn position(&self) -> (u64, u64) {
        let position = self.from.position();
        (position.line() - 1, position.byte())
    }

    /// The next rows; none at the end. Rows without `received_at` take `arrived`, where the file may lack columns.
    ///
    /// # Errors
    /// Of class data: the bytes cannot be read. The rows in front of them have been given before.
    pub fn next(&mut self, arrived: Timestamp) -> Result<Option<Piece>> {
        if let Some(e) = self.broken.take() {
            return Err(e);
        }
        let mut bad = Vec::new();
        while self.decoder.len() + bad.len() < PIECE_ROWS && self.decoder.bytes() < PIECE_BYTES {
            match self.more() {
                Ok(true) => bad.extend(self.take(arrived)),
                Ok(false) => break,
                Err(e) => {
                    self.broken = Some(e);
                    break;
                }
            }
        }
        if self.decoder.is_empty() && bad.is_empty() {
            return self.broken.take().map_or(Ok(None), Err);
        }
        let rows = self.decoder.finish()?;
        Ok(Some(Piece { rows, bad }))
    }

    fn more(&mut self) -> Result<bool> {
        self.ration.store(ROW_BYTES, Ordering::Relaxed);
        self.from.read_byte_record(&mut self.row).map_err(|e| broken(&e))
    }

    /// Appends the row; gives it back where it is bad.
    fn take(&mut self, arrived: Timestamp) -> Option<BadRow> {
        let pairs = pairs(&self.row, self.columns, &self.fields);
        let pushed = pairs.and_then(|pairs| self.decoder.decode_pairs(&pairs, arrived));
        let error = pushed.err()?;
        let line = self.row.position().map_or(0, csv::Position::line);
        let fields: Vec<&[u8]> = self.row.iter().collect();
        Some(BadRow {
            place: Place::Line(line),
            error,
            raw: fields.join(&b','),
        })
    }
}

type Pair<'r> = (Cow<'r, str>, Cow<'r, str>);

/// What a row says of the declared columns.
fn pairs<'r>(row: &'r ByteRecord, columns: usize, fields: &'r [Field]) -> Result<Vec<Pair<'r>>, RowError> {
    if row.len() != columns {
        let message = format!("{} fields, not {columns} as in the header", row.len());
        return Err(RowError::new("wrong_fields", message));
    }
    let mut pairs = Vec::with_capacity(fields.len());
    for field in fields {
        let value = std::str::from_utf8(row.get(field.at).unwrap_or_default());
        let not_text = |_| RowError::new("invalid_text", format!("field {} is not UTF-8", field.at + 1));
        let value = value.map_err(not_text)?;
        if !value.is_empty() || field.keeps_empty {
            pairs.push((field.name.as_str().into(), value.into()));
        }
    }
    Ok(pairs)
}

/// Where the declared columns stand.
fn fields(header: &StringRecord, schema: &SchemaRef, absent: Absent) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    for field in schema.fields() {
        let name = field.name().as_str();
        let mut found = header.iter().enumerate().filter(|(_, h)| *h == name);
        let at = match (found.next(), found.next()) {
            (Some((at, _)), None) => at,
            (Some(_), Some(_)) => {
                return Err(Error::data(format!("line 1: two columns are named {name:?}")));
            }
            (None, _) if absent.allows(field) => continue,
            (None, _) => {
                let help = did_you_mean(name, header.iter().collect::<Vec<_>>(), '"', "columns");
                let help = help.map(|h| format!("; {h}")).unwrap_or_default();
                return Err(Error::data(format!("line 1: no column is named {name:?}{help}")));
            }
        };
        fields.push(Field {
            at,
            name: name.into(),
            keeps_empty: field.data_type() == &DataType::Utf8 && !field.is_nullable(),
        });
    }
    Ok(fields)
}

fn broken(e: &csv::Error) -> Error {
    let line = e.position().map_or(1, csv::Position::line);
    Error::data(match e.kind() {
        ErrorKind::Utf8 { err, .. } => format!("line {line}: field {} is not UTF-8", err.field() + 1),
        ErrorKind::Io(e) => e.to_string(),
        _ => e.to_string(),
    })
}

/// Bytes, as long as the row is not too long.
struct Rationed {
    from: Box<dyn Read + Send>,
    left: Arc<AtomicU64>,
}

impl Read for Rationed {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            let mib = ROW_BYTES >> 20;
            let why = format!("a row is longer than {mib} MiB; is a quote never closed?");
            return Err(io::Error::other(why));
        }
        let read = self.from.read(to)?;
        self.left
            .store(left.saturating_sub(read as u64), Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use arrow::array::AsArray;
    use arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    fn reader(text: &[u8]) -> Result<Reader> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("m", DataType::Utf8, true),
        ]));
        let from = Box::new(Cursor::new(text.to_vec()));
        Reader::open(from, &schema, Absent::Filled(Timestamp(7)))
    }

    /// The numbers, then what is bad and what ended it.
    fn rest(mut reader: Reader) -> String {
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        loop {
            match reader.next(Timestamp(7)) {
                Ok(Some(piece)) => {
                    let numbers = piece.rows.column(0).as_primitive::<Int64Type>();
                    rows.extend(numbers.values().iter().map(i64::to_string));
                    for row in piece.bad {
                        let raw = String::from_utf8_lossy(&row.raw).into_owned();
                        bad.push(format!("{} {raw}", row.place));
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    bad.push(e.to_string());
                    break;
                }
            }
        }
        format!("{} | {}", rows.join(" "), bad.join("; "))
    }

    #[test]
    fn bad_rows_are_given_apart() {
        for (text, expect) in [
            (&b""[..], " | "),
            (b"n\n1\n2\n", "1 2 | "),
            (
                b"n,m\n1,a\nx,b\n3\n4,\"\n\"\n5,c,d\n6,",
                "1 4 6 | line 3 x,b; line 4 3; line 7 5,c,d",
            ),
            (b"m,n\n\xff,1\na,2\n", "2 | line 2 \u{fffd},1"),
        ] {
            let text = reader(text).map(rest).unwrap_or_else(|e| e.to_string());
            assert_eq!(text, expect);
        }
        let without = reader(b"m\na\n").map(drop).unwrap_err();
        assert!(
            without.to_string().contains("no column is named \"n\""),
            "{without}"
        );
    }

    #[test]
    fn a_quote_that_is_never_closed_does_not_take_the_memory() {
        let mut text = b"n,m\n1,a\n2,\"".to_vec();
        text.resize(ROW_BYTES as usize + (1 << 20), b'x');
        let got = rest(reader(&text).unwrap());
        assert!(got.starts_with("1 | a row is longer than 16 MiB"), "{got}");
    }

    #[test]
    fn reading_goes_on_where_it_stood() {
        let text: String = (1..=100).map(|n| format!("{n},\"a\n{n}\"\n")).collect();
        let text = format!("n,m\n{text}");
        let mut before = reader(text.as_bytes()).unwrap();
        before.skip(500).unwrap();
        let (lines, bytes) = before.position();
        let mut after = reader(text.as_bytes()).unwrap();
        after.skip(bytes).unwrap();
        assert_eq!(after.position(), (lines, bytes));
        let rows = text[..bytes as usize].matches('"').count() / 2;
        let expect: Vec<String> = (rows + 1..=100).map(|n| n.to_string()).collect();
        assert_eq!(rest(after), format!("{} | ", expect.join(" ")));
        assert_eq!(lines as usize, 1 + 2 * rows);
    }
}
