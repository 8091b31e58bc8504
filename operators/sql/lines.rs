//! Plans for people, line by line: what `millstream explain` shows of a query.

use std::sync::Arc;

use datafusion::physical_plan::{ExecutionPlan, displayable};

use super::split::{Reduce, Slot};

/// A piece of the lower half.
pub(super) fn slot_lines(number: usize, slot: &Slot) -> Vec<String> {
    let reduce = match &slot.reduce {
        Reduce::Aggregate(aggregate) => aggregate.line(),
        Reduce::Keep => "Keep rows".to_owned(),
    };
    let mut lines = vec![format!("{reduce}, slot={number}")];
    lines.extend(slot.steps.lines());
    indented(lines)
}

/// The upper half of a query over sessions.
pub(super) fn session_lines(
    batched: Option<&Arc<dyn ExecutionPlan>>,
    upper: &Arc<dyn ExecutionPlan>,
) -> Vec<String> {
    let (how, plan) = match batched {
        Some(plan) => ("for all sessions that close, together:", plan),
        None => ("for each session that closes:", upper),
    };
    let lines = plan_lines(plan).into_iter().map(|line| format!("  {line}"));
    std::iter::once(how.to_owned()).chain(lines).collect()
}

/// Steps, outermost first, each one level deeper.
pub(super) fn indented(lines: Vec<String>) -> Vec<String> {
    lines
        .into_iter()
        .enumerate()
        .map(|(depth, line)| format!("{}{line}", "  ".repeat(depth)))
        .collect()
}

/// A plan of DataFusion's.
pub(super) fn plan_lines(plan: &Arc<dyn ExecutionPlan>) -> Vec<String> {
    displayable(plan.as_ref())
        .indent(false)
        .to_string()
        .lines()
        .map(str::to_owned)
        .collect()
}
