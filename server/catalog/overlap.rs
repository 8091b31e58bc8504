//! Loads that would take each other's rows away: a date of a load replaces what its tables hold of that date, so no two
//! loads have a table and a date in common.
//!
//! A cancelled load loads nothing; it is looked at again when it is taken up. A complete one stands in the way until it is
//! deleted, as its dates can be made again.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use millstream_operators::formats::log::LogSchema;
use rusqlite::Transaction;

use crate::catalog::model::{Job, JobKind};
use crate::catalog::state::JobState;
use crate::catalog::{CatalogError, Result, registered, rows};

/// Dates, both inclusive; the last may be open.
pub(super) type Dates = (NaiveDate, Option<NaiveDate>);

/// Where a load puts its rows.
struct Tables {
    /// Host, port, database and namespace: two clusters may be one warehouse.
    place: (String, u16, String, String),
    names: BTreeSet<String>,
}

/// Refuses these dates of a load.
///
/// # Errors
/// [`CatalogError::Conflict`]: another load has one of them in one of its tables.
pub(super) fn refuse(of: &Transaction<'_>, job: &Job, dates: Dates) -> Result<()> {
    if job.kind != JobKind::Load {
        return Ok(());
    }
    let Some(mine) = Tables::of(of, job)? else {
        return Ok(());
    };
    for other in rows::jobs(of)? {
        let lives = other.kind == JobKind::Load && other.status != JobState::Cancelled;
        let meets = meet(dates, (other.start_date, other.end_date));
        if !lives || !meets || other.uuid == job.uuid {
            continue;
        }
        let Some(theirs) = Tables::of(of, &other)? else {
            continue;
        };
        let common = mine.names.intersection(&theirs.names).next();
        if let Some(table) = common.filter(|_| mine.place == theirs.place) {
            let (uuid, start) = (&other.uuid, other.start_date);
            let until = other.end_date.map(|end| format!(" to {end}")).unwrap_or_default();
            return Err(CatalogError::Conflict(format!(
                "the job {uuid} loads the table {table} of the same warehouse from {start}{until}, and each would take \
                 the other's rows away; choose other dates, or cancel or delete that job first"
            )));
        }
    }
    Ok(())
}

fn meet(a: Dates, b: Dates) -> bool {
    b.1.is_none_or(|end| a.0 <= end) && a.1.is_none_or(|end| b.0 <= end)
}

impl Tables {
    /// None: its cluster or its schema is gone, so it loads nothing.
    fn of(of: &Transaction<'_>, job: &Job) -> Result<Option<Tables>> {
        let Some(cluster) = registered::cluster(of, &job.redshift_id)? else {
            return Ok(None);
        };
        let Some(schema) = registered::schema_text(of, &job.log_name, &job.log_schema_version)? else {
            return Ok(None);
        };
        // It was checked when it was posted.
        let Ok(schema) = LogSchema::parse("schema", &schema) else {
            return Ok(None);
        };
        Ok(Some(Tables {
            place: (
                cluster.host.to_ascii_lowercase(),
                cluster.port,
                cluster.database,
                cluster.namespace.to_ascii_lowercase(),
            ),
            // A warehouse makes no difference between cases.
            names: schema
                .tables
                .iter()
                .map(|table| table.name.to_ascii_lowercase())
                .collect(),
        }))
    }
}
