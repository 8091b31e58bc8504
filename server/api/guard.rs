//! Who may ask.
//!
//! **Other web sites may not.** A page from elsewhere cannot read answers of another origin, unless it makes its own
//! name resolve to 127.0.0.1 (DNS rebinding). Its requests then carry that name in `Host`. On a loopback address only
//! loopback names are ours; on any other address the names people use are not known here, and access is
//! the network's to decide. What such a page may send without asking first, such as a form, carries its `Origin`.
//!
//! **`/v1`, and whatever changes something, needs the token** where `MILLSTREAM_TOKEN` names one. Where it does not,
//! only those on this machine may use these, so an address that others reach must have one.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use millstream_engine::secret::Secret;

use crate::api::Shared;
use crate::api::error::ApiError;

/// Names the token.
const TOKEN: &str = "MILLSTREAM_TOKEN";

/// The token that requests must carry, if the environment names one.
pub fn token() -> Option<Secret> {
    let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
    token.map(Secret::new)
}

pub async fn same_host(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|h| h.to_str().ok()).unwrap_or_default();
    if is_ours(state.0.process.admin, host) {
        return next.run(request).await;
    }
    ApiError::forbidden(format!(
        "host {host:?} is not this machine's; open http://{} instead",
        state.0.process.admin
    ))
    .into_response()
}

pub async fn authorized(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let process = &state.0.process;
    let refused = match needs_token(request.method(), request.uri().path()) {
        true => refused(
            process.admin,
            process.token.as_ref(),
            request.method(),
            request.headers(),
        ),
        false => None,
    };
    match refused {
        Some(refused) => refused,
        None => next.run(request).await,
    }
}

fn needs_token(method: &Method, path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/") || changes(method)
}

fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The answer to a request that may not go on.
fn refused(
    admin: SocketAddr,
    token: Option<&Secret>,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Response> {
    match (token, bearer(headers)) {
        (Some(token), Some(shown)) if same(token.expose(), shown) => None,
        (Some(_), shown) => Some(unauthorized(shown.is_some())),
        (None, _) if !admin.ip().is_loopback() => Some(
            ApiError::forbidden(format!(
                "anyone can reach {admin}: set {TOKEN} for the process and send it as a bearer token"
            ))
            .into_response(),
        ),
        (None, _) if changes(method) && !same_origin(headers) => {
            Some(ApiError::forbidden("another web site may not change anything here").into_response())
        }
        (None, _) => None,
    }
}

/// 401, as RFC 6750 has it.
fn unauthorized(wrong: bool) -> Response {
    let (message, challenge) = match wrong {
        true => (
            "this is not the token",
            r#"Bearer realm="millstream", error="invalid_token""#,
        ),
        false => (
            "a token is needed: send Authorization: Bearer …",
            r#"Bearer realm="millstream""#,
        ),
    };
    let mut response = ApiError::unauthorized(message).into_response();
    let challenge = HeaderValue::from_static(challenge);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Takes as long for a near miss as for any other. Digests, because texts of other lengths are told apart at once.
fn same(token: &str, shown: &str) -> bool {
    let [token, shown] = [token, shown].map(|text| digest(&SHA256, text.as_bytes()));
    verify_slices_are_equal(token.as_ref(), shown.as_ref()).is_ok()
}

/// Who is no browser says no origin.
fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let from = origin.as_ref().and_then(Uri::authority).map(Authority::as_str);
    from.is_some() && from == text(header::HOST)
}

fn is_ours(listening: SocketAddr, host: &str) -> bool {
    if !listening.ip().is_loopback() {
        return true;
    }
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host().trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_loopback_only_loopback_names_are_ours() {
        let cases = [
            ("127.0.0.1:9090", "127.0.0.1:9090", true),
            ("127.0.0.1:9090", "localhost:9090", true),
            ("127.0.0.1:9090", "LOCALHOST", true),
            ("[::1]:9090", "[::1]:9090", true),
            // Through a forwarded port.
            ("127.0.0.1:9090", "localhost:1234", true),
            ("127.0.0.1:9090", "evil.example:9090", false),
            ("127.0.0.1:9090", "127.0.0.1.evil.example", false),
            ("127.0.0.1:9090", "localhost@evil.example", false),
            ("127.0.0.1:9090", "", false),
            ("0.0.0.0:9090", "console.example", true),
            ("10.0.0.1:9090", "anything", true),
        ];
        for (listening, host, ours) in cases {
            let listening = listening.parse().expect("an address");
            assert_eq!(is_ours(listening, host), ours, "{host} at {listening}");
        }
    }

    #[test]
    fn what_changes_something_and_all_of_v1_is_guarded() {
        let cases = [
            (Method::GET, "/v1/jobs", true),
            (Method::GET, "/v1", true),
            (Method::POST, "/api/v1/pipelines", true),
            (Method::GET, "/api/v1/pipelines", false),
            (Method::GET, "/v10", false),
            (Method::HEAD, "/", false),
        ];
        for (method, path, guarded) in cases {
            assert_eq!(needs_token(&method, path), guarded, "{method} {path}");
        }
    }

    #[test]
    fn who_may_ask() {
        let (here, everywhere) = ("127.0.0.1:9090", "0.0.0.0:9090");
        let ours = "http://127.0.0.1:9090";
        // Listening at, token, authorization, origin, and the status of the refusal of a POST.
        let cases = [
            (here, None, "", "", 0),
            (here, None, "", ours, 0),
            (here, None, "", "https://evil.example", 403),
            (here, None, "", "http://127.0.0.1:8080", 403),
            (here, None, "", "null", 403),
            (everywhere, None, "", "", 403),
            (
                everywhere,
                Some("s3cret"),
                "Bearer s3cret",
                "https://console.example",
                0,
            ),
            (here, Some("s3cret"), "bearer s3cret", "", 0),
            (here, Some("s3cret"), "", ours, 401),
            (here, Some("s3cret"), "Bearer s3cre", "", 401),
            (here, Some("s3cret"), "Bearer s3cret2", "", 401),
            (here, Some("s3cret"), "Basic s3cret", "", 401),
        ];
        for (listening, token, authorization, origin, status) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:9090"));
            for (name, value) in [(header::AUTHORIZATION, authorization), (header::ORIGIN, origin)] {
                if !value.is_empty() {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            let listening = listening.parse().expect("an address");
            let token = token.map(Secret::new);
            let refused = refused(listening, token.as_ref(), &Method::POST, &headers);
            let got = refused.map_or(0, |response| response.status().as_u16());
            assert_eq!(got, status, "{listening} {token:?} {authorization:?} {origin:?}");
        }
    }
}
