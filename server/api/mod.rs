//! The admin API: health, metrics, pipelines, the latest rows of any stream, and the console page.
//!
//! All but `/v1` only reads. Errors are `{"error": "…"}`. Times are RFC 3339, UTC.

mod error;
pub mod guard;
mod health;
mod pipelines;
mod process;
pub mod rows;
mod streams;
mod v1;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::get;
use axum::{Router, extract::Request};
use millstream_engine::metrics::Metrics;
use millstream_engine::runtime::PipelineHandle;
use millstream_engine::secret::Secret;
use millstream_engine::time::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::catalog::Catalog;
use crate::notify::deliver::Deliverer;
use error::ApiError;

/// Event streams open at one time. Each holds a socket and encodes rows on the API's thread; a browser
/// opens a handful.
const EVENT_STREAMS: usize = 64;

/// What the API shows.
pub struct Process {
    /// The pipelines.
    pub pipelines: Vec<PipelineHandle>,
    /// The metrics of all of them.
    pub metrics: Arc<Metrics>,
    /// Where the API is served.
    pub admin: SocketAddr,
    /// Where an ad's traffic is read.
    pub traffic: Arc<dyn crate::traffic::Store>,
    /// Where rows come in, if anywhere.
    pub ingest: Option<SocketAddr>,
    /// Jobs and their runs.
    pub catalog: Catalog,
    /// The loop that runs jobs; none: nothing is to run.
    pub scheduler: Option<AbortHandle>,
    /// Who tells people of them.
    pub deliverer: Arc<Deliverer>,
    /// What requests that change something must carry.
    pub token: Option<Secret>,
}

/// State of every request.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    process: Process,
    started: Timestamp,
    event_streams: Arc<Semaphore>,
}

impl Shared {
    /// For a process that starts now.
    pub fn new(process: Process) -> Shared {
        Shared(Arc::new(Inner {
            process,
            started: Timestamp::now(),
            event_streams: Arc::new(Semaphore::new(EVENT_STREAMS)),
        }))
    }

    /// Jobs and their runs.
    fn catalog(&self) -> &Catalog {
        &self.0.process.catalog
    }

    /// A place for one more event stream, for as long as it is held.
    fn event_stream(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let permit = self.0.event_streams.clone().try_acquire_owned();
        permit.map_err(|_| {
            ApiError::busy(format!(
                "{EVENT_STREAMS} event streams are open already; close one"
            ))
        })
    }

    fn pipelines(&self) -> &[PipelineHandle] {
        &self.0.process.pipelines
    }

    fn pipeline(&self, name: &str) -> Result<&PipelineHandle, ApiError> {
        let found = self.pipelines().iter().find(|p| p.plan().name == name);
        found.ok_or_else(|| {
            let known = self.pipelines().iter().map(|p| p.plan().name.as_str());
            ApiError::not_found("pipeline", name, known)
        })
    }
}

/// Answers until the process ends.
pub async fn serve(listener: TcpListener, state: Shared) {
    if let Err(error) = axum::serve(listener, router(state)).await {
        tracing::error!("the admin API ended: {error}");
    }
}

fn router(state: Shared) -> Router {
    Router::new()
        .merge(crate::console::routes())
        .merge(v1::routes())
        .merge(crate::traffic::routes(state.0.process.traffic.clone()))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/pipelines", get(pipelines::list))
        .route("/api/v1/pipelines/{pipeline}", get(pipelines::detail))
        .route(
            "/api/v1/pipelines/{pipeline}/streams/{stream}",
            get(streams::latest),
        )
        .route(
            "/api/v1/pipelines/{pipeline}/streams/{stream}/events",
            get(streams::events),
        )
        .fallback(nothing_here)
        .method_not_allowed_fallback(only_reads)
        .layer(from_fn_with_state(state.clone(), guard::authorized))
        .layer(from_fn_with_state(state.clone(), guard::same_host))
        .layer(map_response(common_headers))
        .with_state(state)
}

async fn nothing_here(uri: Uri) -> ApiError {
    ApiError::missing(format!(
        "nothing at {}; pipelines are at /api/v1/pipelines, jobs at /v1/jobs, the console page at /",
        uri.path()
    ))
}

async fn only_reads(request: Request) -> ApiError {
    ApiError::method(format!(
        "{} is not possible at {}",
        request.method(),
        request.uri().path()
    ))
}

