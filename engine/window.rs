//! Windows as checked values. How rows fall into them is `operators::window`'s.

use std::time::Duration;

/// A window whose parameters have been checked: sizes are positive whole microseconds, `size` is a multiple
/// of `step`, and so on. Windows are `[start, end)`, aligned to the Unix epoch plus `offset`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Window {
    /// Windows of one size, end to end.
    Tumbling {
        /// Length.
        size: Duration,
        /// Shift from the epoch.
        offset: Duration,
    },
    /// Windows of one size that overlap.
    Hopping {
        /// Length.
        size: Duration,
        /// From one start to the next.
        slide: Duration,
        /// Shift from the epoch.
        offset: Duration,
    },
    /// Windows that grow step by step up to their size.
    Cumulative {
        /// Length of the largest.
        size: Duration,
        /// Growth.
        step: Duration,
        /// Shift from the epoch.
        offset: Duration,
    },
    /// Windows that end when a key falls silent.
    Session {
        /// The silence that ends one.
        gap: Duration,
        /// The columns whose values have sessions of their own.
        key: Vec<String>,
    },
}
