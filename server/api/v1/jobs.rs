//! Jobs: listed, shown, and asked to pause, to end or to go.

use axum::Json;
use axum::extract::{Path, State};
use millstream_engine::time::Timestamp;
use serde_json::{Value, json};

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::v1::body::Body;
use crate::api::v1::fields::Fields;
use crate::api::v1::mycroft;
use crate::catalog::model::load_key;
use crate::catalog::state::Request;

/// All jobs.
pub async fn list(State(state): State<Shared>) -> Result<Json<Value>, ApiError> {
    Ok(Json(mycroft::jobs(&state.catalog().jobs().await?)))
}

/// A job by its uuid or its key, or a pipeline's by its name.
pub async fn one(State(state): State<Shared>, Path(named): Path<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(mycroft::job(&state.catalog().job(&named).await?)))
}

/// What `PUT /v1/jobs/job` takes: requests for one job.
struct Asked {
    /// The job's uuid or its key, or a pipeline's name.
    job: String,
    requests: Vec<Request>,
}

impl Asked {
    fn read(body: Value) -> Result<Asked, ApiError> {
        let mut fields = Fields::new(body)?;
        let uuid = fields.optional_text("uuid");
        // Mycroft's clients name a job by what its key is made of, and may do so beside the uuid.
        let key = key(&mut fields, uuid.is_some());
        let mut ask = |name, request: fn(bool) -> Request| fields.truth(name).map(request);
        let requests = [
            ask("cancel_requested", Request::Cancel),
            ask("pause_requested", Request::Pause),
            ask("delete_requested", Request::Delete),
        ];
        fields.end()?;
        let requests: Vec<Request> = requests.into_iter().flatten().collect();
        if requests.is_empty() {
            return Err(ApiError::invalid(
                "ask for something: pause_requested, cancel_requested or delete_requested",
            ));
        }
        Ok(Asked {
            job: uuid.unwrap_or(key),
            requests,
        })
    }
}

/// The key of the job that is meant. `named`: it need not be there.
fn key(fields: &mut Fields, named: bool) -> String {
    fields.number_as_text("log_schema_version");
    let mut text = |name| match named {
        true => fields.optional_text(name).unwrap_or_default(),
        false => fields.text(name),
    };
    let (redshift_id, log, version) = (text("redshift_id"), text("log_name"), text("log_schema_version"));
    let start = fields.date("start_date");
    if start.is_none() && !named && !fields.is_wrong("start_date") {
        fields.wrong("start_date", "is missing");
    }
    let end = fields.date("end_date");
    load_key(&redshift_id, &log, &version, start.unwrap_or_default(), end)
}

/// Asks a job to pause or resume, to be cancelled or taken up again, to be deleted.
pub async fn request(State(state): State<Shared>, Body(body): Body<Value>) -> Result<Json<Value>, ApiError> {
    let Asked { job, requests } = Asked::read(body)?;
    let done = state.catalog().change(&job, Timestamp::now(), move |entry| {
        requests.into_iter().try_for_each(|one| entry.request(one))
    });
    done.await?;
    Ok(Json(json!({ "put_accepted": true })))
}
