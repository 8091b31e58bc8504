//! Requests to other people's HTTP servers: one client for what posts rows and for what posts notices.
//!
//! How it fails: an answer with any status is an answer; no answer, and none in time, is [`Error::Retry`]. Messages
//! name the host only, as paths and queries may hold tokens.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use millstream_engine::{Error, Result};

/// An answer is read this far, so that its connection can be used again.
const ANSWER_BYTES: usize = 64 << 10;

/// So much of what a server said stands in a log.
const SAID_CHARS: usize = 200;

/// Over TLS or not: the roots of trust are loaded, and must exist, only where they are needed.
pub enum HttpClient {
    /// For `http://`.
    Plain(Client<HttpConnector, Full<Bytes>>),
    /// For `https://`, and nothing else.
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// How long it wants to be left alone.
    pub after: Option<Duration>,
    /// The beginning of the body.
    pub said: String,
}

impl HttpClient {
    /// For requests to `uri`. Makes none.
    ///
    /// # Errors
    /// The address is `https://` and this host has no root certificates.
    pub fn new(uri: &Uri) -> Result<HttpClient> {
        let builder = Client::builder(TokioExecutor::new());
        if uri.scheme_str() != Some("https") {
            return Ok(HttpClient::Plain(builder.build_http()));
        }
        let tls = HttpsConnectorBuilder::new().with_native_roots().map_err(|e| {
            Error::config(format!(
                "no root certificates: {e}; install ca-certificates on this host"
            ))
        })?;
        let tls = tls.https_only().enable_http1().enable_http2().build();
        Ok(HttpClient::Tls(builder.build(tls)))
    }

    /// Makes one request. Redirects are not followed.
    ///
    /// # Errors
    /// [`Error::Retry`]: nobody answered, or not within `timeout`.
    pub async fn send(&self, request: Request<Full<Bytes>>, timeout: Duration) -> Result<Answered> {
        let shown = shown(request.uri());
        let exchange = async {
            let response = match self {
                HttpClient::Plain(client) => client.request(request).await,
                HttpClient::Tls(client) => client.request(request).await,
            };
            match response {
                Ok(response) => Ok(answered(response).await),
                Err(e) => Err(Error::retry(format!("{shown}: {}", causes(&e)))),
            }
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::retry(format!("{shown}: no answer within {timeout:?}"))),
        }
    }
}

/// An address without user, path and query, which may hold tokens.
pub fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    format!("{scheme}://{}", uri.host().unwrap_or_default())
}

async fn answered(response: Response<Incoming>) -> Answered {
    let status = response.status().as_u16();
    let after = response.headers().get(RETRY_AFTER).and_then(retry_after);
    let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
    let said = body.map(|b| b.to_bytes()).unwrap_or_default();
    Answered {
        status,
        after,
        said: excerpt(&said),
    }
}

/// Seconds, or a date.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    Some((at.to_utc() - chrono::Utc::now()).to_std().unwrap_or_default())
}

fn excerpt(said: &[u8]) -> String {
    String::from_utf8_lossy(said)
        .chars()
        .filter(|c| !c.is_control())
        .take(SAID_CHARS)
        .collect()
}

fn causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}
