//! The limit of an ingest server on hyper: reads the body of every request and answers with the same bytes a
//! collector would. Threads, sockets and hyper are set up as Millstream sets them up.
//!
//! `bare [PORT] [THREADS]`

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::LazyLock;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use socket2::{Domain, Socket, Type};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().map_or(Ok(8099), |port| port.parse())?;
    let threads: usize = args.next().map_or(Ok(1), |threads| threads.parse())?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let running: Vec<_> = (0..threads)
        .map(|_| std::thread::spawn(move || serve(address)))
        .collect();
    eprintln!("bare server at http://{address} on {threads} threads");
    for thread in running {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a server thread panicked"))??;
    }
    Ok(())
}

fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = tokio::net::TcpListener::from_std(socket.into())?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // A client that goes away is not this server's concern.
                let _ = server
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            });
        }
    })
}

async fn answer(request: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    Ok(Response::new(Full::new(reply(body.len()))))
}

/// As many records as a request of this length has rows, about 155 bytes each: what the real answer costs to send.
fn reply(bytes: usize) -> Bytes {
    static REPLIES: LazyLock<[Bytes; 4]> = LazyLock::new(|| [1, 5, 50, 500].map(all_taken));
    let at = [400, 3_000, 30_000].partition_point(|&most| most < bytes);
    REPLIES[at].clone()
}

fn all_taken(rows: usize) -> Bytes {
    let records = vec![r#"{"failed":false}"#; rows].join(",");
    Bytes::from(format!(r#"{{"failed_count":0,"records":[{records}]}}"#))
}
