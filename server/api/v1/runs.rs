//! The dates of a job: listed, made again, begun at once.

use axum::Json;
use axum::extract::{Path, State};
use chrono::NaiveDate;
use millstream_engine::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::v1::body::Body;
use crate::api::v1::mycroft;
use crate::catalog::text;
use crate::scheduler::backfill::Backfill;

/// A job's runs, by date.
pub async fn list(State(state): State<Shared>, Path(named): Path<String>) -> Result<Json<Value>, ApiError> {
    let job = state.catalog().job(&named).await?;
    let runs = state.catalog().runs(&job.uuid).await?;
    let shown: Vec<Value> = runs.iter().map(|run| mycroft::run(&job, run)).collect();
    Ok(Json(json!({ "runs": shown })))
}

/// Makes dates again; gives those it is about.
pub async fn backfill(
    State(state): State<Shared>,
    Path(named): Path<String>,
    Body(asked): Body<Backfill>,
) -> Result<Json<Value>, ApiError> {
    mark(&state, &named, asked).await
}

/// What `POST /v1/runs/{uuid}/start` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    #[serde(with = "text::date")]
    date: NaiveDate,
    /// Whatever its age, and without its marker.
    #[serde(default)]
    force: bool,
}

/// Begins one date, again if it has been made.
pub async fn start(
    State(state): State<Shared>,
    Path(named): Path<String>,
    Body(asked): Body<Start>,
) -> Result<Json<Value>, ApiError> {
    let backfill = Backfill {
        from: asked.date,
        to: asked.date,
        dry_run: false,
        transform_only: false,
        load_only: false,
        retry_errors: false,
        parallelism: None,
        force: asked.force,
    };
    mark(&state, &named, backfill).await
}

async fn mark(state: &Shared, named: &str, asked: Backfill) -> Result<Json<Value>, ApiError> {
    let marked = state
        .catalog()
        .change(named, Timestamp::now(), move |entry| asked.mark(entry));
    let dates: Vec<String> = marked.await?.iter().map(NaiveDate::to_string).collect();
    Ok(Json(json!({ "dates": dates })))
}
