//! `/healthz`, `/readyz` and `/metrics`: what supervisors and Prometheus ask.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use millstream_engine::runtime::status::PipelineState;
use serde_json::json;

use crate::api::{Shared, process};

/// The format `Metrics::text` writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process answers.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// 200 when every pipeline runs (or has finished), else 503 with those that do not.
pub async fn ready(State(state): State<Shared>) -> impl IntoResponse {
    let mut waiting = Vec::new();
    for pipeline in state.pipelines() {
        let status = pipeline.status();
        if !matches!(status.state, PipelineState::Running | PipelineState::Finished) {
            waiting.push(json!({
                "pipeline": pipeline.plan().name,
                "state": status.state,
                "error": status.error,
            }));
        }
    }
    let ready = waiting.is_empty();
    let code = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(json!({ "ready": ready, "not_running": waiting })))
}

/// Everything counted, in the OpenMetrics text format.
pub async fn metrics(State(state): State<Shared>) -> impl IntoResponse {
    let text = state.0.process.metrics.text();
    let text = process::append(&text, state.0.started);
    ([(header::CONTENT_TYPE, OPENMETRICS)], text)
}
