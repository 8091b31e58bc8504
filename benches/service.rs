//! What the connectors of AWS talk to in the benches: the emulator of the tests, or a server in this process that takes
//! everything at once.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

/// How long an emulator may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this program has credentials and a service to talk to.
pub fn is_there() -> bool {
    std::env::var_os("AWS_ENDPOINT_URL").is_some()
}

/// Runs this program again with an emulator to talk to, which then ends. The SDK takes credentials from the environment
/// only, and a process cannot change its own.
pub fn with_emulator() -> anyhow::Result<()> {
    let emulator = Emulator::start()?;
    again(&emulator.endpoint)
}

/// Runs this program again with a service at `endpoint`.
pub fn again(endpoint: &str) -> anyhow::Result<()> {
    let status = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .status()?;
    ensure!(status.success(), "the measuring process ended with {status}");
    Ok(())
}

/// An emulator on a port of its own, ended when dropped.
struct Emulator {
    process: Child,
    endpoint: String,
}

impl Emulator {
    #[allow(clippy::disallowed_methods, reason = "nothing runs yet that could be blocked")]
    fn start() -> anyhow::Result<Emulator> {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let venv = std::env::var_os("MILLSTREAM_VENV").map(PathBuf::from);
        let venv = venv.unwrap_or_else(|| home.join(".cache/millstream/venv"));
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let process = Command::new(venv.join("bin/ministack"))
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", address.port().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("ministack does not start; ci/test installs it")?;
        let emulator = Emulator {
            process,
            endpoint: format!("http://{address}"),
        };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            ensure!(
                Instant::now() < deadline,
                "ministack does not listen on {address}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(emulator)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // One that has ended already is what this is for.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Starts a server on a thread of its own, which answers every request by `answer`.
pub fn serve<A>(answer: impl Fn(Request<Incoming>) -> A + Copy + Send + 'static) -> anyhow::Result<SocketAddr>
where
    A: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
                // The client closes it at the end of a round.
                tokio::spawn(async move { drop(connection.await) });
            }
        });
    });
    Ok(address)
}
