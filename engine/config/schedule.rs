//! Reads `[schedule]`, which makes a pipeline a bounded one.

use std::time::Duration;

use chrono::NaiveDate;

use super::check::Checker;
use super::tree::Node;
use crate::pipeline::ScheduleSpec;
use crate::schedule::{Retry, Schedule};

/// Reads the section, after the sources: only bounded ones may stand beside it.
pub(super) fn read(checker: &mut Checker<'_>) {
    let Some(section) = checker.root.get("schedule") else {
        return;
    };
    let Some(spec) = checker.read::<ScheduleSpec>(&section.node) else {
        return;
    };
    let node = &section.node;
    let start = date(checker, node, "start", spec.start.as_deref());
    let end = date(checker, node, "end", spec.end.as_deref());
    if let (Some(start), Some(end)) = (start, end)
        && start > end
    {
        checker.problems.add(
            node.at_key("end"),
            format!("`end` is {end}, before `start`, which is {start}"),
        );
    }
    if spec.every.is_some() && spec.cron.is_some() {
        checker.problems.add(
            node.at_key("cron"),
            "`every` and `cron` both say when; leave one of them out",
        );
    }
    if let Some(cron) = &spec.cron
        && let Err(e) = cron.parse::<croner::Cron>()
    {
        let help = "write minute, hour, day of month, month and day of week, such as \"0 3 * * *\"";
        let message = format!("`cron` is not a cron expression: {e}");
        checker.problems.help(node.at_key("cron"), message, help);
    }
    let retry = spec.retry;
    checker.plan.schedule = Some(Schedule {
        cron: spec.cron,
        start,
        end,
        available_after: spec.available_after.0,
        marker: spec.marker,
        catch_up: spec.catch_up,
        parallelism: spec.parallelism.max(1),
        retry: Retry {
            first: retry.first.0,
            longest: retry.longest.0,
            give_up_after: retry.give_up_after.0,
        },
        timeout: spec.timeout.0,
    });
    // Nothing happens between the start of a run and its end.
    checker.plan.checkpoint_interval = Duration::from_secs(10 * 365 * 24 * 3600);
    unbounded(checker);
}

fn unbounded(checker: &mut Checker<'_>) {
    for source in checker.plan.sources.clone() {
        let connector = checker.registry.sources.get(source.kind.as_str());
        if connector.is_some_and(|it| !it.is_bounded(&source.options)) {
            let entry = checker.root.get("source").and_then(|e| e.node.get(&source.name));
            let at = entry.map_or(0..0, |entry| entry.node.at.clone());
            let message = format!("source `{}` never ends, so a date's run would not", source.name);
            let help = "in a pipeline with a [schedule] read files or objects, without `follow = true`";
            checker.problems.help(&at, message, help);
        }
    }
}

fn date(checker: &mut Checker<'_>, node: &Node, key: &str, typed: Option<&str>) -> Option<NaiveDate> {
    let typed = typed?;
    let date = typed.parse().ok();
    if date.is_none() {
        let message = format!("\"{typed}\" is not a date");
        checker
            .problems
            .help(node.at_key(key), message, "write for example \"2026-11-24\"");
    }
    date
}
