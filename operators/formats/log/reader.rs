//! A file of lines, piece by piece: what each feeds into the tables, and where the next begins.

use std::io::{self, BufRead, BufReader, Read};

use millstream_engine::source::Tables;
use millstream_engine::{Error, Result};

use super::mapper::LogMapper;

/// Bytes that are read together.
const READ_BYTES: usize = 1 << 20;

/// Rows of one piece, about.
const PIECE_ROWS: usize = 16_384;

/// What the rows of one piece take in memory, about.
const PIECE_BYTES: usize = 4 << 20;

/// Bytes of a file that one piece is made of, at most, so that lines without rows make pieces, too.
const PIECE_TEXT: u64 = 16 << 20;

/// The longest line, in bytes: several are held in memory at a time.
const LONGEST_LINE: usize = 64 << 20;

/// Reads the rows of tables out of bytes.
pub struct Reader {
    from: BufReader<Box<dyn Read + Send>>,
    mapper: LogMapper,
    /// Bytes before the next piece.
    bytes: u64,
    line: Vec<u8>,
    longest: usize,
    /// What stopped reading, behind the piece before.
    broken: Option<Error>,
}

impl Reader {
    /// The rows that `mapper` makes of the lines in `from`.
    pub fn new(from: Box<dyn Read + Send>, mapper: LogMapper) -> Reader {
        Reader {
            from: BufReader::with_capacity(READ_BYTES, from),
            mapper,
            bytes: 0,
            line: Vec::new(),
            longest: LONGEST_LINE,
            broken: None,
        }
    }

    /// Goes on in the middle of a file, where [`Reader::position`] stood before.
    pub fn resume(mut self, (lines, bytes): (u64, u64)) -> Reader {
        self.mapper = self.mapper.resume(lines);
        self.bytes = bytes;
        self
    }

    /// Lines and bytes before the next piece.
    pub fn position(&self) -> (u64, u64) {
        (self.mapper.lines(), self.bytes)
    }

    /// The next rows; none at the end.
    ///
    /// # Errors
    /// Of class data: the bytes cannot be read, and the whole lines in front of them have been given before; or there
    /// are more bad rows than the budget has.
    pub fn piece(&mut self) -> Result<Option<Tables>> {
        if let Some(e) = self.broken.take() {
            return Err(e);
        }
        let start = self.bytes;
        let full = |mapper: &LogMapper| mapper.rows() >= PIECE_ROWS || mapper.bytes() >= PIECE_BYTES;
        while !full(&self.mapper) && self.bytes - start < PIECE_TEXT {
            match self.line() {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => {
                    self.broken = Some(e);
                    break;
                }
            }
        }
        if self.bytes == start {
            return self.broken.take().map_or(Ok(None), Err);
        }
        self.mapper.finish().map(Some)
    }

    /// Takes a line; false at the end.
    fn line(&mut self) -> Result<bool> {
        self.line.clear();
        let unreadable = |e: io::Error| Error::data(e.to_string());
        let most = self.longest as u64;
        let mut limited = self.from.by_ref().take(most);
        limited.read_until(b'\n', &mut self.line).map_err(unreadable)?;
        if self.line.is_empty() {
            return Ok(false);
        }
        let ended = self.line.last() == Some(&b'\n') || self.line.len() < self.longest;
        let mut bytes = self.line.len() as u64;
        if ended {
            self.mapper.push_line(&self.line)?;
        } else {
            bytes += skip_line(&mut self.from).map_err(unreadable)?;
            self.mapper.push_too_long(&self.line, self.longest)?;
        }
        // A line that memory was found for once is rare: it is given back.
        if self.line.capacity() > READ_BYTES {
            self.line = Vec::new();
        }
        self.bytes += bytes;
        Ok(true)
    }
}

/// Passes over the rest of a line; gives its bytes.
fn skip_line(from: &mut impl BufRead) -> io::Result<u64> {
    let mut passed = 0;
    loop {
        let buffer = from.fill_buf()?;
        let (bytes, found) = match memchr::memchr(b'\n', buffer) {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        from.consume(bytes);
        passed += bytes as u64;
        if found {
            return Ok(passed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use millstream_engine::time::Timestamp;

    use super::super::{Budget, LogSchema, PIPELINE_ERRORS};
    use super::*;

    fn reader(from: impl Read + Send + 'static) -> Reader {
        let yaml =
            "version: 1\ntables: {t: {src: '', src_type: dict, columns: [{log_key: n, sql_attr: int8}]}}";
        let schema = LogSchema::parse("log.yaml", yaml).expect("a schema");
        let mapper = LogMapper::new(&schema, "a.log", Timestamp(0), Arc::new(Budget::new(None)));
        Reader::new(Box::new(from), mapper)
    }

    /// Numbers of the good rows and lines of the bad ones.
    fn taken(tables: &Tables) -> (Vec<i64>, Vec<i64>) {
        let of = |table: &str, column: &str| {
            let batches = tables.iter().filter(|(name, _)| name == table);
            let columns = batches.map(|(_, rows)| rows.column_by_name(column).expect("a column").clone());
            columns
                .flat_map(|c| c.as_primitive::<Int64Type>().values().to_vec())
                .collect()
        };
        (of("t", "n"), of(PIPELINE_ERRORS, "line_number"))
    }

    #[test]
    fn reading_goes_on_where_it_stood() {
        let line = |n: usize| match n % 1_000 {
            7 => "nonsense\n\n".to_owned(),
            _ => format!("{{\"n\":{n},\"padding\":\"{}\"}}\r\n", "x".repeat(50)),
        };
        let text: String = (0..40_000).map(line).collect();
        let (mut all, mut places) = (Vec::new(), vec![(0, 0)]);
        let mut whole = reader(Cursor::new(text.clone()));
        while let Some(tables) = whole.piece().expect("readable") {
            all.push(taken(&tables));
            places.push(whole.position());
        }
        assert!(all.len() > 2, "{}", all.len());
        assert_eq!(
            all.iter()
                .map(|(good, bad)| good.len() + bad.len())
                .sum::<usize>(),
            40_000
        );
        assert_eq!(all[0].1[..2], [8, 1_009]);
        for (at, place) in places.into_iter().enumerate() {
            let mut rest = reader(Cursor::new(text.as_bytes()[place.1 as usize..].to_vec())).resume(place);
            let mut got = Vec::new();
            while let Some(tables) = rest.piece().expect("readable") {
                got.push(taken(&tables));
            }
            assert_eq!(got, all[at..], "{place:?}");
        }
    }

    /// Bytes, and then an error.
    struct Damaged(Cursor<&'static [u8]>);

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
        let mut reader = reader(Damaged(Cursor::new(b"{\"n\":1}\n{\"n\":2}\n{\"n\":3}")));
        let tables = reader.piece().expect("what is in front").expect("rows");
        assert_eq!(taken(&tables).0, [1, 2]);
        assert_eq!(reader.position(), (2, 16));
        assert_eq!(reader.piece().expect_err("damage").to_string(), "damaged");
    }

    #[test]
    fn a_line_that_is_too_long_is_bad_and_passed_over() {
        let mut reader = reader(Cursor::new(
            "{\"n\":1}\n{\"n\":2,\"x\":\"abcdefgh\"}\n{\"n\":3}\n\n{\"n\":12}",
        ));
        reader.longest = 12;
        let tables = reader.piece().expect("readable").expect("rows");
        assert_eq!(taken(&tables), (vec![1, 3, 12], vec![2]));
        assert_eq!(reader.position(), (5, 48));
        assert!(reader.piece().expect("readable").is_none());
    }
}
