//! Every change of a job or a date as a server-sent event, so that a page can ask for what is new.

use std::convert::Infallible;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use serde_json::json;
use tokio_stream::wrappers::BroadcastStream;

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::streams::KEEP_ALIVE;
use crate::catalog::Changed;

/// Events with `{"job": uuid, "date": …|null}`. A reader that is too slow misses some and is told by an event `missed`.
/// The first event, a comment, says that from here on nothing is missed.
pub async fn events(State(state): State<Shared>) -> Result<Response, ApiError> {
    let permit = state.event_stream()?;
    let changes = BroadcastStream::new(state.catalog().changes());
    let coming = changes.map(move |next| {
        let _open = &permit;
        let event = match next {
            Ok(change) => Event::default().data(told(&change)),
            Err(_) => Event::default()
                .event("missed")
                .data(r#"{"job":null,"date":null}"#),
        };
        Ok::<_, Infallible>(event)
    });
    let first = stream::iter([Ok(Event::default().comment("listening"))]);
    let events = Sse::new(first.chain(coming));
    Ok(events
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

fn told(change: &Changed) -> String {
    let date = change.date.map(|date| date.to_string());
    json!({ "job": change.job, "date": date }).to_string()
}
