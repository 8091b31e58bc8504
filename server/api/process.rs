//! Metrics of the process itself, under the names Prometheus dashboards know, read from Linux's /proc; and how many
//! notices are where.

use std::fmt::Write;
use std::fs;

use millstream_engine::time::Timestamp;

use crate::catalog::StateCounts;
use crate::catalog::model::NoticeState;

/// Ends every OpenMetrics text.
const END: &str = "# EOF\n";
/// Linux counts CPU time in hundredths of a second for user space, whatever the kernel's own rate
/// (`USER_HZ`, proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// `text` (OpenMetrics) with the process's metrics before its end. What cannot be read is left out.
pub fn append(
    text: &str,
    started: Timestamp,
    notices: &[(NoticeState, i64)],
    states: &StateCounts,
) -> String {
    let mut all = text.strip_suffix(END).unwrap_or(text).to_owned();
    let mut gauge = |name: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = writeln!(all, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
    };
    gauge(
        "process_start_time_seconds",
        "When the process started, since the Unix epoch.",
        Some(started.0 as f64 / 1e6),
    );
    gauge(
        "process_resident_memory_bytes",
        "Memory in use.",
        resident_bytes(),
    );
    gauge("process_open_fds", "Open file descriptors.", open_files());
    if let Some(seconds) = cpu_seconds() {
        let _ = writeln!(
            all,
            "# HELP process_cpu_seconds CPU time spent.\n# TYPE process_cpu_seconds counter\n\
             process_cpu_seconds_total {seconds}"
        );
    }
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(
        all,
        "# HELP millstream_build What runs.\n# TYPE millstream_build info\n\
         millstream_build_info{{version=\"{version}\"}} 1"
    );
    if !notices.is_empty() {
        all += "# HELP millstream_notices Notices about jobs of the last 30 days, by state.\n\
                # TYPE millstream_notices gauge\n";
    }
    for (state, count) in notices {
        let _ = writeln!(all, "millstream_notices{{state=\"{}\"}} {count}", state.name());
    }
    for (name, help, counts) in [
        ("millstream_jobs", "Jobs, by state.", &states.jobs),
        ("millstream_runs", "Dates of jobs, by state.", &states.runs),
    ] {
        if !counts.is_empty() {
            let _ = writeln!(all, "# HELP {name} {help}\n# TYPE {name} gauge");
        }
        for (state, count) in counts {
            let _ = writeln!(all, "{name}{{state=\"{state}\"}} {count}");
        }
    }
    all.push_str(END);
    all
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

fn open_files() -> Option<f64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the command in parentheses, may hold spaces; utime and stime are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n - 3)?.parse::<f64>().ok();
    Some((ticks(14)? + ticks(15)?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_stays_openmetrics() {
        let text = append(
            "# TYPE a counter\na_total 1\n# EOF\n",
            Timestamp(1_500_000),
            &[(NoticeState::Failed, 2)],
            &StateCounts {
                jobs: [("error".into(), 3)].into(),
                ..StateCounts::default()
            },
        );
        assert!(text.starts_with("# TYPE a counter\na_total 1\n"), "{text}");
        assert!(text.contains("\nprocess_start_time_seconds 1.5\n"), "{text}");
        assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
        assert!(
            text.contains("\nmillstream_notices{state=\"failed\"} 2\n"),
            "{text}"
        );
        assert!(text.contains("\nmillstream_jobs{state=\"error\"} 3\n"), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1);
        assert!(text.ends_with("# EOF\n"));
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1e5));
    }
}
