//! What could not be taken: the table `pipeline_errors`, and how much of it is too much.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::{Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{Field, Schema, SchemaRef};
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use super::schema::table_metadata;
use crate::warehouse::column::ColumnSql;
use crate::warehouse::ddl::TableSql;
use crate::warehouse::types::SQL;

/// The table of what could not be taken, which every schema has.
pub const PIPELINE_ERRORS: &str = "pipeline_errors";

/// Its columns, in SQL.
const COLUMNS: [(&str, &str); 6] = [
    ("starttime", "timestamp"),
    ("filename", "varchar(4096)"),
    ("line_number", "bigint"),
    ("error_reason", "varchar(4096)"),
    ("error_detail", "varchar(65535)"),
    ("raw_line", "varchar(65535)"),
];

/// Bytes of a name or a reason that are kept.
const SHORT_BYTES: usize = 4_096;

/// Bytes of a line that are kept.
const LINE_BYTES: usize = 65_535;

/// Schema of `pipeline_errors`.
///
/// | column | meaning |
/// |---|---|
/// | `starttime` | when the run began |
/// | `filename` | the object or file the line is in |
/// | `line_number` | its number in the file, from 1 |
/// | `error_reason` | a word for programs, such as `invalid_json` |
/// | `error_detail` | a sentence for people, with table and column |
/// | `raw_line` | the line, cut to 65,535 bytes; null from the second bad row of a line on |
pub fn error_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let fields = error_table().columns.into_iter().zip(COLUMNS);
        let fields = fields.map(|((name, column), (_, sql))| {
            let metadata = [(SQL.to_owned(), sql.to_owned())].into();
            Field::new(name, column.of.to_arrow(), true).with_metadata(metadata)
        });
        let fields: Vec<Field> = fields.collect();
        let metadata = table_metadata(PIPELINE_ERRORS, &["starttime".to_owned()]);
        Arc::new(Schema::new_with_metadata(fields, metadata))
    });
    SCHEMA.clone()
}

/// The table as SQL makes it.
pub(super) fn error_table() -> TableSql {
    let column = |(name, sql): (&str, &str)| {
        let sql = ColumnSql::parse(sql).expect("columns of ours are SQL");
        (name.to_owned(), sql)
    };
    TableSql {
        name: PIPELINE_ERRORS.into(),
        columns: COLUMNS.into_iter().map(column).collect(),
        sortkey: vec!["starttime".into()],
    }
}

/// How many rows may be bad, in all files that share it.
#[derive(Debug, Default)]
pub struct Budget {
    /// None: any number.
    most: Option<u64>,
    spent: AtomicU64,
    first: Mutex<Option<String>>,
}

impl Budget {
    /// At most so many; without a number, any.
    pub fn new(most: Option<u64>) -> Budget {
        Budget {
            most,
            ..Budget::default()
        }
    }

    /// Bad rows so far.
    pub fn spent(&self) -> u64 {
        self.spent.load(Ordering::Relaxed)
    }

    /// Counts a bad row. An error of class data if it is one too many.
    fn spend(&self, place: &str, detail: &str) -> Result<()> {
        let spent = self.spent.fetch_add(1, Ordering::Relaxed) + 1;
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let first = first.get_or_insert_with(|| format!("{place}: {detail}"));
        match self.most {
            Some(most) if spent > most => Err(Error::data(format!(
                "{spent} bad rows, and max_errors is {most}; the first is {first}"
            ))),
            _ => Ok(()),
        }
    }
}

/// Why a line or a row was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    /// A word for programs.
    pub reason: &'static str,
    /// A sentence for people.
    pub detail: String,
}

impl Bad {
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Bad {
        let detail = detail.into();
        Bad { reason, detail }
    }
}

/// The rows of `pipeline_errors` of one file.
pub(super) struct Errors {
    start: Timestamp,
    file: String,
    budget: Arc<Budget>,
    starttime: TimestampMicrosecondBuilder,
    filename: StringBuilder,
    line_number: Int64Builder,
    reason: StringBuilder,
    detail: StringBuilder,
    raw_line: StringBuilder,
    last_line: u64,
    rows: usize,
    bytes: usize,
}

impl Errors {
    pub fn new(file: &str, start: Timestamp, budget: Arc<Budget>) -> Errors {
        Errors {
            start,
            file: file.into(),
            budget,
            starttime: TimestampMicrosecondBuilder::new(),
            filename: StringBuilder::new(),
            line_number: Int64Builder::new(),
            reason: StringBuilder::new(),
            detail: StringBuilder::new(),
            raw_line: StringBuilder::new(),
            last_line: 0,
            rows: 0,
            bytes: 0,
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends one. The raw line stands in the first row of a line only: a list of a million bad elements must not keep
    /// it a million times.
    pub fn push(&mut self, number: u64, bad: &Bad, line: &[u8]) -> Result<()> {
        self.starttime.append_value(self.start.0);
        self.filename.append_value(cut(&self.file, SHORT_BYTES));
        self.line_number.append_value(number as i64);
        self.reason.append_value(cut(bad.reason, SHORT_BYTES));
        let detail = clean(bad.detail.as_bytes(), LINE_BYTES);
        self.detail.append_value(&detail);
        let raw = (number != self.last_line).then(|| clean(line, LINE_BYTES));
        self.bytes += detail.len() + self.file.len() + raw.as_ref().map_or(0, String::len);
        self.raw_line.append_option(raw);
        self.last_line = number;
        self.rows += 1;
        self.budget.spend(&format!("{}:{number}", self.file), &bad.detail)
    }

    pub fn finish(&mut self) -> Result<RecordBatch> {
        (self.rows, self.bytes) = (0, 0);
        let columns = vec![
            Arc::new(self.starttime.finish()) as _,
            Arc::new(self.filename.finish()) as _,
            Arc::new(self.line_number.finish()) as _,
            Arc::new(self.reason.finish()) as _,
            Arc::new(self.detail.finish()) as _,
            Arc::new(self.raw_line.finish()) as _,
        ];
        RecordBatch::try_new(error_schema(), columns)
            .map_err(|e| Error::bug(format!("errors have the columns of their schema: {e}")))
    }
}

/// Text that a warehouse takes: what is no UTF-8, and zeros, are replaced; at most `bytes`, cut between characters.
fn clean(raw: &[u8], bytes: usize) -> String {
    // A replaced byte becomes three; looking at more of the line than that brings nothing.
    let text = String::from_utf8_lossy(&raw[..raw.len().min(bytes + 4)]);
    let text = text.replace('\0', "\u{fffd}");
    cut(&text, bytes).to_owned()
}

/// At most `bytes` of a text.
fn cut(text: &str, bytes: usize) -> &str {
    match text.len() > bytes {
        true => &text[..text.floor_char_boundary(bytes)],
        false => text,
    }
}
