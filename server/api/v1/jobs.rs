//! Jobs: listed, shown, and asked to pause, to end or to go.

use axum::Json;
use axum::extract::{Path, State};
use millstream_engine::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::v1::body::Body;
use crate::catalog::model::Job;
use crate::catalog::state::Request;

/// All jobs.
pub async fn list(State(state): State<Shared>) -> Result<Json<Value>, ApiError> {
    let jobs = state.catalog().jobs().await?;
    Ok(Json(json!({ "jobs": jobs })))
}

/// A job by its uuid, or a pipeline's by its name.
pub async fn one(State(state): State<Shared>, Path(named): Path<String>) -> Result<Json<Job>, ApiError> {
    Ok(Json(state.catalog().job(&named).await?))
}

/// What `PUT /v1/jobs/job` takes: one request for one job.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The job's uuid, or a pipeline's name.
    uuid: String,
    pause_requested: Option<bool>,
    cancel_requested: Option<bool>,
    delete_requested: Option<bool>,
}

/// Asks a job to pause or resume, to be cancelled or taken up again, to be deleted.
pub async fn request(State(state): State<Shared>, Body(asked): Body<Asked>) -> Result<Json<Value>, ApiError> {
    let requests = [
        asked.cancel_requested.map(Request::Cancel),
        asked.pause_requested.map(Request::Pause),
        asked.delete_requested.map(Request::Delete),
    ];
    let requests: Vec<Request> = requests.into_iter().flatten().collect();
    if requests.is_empty() {
        return Err(ApiError::invalid(
            "ask for something: pause_requested, cancel_requested or delete_requested",
        ));
    }
    let done = state
        .catalog()
        .change(&asked.uuid, Timestamp::now(), move |entry| {
            requests.into_iter().try_for_each(|one| entry.request(one))
        });
    done.await?;
    Ok(Json(json!({ "put_accepted": true })))
}
