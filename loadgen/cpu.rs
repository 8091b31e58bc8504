//! How busy the two sides of a run were, from Linux's `/proc`: who was the limit, the client or the server.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

/// Ticks a second in `/proc`: `USER_HZ`, fixed in Linux's ABI.
const TICKS: f64 = 100.0;

/// A process that is watched. Its children are not.
#[derive(Debug)]
pub struct Watched {
    pid: String,
    at_start: f64,
}

/// What a process used during the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Usage {
    /// CPU time, user plus system.
    pub cpu_seconds: f64,
    /// Cores it may run on.
    pub cores: usize,
    /// Share of the time of those cores: at 1.0 it was saturated.
    pub busy: f64,
}

impl Watched {
    /// This process.
    pub fn me() -> Option<Watched> {
        Watched::start("self".to_owned()).ok()
    }

    /// Another process of this machine.
    pub fn process(pid: u32) -> anyhow::Result<Watched> {
        Watched::start(pid.to_string())
            .with_context(|| format!("--server-pid {pid}: no such process on this machine"))
    }

    fn start(pid: String) -> anyhow::Result<Watched> {
        let at_start = cpu_seconds(&pid)?;
        Ok(Watched { pid, at_start })
    }

    /// What it used since, if it still lives. `threads` is the most it can use at once, if that is known.
    pub fn usage(&self, took: Duration, threads: Option<usize>) -> Option<Usage> {
        let cpu_seconds = cpu_seconds(&self.pid).ok()? - self.at_start;
        let cores = cores(&self.pid)?.min(threads.unwrap_or(usize::MAX));
        let busy = cpu_seconds / (took.as_secs_f64().max(1e-9) * cores as f64);
        Some(Usage {
            cpu_seconds,
            cores,
            busy,
        })
    }
}

impl Usage {
    /// `97 % of its core`.
    pub fn line(&self) -> String {
        let of = match self.cores {
            1 => "core".to_owned(),
            cores => format!("{cores} cores"),
        };
        format!("{:.0} % of its {of}", self.busy * 100.0)
    }
}

fn cpu_seconds(pid: &str) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    ticks(&stat)
        .map(|ticks| ticks as f64 / TICKS)
        .context("/proc/PID/stat is not as Linux writes it")
}

/// User and system time of all threads: the 14th and 15th field, counted from behind the name, which may have spaces.
fn ticks(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// How many cores the process may use: `Cpus_allowed_list: 0-1,4`.
fn cores(pid: &str) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(last.parse::<usize>().ok()? + 1 - first.parse::<usize>().ok()?)
    };
    list.trim().split(',').map(range).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_odd_name_is_read() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 130 9 9 20 0 4 0 9 9 9";
        assert_eq!(ticks(stat), Some(380));
        assert_eq!(ticks("7 (torn) S 1"), None);
    }

    #[test]
    fn work_is_seen() {
        let me = Watched::me().expect("Linux");
        let started = std::time::Instant::now();
        let usage = loop {
            let usage = me.usage(started.elapsed(), Some(1)).expect("alive");
            if usage.cpu_seconds >= 0.05 {
                break usage;
            }
        };
        assert_eq!(usage.cores, 1);
        assert!(
            usage.busy > 0.0 && usage.line().ends_with("of its core"),
            "{usage:?}"
        );
        assert!(Watched::process(u32::MAX).is_err());
    }
}
