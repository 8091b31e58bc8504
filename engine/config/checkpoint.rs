//! How often a pipeline takes checkpoints: as written, or as its sources need it.

use std::time::Duration;

use super::check::Checker;
use crate::pipeline::CheckpointSpec;

/// Seldom enough that nothing is noticed of it.
const INTERVAL: Duration = Duration::from_secs(10);
/// Where clients wait for checkpoints. What one costs with nothing to save, some milliseconds, is little of it, and a
/// person who waits for it is not disturbed yet.
const INTERVAL_AWAITED: Duration = Duration::from_millis(200);

/// Reads `[checkpoint]`, after the sources.
pub(super) fn read(checker: &mut Checker<'_>) {
    let section = checker.root.get("checkpoint");
    let spec = section.and_then(|e| checker.read::<CheckpointSpec>(&e.node));
    let written = spec.and_then(|spec| spec.interval).map(|interval| interval.0);
    let patience = patience(checker);
    let default = match patience {
        Some(_) => INTERVAL_AWAITED,
        None => INTERVAL,
    };
    checker.plan.checkpoint_interval = written.unwrap_or(default);
    let (Some(section), Some(written)) = (section, written) else {
        return;
    };
    checker.positive(&section.node, "interval", written);
    if let Some((source, most)) = patience.filter(|(_, most)| written >= *most) {
        let show = humantime::format_duration;
        let message = format!(
            "a checkpoint every {} is too seldom: clients of `{source}` wait for one, {} at most",
            show(written),
            show(most)
        );
        let help = format!(
            "leave `interval` out: it is {} where a source answers on delivery",
            show(INTERVAL_AWAITED)
        );
        checker
            .problems
            .help(section.node.at_key("interval"), message, help);
    }
}

/// The source whose clients wait for checkpoints, and for how long at most; of several the least patient.
fn patience(checker: &Checker<'_>) -> Option<(String, Duration)> {
    let connectors = &checker.registry.sources;
    let waiting = checker.plan.sources.iter().filter_map(|source| {
        let connector = connectors.get(source.kind.as_str())?;
        let most = connector.awaits_delivery(&source.options)?;
        Some((source.name.clone(), most))
    });
    waiting.min_by_key(|(_, most)| *most)
}
