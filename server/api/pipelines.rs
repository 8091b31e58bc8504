//! `/api/v1/pipelines` and one of them: state, graph, nodes, streams.

use std::time::Duration;

use arrow::datatypes::{DataType, Field};
use axum::Json;
use axum::extract::{Path, State};
use millstream_engine::explain;
use millstream_engine::plan::{Plan, SqlNode, Stream};
use millstream_engine::time::Timestamp;
use millstream_engine::window::Window;
use serde_json::{Value, json};

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::catalog::model::JobKind;

/// Every pipeline and how it is.
pub async fn list(State(state): State<Shared>) -> Result<Json<Value>, ApiError> {
    let all = state.pipelines().iter().map(|pipeline| {
        json!({
            "name": pipeline.plan().name,
            "description": pipeline.plan().description,
            "status": pipeline.status(),
        })
    });
    let jobs = state.catalog().jobs().await?;
    let scheduled = jobs.iter().filter(|job| job.kind == JobKind::Pipeline);
    let process = &state.0.process;
    Ok(Json(json!({
        "pipelines": all.collect::<Vec<_>>(),
        // Those with a schedule: their jobs.
        "scheduled": scheduled.collect::<Vec<_>>(),
        "ingest": process.ingest.map(|at| format!("http://{at}")),
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": state.0.started.to_string(),
        "now": Timestamp::now().to_string(),
    })))
}

/// One pipeline: its graph, each node's counts, its streams.
pub async fn detail(State(state): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let pipeline = state.pipeline(&name)?;
    let plan = pipeline.plan();
    Ok(Json(json!({
        "name": plan.name,
        "description": plan.description,
        "status": pipeline.status(),
        "graph": graph(plan),
        "nodes": pipeline.nodes(),
        "streams": streams(plan),
        "now": Timestamp::now().to_string(),
    })))
}

/// The graph without the nodes' details: these hold the options of connectors, and with them what came
/// from the environment into the file, such as the token of a webhook.
fn graph(plan: &Plan) -> Value {
    let mut graph = explain::json(plan);
    let nodes = graph.get_mut("nodes").and_then(Value::as_array_mut);
    for node in nodes.into_iter().flatten().filter_map(Value::as_object_mut) {
        node.remove("detail");
    }
    graph
}

fn streams(plan: &Plan) -> Vec<Value> {
    let one = |(name, stream): (&String, &Stream)| {
        let fields = stream.schema.fields();
        let query = plan.queries.iter().find(|query| query.name == *name);
        json!({
            "name": name,
            "columns": fields.iter().map(|f| column(f)).collect::<Vec<_>>(),
            "event_time": stream.event_time.map(|at| fields[at].name()),
            "window": query.and_then(|query| window(plan, query)),
        })
    };
    plan.streams.iter().map(one).collect()
}

fn column(field: &Field) -> Value {
    json!({
        "name": field.name(),
        "type": type_name(field.data_type()),
        "nullable": field.is_nullable(),
    })
}

/// The words of pipeline files where they have one.
fn type_name(of: &DataType) -> String {
    let word = match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string",
        DataType::Int64 => "bigint",
        DataType::Int32 => "int",
        DataType::Float64 => "double",
        DataType::Boolean => "boolean",
        DataType::Timestamp(..) => "timestamp",
        DataType::Date32 => "date",
        DataType::Binary => "binary",
        other => return other.to_string(),
    };
    word.into()
}

/// What the page needs to say when a result is due: how long a window is, and how long after its end it
/// closes.
fn window(plan: &Plan, query: &SqlNode) -> Option<Value> {
    let mut inputs = query.plan.inputs().iter();
    let node = inputs.find_map(|input| plan.windows.iter().find(|w| w.name == *input))?;
    let (kind, every, offset) = match &node.window {
        Window::Tumbling { size, offset } => ("tumbling", *size, *offset),
        Window::Hopping { slide, offset, .. } => ("hopping", *slide, *offset),
        Window::Cumulative { step, offset, .. } => ("cumulative", *step, *offset),
        Window::Session { gap, .. } => ("session", *gap, Duration::ZERO),
    };
    Some(json!({
        "type": kind,
        "every_seconds": every.as_secs_f64(),
        "offset_seconds": offset.as_secs_f64(),
        "closes_after_seconds": closes_after(plan, query).as_secs_f64(),
    }))
}

/// How long after its time a result of a query comes: the longest wait for rows out of order among the sources
/// it reads, and the bounds of the joins between.
fn closes_after(plan: &Plan, query: &SqlNode) -> Duration {
    let inputs = query.plan.inputs().iter();
    let waits = inputs.map(|input| {
        let window = plan.windows.iter().find(|w| w.name == *input);
        behind(plan, window.map_or(input, |w| &w.input))
    });
    waits.max().unwrap_or_default()
}

/// How far a stream is behind. Streams stand after those they are made from, so this ends.
fn behind(plan: &Plan, stream: &str) -> Duration {
    if let Some(source) = plan.sources.iter().find(|s| s.name == stream) {
        return source.max_out_of_orderness;
    }
    if let Some(dedup) = plan.dedups.iter().find(|d| d.name == stream) {
        return behind(plan, &dedup.input);
    }
    let query = plan.queries.iter().find(|q| q.name == stream);
    query.map_or(Duration::ZERO, |query| {
        closes_after(plan, query) + query.plan.watermark_delay()
    })
}
