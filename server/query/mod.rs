//! Runs a query and prints its rows as they come: nothing waits for the last of them.

mod print;

use std::io::{self, BufWriter, ErrorKind, Write};

use futures::StreamExt;
use millstream_engine::Error;
use millstream_operators::query::Lake;

use self::print::Printer;
use crate::cli::query::Query;

/// Why a query did not come to its end.
pub enum Failed {
    /// It is wrong, or what it reads is.
    Query(Error),
    /// Its rows could not be written.
    Output(io::Error),
}

impl From<Error> for Failed {
    fn from(e: Error) -> Failed {
        Failed::Query(e)
    }
}

/// Prints the rows of a query. Whoever closes standard output has seen enough.
pub async fn run(what: &Query) -> Result<(), Failed> {
    let lake = Lake::open(&what.lake, what.raw.as_deref()).await?;
    let printed = print(&lake, what).await;
    for (file, lines) in lake.left_out() {
        let (lines, are) = if lines == 1 {
            ("1 line".into(), "is")
        } else {
            (format!("{lines} lines"), "are")
        };
        eprintln!("warning: {lines} of {file} {are} no JSON object, and left out");
    }
    printed
}

async fn print(lake: &Lake, what: &Query) -> Result<(), Failed> {
    let rows = lake.query(&what.sql).await?;
    let mut batches = rows.batches;
    let mut printer = Printer::new(what.format, rows.schema);
    let mut to = BufWriter::new(io::stdout());
    loop {
        let printed = match batches.next().await {
            Some(batch) => printer.rows(&batch?, &mut to),
            None => match printer.end(&mut to).and_then(|()| to.flush()) {
                Ok(()) => return Ok(()),
                Err(e) => Err(e),
            },
        };
        match printed {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => return Err(Failed::Output(e)),
            Ok(()) => {}
        }
    }
}
