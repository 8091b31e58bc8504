//! The proof: every acked row is in the lake exactly once, no refused row is, unknown rows are there at most
//! once, rows are what was sent, and the published window counts are those of the lake.
//!
//! It trusts only the ledger (written by the client) and what an outsider can read. A proof about
//! nothing is no proof: a ledger without a single acked row fails.

mod counts;
mod lake;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;

use crate::config::parse_duration;
use crate::ledger::{Fate, History, content};
use crate::report::grouped;
use crate::rows::{Row, Stream, Uuid, format_time};

use counts::Counts;

/// Flags of `verify`.
#[derive(Args, Clone)]
pub struct VerifyArgs {
    /// Ledger written by `loadgen run --ledger`; may be given several times
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub ledger: Vec<PathBuf>,
    /// Folder that holds impressions/ and clicks/ as Parquet
    #[arg(long, value_name = "DIR")]
    pub lake: PathBuf,
    /// Published counts, NDJSON of {"at","impressions","clicks"} or {"name","at","value"}
    #[arg(long, visible_alias = "metrics", value_name = "FILE", num_args = 1..)]
    pub counts: Vec<PathBuf>,
    /// Size of the windows whose counts were published
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    pub window: Duration,
    /// The lake also holds rows of others: do not fail on rows that are not in the ledger
    #[arg(long)]
    pub other_traffic: bool,
}

/// Broken promises that are shown one by one; the table has all their counts.
const MAX_EXAMPLES: usize = 12;

/// Checks the proof, prints it, and returns the exit code: 0 it holds, 1 it does not.
pub fn verify(args: &VerifyArgs) -> anyhow::Result<u8> {
    let proof = Proof::make(args)?;
    print!("{proof}");
    Ok(if proof.holds() { 0 } else { 1 })
}

/// What was found for one stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    acked: u64,
    missing: u64,
    refused: u64,
    refused_found: u64,
    unknown: u64,
    unknown_found: u64,
    files: u64,
    in_lake: u64,
    repeated: u64,
    foreign: u64,
    altered: u64,
    windows: u64,
    windows_wrong: u64,
    windows_repeated: u64,
}

/// The whole finding.
#[derive(Default)]
struct Proof {
    streams: [Found; 2],
    torn_ledger_lines: u64,
    unreadable_count_lines: u64,
    with_counts: bool,
    other_traffic: bool,
    examples: Vec<String>,
}

impl Proof {
    fn make(args: &VerifyArgs) -> anyhow::Result<Proof> {
        ensure!(
            args.lake.is_dir(),
            "the lake {} is not a folder",
            args.lake.display()
        );
        ensure!(args.window >= Duration::from_millis(1), "--window is below 1ms");
        let mut history = History::default();
        for path in &args.ledger {
            history.read(path)?;
        }
        let mut proof = Proof {
            torn_ledger_lines: history.torn_lines,
            with_counts: !args.counts.is_empty(),
            other_traffic: args.other_traffic,
            ..Proof::default()
        };
        let mut lake_windows = BTreeMap::new();
        for stream in Stream::ALL {
            proof.read_lake(args, stream, &mut history, &mut lake_windows)?;
            proof.settle(stream, &mut history);
        }
        if proof.with_counts {
            proof.compare_windows(args, &lake_windows)?;
        }
        Ok(proof)
    }

    /// Looks up every row of the lake in the ledger.
    fn read_lake(
        &mut self,
        args: &VerifyArgs,
        stream: Stream,
        history: &mut History,
        windows: &mut BTreeMap<(Stream, i64), u64>,
    ) -> anyhow::Result<()> {
        let size = args.window.as_micros() as i64;
        let mut foreign = HashSet::new();
        let sent = history.of(stream);
        let files = lake::read_stream(&args.lake, stream, |row| {
            self.streams[stream as usize].in_lake += 1;
            *windows
                .entry((stream, row.occurred_at.div_euclid(size) * size))
                .or_default() += 1;
            match sent.get_mut(&row.id) {
                Some(known) => {
                    known.seen += 1;
                    let same = known.occurred_at == row.occurred_at
                        && known.content == content(row.impression, row.ad);
                    self.check_row(stream, &row, known.seen, same);
                }
                None => self.check_foreign(stream, row.id, foreign.insert(row.id)),
            }
        })
        .with_context(|| format!("cannot read the {stream} of the lake"))?;
        self.streams[stream as usize].files = files as u64;
        Ok(())
    }

    fn check_row(&mut self, stream: Stream, row: &Row, seen: u32, same: bool) {
        if seen == 2 {
            self.streams[stream as usize].repeated += 1;
            self.example(|| format!("{} {} is in the lake more than once", stream.id_column(), row.id));
        }
        if !same {
            self.streams[stream as usize].altered += 1;
            self.example(|| {
                let at = format_time(row.occurred_at);
                format!("{} {} differs from what was sent: in the lake ad_id {}, impression_id {}, occurred_at {at}",
                    stream.id_column(), row.id, row.ad, row.impression)
            });
        }
    }

