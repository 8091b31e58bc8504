//! Keeps other web sites out of a console that listens on this machine only.
//!
//! A page from elsewhere cannot read answers of another origin, unless it makes its own name resolve to
//! 127.0.0.1 (DNS rebinding). Its requests then carry that name in `Host`. On a loopback address only
//! loopback names are ours; on any other address the names people use are not known here, and access is
//! the network's to decide.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::header;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::Shared;
use crate::api::error::ApiError;

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
}
