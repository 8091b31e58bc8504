//! `/v1`: jobs and their runs, clusters, schemas and notices, as Mycroft's clients know them.
//!
//! Errors are `{"error": "…"}`: 400 for what cannot be read, 404, 409 for what cannot be done now, 422 for what cannot
//! be done at all.

mod body;
mod clusters;
mod described;
mod events;
mod fields;
mod jobs;
mod loads;
mod mycroft;
mod notices;
mod runs;
mod schemas;

use axum::Router;
use axum::routing::{get, post};

use crate::api::Shared;

/// What is served.
pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/jobs", get(jobs::list).post(loads::post))
        .route("/v1/jobs/filtered/{log}", get(loads::of_log))
        .route("/v1/jobs/filtered/{log}/{version}", get(loads::of_version))
        .route("/v1/jobs/job", axum::routing::put(jobs::request))
        .route("/v1/jobs/job/{uuid}", get(jobs::one))
        .route("/v1/runs/{uuid}", get(runs::list))
        .route("/v1/runs/{uuid}/backfill", post(runs::backfill))
        .route("/v1/runs/{uuid}/start", post(runs::start))
        .route("/v1/clusters", get(clusters::list).post(clusters::post))
        .route(
            "/v1/clusters/{name}",
            get(clusters::one).put(clusters::put).delete(clusters::delete),
        )
        .route("/v1/schema", get(schemas::list))
        .route("/v1/schema/check", post(schemas::check))
        .route("/v1/schema/infer", post(schemas::infer))
        .route("/v1/schema/{log}", get(schemas::of_log))
        .route(
            "/v1/schema/{log}/{version}",
            get(schemas::one).post(schemas::post),
        )
        .route("/v1/notices", get(notices::list))
        .route("/v1/events", get(events::events))
}
