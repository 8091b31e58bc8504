//! How long a reader waits between two GetRecords of a shard.
//!
//! A shard answers five GetRecords a second and 2 MiB a second, whoever asks: more is refused, and costs
//! other readers of the stream their share. So a reader asks as often as pays: at once, within the limits,
//! while there is more to read; rarely when little comes, since calls that bring nothing count too.

use std::time::Duration;

/// What a shard, or whatever stands in for it, gives to one reader.
#[derive(Clone, Copy, Debug)]
pub struct ShardLimits {
    /// From one call to the next, at least.
    pub between_calls: Duration,
    /// Bytes in a second, at most.
    pub bytes_per_second: f64,
}

impl ShardLimits {
    /// Those of Kinesis Data Streams: five calls and 2 MiB in a second.
    pub const KINESIS: ShardLimits = ShardLimits {
        between_calls: Duration::from_millis(200),
        bytes_per_second: (2 << 20) as f64,
    };
    /// As fast as answers come.
    pub const NONE: ShardLimits = ShardLimits {
        between_calls: Duration::ZERO,
        bytes_per_second: f64::INFINITY,
    };
}

/// A caught-up reader that gets less waits longer: a quarter of a mebibyte is what 2 MiB a second
/// bring in the shortest wait, and a little more.
const LITTLE: usize = 64 << 10;
/// A row that has arrived waits this long at most to be asked for, while rows keep arriving.
const LONGEST_WAIT_FOR_LITTLE: Duration = Duration::from_millis(500);
/// The same for the first row after a silence: what the Kinesis Client Library waits by default.
const LONGEST_WAIT_FOR_NOTHING: Duration = Duration::from_secs(1);
/// A shard that refuses has other readers; its limit is counted per second.
const LONGEST_WAIT_AFTER_REFUSAL: Duration = Duration::from_secs(5);
const SHORTEST_WAIT_AFTER_REFUSAL: Duration = Duration::from_millis(400);

/// The pace of one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    limits: ShardLimits,
    wait: Duration,
}

impl Pace {
    pub fn new(limits: ShardLimits) -> Pace {
        Pace {
            limits,
            wait: limits.between_calls,
        }
    }

    /// How long to wait, from the start of a call that brought `bytes` and left the reader `behind` the newest
    /// record or not, to the next call.
    pub fn after(&mut self, bytes: usize, behind: bool) -> Duration {
        let shortest = self.limits.between_calls;
        self.wait = match bytes {
            _ if behind => shortest,
            0 => grown(self.wait, shortest, LONGEST_WAIT_FOR_NOTHING),
            _ if bytes < LITTLE => grown(self.wait, shortest, LONGEST_WAIT_FOR_LITTLE),
            _ => shortest,
        };
        let earned = bytes as f64 / self.limits.bytes_per_second;
        self.wait.max(Duration::from_secs_f64(earned))
    }

    /// How long to wait when the shard refused: longer each time.
    pub fn refused(&mut self) -> Duration {
        self.wait = grown(self.wait, SHORTEST_WAIT_AFTER_REFUSAL, LONGEST_WAIT_AFTER_REFUSAL);
        self.wait
    }
}

fn grown(wait: Duration, shortest: Duration, longest: Duration) -> Duration {
    // A wait that was longer for another reason comes down at once.
    (wait.max(Duration::from_millis(50)) * 2)
        .max(shortest)
        .min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `empty`, `behind BYTES`, `got BYTES`, `refused`; and after each the wait in milliseconds.
    #[test]
    fn waits() {
        for (script, expect) in [
            ("empty; empty; empty; empty", "400 800 1000 1000"),
            ("got 100; got 100; got 100", "400 500 500"),
            ("empty; empty; got 100; got 70000", "400 800 500 200"),
            // Behind: within the limits at once, however little came.
            ("empty; empty; behind 0; behind 9", "400 800 200 200"),
            // A read of 10 MiB is five seconds' worth.
            ("behind 10485760; behind 1048576; behind 65536", "5000 500 200"),
            ("got 10485760; empty", "5000 400"),
            (
                "refused; refused; refused; refused; refused",
                "400 800 1600 3200 5000",
            ),
            ("refused; refused; behind 9; refused", "400 800 200 400"),
            ("refused; refused; refused; empty", "400 800 1600 1000"),
        ] {
            let mut pace = Pace::new(ShardLimits::KINESIS);
            let waits: Vec<String> = script
                .split("; ")
                .map(|step| match step.split_once(' ') {
                    Some(("behind", bytes)) => pace.after(bytes.parse().unwrap(), true),
                    Some((_, bytes)) => pace.after(bytes.parse().unwrap(), false),
                    None if step == "empty" => pace.after(0, false),
                    None => pace.refused(),
                })
                .map(|wait| wait.as_millis().to_string())
                .collect();
            assert_eq!(waits.join(" "), expect, "{script}");
        }
    }

    /// Whatever comes, no second has more than five calls or 2 MiB more than the largest answer.
    #[test]
    fn limits_hold() {
        for bytes in [0, 1, 70_000, 300_000, 1 << 20, 10 << 20] {
            let mut pace = Pace::new(ShardLimits::KINESIS);
            let time: Duration = (0..50).map(|_| pace.after(bytes, true)).sum();
            assert!(time >= Duration::from_secs(10), "{bytes}: {time:?}");
            let rate = (50 * bytes) as f64 / time.as_secs_f64();
            assert!(rate <= (2 << 20) as f64 * 1.001, "{bytes}: {rate} bytes/s");
        }
    }
}
