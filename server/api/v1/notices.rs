//! What people were told, are still to be told, and could not be told.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::catalog::model::{Notice, NoticeState};

/// Notices in an answer unless asked otherwise.
const DEFAULT: u32 = 100;
/// Notices in an answer at most.
const MOST: u32 = 1000;

/// `?state=&limit=`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    state: Option<NoticeState>,
    limit: Option<u32>,
}

/// The newest first.
pub async fn list(
    State(state): State<Shared>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(asked) = asked.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let limit = asked.limit.unwrap_or(DEFAULT);
    if !(1..=MOST).contains(&limit) {
        return Err(ApiError::bad_request(format!(
            "limit must be a number from 1 to {MOST}"
        )));
    }
    let notices = state.catalog().notices(asked.state, limit).await?;
    Ok(Json(
        json!({ "notices": notices.iter().map(shown).collect::<Vec<_>>() }),
    ))
}

fn shown(notice: &Notice) -> Value {
    let receivers: BTreeMap<String, String> = serde_json::from_str(&notice.progress).unwrap_or_default();
    json!({
        "id": notice.id,
        "at": notice.at.to_string(),
        "event": notice.event,
        "job": notice.job["uuid"],
        "state": notice.state,
        "receivers": receivers,
        "attempts": notice.attempts,
        "error": notice.error,
        "next_try_at": notice.done_at.is_none().then(|| notice.next_try_at.to_string()),
        "done_at": notice.done_at.map(|at| at.to_string()),
    })
}
