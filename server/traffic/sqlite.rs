//! Days from the embedded store, opened for each request: it may be created, or replaced, while the process runs.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use chrono::NaiveDate;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use super::request::{Page, Refusal};
use super::{Day, Store};

/// How long a reader waits for what only a recovery after a crash can hold up.
const PATIENCE: Duration = Duration::from_secs(5);

/// A table of a database file.
#[derive(Clone)]
pub struct File {
    pub path: PathBuf,
    pub table: String,
}

#[async_trait]
impl Store for File {
    async fn days(&self, page: &Page, limit: usize) -> Result<Vec<Day>, Refusal> {
        let (this, page) = (self.clone(), page.clone());
        let reading = tokio::task::spawn_blocking(move || {
            if !this.path.exists() {
                return Err(this.none("it does not exist"));
            }
            this.read(&page, limit).map_err(|e| match e.sqlite_error_code() {
                // A table or column that is not there has no code of its own.
                Some(ErrorCode::Unknown) => this.none(&e.to_string()),
                _ => Refusal::unavailable(e),
            })
        });
        reading.await.map_err(Refusal::unavailable)?
    }
}

impl File {
    fn read(&self, page: &Page, limit: usize) -> rusqlite::Result<Vec<Day>> {
        let at = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        at.busy_timeout(PATIENCE)?;
        let mut ask = at.prepare(&format!(
            "SELECT day, impressions, clicks FROM \"{}\" WHERE ad_id = ?1 AND day BETWEEN ?2 AND ?3 ORDER BY day LIMIT ?4",
            self.table.replace('"', "\"\"")
        ))?;
        let what = params![
            page.ad,
            page.first.to_string(),
            page.last.to_string(),
            limit as i64
        ];
        let rows = ask.query_map(what, |row| {
            let day: String = row.get(0)?;
            let day: NaiveDate = day.parse().map_err(|e| {
                rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e))
            })?;
            Ok(Day {
                day,
                impressions: row.get(1)?,
                clicks: row.get(2)?,
            })
        })?;
        rows.collect()
    }

    fn none(&self, why: &str) -> Refusal {
        Refusal::missing(format!(
            "no traffic can be read from table {:?} of {}: {why}; run a pipeline that writes it, or name another \
             with --serve",
            self.table,
            self.path.display()
        ))
    }
}
