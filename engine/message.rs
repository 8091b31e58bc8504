//! What travels on an edge: one enum, four cases, in order.

use std::time::Instant;

use arrow::array::RecordBatch;

use crate::time::Timestamp;

/// The number of a checkpoint; grows by one, never reused within a pipeline's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The next checkpoint's number.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

/// Where partial-aggregate rows belong: a slice of time and the partial aggregate that made them.
///
/// Rows of a plain stream carry no pane. Rows between the local and the global half of a windowed query do, and
/// so does what a session window tells the halves behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pane {
    /// Which of the query's lower halves made the rows.
    pub slot: u32,
    /// Start of the slice, inclusive. Its length is a property of the window.
    pub start: Timestamp,
}

/// Rows on an edge.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The rows.
    pub rows: RecordBatch,
    /// Set on partial-aggregate rows, and on what is no row of a stream at all.
    pub pane: Option<Pane>,
    /// When the watermark moved that made these rows; none on rows that no watermark made. Only for measuring.
    pub due: Option<Instant>,
}

impl From<RecordBatch> for Batch {
    fn from(rows: RecordBatch) -> Self {
        Batch {
            rows,
            pane: None,
            due: None,
        }
    }
}

/// Separates the rows of one checkpoint from those of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The checkpoint this barrier belongs to.
    pub epoch: Epoch,
    /// No row follows in this run: sinks close what they hold open.
    pub last: bool,
}

/// Event time that has moved on.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// No row with an earlier event time follows, except late ones.
    pub to: Timestamp,
    /// When the watermark of the source that was last moved. Only for measuring.
    pub since: Instant,
}

impl From<Timestamp> for Moved {
    /// Just now.
    fn from(to: Timestamp) -> Moved {
        Moved {
            to,
            since: Instant::now(),
        }
    }
}

/// Everything an edge carries.
#[derive(Clone, Debug)]
pub enum Message {
    /// Rows.
    Batch(Batch),
    /// Event time has moved on.
    Watermark(Moved),
    /// Checkpoint here.
    Barrier(Barrier),
    /// Nothing follows.
    End,
}