async fn common_headers(mut response: Response) -> Response {
    const NOSNIFF: (HeaderName, HeaderValue) = (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let headers = response.headers_mut();
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::path::Path;

    use super::*;
    use crate::notify::settings::Settings;

    /// Sends a request line with a host to an API without pipelines; gives head and body of the answer.
    async fn ask(line: &'static str, host: &'static str) -> (String, String) {
        ask_beside(None, line, host).await
    }

    /// The same beside a loop that runs jobs.
    async fn ask_beside(
        scheduler: Option<AbortHandle>,
        line: &'static str,
        host: &'static str,
    ) -> (String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let admin = listener.local_addr().expect("bound");
        let catalog = Catalog::open(Path::new(":memory:")).expect("a catalog");
        let settings = Settings::silent();
        let state = Shared::new(Process {
            pipelines: Vec::new(),
            metrics: Arc::new(Metrics::new()),
            admin,
            traffic: crate::traffic::store(None, "absent.db".as_ref())
                .await
                .expect("a store"),
            ingest: None,
            scheduler,
            deliverer: Arc::new(Deliverer::new(catalog.clone(), settings).expect("nobody to tell")),
            catalog,
            token: None,
        });
        let serving = tokio::spawn(serve(listener, state));
        let answer = tokio::task::spawn_blocking(move || {
            let mut to = TcpStream::connect(admin).expect("listening");
            write!(to, "{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").expect("sent");
            let mut answer = String::new();
            to.read_to_string(&mut answer).expect("text");
            answer
        });
        let answer = answer.await.expect("no panic");
        serving.abort();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
        (head.to_ascii_lowercase(), body.to_owned())
    }

    #[tokio::test]
    async fn a_scheduler_that_has_ended_is_noticed() {
        let ended = tokio::spawn(async {});
        let scheduler = ended.abort_handle();
        ended.await.expect("no panic");
        let (head, body) = ask_beside(Some(scheduler), "GET /readyz", "127.0.0.1").await;
        assert!(head.starts_with("http/1.1 503"), "{head}");
        assert!(body.contains("\"scheduler\":{\"running\":false}"), "{body}");
        let runs = tokio::spawn(std::future::pending::<()>());
        let (head, _) = ask_beside(Some(runs.abort_handle()), "GET /readyz", "127.0.0.1").await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        runs.abort();
    }

    #[tokio::test]
    async fn every_path_answers_as_documented() {
        let cases = [
            ("GET /healthz", "200", "text/plain", "ok\n"),
            ("GET /readyz", "200", "application/json", "\"ready\":true"),
            ("GET /metrics", "200", "application/openmetrics-text", "# EOF\n"),
            ("GET /", "200", "text/html", "<title>Millstream</title>"),
            ("GET /console/app.js", "200", "text/javascript", "import "),
            (
                "GET /console/chart.js",
                "200",
                "text/javascript",
                "export class Chart",
            ),
            (
                "GET /console/graph.js",
                "200",
                "text/javascript",
                "export class Graph",
            ),
            (
                "GET /console/format.js",
                "200",
                "text/javascript",
                "export function count",
            ),
            ("GET /console/style.css", "200", "text/css", ":root"),
            (
                "GET /api/v1/pipelines",
                "200",
                "application/json",
                "\"pipelines\":[]",
            ),
            (
                "GET /api/v1/pipelines/x",
                "404",
                "application/json",
                "{\"error\":\"no pipeline \\\"x\\\"",
            ),
            (
                "GET /api/v1/pipelines/x/streams/y?limit=0",
                "400",
                "application/json",
                "{\"error\":\"limit must",
            ),
            (
                "GET /nowhere",
                "404",
                "application/json",
                "{\"error\":\"nothing at /nowhere",
            ),
            (
                "POST /api/v1/pipelines",
                "405",
                "application/json",
                "{\"error\":\"POST is not possible",
            ),
        ];
        for (line, status, content_type, part) in cases {
            let (head, body) = ask(line, "localhost").await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{line}: {head}");
            assert!(
                head.contains(&format!("content-type: {content_type}")),
                "{line}: {head}"
            );
            assert!(head.contains("x-content-type-options: nosniff"), "{line}: {head}");
            assert!(body.contains(part), "{line}: {body}");
        }
    }

    #[tokio::test]
    async fn the_page_loads_nothing_from_elsewhere() {
        let (head, body) = ask("GET /", "localhost").await;
        assert!(
            head.contains("content-security-policy: default-src 'none'"),
            "{head}"
        );
        let addresses = body.split(['"', '\'']).filter(|word| word.starts_with("http"));
        // The one address of the page is the name space of its icon.
        assert!(
            addresses.eq(["http://www.w3.org/2000/svg"]),
            "the page names other addresses"
        );
    }

    #[tokio::test]
    async fn another_site_is_refused() {
        let (head, body) = ask("GET /api/v1/pipelines", "evil.example").await;
        assert!(head.starts_with("http/1.1 403 "), "{head}");
        assert!(body.contains("evil.example"), "{body}");
    }
}
