//! What the engine asks of a SQL planner. The engine passes query text through and never looks inside.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::operator::Operator;
use crate::window::Window;

/// Name of the column that holds a window's start.
pub const WINDOW_START: &str = "window_start";
/// Name of the column that holds a window's end.
pub const WINDOW_END: &str = "window_end";

/// A table a query may name.
#[derive(Clone, Debug)]
pub struct SqlTable {
    /// The name in the query: a stream or a window.
    pub name: String,
    /// The rows' schema as the partition tasks see it: the stream's columns, without the window's.
    pub schema: SchemaRef,
    /// Index of the event-time column in `schema`.
    pub event_time: usize,
    /// Set when the name is a window's: the planner adds [`WINDOW_START`] and [`WINDOW_END`] to the table.
    pub window: Option<Window>,
}

/// A query to plan.
#[derive(Clone, Debug)]
pub struct SqlRequest<'a> {
    /// The query's name in the pipeline.
    pub name: &'a str,
    /// The text.
    pub query: &'a str,
    /// Fire also windows without rows.
    pub emit_empty: bool,
    /// Every table there is; the query uses some.
    pub tables: &'a [SqlTable],
}

/// What is wrong with a query.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlError {
    /// What is wrong and what to write instead.
    pub message: String,
    /// Bytes of the query text the message is about, where known.
    pub at: Option<Range<usize>>,
}

/// Turns a query into operators.
pub trait SqlPlanner: Send + Sync {
    /// Plans a query against tables that are known by schema only.
    fn plan(&self, request: &SqlRequest<'_>) -> Result<Arc<dyn SqlPlan>, Vec<SqlError>>;

    /// The operator that cuts a stream into windows, other than sessions: late rows go aside, the others pass.
    fn window(&self, window: &Window, event_time: usize) -> Result<Box<dyn Operator>>;

    /// The operator that finds the sessions of a stream's rows: it runs once, behind all partitions. Late rows go
    /// aside, the others pass, with a column behind their own for the lower halves of queries.
    fn session(
        &self,
        schema: &SchemaRef,
        event_time: usize,
        gap: Duration,
        key: &[usize],
    ) -> Result<Box<dyn Operator>>;

    /// The operator that lets the first of several rows with equal `key` columns pass, and drops those that
    /// come while the watermark is less than `within` past it.
    fn dedup(
        &self,
        schema: &SchemaRef,
        event_time: usize,
        key: &[usize],
        within: Duration,
    ) -> Box<dyn Operator>;
}

/// A planned query: a half that runs in every partition of each input, and, for windowed queries, a half
/// that runs once, after the partitions meet.
pub trait SqlPlan: Send + Sync {
    /// Schema of the result.
    fn schema(&self) -> SchemaRef;

    /// The tables the query reads, in the order of its inputs.
    fn inputs(&self) -> &[String];

    /// Index in [`SqlPlan::schema`] of the result's event time: a column of the source that passes through
    /// a stateless query unchanged, or the result column that holds the window's start.
    fn event_time(&self) -> Option<usize>;

    /// The operator that runs in each partition of input `input`: the whole query when it is stateless
    /// (its output is the result), else the lower half (its output is partial state, with panes set).
    fn local(&self, input: usize) -> Result<Box<dyn Operator>>;

    /// The operator that runs once and makes the result, or none when the query is stateless. Its inputs
    /// are the partitions' outputs; `pane.slot` says which lower half the rows come from.
    fn global(&self) -> Result<Option<Box<dyn Operator>>>;

    /// The plan for people.
    fn explain(&self) -> SqlExplain;
}

/// A planned query for people: one line of text per plan step, outermost first, indented by depth.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct SqlExplain {
    /// What runs in each partition, per input table.
    pub local: Vec<(String, Vec<String>)>,
    /// What runs once, when the window closes; empty for a stateless query.
    pub global: Vec<String>,
}
