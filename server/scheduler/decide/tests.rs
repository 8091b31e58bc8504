//! `cases.txt`: situations and what is decided in them; `backfill.txt`: the same, with dates that are asked for again.
//!
//! Dates are days of November 2026; it is the 10th, 12:00 UTC. A case is what is so, a line `--`, and what comes of
//! it: `start`, `stop`, `ask`, `wake`, `told`, the job, and the runs that are not what they were.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{Datelike, NaiveDate};
use millstream_engine::time::{Timestamp, micros};
use serde_json::json;

use super::*;
use crate::catalog::model::{Dates, Job, NewJob};
use crate::scheduler::backfill::{Backfill, newest_eligible};
use crate::scheduler::rules::Retry;

const DAY: Duration = Duration::from_secs(86_400);

/// `8`, or `10/31` of another month.
fn day(of: &str) -> NaiveDate {
    let (month, day) = of.split_once('/').unwrap_or(("11", of));
    let number = |text: &str| text.parse().expect("a number");
    NaiveDate::from_ymd_opt(2026, number(month), number(day)).expect("a date")
}

/// `3`, or `3-5`.
fn days(of: &str) -> impl Iterator<Item = NaiveDate> {
    let (first, last) = of.split_once('-').unwrap_or((of, of));
    let last = day(last);
    day(first).iter_days().take_while(move |date| *date <= last)
}

fn now() -> Timestamp {
    crate::catalog::text::read_time("2026-11-10T12:00:00Z").expect("a time")
}

fn duration(text: &str) -> Duration {
    humantime::parse_duration(text).expect("a duration")
}

fn due(at: Timestamp) -> String {
    let wait = Duration::from_micros((at.0 - now().0).unsigned_abs());
    humantime::format_duration(wait).to_string()
}

/// What a case says is so.
struct Case {
    rules: Rules,
    entry: Entry,
    in_hand: BTreeSet<NaiveDate>,
    markers: BTreeMap<NaiveDate, bool>,
    free: usize,
    backfill: Option<Backfill>,
}

