//! How rows fall into windows.
//!
//! [`Panes`] is the pure arithmetic: which slice of time a row belongs to, which windows share that slice,
//! which window closes next. [`window_operator`] is the operator a `[window.x]` becomes in each partition:
//! it sends late rows to the side stream and lets the others pass. It does not cut batches; the SQL above
//! it does, by the same arithmetic.
//!
//! Sessions are another matter: where they begin and end depends on the rows of their key. `sessions.rs` is that
//! arithmetic, [`session_operator`] the operator, which runs once, behind all partitions.

mod operator;
mod panes;
mod session;
#[cfg(test)]
pub(crate) mod session_model;
mod sessions;

#[cfg(test)]
pub(crate) use operator::ROWS_LATE_UPDATED;
pub(crate) use operator::{WATERMARK, event_times, watermark_of, watermark_rows};
pub use operator::{updating_window_operator, window_operator};
pub use panes::{Interval, Panes};
pub use session::session_operator;
pub(crate) use session::{CLOSED, can_be_key, closed_sessions, part_field};
pub(crate) use sessions::ClosedSession;
