//! One request: from its head to the answer.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::header::ORIGIN;
use http::{Method, Request, StatusCode, request};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::answer::{self, Answer};
use super::batch::{LaneSource, Taken};
use super::body::{self, Refused};
use super::lane::{Found, Lane};
use super::options::HEALTH_PATHS;
use super::verdict::{NotTaken, Verdict};
use crate::formats::json::{BodyError, Decoded, RowError};

/// What a client of a restarting pipeline is told to wait.
const AWAY_RETRY: Duration = Duration::from_secs(1);

const POST_METHODS: &str = "POST, HEAD, OPTIONS";
const GIF_METHODS: &str = "GET, HEAD, OPTIONS";
const HEALTH_METHODS: &str = "GET, HEAD";

/// Answers one request that `peer` sent.
pub(super) async fn answer(lane: &Lane, peer: IpAddr, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if HEALTH_PATHS.contains(&path) {
        return health(lane, &head);
    }
    let (source, gif) = match lane.find(path) {
        Found::Source { source, gif } => (source, gif),
        Found::Away => return away(),
        Found::Broken => return broken(),
        Found::Unknown => {
            if let Some(reads) = lane.shared.reads.get().filter(|reads| reads.take(path)) {
                let mut answer = reads.answer(&head).await;
                answer::allow_origin(&mut answer, head.headers.get(ORIGIN), |origin| {
                    lane.allows(origin)
                });
                return answer;
            }
            let message = format!("no source has the path {path:?}");
            return answer::error(StatusCode::NOT_FOUND, &message);
        }
    };
    let mut answer = match (gif, &head.method) {
        (false, &Method::POST) => post(lane, &source, peer, &head, body).await,
        (false, &Method::HEAD) => answer::head(),
        (false, &Method::OPTIONS) => answer::options(POST_METHODS),
        (false, _) => answer::method_not_allowed(POST_METHODS),
        (true, &Method::GET) => gif_row(lane, &source, peer, &head).await,
        (true, &Method::HEAD) => answer::pixel(),
        (true, &Method::OPTIONS) => answer::options(GIF_METHODS),
        (true, _) => answer::method_not_allowed(GIF_METHODS),
    };
    let options = &source.endpoint.options;
    answer::allow_origin(&mut answer, head.headers.get(ORIGIN), |origin| {
        options.allows(origin)
    });
    answer
}

fn health(lane: &Lane, head: &request::Parts) -> Answer {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return answer::method_not_allowed(HEALTH_METHODS);
    }
    if head.uri.path() == "/healthz" || lane.is_ready() {
        return answer::json(StatusCode::OK, "{\"status\":\"ok\"}");
    }
    answer::busy("not every source takes rows yet", AWAY_RETRY)
}

async fn post(
    lane: &Lane,
    source: &Rc<LaneSource>,
    peer: IpAddr,
    head: &request::Parts,
    body: Incoming,
) -> Answer {
    let body = match read_body(lane, source, head, body).await {
        Ok(body) => body,
        Err(refused) => return refuse(lane, source, peer, refused),
    };
    match take_body(lane, source, peer, &body) {
        Ok(taken) => settle(lane, taken, |decoded| lane.replies.of(decoded)).await,
        Err(answer) => *answer,
    }
}

/// Takes the rows of a body as it was sent, or says what to answer at once.
pub(super) fn take_sent(
    lane: &Lane,
    source: &Rc<LaneSource>,
    peer: IpAddr,
    body: &[u8],
) -> Result<Taken, Box<Answer>> {
    lane.stats().bytes.fetch_add(body.len() as u64, Relaxed);
    take_body(lane, source, peer, body)
}

