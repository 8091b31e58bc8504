//! What the engine asks of a SQL planner. The engine passes query text through and never looks inside.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::operator::Operator;
use crate::pipeline::Bytes;
use crate::table::ReferenceTable;
use crate::window::Window;

/// Name of the column that holds a window's start.
pub const WINDOW_START: &str = "window_start";
/// Name of the column that holds a window's end.
pub const WINDOW_END: &str = "window_end";

/// Name of the column that numbers the results of a window that fires again for late rows, a bigint, the last
/// of the result: 0 for its first firing, then 1, 2 and so on.
pub const REVISION: &str = "revision";

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
    /// Set when the windows fire again, with a [`REVISION`], for rows that come up to this long after their
    /// end; the same for all windows of a query.
    pub lateness: Option<Duration>,
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
    /// Most bytes of rows that the query keeps until their windows close.
    pub state_limit: Bytes,
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

    /// The planner of a pipeline with reference tables, which its queries may name besides the request's
    /// tables.
    fn with_tables(&self, tables: Vec<ReferenceTable>) -> Arc<dyn SqlPlanner>;

    /// The operator that cuts a stream into windows: late rows go aside, the others pass. Windows take rows
    /// until `lateness` after their end.
    fn window(&self, window: &Window, event_time: usize, lateness: Duration) -> Result<Box<dyn Operator>>;

    /// The operator that lets the first of several rows with equal `key` columns pass, and drops those that
    /// come while the watermark is less than `within` past it. Fails where a column cannot be part of a key.
    fn dedup(
        &self,
        schema: &SchemaRef,
        event_time: usize,
        key: &[usize],
        within: Duration,
    ) -> Result<Box<dyn Operator>>;
}

/// A planned query: a half that runs in every partition of each input, and, for windowed queries and interval
/// joins, a half that runs once, after the partitions meet.
pub trait SqlPlan: Send + Sync {
    /// Schema of the result; with [`REVISION`] when the query's windows fire again.
    fn schema(&self) -> SchemaRef;

    /// The tables the query reads, in the order of its inputs. A stream that is joined with itself stands twice.
    fn inputs(&self) -> &[String];

    /// The reference tables the query reads: from where they are shared, so they are none of its inputs.
    fn references(&self) -> &[String] {
        &[]
    }

    /// Index in [`SqlPlan::schema`] of the result's event time: a column of the source that passes through
    /// a stateless query or an interval join unchanged, or the result column that holds the window's start.
    fn event_time(&self) -> Option<usize>;

    /// How far behind the watermark that made it a result's event time may stand, for people; what holds watermarks
    /// back is [`Operator::watermark_behind`].
    fn watermark_delay(&self) -> Duration;

    /// The operator that runs in each partition of input `input`: the whole query when it is stateless
    /// (its output is the result), else the lower half (its output is partial state or one side's rows, with
    /// panes set).
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
    /// What runs once, when the window closes or as rows meet; empty for a stateless query.
    pub global: Vec<String>,
}
