//! The `console` sink: rows on standard output, as a table or as JSON lines.
//!
//! It is for people and pipes, so a row is printed the moment it arrives, not at the checkpoint: after a
//! crash the rows since the last checkpoint are printed again (at least once), and so are those of a dated run that is made
//! again. When the reader of the pipe
//! goes away the pipeline stops with a configuration error, as nobody would ever see the rest.

use std::io::{self, ErrorKind, Write};

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::sink::{Committable, Sink, SinkConnector, SinkContext};
use millstream_engine::source::options;
use millstream_engine::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::write_ndjson;

/// `type = "console"`.
pub struct ConsoleConnector;

/// The keys of a `console` sink.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsoleOptions {
    /// How rows look: `table` for people, `ndjson` for programs.
    #[serde(default)]
    pub format: ConsoleFormat,
}

/// How rows look on the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConsoleFormat {
    /// A table with a header per batch.
    #[default]
    Table,
    /// One JSON object per line.
    Ndjson,
}

#[async_trait]
impl SinkConnector for ConsoleConnector {
    fn name(&self) -> &'static str {
        "console"
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(ConsoleOptions)
    }

    fn check(&self, cx: &SinkContext) -> Result<()> {
        options::<ConsoleOptions>(&cx.options).map(drop)
    }

    /// Whoever reads sees the `revision`.
    fn takes_revisions(&self) -> bool {
        true
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn Sink>> {
        let ConsoleOptions { format } = options(&cx.options)?;
        let to = io::stdout();
        Ok(Box::new(ConsoleSink { format, to }))
    }
}

struct ConsoleSink<W> {
    format: ConsoleFormat,
    to: W,
}

#[async_trait]
impl<W: Write + Send> Sink for ConsoleSink<W> {
    async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        // One write per batch: rows of sinks that share the console do not mix within a batch, since
        // `Stdout` locks for the length of a call.
        let text = self.format.render(&rows)?;
        self.to
            .write_all(&text)
            .and_then(|()| self.to.flush())
            .map_err(|e| match e.kind() {
                ErrorKind::BrokenPipe => Error::config("standard output was closed by its reader"),
                _ => Error::config(format!("cannot write to standard output: {e}")),
            })
    }

    async fn prepare(&mut self, _: Barrier) -> Result<Committable> {
        Ok(Committable::default())
    }

    async fn commit(&mut self, _: Epoch, _: Committable) -> Result<()> {
        Ok(())
    }
}

impl ConsoleFormat {
    fn render(self, rows: &RecordBatch) -> Result<Vec<u8>> {
        match self {
            ConsoleFormat::Table => {
                let table = pretty_format_batches(std::slice::from_ref(rows))?;
                Ok(format!("{table}\n").into_bytes())
            }
            ConsoleFormat::Ndjson => {
                let mut text = Vec::new();
                write_ndjson(rows, &mut text)?;
                Ok(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, TimestampMicrosecondArray};
    use millstream_engine::ErrorClass;

    use super::*;

    fn rows() -> RecordBatch {
        let at = TimestampMicrosecondArray::from(vec![1_792_713_600_000_000, 1_792_713_660_500_000]);
        RecordBatch::try_from_iter([
            ("at", Arc::new(at) as ArrayRef),
            ("n", Arc::new(Int64Array::from(vec![Some(3), None]))),
            ("rate", Arc::new(Float64Array::from(vec![0.25, f64::NAN]))),
        ])
        .unwrap()
    }

    #[tokio::test]
    async fn prints_each_format() {
        let cases = [
            (
                ConsoleFormat::Ndjson,
                "{\"at\":\"2026-10-23T00:00:00Z\",\"n\":3,\"rate\":0.25}\n\
                 {\"at\":\"2026-10-23T00:01:00.500Z\",\"n\":null,\"rate\":null}\n",
            ),
            (
                ConsoleFormat::Table,
                "+-------------------------+---+------+\n\
                 | at                      | n | rate |\n\
                 +-------------------------+---+------+\n\
                 | 2026-10-23T00:00:00     | 3 | 0.25 |\n\
                 | 2026-10-23T00:01:00.500 |   | NaN  |\n\
                 +-------------------------+---+------+\n",
            ),
        ];
        for (format, expect) in cases {
            let mut sink = ConsoleSink {
                format,
                to: Vec::new(),
            };
            sink.write(rows()).await.unwrap();
            sink.write(rows().slice(0, 0)).await.unwrap();
            assert_eq!(String::from_utf8(sink.to).unwrap(), expect);
        }
    }

    #[tokio::test]
    async fn a_closed_reader_is_a_configuration_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut sink = ConsoleSink {
            format: ConsoleFormat::Ndjson,
            to: Closed,
        };
        let error = sink.write(rows()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config);
    }
}
