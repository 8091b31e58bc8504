//! The latest rows of any stream, once as JSON or for ever as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use arrow::array::RecordBatch;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt};
use millstream_engine::runtime::tap::Tap;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::wrappers::BroadcastStream;

use crate::api::error::ApiError;
use crate::api::{Shared, rows};

/// Rows in an answer unless asked otherwise.
const DEFAULT_ROWS: usize = 100;
/// Rows in an answer at most, and in one event: what a page can show and a thread encodes in milliseconds.
const MAX_ROWS: usize = 1000;
/// Proxies close connections that are silent for longer (nginx: 60 s).
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `?limit=`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    limit: Option<usize>,
}

type Asked = Result<Query<Limit>, QueryRejection>;

/// The latest rows, oldest first.
pub async fn latest(
    State(state): State<Shared>,
    Path((pipeline, stream)): Path<(String, String)>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let limit = limit(asked)?;
    let tap = tap(&state, &pipeline, &stream)?;
    let json = encode(&tap.latest(limit))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// The latest rows, then every batch as it comes: events whose data is a JSON array of rows. A row that
/// arrives while the connection opens may come twice. A reader that is too slow misses rows, and is told
/// by an event `missed` whose data is the number of batches.
pub async fn events(
    State(state): State<Shared>,
    Path((pipeline, stream)): Path<(String, String)>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let limit = limit(asked)?;
    let tap = tap(&state, &pipeline, &stream)?;
    let permit = state.event_stream()?;
    let events = Sse::new(event_stream(&tap, limit, permit)?);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(events.keep_alive(keep_alive).into_response())
}

fn event_stream(
    tap: &Tap,
    limit: usize,
    permit: OwnedSemaphorePermit,
) -> Result<impl Stream<Item = Result<Event, Infallible>> + use<>, ApiError> {
    // Before the latest rows are read, so that none falls between.
    let coming = BroadcastStream::new(tap.subscribe());
    let first = event(&tap.latest(limit))?;
    let coming = coming.map(move |next| {
        let _open = &permit;
        Ok(match next {
            Ok(batch) => event(&[rows::last(batch, MAX_ROWS)])
                .unwrap_or_else(|_| Event::default().comment("a batch could not be written as JSON")),
            Err(missed) => missed_event(&missed),
        })
    });
    Ok(stream::iter([Ok(first)]).chain(coming))
}

fn event(batches: &[RecordBatch]) -> Result<Event, ApiError> {
    let json = String::from_utf8(encode(batches)?).map_err(|e| ApiError::bug(e.to_string()))?;
    Ok(Event::default().data(json))
}

fn missed_event(missed: &tokio_stream::wrappers::errors::BroadcastStreamRecvError) -> Event {
    let tokio_stream::wrappers::errors::BroadcastStreamRecvError::Lagged(batches) = missed;
    Event::default().event("missed").data(batches.to_string())
}

fn encode(batches: &[RecordBatch]) -> Result<Vec<u8>, ApiError> {
    rows::json(batches).map_err(|e| ApiError::bug(format!("rows cannot be written as JSON: {e}")))
}

fn tap(state: &Shared, pipeline: &str, stream: &str) -> Result<Tap, ApiError> {
    let pipeline = state.pipeline(pipeline)?;
    let known = || pipeline.plan().streams.keys().map(String::as_str);
    pipeline
        .tap(stream)
        .ok_or_else(|| ApiError::not_found("stream", stream, known()))
}

fn limit(asked: Asked) -> Result<usize, ApiError> {
    let wrong = || ApiError::bad_request(format!("limit must be a number from 1 to {MAX_ROWS}"));
    let Query(asked) = asked.map_err(|_| wrong())?;
    match asked.limit.unwrap_or(DEFAULT_ROWS) {
        limit @ 1..=MAX_ROWS => Ok(limit),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<usize, ApiError> {
        let uri = format!("http://x/y?{query}").parse().expect("a uri");
        limit(Query::try_from_uri(&uri))
    }

    #[test]
    fn the_limit_is_checked() {
        assert!(matches!(asked(""), Ok(DEFAULT_ROWS)));
        assert!(matches!(asked("limit=1"), Ok(1)));
        assert!(matches!(asked("limit=1000"), Ok(1000)));
        for wrong in ["limit=0", "limit=1001", "limit=-1", "limit=x", "limt=5"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