/// Takes the rows of a body, or says what to answer at once.
fn take_body(lane: &Lane, source: &Rc<LaneSource>, peer: IpAddr, body: &[u8]) -> Result<Taken, Box<Answer>> {
    is_taking(source)?;
    source.take_body(body, peer).map_err(|e| {
        lane.stats().invalid.fetch_add(1, Relaxed);
        let status = match e {
            BodyError::TooManyRows { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::Unreadable(_) | BodyError::Empty => StatusCode::BAD_REQUEST,
        };
        Box::new(answer::error(status, &e.to_string()))
    })
}

/// Takes the row of a query string, or says what to answer at once.
pub(super) fn take_query(source: &Rc<LaneSource>, peer: IpAddr, query: &str) -> Result<Taken, Box<Answer>> {
    is_taking(source)?;
    Ok(source.take_query(query, peer))
}

fn is_taking(source: &LaneSource) -> Result<(), Box<Answer>> {
    if source.endpoint.is_closed() {
        return Err(Box::new(away()));
    }
    source
        .is_full()
        .map_or(Ok(()), |full| Err(Box::new(not_taken(full))))
}

async fn read_body(
    lane: &Lane,
    source: &LaneSource,
    head: &request::Parts,
    body: Incoming,
) -> Result<bytes::Bytes, Refused> {
    let limit = source.endpoint.options.max_body.0 as usize;
    let body = body::read(body, limit, lane.limits().body_timeout, &lane.buffered).await?;
    lane.stats().bytes.fetch_add(body.len() as u64, Relaxed);
    body::decompress(&head.headers, body, limit)
}

/// Records a body that was refused for what it is, not for when or how it came.
fn refuse(lane: &Lane, source: &Rc<LaneSource>, peer: IpAddr, refused: Refused) -> Answer {
    if matches!(
        refused.status,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE
    ) {
        lane.stats().invalid.fetch_add(1, Relaxed);
        source.refuse_body(&refused.bytes, &refused.reason, peer);
    }
    refused.answer()
}

/// The pixel, whatever the row: a browser shows it either way, and a bad row goes to the invalid ones.
async fn gif_row(lane: &Lane, source: &Rc<LaneSource>, peer: IpAddr, head: &request::Parts) -> Answer {
    match take_query(source, peer, head.uri.query().unwrap_or_default()) {
        Ok(taken) => settle(lane, taken, |_| answer::pixel()).await,
        Err(answer) => *answer,
    }
}

/// Waits until the rows are safe, then answers `with` what became of each.
async fn settle(lane: &Lane, taken: Taken, with: impl FnOnce(&Decoded) -> Answer) -> Answer {
    let Taken { decoded, verdict } = taken;
    match settled(lane, &decoded, verdict.await) {
        Ok(()) => with(&decoded),
        Err(answer) => *answer,
    }
}

/// Counts rows that are safe, or says what to answer when they are not.
pub(super) fn settled(lane: &Lane, decoded: &Decoded, verdict: Verdict) -> Result<(), Box<Answer>> {
    verdict.map_err(|why| Box::new(not_taken(why)))?;
    let invalid = decoded.failed.len();
    let good = decoded.rows - invalid;
    lane.stats().rows.fetch_add(good as u64, Relaxed);
    if invalid > 0 {
        lane.stats().invalid.fetch_add(invalid as u64, Relaxed);
    }
    Ok(())
}

fn not_taken(why: NotTaken) -> Answer {
    match why {
        NotTaken::Busy { message, after } => answer::busy(&message, after),
        NotTaken::Failed => broken(),
        NotTaken::Dropped => away(),
    }
}

fn away() -> Answer {
    answer::busy(
        "the pipeline of this path is restarting; send again later",
        AWAY_RETRY,
    )
}

fn broken() -> Answer {
    answer::error(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the rows could not be stored; the server's log says why",
    )
}

/// Names and values of a query string.
pub(super) struct Pairs<'a>(pub Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Pairs<'a> {
    pub fn parse(query: &'a str) -> Result<Pairs<'a>, RowError> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(name)?, decode(value)?))
            })
            .collect::<Result<_, _>>()
            .map(Pairs)
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, RowError> {
    let invalid = |_| {
        RowError::new(
            "bad_encoding",
            "the query string is not UTF-8 after percent-decoding",
        )
    };
    if !text.contains('+') {
        return percent_decode_str(text).decode_utf8().map_err(invalid);
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(invalid)?;
    Ok(Cow::Owned(decoded.into_owned()))
}
