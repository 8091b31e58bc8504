//! The console page: a few files inside the binary, no build step, nothing fetched from elsewhere.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

const INDEX: &str = include_str!("index.html");
const SCRIPT: &str = include_str!("app.js");
const CHART: &str = include_str!("chart.js");
const FORMAT: &str = include_str!("format.js");
const GRAPH: &str = include_str!("graph.js");
const STYLE: &str = include_str!("style.css");

/// Everything comes from this process, nothing is inline, nobody frames the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/` and `/console/*`.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(async || file("text/html; charset=utf-8", INDEX)))
        .route("/console/app.js", get(async || script(SCRIPT)))
        .route("/console/chart.js", get(async || script(CHART)))
        .route("/console/format.js", get(async || script(FORMAT)))
        .route("/console/graph.js", get(async || script(GRAPH)))
        .route(
            "/console/style.css",
            get(async || file("text/css; charset=utf-8", STYLE)),
        )
}

fn script(text: &'static str) -> impl IntoResponse {
    file("text/javascript; charset=utf-8", text)
}

fn file(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        // A newer binary at the same address must not meet an older page.
        (header::CACHE_CONTROL, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text)
}
