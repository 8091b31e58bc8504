//! Schemas of logs, by log and version. One that is posted never changes: what was loaded with it stays explained.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use millstream_engine::time::Timestamp;
use millstream_operators::formats::log::infer::{Infer, Options};
use millstream_operators::formats::log::{SourceType, merge};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::v1::body::Raw;
use crate::api::v1::described;
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
    if wants_json(&headers) {
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
    body: Raw,
) -> Result<Json<Value>, ApiError> {
    let mut problems = Vec::new();
    for (what, text, longest) in [("log", &log, LOG_LENGTH), ("version", &version, VERSION_LENGTH)] {
        problems.extend(name(text, longest).err().map(|why| format!("{what}: {why}")));
    }
    if !problems.is_empty() {
        return Err(ApiError::problems(problems));
    }
    let text = body.text()?.to_owned();
    described::read(&text)?;
    let new = StoredSchema {
        log_name: log,
        version,
        text,
        posted_at: Timestamp::now(),
    };
    state.catalog().post_schema(new).await?;
    Ok(Json(json!({ "post_accepted": true })))
}

/// Says what a schema holds, or everything that is wrong with it. Keeps nothing.
pub async fn check(body: Raw) -> Result<Json<Value>, ApiError> {
    let schema = described::read(body.text()?)?;
    Ok(Json(described::described(&schema)))
}

/// `?table=&depth=&source=&source_type=&foreign=&exclude=&prune=`; several with commas between them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    #[serde(default = "some_name")]
    table: String,
    #[serde(default = "all_levels")]
    depth: i64,
    #[serde(default)]
    source: String,
    #[serde(default)]
    source_type: SourceTypeName,
    #[serde(default)]
    foreign: String,
    #[serde(default)]
    exclude: String,
    #[serde(default)]
    prune: String,
    #[serde(default)]
    add_source_filename: bool,
    #[serde(default)]
    compat: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SourceTypeName {
    #[default]
    Dict,
    List,
    SparseList,
}

fn some_name() -> String {
    "some_name".into()
}

fn all_levels() -> i64 {
    -1
}

/// Makes a schema of sample lines: the YAML, or JSON around it with what a person should look at.
pub async fn infer(
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
    body: Raw,
) -> Result<Response, ApiError> {
    let Query(wanted) = wanted.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let table = wanted.table.clone();
    let inferred = tokio::task::spawn_blocking(move || {
        let mut looking = Infer::new(wanted.options());
        for line in body.0.split(|byte| *byte == b'\n') {
            looking.push_line(line)?;
        }
        looking.finish()
    });
    let inferred = inferred.await.map_err(|error| ApiError::bug(error.to_string()))?;
    let inferred = inferred.map_err(|error| ApiError::invalid(error.to_string()))?;
    let text = merge::with_table(None, &table, inferred.table).write();
    Ok(match wants_json(&headers) {
        true => Json(json!({ "yaml": text, "conflicts": inferred.reports })).into_response(),
        false => yaml(text),
    })
}

impl Wanted {
    fn options(self) -> Options {
        let several = |text: &str| {
            let keys = text.split(',').map(str::trim).filter(|key| !key.is_empty());
            keys.map(String::from).collect()
        };
        Options {
            depth: self.depth,
            foreign: several(&self.foreign),
            exclude: several(&self.exclude),
            prune: several(&self.prune),
            table: self.table,
            source: self.source,
            source_type: match self.source_type {
                SourceTypeName::Dict => SourceType::Dict,
                SourceTypeName::List => SourceType::List,
                SourceTypeName::SparseList => SourceType::SparseList,
            },
            add_source_filename: self.add_source_filename,
            compat: self.compat,
        }
    }
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.starts_with("application/json"))
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
