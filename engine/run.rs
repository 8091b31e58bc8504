//! The run of a date.

/// What a source or a sink has to know of the dated run that it is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatedRun {
    /// The date.
    pub date: chrono::NaiveDate,
    /// Which attempt at it, from 1.
    pub attempt: u32,
}
