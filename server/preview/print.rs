//! What the streams carried: as tables for people, as JSON for programs.

use std::io::{self, BufWriter, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use millstream_engine::plan::Plan;
use millstream_engine::runtime::status::NodeStatus;

use crate::api::rows;
use crate::cli::preview::Format;
use crate::testing::table::Table;
use crate::testing::value::{Cell, cells};

/// Characters of a cell that a table shows; the bytes of a whole body can be one.
const CELL_CHARACTERS: usize = 120;

/// A stream and what it carried.
pub struct Printed<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its columns.
    pub schema: &'a SchemaRef,
    /// Its rows, in order.
    pub rows: Vec<RecordBatch>,
}

/// Writes to standard output. Whoever closes it has seen enough.
pub fn print(streams: &[Printed<'_>], format: Format) -> io::Result<()> {
    let mut to = BufWriter::new(io::stdout().lock());
    let printed = match format {
        Format::Table => tables(streams, &mut to),
        Format::Json => json(streams, &mut to),
    };
    match printed.and_then(|()| to.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn tables(streams: &[Printed<'_>], to: &mut impl Write) -> io::Result<()> {
    for (n, stream) in streams.iter().enumerate() {
        if n > 0 {
            writeln!(to)?;
        }
        let count: usize = stream.rows.iter().map(RecordBatch::num_rows).sum();
        let rows = if count == 1 { "row" } else { "rows" };
        writeln!(to, "{} ({count} {rows})", stream.name)?;
        if count > 0 {
            writeln!(to, "{}", table(stream).map_err(io::Error::other)?)?;
        }
    }
    Ok(())
}

fn table(stream: &Printed<'_>) -> Result<Table, ArrowError> {
    let fields = stream.schema.fields();
    let mut table = Table::new(
        fields
            .iter()
            .map(|f| (f.name().as_str(), f.data_type().is_numeric())),
    );
    for batch in &stream.rows {
        let columns: Result<Vec<Vec<Cell>>, _> = batch.columns().iter().map(cells).collect();
        let mut columns: Vec<_> = columns?.into_iter().map(Vec::into_iter).collect();
        for _ in 0..batch.num_rows() {
            let row = columns.iter_mut().filter_map(Iterator::next);
            table.row("", row.map(|cell| legible(&cell.to_string())));
        }
    }
    Ok(table)
}

/// A text on one line, not too long.
pub fn legible(text: &str) -> String {
    let mut shown = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == CELL_CHARACTERS {
            shown.push('…');
            break;
        }
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

fn json(streams: &[Printed<'_>], to: &mut impl Write) -> io::Result<()> {
    for stream in streams {
        let (before, after) = match streams.len() {
            1 => (String::new(), ""),
            _ => (format!("{{\"stream\":{:?},\"row\":", stream.name), "}"),
        };
        for batch in stream.rows.iter().filter(|b| b.num_rows() > 0) {
            for row in rows::lines(batch).map_err(io::Error::other)?.lines() {
                writeln!(to, "{before}{row}{after}")?;
            }
        }
    }
    Ok(())
}

/// A line for each window that had rows too late for it.
pub fn late<'a>(plan: &'a Plan, nodes: &'a [NodeStatus]) -> impl Iterator<Item = String> + 'a {
    plan.windows.iter().filter_map(|window| {
        let name = &window.name;
        let node = nodes.iter().find(|n| n.node == format!("window.{name}"))?;
        let rows = match node.rows_late {
            0 => return None,
            1 => "row",
            _ => "rows",
        };
        let count = node.rows_late;
        let kept = plan.streams.contains_key(&format!("{name}.late"));
        let shown = match kept {
            true => format!("; --stream {name}.late shows them"),
            false => String::new(),
        };
        Some(format!("{count} {rows} came too late for {name}{shown}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stay_on_their_line() {
        assert_eq!(legible("a\nb\tü"), "a\\nb\\tü");
        assert_eq!(legible(&"x".repeat(CELL_CHARACTERS)), "x".repeat(CELL_CHARACTERS));
        let long = legible(&"x".repeat(CELL_CHARACTERS + 1));
        assert_eq!(long.chars().count(), CELL_CHARACTERS + 1);
        assert!(long.ends_with('…'));
    }
}
