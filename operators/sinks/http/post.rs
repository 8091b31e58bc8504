//! One request of the `http` sink, and what its answer means.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Request, Uri};
use http_body_util::Full;
use millstream_engine::{Error, Result};

use super::outbox::Chunk;
use super::{BodyFormat, HttpSinkOptions, Method};
use crate::client::{Answered, HttpClient, shown};

/// By which a receiver can tell that a request is made again.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What a receiver said for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The rows were taken.
    Taken,
    /// The rows will never be taken.
    Refused { status: u16, why: String },
}

/// Where requests go, and all of a request that is always the same.
pub(super) struct Target {
    client: HttpClient,
    uri: Uri,
    method: Method,
    format: BodyFormat,
    headers: HeaderMap,
    timeout: Duration,
    /// The address without path and query, which may hold tokens.
    shown: String,
}

impl Target {
    /// Checks the options without side effects.
    pub fn check(options: &HttpSinkOptions) -> Result<()> {
        if options.batch_rows == 0 {
            return Err(Error::config("batch_rows: must be at least 1"));
        }
        address(options)?;
        headers(options).map(drop)
    }

    /// Makes no request.
    pub fn new(options: &HttpSinkOptions) -> Result<Target> {
        Target::check(options)?;
        let uri = address(options)?;
        let client = HttpClient::new(&uri)?;
        let mut headers = headers(options)?;
        let uri = take_user(uri, &mut headers)?;
        Ok(Target {
            client,
            shown: shown(&uri),
            uri,
            method: options.method,
            format: options.format,
            headers,
            timeout: options.timeout.0,
        })
    }

    /// Posts one request. `key` names it, the same however often it is made.
    pub async fn post(&self, rows: &Chunk, key: &str) -> Result<Answer> {
        let request = self.request(rows, key)?;
        let answered = self.client.send(request, self.timeout).await?;
        self.sort(answered)
    }

    fn request(&self, rows: &Chunk, key: &str) -> Result<Request<Full<Bytes>>> {
        let method = match self.method {
            Method::Post => http::Method::POST,
            Method::Put => http::Method::PUT,
        };
        let mut request = Request::new(Full::new(self.format.body(rows)));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let key = HeaderValue::from_str(key).map_err(|e| Error::bug(format!("idempotency key: {e}")))?;
        request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        Ok(request)
    }

    fn sort(&self, answered: Answered) -> Result<Answer> {
        let Answered { status, after, said } = answered;
        let message = format!("{} answered {status}", self.shown);
        match status {
            200..=299 => Ok(Answer::Taken),
            408 | 425 | 429 | 500.. => Err(Error::Retry { message, after }),
            300..=399 => Err(Error::config(format!(
                "{message}; redirects are not followed, write the final url"
            ))),
            401 | 403 | 407 => Err(Error::config(format!(
                "{message}: {said}; check bearer_token and headers"
            ))),
            404 | 405 | 410 => Err(Error::config(format!("{message}: {said}; check url and method"))),
            _ => Ok(Answer::Refused { status, why: said }),
        }
    }
}

impl BodyFormat {
    fn body(self, rows: &Chunk) -> Bytes {
        let body = match self {
            BodyFormat::Json => [&b"["[..], &rows.join(&b","[..]), b"]"].concat(),
            BodyFormat::Ndjson => [&rows.join(&b"\n"[..])[..], b"\n"].concat(),
        };
        body.into()
    }

    fn content_type(self) -> HeaderValue {
        match self {
            BodyFormat::Json => HeaderValue::from_static("application/json"),
            BodyFormat::Ndjson => HeaderValue::from_static("application/x-ndjson"),
        }
    }
}

fn address(options: &HttpSinkOptions) -> Result<Uri> {
    let wrong = |why: &str| Error::config(format!("url: {why}; write http://host/path or https://host/path"));
    let uri: Uri = options.url.expose().parse().map_err(|e| wrong(&format!("{e}")))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err(wrong("names no http or https host")),
    }
}

/// The address without its user, who goes into `headers` unless they say already who asks.
fn take_user(uri: Uri, headers: &mut HeaderMap) -> Result<Uri> {
    let mut parts = uri.into_parts();
    let authority = parts.authority.as_ref().map_or("", |a| a.as_str());
    let Some((user, host)) = authority.rsplit_once('@') else {
        return from_parts(parts);
    };
    let user: Vec<u8> = percent_encoding::percent_decode_str(user).collect();
    let basic = format!("Basic {}", BASE64.encode(user));
    let host = host
        .parse()
        .map_err(|_| Error::bug("a host is no host any more"))?;
    if !headers.contains_key(AUTHORIZATION) {
        headers.insert(AUTHORIZATION, secret_value("url", &basic)?);
    }
    parts.authority = Some(host);
    from_parts(parts)
}

fn from_parts(parts: http::uri::Parts) -> Result<Uri> {
    Uri::from_parts(parts).map_err(|_| Error::bug("an address is no address any more"))
}

fn headers(options: &HttpSinkOptions) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, options.format.content_type());
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("millstream/", env!("CARGO_PKG_VERSION"))),
    );
    for (name, value) in &options.headers {
        let header = HeaderName::try_from(name.as_str())
            .map_err(|_| Error::config(format!("headers: {name:?} cannot be a header's name")))?;
        headers.insert(header, secret_value(&format!("headers.{name}"), value.expose())?);
    }
    if let Some(token) = &options.bearer_token {
        headers.insert(
            AUTHORIZATION,
            secret_value("bearer_token", &format!("Bearer {}", token.expose()))?,
        );
    }
    Ok(headers)
}

fn secret_value(key: &str, value: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| Error::config(format!("{key}: holds characters that a header cannot hold")))?;
    value.set_sensitive(true);
    Ok(value)
}
