//! One error type for everything a connector or operator can say, sorted by who must act.

use std::time::Duration;

/// Who must act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Nobody: the runtime tries the same call again, after `after` if the other side named a delay.
    Retry {
        /// The delay the other side asked for.
        after: Option<Duration>,
    },
    /// The user: a pipeline file, a path, a credential. Restarting does not help.
    Config,
    /// The user: rows that cannot be processed as the pipeline is written.
    Data,
    /// Us.
    Bug,
}

/// An error of a connector, an operator or the runtime. Messages are lower case, without a full stop,
/// and say what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side is busy, slow or away.
    #[error("{message}")]
    Retry {
        /// What happened.
        message: String,
        /// The delay the other side asked for.
        after: Option<Duration>,
    },
    /// Something the user configured is wrong.
    #[error("{0}")]
    Config(String),
    /// Rows that cannot be processed.
    #[error("{0}")]
    Data(String),
    /// A broken invariant of ours.
    #[error("{0} (this is a bug in millstream)")]
    Bug(String),
}

/// Result of everything in the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The other side is busy, slow or away.
    pub fn retry(message: impl Into<String>) -> Error {
        Error::Retry {
            message: message.into(),
            after: None,
        }
    }

    /// Something the user configured is wrong.
    pub fn config(message: impl Into<String>) -> Error {
        Error::Config(message.into())
    }

    /// Rows that cannot be processed.
    pub fn data(message: impl Into<String>) -> Error {
        Error::Data(message.into())
    }

    /// A broken invariant of ours.
    pub fn bug(message: impl Into<String>) -> Error {
        Error::Bug(message.into())
    }

    /// Who must act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::Retry { after, .. } => ErrorClass::Retry { after: *after },
            Error::Config(_) => ErrorClass::Config,
            Error::Data(_) => ErrorClass::Data,
            Error::Bug(_) => ErrorClass::Bug,
        }
    }

    /// The same error with `place: ` in front; the class stays.
    pub fn within(self, place: impl std::fmt::Display) -> Error {
        match self {
            Error::Retry { message, after } => Error::Retry {
                message: format!("{place}: {message}"),
                after,
            },
            Error::Config(m) => Error::Config(format!("{place}: {m}")),
            Error::Data(m) => Error::Data(format!("{place}: {m}")),
            Error::Bug(m) => Error::Bug(format!("{place}: {m}")),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        Error::Data(e.to_string())
    }
}
