//! Operator state on its way to and from a checkpoint: named Arrow batches.

use arrow::array::RecordBatch;

/// The state of one task's operator at a barrier.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The parts, in the order in which they are to be restored.
    pub parts: Vec<SnapshotPart>,
}

/// Some of an operator's state.
#[derive(Clone, Debug)]
pub struct SnapshotPart {
    /// The operator's own name for it, with whatever it must know to take it back (JSON where structured).
    pub label: String,
    /// The rows.
    pub rows: RecordBatch,
}

impl Snapshot {
    /// Adds a part.
    pub fn push(&mut self, label: impl Into<String>, rows: RecordBatch) {
        self.parts.push(SnapshotPart {
            label: label.into(),
            rows,
        });
    }

    /// Whether there is no state.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}
