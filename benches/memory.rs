//! Memory of this process, as Linux counts it.

use anyhow::Context;

/// Starts to look for a new peak; how much there is now.
pub fn forget_peak() -> anyhow::Result<u64> {
    std::fs::write("/proc/self/clear_refs", "5")?;
    now()
}

/// How much there is.
pub fn now() -> anyhow::Result<u64> {
    status("VmRSS:")
}

/// The most there was since.
pub fn peak() -> anyhow::Result<u64> {
    status("VmHWM:")
}

fn status(key: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes
        .context("Linux says how much memory a process has")?
        .parse::<u64>()?
        * 1024)
}
