//! Telling people what becomes of their jobs, by mail and by webhook.
//!
//! The catalog writes a notice into its outbox in the transaction of the change it tells of, so none is lost.
//! [`deliver`] takes what is due, sends it to everyone it is meant for, and marks each of them once the receiver has
//! taken it: a process that dies in between sends again (at least once; [`message::key`] and the mail's `Message-ID`
//! are the same then). A server that is down, or says "later", is asked again, for as long as it takes. What a server
//! refuses for good is marked `failed` with its reason, which `GET /v1/notices` and `/metrics` show.

pub mod deliver;
pub mod mail;
pub mod message;
pub mod settings;
pub mod webhook;

use std::time::Duration;

/// How long a server may take to answer.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// What came of one attempt to tell someone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Taken,
    /// The receiver will never take it.
    Refused(String),
    /// Not now; not before the time given, if any.
    Later(String, Option<Duration>),
}
