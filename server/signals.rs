//! SIGTERM and SIGINT: the first asks for an orderly stop, the second ends the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The two signals people and supervisors send.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals over; from now on they do not end the process by themselves.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next signal's name and number.
    pub async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt().as_raw_value()),
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate().as_raw_value()),
        }
    }

    /// Ends the process at the next signal, with the code shells give to a process a signal ended. Nothing
    /// acknowledged is lost: the next start recovers as from a crash.
    pub async fn end_at_next(&mut self) -> ! {
        let (name, number) = self.next().await;
        tracing::warn!("second signal ({name}): ending at once");
        #[allow(
            clippy::disallowed_methods,
            reason = "asked twice: leave at once, nothing acked is lost"
        )]
        std::process::exit(128 + number)
    }
}
