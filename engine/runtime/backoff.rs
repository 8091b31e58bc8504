//! Capped exponential backoff.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
/// Long enough to leave a struggling service alone, short enough that recovery is noticed.
const LONGEST: Duration = Duration::from_secs(30);

/// The waits between tries: 0.1 s doubling to 30 s.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    wait: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { wait: FIRST }
    }
}

impl Backoff {
    /// The next wait, at least `asked` where the other side named a delay.
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        let wait = self.wait.max(asked.unwrap_or_default()).min(LONGEST);
        self.wait = (self.wait * 2).min(LONGEST);
        wait
    }
}