    fn check_foreign(&mut self, stream: Stream, id: Uuid, first: bool) {
        let found = &mut self.streams[stream as usize];
        if first {
            found.foreign += 1;
        } else {
            found.repeated += 1;
        }
        if !first {
            self.example(|| format!("{} {id} is in the lake more than once", stream.id_column()));
        } else if !self.other_traffic {
            self.example(|| format!("{} {id} is in the lake but not in the ledger", stream.id_column()));
        }
    }

    /// Looks at every row of the ledger, now that the lake was read.
    fn settle(&mut self, stream: Stream, history: &mut History) {
        for (id, row) in history.of(stream).iter() {
            let found = &mut self.streams[stream as usize];
            let there = u64::from(row.seen > 0);
            match row.fate {
                Fate::Acked => {
                    found.acked += 1;
                    found.missing += 1 - there;
                }
                Fate::Refused => {
                    found.refused += 1;
                    found.refused_found += there;
                }
                Fate::Unknown => {
                    found.unknown += 1;
                    found.unknown_found += there;
                }
            }
            match (row.fate, there) {
                (Fate::Acked, 0) => self.example(|| {
                    let at = format_time(row.occurred_at);
                    format!(
                        "{} {id} of {at} was acked and is not in the lake",
                        stream.id_column()
                    )
                }),
                (Fate::Refused, 1) => {
                    self.example(|| format!("{} {id} was refused and is in the lake", stream.id_column()));
                }
                _ => {}
            }
        }
    }

    fn compare_windows(
        &mut self,
        args: &VerifyArgs,
        lake: &BTreeMap<(Stream, i64), u64>,
    ) -> anyhow::Result<()> {
        let mut counts = Counts::default();
        for path in &args.counts {
            counts.read(path)?;
        }
        self.unreadable_count_lines = counts.unreadable;
        let keys: BTreeSet<_> = lake.keys().chain(counts.windows.keys()).copied().collect();
        for (stream, at) in keys {
            let published = counts.windows.get(&(stream, at)).copied().unwrap_or_default();
            let in_lake = lake.get(&(stream, at)).copied().unwrap_or_default();
            let found = &mut self.streams[stream as usize];
            found.windows += 1;
            found.windows_wrong += u64::from(published.count != in_lake);
            found.windows_repeated += u64::from(published.times > 1);
            if published.count != in_lake || published.times > 1 {
                self.example(|| {
                    let (count, times) = (published.count, published.times);
                    format!("{stream} of the window at {}: published {count} in {times} lines, the lake has {in_lake}", format_time(at))
                });
            }
        }
        Ok(())
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(text());
        }
    }

    /// Promises broken by one stream.
    fn broken(&self, found: &Found) -> u64 {
        let foreign = if self.other_traffic { 0 } else { found.foreign };
        let rows = found.missing + found.refused_found + found.repeated + found.altered + foreign;
        rows + found.windows_wrong + found.windows_repeated
    }

    fn proves_something(&self) -> bool {
        self.streams.iter().any(|found| found.acked > 0)
    }

    fn holds(&self) -> bool {
        self.proves_something() && self.streams.iter().all(|found| self.broken(found) == 0)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: fn(&Found) -> u64| {
            let [impressions, clicks] = self.streams.each_ref().map(|found| grouped(value(found)));
            writeln!(f, "{name:<32}{impressions:>14}{clicks:>14}")
        };
        line("acked rows", |found| found.acked)?;
        line("  missing from the lake     (0)", |found| found.missing)?;
        line("refused rows", |found| found.refused)?;
        line("  found in the lake         (0)", |found| found.refused_found)?;
        line("rows without an answer", |found| found.unknown)?;
        line("  found in the lake", |found| found.unknown_found)?;
        line("rows in the lake", |found| found.in_lake)?;
        line("  in files", |found| found.files)?;
        line("  more than once            (0)", |found| found.repeated)?;
        line("  not as they were sent     (0)", |found| found.altered)?;
        let foreign = if self.other_traffic {
            "  of others"
        } else {
            "  not in the ledger         (0)"
        };
        line(foreign, |found| found.foreign)?;
        if self.with_counts {
            line("windows in the lake or published", |found| found.windows)?;
            line("  counts differ             (0)", |found| found.windows_wrong)?;
            line("  published more than once  (0)", |found| found.windows_repeated)?;
        }
        if self.torn_ledger_lines + self.unreadable_count_lines > 0 {
            let (ledger, counts) = (self.torn_ledger_lines, self.unreadable_count_lines);
            writeln!(
                f,
                "unreadable lines: {ledger} of the ledger (one for each kill of loadgen), {counts} of the counts"
            )?;
        }
        for example in &self.examples {
            writeln!(f, "! {example}")?;
        }
        let verdict = match (self.holds(), self.proves_something()) {
            (true, _) => "holds: every acked row is in the lake exactly once",
            (false, true) => "broken: see the lines above whose number should be (0)",
            (false, false) => "proves nothing: the ledger holds no acked row",
        };
        writeln!(f, "{verdict}")
    }
}
