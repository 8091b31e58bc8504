//! `/healthz`, `/readyz` and `/metrics`: what supervisors and Prometheus ask.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use millstream_engine::runtime::status::PipelineState;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::api::{Shared, process};
use crate::notify::deliver::MailSeen;

/// The format `Metrics::text` writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `millstream health` waits 3 s for the whole answer.
const CATALOG_LIMIT: Duration = Duration::from_secs(2);

/// The process answers.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// 200 when every pipeline runs (or has finished), the catalog can be written and jobs are run, else 503 with what is
/// not so. A mail server that is away is reported only: notices wait for it.
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
    let catalog = catalog(&state).await;
    let scheduler = !state
        .0
        .process
        .scheduler
        .as_ref()
        .is_some_and(AbortHandle::is_finished);
    let ready = waiting.is_empty() && catalog.is_none() && scheduler;
    let code = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let said = json!({
        "ready": ready,
        "not_running": waiting,
        "catalog": { "writable": catalog.is_none(), "error": catalog },
        "scheduler": { "running": scheduler },
        "mail": mail(&state),
    });
    (code, Json(said))
}

/// Why the catalog cannot be written; none: it can.
async fn catalog(state: &Shared) -> Option<String> {
    match tokio::time::timeout(CATALOG_LIMIT, state.catalog().probe()).await {
        Ok(written) => written.err().map(|error| error.to_string()),
        Err(_) => Some(format!(
            "it takes longer than {CATALOG_LIMIT:?}; is its disk slow, or another process stuck?"
        )),
    }
}

/// Null where no mail server is named.
fn mail(state: &Shared) -> Value {
    match state.0.process.deliverer.mail_seen() {
        MailSeen::None => Value::Null,
        MailSeen::Unknown => json!({ "reachable": null }),
        MailSeen::Reachable => json!({ "reachable": true }),
        MailSeen::Away(why) => json!({ "reachable": false, "error": why }),
    }
}

/// Everything counted, in the OpenMetrics text format.
pub async fn metrics(State(state): State<Shared>) -> impl IntoResponse {
    let text = state.0.process.metrics.text();
    let notices = state.catalog().notice_counts().await.unwrap_or_default();
    let states = state.catalog().state_counts().await.unwrap_or_default();
    let text = process::append(&text, state.0.started, &notices, &states);
    ([(header::CONTENT_TYPE, OPENMETRICS)], text)
}
