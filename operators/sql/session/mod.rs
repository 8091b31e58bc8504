//! Queries over session windows.
//!
//! Every session is a window of its own, so the one rule holds for each: its result is what DataFusion returns
//! for the query over that session's rows. What differs from other windows is that a row's window is not known
//! before it closes. So nothing below speaks of sessions, only of their parts, whose numbers rows carry in a
//! column of their own ([`crate::window::part_field`]):
//!
//! ```text
//! rows ─ session operator ─ lower half: state per pane and part ─┐                    once, for many sessions
//!           └ which parts closed, as which session ──────────────┴ upper half: held ─ (batched.rs)
//!                                                                                   └ or one by one
//! ```
//!
//! - Lower half: the same as for other windows, with panes as long as the gap, and with the part as a key of
//!   its own in front of every aggregate's ([`SessionSlot`]). Keys that depend on nothing but the session's bounds,
//!   as in `GROUP BY user_id, window_start`, are left for later. No session ends before a pane it has rows in
//!   does, so state leaves with its pane and is there when the session closes.
//! - `held.rs`: state by part, so that a session's is found without looking at others'.
//! - `upper.rs`: fires the sessions that a watermark closes.
//! - `batched.rs`: runs the upper plan for thousands of sessions at a time where it can be rewritten to keep them
//!   apart; where it cannot (joins, sorts, limits, ranking), the plan runs per session.

mod batched;
mod held;
#[cfg(test)]
mod oracle;
mod slot;
#[cfg(test)]
mod tests;
mod upper;

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use datafusion::physical_plan::ExecutionPlan;
use millstream_engine::sql::{WINDOW_END, WINDOW_START};
use millstream_engine::time::timestamp_type;

pub(super) use batched::batched;
pub(super) use slot::SessionSlot;
pub(super) use upper::SessionHalf;

use crate::window::part_field;

/// Sessions per execution of a batched plan, and per turn of a firing before it lets others run: large enough
/// that starting a plan costs nothing, small enough that what is in flight stays below a few MiB.
const SESSIONS_PER_RUN: usize = 8_192;

/// Plans that are executed, where each session has its own, before others have their turn; some 0.2 ms each.
const PLANS_PER_TURN: u32 = 16;

/// Columns that tell sessions apart in a batched plan: which one, its start, its end.
const HIDDEN: usize = 3;

fn hidden_fields() -> [FieldRef; HIDDEN] {
    let bound = |name| Arc::new(Field::new(name, timestamp_type(), false));
    [part_field(), bound(WINDOW_START), bound(WINDOW_END)]
}

/// The upper half's plan for all sessions at once, where there is one.
pub(super) type Batched = Option<Arc<dyn ExecutionPlan>>;
