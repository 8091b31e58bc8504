//! Schemas of logs, by log and version. One that is posted never changes: what was loaded with it stays explained.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use millstream_engine::time::Timestamp;
use serde_json::{Value, json};

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::v1::fields::name;
use crate::api::v1::loads::{LOG_LENGTH, VERSION_LENGTH};
use crate::catalog::model::StoredSchema;

/// All logs and the versions of their schemas.
pub async fn list(State(state): State<Shared>) -> Result<Json<Value>, ApiError> {
    let all = state.catalog().schemas().await?;
    Ok(Json(
        json!({ "schemas": all.iter().map(about).collect::<Vec<_>>() }),
    ))
}

/// The versions of a log's schema.
pub async fn of_log(State(state): State<Shared>, Path(log): Path<String>) -> Result<Json<Value>, ApiError> {
    let mut all = state.catalog().schemas().await?;
    all.retain(|schema| schema.log_name == log);
    if all.is_empty() {
        return Err(ApiError::missing(format!(
            "no schema of {log:?}; POST one to /v1/schema/{log}/1"
        )));
    }
    Ok(Json(
        json!({ "schemas": all.iter().map(about).collect::<Vec<_>>() }),
    ))
}

/// A version: the YAML, or JSON around it for those who accept that only.
pub async fn one(
    State(state): State<Shared>,
    Path((log, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let schema = state.catalog().schema(&log, &version).await?;
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.starts_with("application/json")) {
        let mut shown = about(&schema);
        shown["yaml"] = json!(schema.text);
        return Ok(Json(shown).into_response());
    }
    Ok(yaml(schema.text))
}

/// Keeps a version for good.
pub async fn post(
    State(state): State<Shared>,
    Path((log, version)): Path<(String, String)>,
    text: String,
) -> Result<Json<Value>, ApiError> {
    let mut problems = Vec::new();
    for (what, text, longest) in [("log", &log, LOG_LENGTH), ("version", &version, VERSION_LENGTH)] {
        problems.extend(name(text, longest).err().map(|why| format!("{what}: {why}")));
    }
    if !problems.is_empty() {
        return Err(ApiError::problems(problems));
    }
    let new = StoredSchema {
        log_name: log,
        version,
        text,
        posted_at: Timestamp::now(),
    };
    state.catalog().post_schema(new).await?;
    Ok(Json(json!({ "post_accepted": true })))
}

fn about(schema: &StoredSchema) -> Value {
    json!({
        "log_name": schema.log_name,
        "version": schema.version,
        "posted_at": schema.posted_at.to_string(),
    })
}

fn yaml(text: String) -> Response {
    ([(CONTENT_TYPE, "application/yaml; charset=utf-8")], text).into_response()
}
