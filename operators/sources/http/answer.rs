//! The answers of the ingest server.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::formats::json::Decoded;

/// A transparent image of one pixel: the smallest GIF89a.
const PIXEL: &[u8; 43] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff\
\x21\xf9\x04\x01\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";

/// Seconds a browser may remember a preflight: a day, the longest any browser honours.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("86400");

/// Replies for so many good rows are kept ready; beyond, one is written each time.
const READY_REPLIES: usize = 512;

/// An answer before it is sent.
pub(super) type Answer = Response<Full<Bytes>>;

/// `status` with a JSON body.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = empty(status);
    *answer.body_mut() = Full::new(body.into());
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// `status` with `{"error": message}`.
pub(super) fn error(status: StatusCode, message: &str) -> Answer {
    json(status, serde_json::json!({ "error": message }).to_string())
}

/// 503 with the time to wait.
pub(super) fn busy(message: &str, after: Duration) -> Answer {
    let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, message);
    let seconds = HeaderValue::from(after.as_secs_f64().ceil().max(1.0) as u64);
    answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    answer
}

/// 405 with what is allowed.
pub(super) fn method_not_allowed(allow: &'static str) -> Answer {
    let message = format!("method not allowed; use {allow}");
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, &message);
    let allow = HeaderValue::from_static(allow);
    answer.headers_mut().insert(header::ALLOW, allow);
    answer
}

/// The answer to a HEAD request: the source is there. hyper leaves out the length of nothing, clients
/// that keep the connection want to read it.
pub(super) fn head() -> Answer {
    let mut answer = empty(StatusCode::OK);
    answer
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// The pixel, which no cache may keep: every view is a row.
pub(super) fn pixel() -> Answer {
    let mut answer = empty(StatusCode::OK);
    *answer.body_mut() = Full::new(Bytes::from_static(PIXEL));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/gif"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The answer to an OPTIONS request.
pub(super) fn options(allow: &'static str) -> Answer {
    let mut answer = empty(StatusCode::OK);
    let headers = answer.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(allow),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("content-type, content-encoding"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    answer
}

/// Lets the page of `origin`, that sent the request, read the answer, if it is one that is allowed. `sendBeacon` sends credentials, so
/// the origin is named and `*` is not enough.
pub(super) fn allow_origin(
    answer: &mut Answer,
    origin: Option<&HeaderValue>,
    allows: impl FnOnce(&HeaderValue) -> bool,
) {
    let Some(origin) = origin else {
        return;
    };
    let headers = answer.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if allows(origin) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
}

/// Replies that say what became of each row. Most requests have no bad row, and their reply depends only
/// on the number of rows.
#[derive(Default)]
pub(super) struct Replies(RefCell<Vec<Option<Bytes>>>);

#[derive(Serialize)]
struct Failed<'a> {
    failed: bool,
    error_code: &'a str,
    error_message: &'a str,
}

impl Replies {
    pub fn of(&self, decoded: &Decoded) -> Answer {
        let body = self.all_good(decoded);
        json(
            StatusCode::OK,
            body.unwrap_or_else(|| write_reply(decoded).into()),
        )
    }

    /// The body for rows that are all good, if it is one that is kept ready.
    pub fn all_good(&self, decoded: &Decoded) -> Option<Bytes> {
        let kept = decoded.failed.is_empty() && decoded.rows < READY_REPLIES;
        kept.then(|| self.ready(decoded.rows))
    }

    fn ready(&self, rows: usize) -> Bytes {
        let mut ready = self.0.borrow_mut();
        if ready.len() <= rows {
            ready.resize(rows + 1, None);
        }
        let write = || {
            let failed = Vec::new();
            write_reply(&Decoded { rows, failed }).into()
        };
        ready[rows].get_or_insert_with(write).clone()
    }
}

fn write_reply(decoded: &Decoded) -> String {
    let mut reply = format!("{{\"failed_count\":{},\"records\":[", decoded.failed.len());
    let mut failed = decoded.failed.iter().peekable();
    for row in 0..decoded.rows {
        if row > 0 {
            reply.push(',');
        }
        match failed.next_if(|f| f.index == row) {
            None => reply.push_str("{\"failed\":false}"),
            Some(bad) => {
                let bad = Failed {
                    failed: true,
                    error_code: bad.error.code,
                    error_message: &bad.error.message,
                };
                reply.push_str(&serde_json::to_string(&bad).expect("three plain members serialise"));
            }
        }
    }
    reply.push_str("]}");
    reply
}
