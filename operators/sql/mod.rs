//! SQL over streams and windows, on DataFusion.
//!
//! One rule holds for windowed queries: the result for a window is what DataFusion returns for the query when
//! each windowed table holds exactly that window's rows. `oracle.rs` checks it query by query.
//!
//! ```text
//! text ─ check ─ plan ─ split ┬─ lower half, per partition: steps → accumulators per pane   (local.rs)
//!                             └─ upper half, once: state → final aggregate, joins, sorts    (global.rs)
//! ```
//!
//! - `check.rs`: refuses what cannot run, in the query's words and places (`errors.rs`).
//! - `plan.rs`: [`SqlPlan`](millstream_engine::sql::SqlPlan); `planning.rs` is the DataFusion session, `lines.rs` shows plans.
//! - `split.rs`: cuts the physical plan at its partial aggregates; `steps.rs`, `accumulate.rs` and `deltas.rs` are
//!   what is below the cut, `tables.rs` the leaves on both sides of it.
//! - `interval/`: joins of two streams without windows.
//! - `session/`: what is different for session windows.
//! - `enrich.rs`: queries that join a stream with reference tables, without a window.
//! - `functions/`: `window_start()` and `window_end()`, and the functions that DataFusion lacks.
//! - `revisions.rs`: firing windows again for late rows.
//! - `top.rs`: rankings that keep a few rows of each key.
//! - `assign.rs`: rows of a batch by pane; `firing.rs`: firings in pieces; `kept.rs`: the `state_limit`.

mod accumulate;
mod assign;
mod check;
mod deltas;
mod enrich;
pub(crate) mod errors;
mod event_time;
mod firing;
pub(crate) mod functions;
mod global;
mod interval;
mod kept;
#[cfg(test)]
mod late;
mod lines;
mod local;
#[cfg(test)]
mod oracle;
mod plan;
mod planning;
#[cfg(test)]
mod references;
#[cfg(test)]
mod refusals;
mod revisions;
#[cfg(test)]
mod rollup;
#[cfg(test)]
mod scale;
mod session;
mod split;
mod steps;
mod tables;
#[cfg(test)]
mod tests;
mod top;

use millstream_engine::message::Pane;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

pub use plan::DataFusionPlanner;

/// Most rows in one batch of state on its way to the global half: large enough to amortise the edge, small
/// enough that a count(distinct) over millions does not travel as one piece.
const STATE_ROWS_PER_BATCH: usize = 65_536;

/// Rows after which a half pauses in what a watermark sets off, so that what it made can leave, and other
/// tasks and barriers get their turn: some milliseconds of work, and as many rows as a batch of state has.
const PIECE_ROWS: usize = STATE_ROWS_PER_BATCH;

/// Most windows in a row that fire without rows: a week of minutes. A stream that starts with one row of 1970
/// would otherwise fire thirty million.
const CONSECUTIVE_EMPTY_WINDOWS: usize = 10_000;

/// Stack of the thread that plans. DataFusion's planner recurses through the query with frames of many
/// kilobytes in unoptimised builds; 2 MiB, the default, end at a few dozen nested expressions.
const PLANNING_STACK_BYTES: usize = 32 << 20;

/// Where a part of a snapshot belongs.
#[derive(serde::Serialize, serde::Deserialize)]
struct PartLabel {
    slot: u32,
    pane: i64,
}

fn part_label(slot: u32, pane: i64) -> Result<String> {
    serde_json::to_string(&PartLabel { slot, pane }).map_err(|e| Error::bug(format!("a snapshot label: {e}")))
}

fn part_pane(label: &str) -> Result<Pane> {
    let label: PartLabel = serde_json::from_str(label)
        .map_err(|e| Error::bug(format!("snapshot part {label:?} is not a query's state: {e}")))?;
    Ok(Pane {
        slot: label.slot,
        start: Timestamp(label.pane),
    })
}
