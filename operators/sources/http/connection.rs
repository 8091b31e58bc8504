//! One connection: HTTP/1.1 with keep-alive and pipelining, or HTTP/2 with prior knowledge, told apart by
//! the first bytes. HTTP/1.1 begins in `plain`, and goes on with hyper when something comes that is not for that.
//!
//! A client that sends no request in time is closed, with 408 if it had begun one. A client that is
//! refused may still be writing its body: what comes is read and thrown away for a moment, because
//! closing at once would reset the connection and with it the answer.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::answer::Answer;
use super::lane::Lane;
use super::plain::{self, End};
use super::request;
use super::rewound::Rewound;

/// The first bytes of HTTP/2 (RFC 9113, section 3.4); no method of HTTP/1 begins like this.
const H2_PREFACE: &[u8] = b"PRI ";

/// Largest head of a request. Beacons carry cookies and long URLs, rarely beyond 8 KiB.
pub(super) const HEAD_BYTES: usize = 64 << 10;

/// Read buffer of an HTTP/1 connection; hyper grows it from 8 KiB up to this.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// How often a silent HTTP/2 client is asked whether it is there, and how long it may take to answer.
const H2_PING: Duration = Duration::from_secs(20);

/// Pauses before looking again at first bytes that could begin either protocol: the first, and the longest.
const PEEK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

const TOO_BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
content-type: application/json\r\ncontent-length: 32\r\n\r\n{\"error\":\"too many connections\"}";

const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
content-type: application/json\r\ncontent-length: 49\r\n\r\n{\"error\":\"the request did not arrive in time\"}   ";

/// Tells a client that there is no room for it.
pub(super) async fn turn_away(lane: Rc<Lane>, mut stream: TcpStream) {
    lane.stats().answered(503);
    // If the client is gone already, nobody misses the answer.
    let _ = stream.write_all(TOO_BUSY).await;
    drain(&lane, stream).await;
}

/// Serves a connection until it ends.
pub(super) async fn serve(lane: Rc<Lane>, mut stream: TcpStream, peer: IpAddr) {
    // Answers are small and complete; waiting to fill a segment only delays them.
    let _ = stream.set_nodelay(true);
    let first = timeout(lane.limits().header_timeout, is_h2(&stream));
    let first = tokio::select! {
        biased;
        first = first => first,
        () = lane.stop.cancelled() => return,
    };
    match first {
        Ok(Ok(true)) => serve_h2(lane, stream, peer).await,
        Ok(Ok(false)) => match plain::serve(&lane, &mut stream, peer).await {
            End::Over => drop(stream.shutdown().await),
            End::Refused => drain(&lane, stream).await,
            End::Other(read) => serve_h1(lane, Rewound::new(read, stream), peer).await,
        },
        // Silent for too long, or gone.
        Err(_) | Ok(Err(_)) => drain(&lane, stream).await,
    }
}

async fn is_h2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0; H2_PREFACE.len()];
    let (mut pause, longest) = PEEK_AGAIN;
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == H2_PREFACE.len() || seen == 0 || first[..seen] != H2_PREFACE[..seen] {
            return Ok(first == H2_PREFACE);
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(longest);
    }
}

async fn serve_h1(lane: Rc<Lane>, stream: Rewound, peer: IpAddr) {
    let refused = Rc::new(Cell::new(false));
    let service = service_fn({
        let (lane, refused) = (lane.clone(), refused.clone());
        move |request: Request<Incoming>| {
            let (lane, refused) = (lane.clone(), refused.clone());
            Box::pin(async move {
                let version = request.version();
                let mut answer = answer(&lane, peer, request).await;
                if is_refusal(&answer) {
                    refused.set(true);
                    if version < Version::HTTP_2 {
                        let close = HeaderValue::from_static("close");
                        answer.headers_mut().insert(CONNECTION, close);
                    }
                }
                Ok::<_, Infallible>(answer)
            })
        }
    });
    let mut connection = http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(lane.limits().header_timeout)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(READ_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut stop = pin!(lane.stop.cancelled());
    let mut stopping = false;
    let ended = poll_fn(|cx| {
        // First what has come, else hyper ends a connection whose next request it has not read.
        let ended = connection.poll_without_shutdown(cx);
        if ended.is_ready() || stopping || stop.as_mut().poll(cx).is_pending() {
            return ended;
        }
        stopping = true;
        Pin::new(&mut connection).graceful_shutdown();
        connection.poll_without_shutdown(cx)
    })
    .await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner().into_stream();
    match ended {
        Err(e) if e.is_timeout() && !parts.read_buf.is_empty() => {
            lane.stats().answered(408);
            let _ = stream.write_all(TOO_SLOW).await;
            drain(&lane, stream).await;
        }
        Err(e) if e.is_parse() => {
            // hyper has answered: 431 for a head that is too large, 400 otherwise.
            lane.stats()
                .answered(if e.is_parse_too_large() { 431 } else { 400 });
            drain(&lane, stream).await;
        }
        _ if refused.get() => drain(&lane, stream).await,
        // Said for the sake of order; the socket is closed either way.
        _ => drop(stream.shutdown().await),
    }
}

async fn serve_h2(lane: Rc<Lane>, stream: TcpStream, peer: IpAddr) {
    let service = service_fn({
        let lane = lane.clone();
        move |request: Request<Incoming>| {
            let lane = lane.clone();
            async move { Ok::<_, Infallible>(answer(&lane, peer, request).await) }
        }
    });
    let connection = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING)
        .max_concurrent_streams(lane.limits().h2_streams)
        .max_header_list_size(HEAD_BYTES as u32)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = lane.stop.cancelled() => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        // What a client does wrong at the end of a connection is its own affair.
        let _ = connection.await;
    }
}

async fn answer(lane: &Lane, peer: IpAddr, request: Request<Incoming>) -> Answer {
    let started = Instant::now();
    let answer = request::answer(lane, peer, request).await;
    lane.stats().answered(answer.status().as_u16());
    if answer.status().is_success() {
        lane.stats().took(started.elapsed());
    }
    answer
}

pub(super) fn is_refusal(answer: &Answer) -> bool {
    answer.status().is_client_error() || answer.status().is_server_error()
}

/// Ends our side and throws away what the client still sends, within limits.
async fn drain(lane: &Lane, mut stream: TcpStream) {
    let limits = lane.limits();
    let draining = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut rest = [0; 16 << 10];
        let mut read = 0;
        while read < limits.drain_bytes {
            match stream.read(&mut rest).await {
                Ok(0) | Err(_) => return,
                Ok(more) => read += more,
            }
        }
    };
    // Out of time is as good as at the end.
    let _ = timeout(limits.drain_timeout, draining).await;
}

/// Runs the tasks of HTTP/2 streams on the lane's own thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
