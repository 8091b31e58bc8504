//! A firing in pieces: the windows that a watermark made due, and the result that is being made.
//!
//! A watermark after a silence can make a hundred thousand windows due, and one window can give a million
//! rows. Neither is made in one go: a call of `on_watermark` does [`PIECE_ROWS`] worth of work and says what
//! is left. Between two windows the half's watermark stands at the end of the last one that fired, which is
//! all a snapshot needs to know; within a window there is no such point.

use std::collections::VecDeque;

use datafusion::execution::SendableRecordBatchStream;
use futures::stream::Peekable;
use millstream_engine::time::Timestamp;

use super::PIECE_ROWS;

/// Most windows that fire in one call, whatever they give: to execute a plan costs about as much as to make
/// a thousand rows.
pub(super) const PIECE_WINDOWS: usize = 64;

/// What is left of a firing.
#[derive(Default)]
pub(super) struct Firing {
    /// The watermark that set it off.
    pub at: Option<Timestamp>,
    /// Ends of the windows to fire, in order.
    pub due: VecDeque<i64>,
    /// The result of the first of them, as far as it is not emitted.
    pub result: Option<Peekable<SendableRecordBatchStream>>,
}

/// The work of one call, counted in rows, not by the clock.
#[derive(Default)]
pub(super) struct Piece(usize);

impl Piece {
    /// A window fires, or a pane leaves.
    pub fn window(&mut self) {
        self.0 += PIECE_ROWS / PIECE_WINDOWS;
    }

    /// Rows are emitted.
    pub fn rows(&mut self, rows: usize) {
        self.0 += rows;
    }

    /// Whether it is enough for one call.
    pub fn is_full(&self) -> bool {
        self.0 >= PIECE_ROWS
    }
}
