//! Finds the result column that is the window's start: the event time of a windowed query's stream.

use datafusion::common::JoinType;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};
use millstream_engine::sql::WINDOW_START;

/// The first column of the plan's result that always holds the window's start: `window_start()`, or the
/// column of that name of a windowed table, under any alias, passed through unchanged.
pub(super) fn window_start_column(plan: &LogicalPlan) -> Option<usize> {
    (0..plan.schema().fields().len()).find(|index| column_is_start(plan, *index))
}

fn column_is_start(plan: &LogicalPlan, index: usize) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => scan.projected_schema.field(index).name() == WINDOW_START,
        LogicalPlan::Projection(p) => p.expr.get(index).is_some_and(|e| expr_is_start(e, &p.input)),
        LogicalPlan::Aggregate(a) => a
            .group_expr
            .get(index)
            .is_some_and(|e| expr_is_start(e, &a.input)),
        LogicalPlan::SubqueryAlias(a) => column_is_start(&a.input, index),
        LogicalPlan::Filter(f) => column_is_start(&f.input, index),
        LogicalPlan::Sort(s) => column_is_start(&s.input, index),
        LogicalPlan::Limit(l) => column_is_start(&l.input, index),
        LogicalPlan::Distinct(Distinct::All(input)) => column_is_start(input, index),
        LogicalPlan::Window(w) => index < w.input.schema().fields().len() && column_is_start(&w.input, index),
        LogicalPlan::Union(u) => u.inputs.iter().all(|input| column_is_start(input, index)),
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            let (keeps_left, keeps_right) = match join.join_type {
                JoinType::Inner => (true, true),
                JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => (true, false),
                JoinType::Right => (false, true),
                _ => (false, false),
            };
            match index.checked_sub(left) {
                None => keeps_left && column_is_start(&join.left, index),
                Some(index) => keeps_right && column_is_start(&join.right, index),
            }
        }
        _ => false,
    }
}

fn expr_is_start(expr: &Expr, input: &LogicalPlan) -> bool {
    match expr {
        Expr::Alias(alias) => expr_is_start(&alias.expr, input),
        Expr::Column(column) => {
            let index = input.schema().maybe_index_of_column(column);
            index.is_some_and(|index| column_is_start(input, index))
        }
        Expr::ScalarFunction(call) => call.func.name() == WINDOW_START,
        _ => false,
    }
}
