//! `/v1`: jobs and their runs, as Mycroft's clients know them.
//!
//! Errors are `{"error": "…"}`: 400 for what cannot be read, 404, 409 for what cannot be done now, 422 for what cannot
//! be done at all.

mod body;
mod jobs;
mod runs;

use axum::Router;
use axum::routing::{get, post};

use crate::api::Shared;

/// What is served.
pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/jobs/job", axum::routing::put(jobs::request))
        .route("/v1/jobs/job/{uuid}", get(jobs::one))
        .route("/v1/runs/{uuid}", get(runs::list))
        .route("/v1/runs/{uuid}/backfill", post(runs::backfill))
        .route("/v1/runs/{uuid}/start", post(runs::start))
}
