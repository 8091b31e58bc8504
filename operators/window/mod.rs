//! How rows fall into windows.
//!
//! [`Panes`] is the pure arithmetic: which slice of time a row belongs to, which windows share that slice,
//! which window closes next. [`window_operator`] is the operator a `[window.x]` becomes in each partition:
//! it sends late rows to the side stream and lets the others pass. It does not cut batches; the SQL above
//! it does, by the same arithmetic.

mod operator;
mod panes;

#[cfg(test)]
pub(crate) use operator::ROWS_LATE_UPDATED;
pub(crate) use operator::{WATERMARK, event_times, watermark_of, watermark_rows};
pub use operator::{updating_window_operator, window_operator};
pub use panes::{Interval, Panes};
