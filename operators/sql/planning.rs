//! The DataFusion session that queries are planned in: which tables and functions it knows, and how it plans.

use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;
use millstream_engine::sql::SqlTable;
use millstream_engine::table::ReferenceTable;

use super::functions::{FiringWindow, scalar_functions, window_functions};
use super::tables::PlanningTable;
use super::top::FirstRows;

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// Rules of DataFusion's physical optimizer that we plan without. The first fuses a partial aggregate with
/// its final one, which is the seam we cut at. The next two put row limits into aggregates, which a partial
/// aggregate over one task's share of the rows cannot honour. The last answers from table statistics.
pub(super) const RULES_LEFT_OUT: [&str; 4] = [
    "CombinePartialFinalAggregate",
    "LimitedDistinctAggregation",
    "LimitAggregation",
    "aggregate_statistics",
];

/// A session that knows the tables and plans the way `split` needs it.
pub(super) fn session(
    tables: &[SqlTable],
    references: &[ReferenceTable],
    window: &Arc<FiringWindow>,
) -> Result<SessionState, DataFusionError> {
    let rules = PhysicalOptimizer::new().rules;
    let rules = rules
        .into_iter()
        .filter(|rule| !RULES_LEFT_OUT.contains(&rule.name()))
        .collect();
    let state = SessionStateBuilder::new()
        .with_config(session_config())
        .with_default_features()
        .with_physical_optimizer_rules(with_first_rows(rules))
        .build();
    let context = SessionContext::new_with_state(state);
    for function in window_functions(window).into_iter().chain(scalar_functions()) {
        context.register_udf(function);
    }
    let schema = context.catalog("datafusion").and_then(|c| c.schema("public"));
    let schema = schema.ok_or_else(|| DataFusionError::Internal("a session has no schema".to_owned()))?;
    for table in tables {
        schema.register_table(table.name.clone(), Arc::new(PlanningTable::new(table)))?;
    }
    for table in references {
        schema.register_table(table.name.clone(), Arc::new(PlanningTable::reference(table)))?;
    }
    Ok(context.state())
}

/// The rules with ours, where it is still known whether the query asks for an order: before the last of those that
/// note it in the plan takes the note out again.
pub(super) fn with_first_rows(mut rules: Vec<Rule>) -> Vec<Rule> {
    let last = rules.iter().rposition(|rule| rule.name() == "OutputRequirements");
    rules.insert(last.unwrap_or(rules.len()), Arc::new(FirstRows));
    rules
}

fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    // A plan runs many times, a filter that learnt from one window's rows must not meet the next one's.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // Subqueries become joins: as expressions they would end up in the steps of a lower half.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    config
}