#[test]
fn situations_are_decided_as_listed() {
    let cases = [include_str!("cases.txt"), include_str!("backfill.txt")].concat();
    let mut wrong = String::new();
    let mut seen = 0;
    for block in cases.split("\n== ").skip(1) {
        let (title, rest) = block.split_once('\n').expect("a title");
        let (given, expect) = rest
            .split_once("--\n")
            .unwrap_or_else(|| panic!("no -- in {title}"));
        let got = answer(given);
        if got.trim() != expect.trim() {
            wrong += &format!("\n== {title}\n{given}--\n{got}\nbut expected:\n{expect}\n");
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(seen > 40, "only {seen} cases were found");
}

fn answer(given: &str) -> String {
    let mut case = read(given);
    let before = case.entry.runs.clone();
    let mut lines = Vec::new();
    if let Some(asked) = &case.backfill {
        match asked.mark(&mut case.entry) {
            Ok(dates) => push(&mut lines, "dates", dates.iter().map(|d| d.day().to_string())),
            Err(refused) => {
                let refused = refused.to_string().replace(&case.entry.job.uuid, "JOB");
                lines.push(format!("refused: {refused}"));
            }
        }
    }
    let view = View {
        rules: &case.rules,
        worker: "me",
        in_hand: &case.in_hand,
        markers: &case.markers,
        free: case.free,
    };
    let decision = decide(&mut case.entry, &view);
    let starts = decision.start.iter().map(|(date, phase, attempt)| {
        let phase = if *phase == Phase::Load {
            "load"
        } else {
            "transform"
        };
        format!("{} {phase} #{attempt}", date.day())
    });
    push(&mut lines, "start", starts);
    push(
        &mut lines,
        "stop",
        decision.stop.iter().map(|d| d.day().to_string()),
    );
    push(
        &mut lines,
        "ask",
        decision.ask.iter().map(|d| d.day().to_string()),
    );
    push(&mut lines, "wake", decision.wake.map(due).into_iter());
    let told = case.entry.notices();
    push(
        &mut lines,
        "told",
        told.iter().map(|event| event.name().to_owned()),
    );
    lines.push(if case.entry.removed() {
        "job: gone".into()
    } else {
        job_line(&case.entry.job)
    });
    for (date, run) in &case.entry.runs {
        if before.get(date).map(|run| run.status) != Some(run.status) {
            lines.push(run_line(run));
        }
    }
    lines.join("\n")
}

fn push(lines: &mut Vec<String>, name: &str, what: impl Iterator<Item = String>) {
    let what: Vec<String> = what.collect();
    if !what.is_empty() {
        lines.push(format!("{name}: {}", what.join(", ")));
    }
}

fn job_line(job: &Job) -> String {
    let mut line = format!("job: {}", job.status.name());
    let asked = [
        (job.pause_requested, " pause"),
        (job.cancel_requested, " cancel"),
        (job.delete_requested, " delete"),
    ];
    line.extend(asked.iter().filter(|(on, _)| *on).map(|(_, word)| *word));
    if let Some(error) = &job.error {
        line += &format!(" ({error})");
    }
    line
}

fn run_line(run: &Run) -> String {
    let mut line = format!("{}: {}", run.date.day(), run.status.name());
    if run.given_up {
        line += " given_up";
    }
    if let Some(at) = run.next_try_at {
        line += &format!(" next={}", due(at));
    }
    line
}

fn read(given: &str) -> Case {
    let new: NewJob = serde_json::from_value(json!({
        "log_name": "l", "log_schema_version": "1", "s3_path": "s3://b", "start_date": "2026-11-01", "redshift_id": "c",
    }))
    .expect("a job");
    let mut case = Case {
        rules: Rules {
            start: day("1"),
            end: None,
            newest: newest_eligible(now(), 2 * DAY),
            next_look: now().plus(DAY / 2),
            marker: false,
            catch_up: true,
            parallelism: 3,
            retry: Retry::default(),
            timeout: None,
        },
        entry: Entry::new(
            Job::new(new, now().minus(30 * DAY)),
            Vec::new(),
            ["me".to_owned()].into(),
            now(),
        ),
        in_hand: BTreeSet::new(),
        markers: BTreeMap::new(),
        free: 10,
        backfill: None,
    };
    for line in given.lines() {
        let (name, rest) = line
            .split_once(':')
            .unwrap_or_else(|| panic!("no colon in {line}"));
        let words = rest.split_whitespace();
        match name {
            "rules" => words.for_each(|word| rule(&mut case, word)),
            "job" => words.for_each(|word| job_word(&mut case.entry.job, word)),
            "alive" => case.entry.alive = words.map(str::to_owned).collect(),
            "backfill" => case.backfill = Some(backfill(words.collect())),
            "hand" => case.in_hand = words.map(day).collect(),
            "markers" => {
                for (of, is) in words.filter_map(|word| word.split_once('=')) {
                    case.markers.extend(days(of).map(|date| (date, is == "yes")));
                }
            }
            of => runs(&mut case, of, words.collect()),
        }
    }
    case.entry.job.dates = Dates::of(case.entry.runs.values());
    case
}

/// `3-5 load_only`.
fn backfill(words: Vec<&str>) -> Backfill {
    let (first, last) = words[0].split_once('-').unwrap_or((words[0], words[0]));
    let is = |what: &str| words.contains(&what);
    let parallelism = words.iter().find_map(|word| word.strip_prefix("parallelism="));
    Backfill {
        from: day(first),
        to: day(last),
        dry_run: is("dry_run"),
        transform_only: is("transform_only"),
        load_only: is("load_only"),
        retry_errors: is("retry_errors"),
        parallelism: parallelism.map(|n| n.parse().expect("a number")),
        force: is("force"),
    }
}

fn rule(case: &mut Case, word: &str) {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    let rules = &mut case.rules;
    match key {
        "start" => rules.start = day(value),
        "end" => rules.end = Some(day(value)),
        "available_after" => rules.newest = newest_eligible(now(), duration(value)),
        "marker" => rules.marker = true,
        "newest_only" => rules.catch_up = false,
        "parallelism" => rules.parallelism = value.parse().expect("a number"),
        "timeout" => rules.timeout = Some(duration(value)),
        "free" => case.free = value.parse().expect("a number"),
        other => panic!("no rule {other}"),
    }
}

fn job_word(job: &mut Job, word: &str) {
    match word {
        "pause" => job.pause_requested = true,
        "cancel" => job.cancel_requested = true,
        "delete" => job.delete_requested = true,
        word => match word.strip_prefix("backfill=") {
            Some(n) => job.backfill_parallelism = Some(n.parse().expect("a number")),
            None => job.status = JobState::named(word).expect("a state"),
        },
    }
}

/// `1-4: load_success` or `5: et_started worker=other ago=7h`.
fn runs(case: &mut Case, of: &str, words: Vec<&str>) {
    for date in days(of) {
        let mut run = Run::new(date);
        run.worker = Some("me".into());
        run.attempt = 1;
        for word in &words {
            run_word(&mut run, word);
        }
        if run.status.in_flight() && run.worker.as_deref() == Some("me") && !words.contains(&"lost") {
            case.in_hand.insert(date);
        }
        case.entry.runs.insert(date, run);
    }
}

fn run_word(run: &mut Run, word: &str) {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    match key {
        "lost" => {}
        "worker" => run.worker = Some(value.into()),
        "ago" => {
            run.et_started_at = Some(now().minus(duration(value)));
            run.load_started_at = run.et_started_at;
        }
        "next" => run.next_try_at = Some(Timestamp(now().0 + micros(duration(value)))),
        "failures" => {
            run.failures = value.parse().expect("a number");
            run.failing_since = Some(now().minus(DAY / 24));
            run.error = Some("away".into());
        }
        "since" => run.failing_since = Some(now().minus(duration(value))),
        "given_up" => {
            run.given_up = true;
            run.failures = 1;
            run.error = Some("broken".into());
        }
        "backfill" => run.backfill = true,
        "forced" => run.forced = true,
        "transform_only" => run.extent = Extent::Transform,
        state => run.status = RunState::named(state).unwrap_or_else(|| panic!("no state {state}")),
    }
}
