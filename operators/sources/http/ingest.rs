//! The ingest server: one per process, a lane per core.
//!
//! Each lane is a thread with its own runtime, its own listener on the shared port (the kernel spreads the
//! connections), and its own log per source. Lanes share nothing that a request touches.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use millstream_engine::{Error, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::connection;
use super::endpoint::{Endpoint, Routes};
use super::lane::{Crowd, Lane, Shared};
use super::limits::Limits;
use super::reads::Reads;
use super::stats::{IngestStats, LaneStats};

/// Connections the kernel may hold for us between two accepts: a burst at the rate of a busy site.
const BACKLOG: i32 = 1024;

/// Connections beyond the limit that are told so at a time; in a flood, the rest are just closed.
const TURNED_AWAY: usize = 256;

/// Pause after a failed accept, which is almost always a lack of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// The ingest server. Sources open and close paths on it; it lives as long as the process.
pub struct Ingest {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    /// Runs what is no request, such as the orderly end of a source.
    control: Handle,
    ended: Mutex<Vec<oneshot::Receiver<()>>>,
}

impl Ingest {
    /// Listens on `listen` and starts the lanes. Until their sources open, requests to the `expected` paths are
    /// told to come again: a client that meets a restart must not take its path for gone. An error of class
    /// config if the address is taken.
    pub fn start(listen: SocketAddr, limits: Limits, expected: &[&str]) -> Result<Arc<Ingest>> {
        let lanes = limits.lanes.max(1);
        let (listeners, local_addr) = bind_all(listen, lanes)
            .map_err(|e| Error::config(format!("cannot listen on {listen} for ingest: {e}")))?;
        let shared = Arc::new(Shared {
            routes: Routes::expecting(expected),
            limits,
            stats: (0..lanes).map(|_| LaneStats::default()).collect(),
            reads: OnceLock::new(),
            stop: CancellationToken::new(),
        });
        let mut ended = Vec::new();
        let mut handles = Vec::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            let (handle, end) = start_lane(shared.clone(), index, listener)?;
            handles.push(handle);
            ended.push(end);
        }
        info!(address = %local_addr, lanes, "ingest is listening");
        Ok(Arc::new(Ingest {
            shared,
            local_addr,
            control: handles.swap_remove(0),
            ended: Mutex::new(ended),
        }))
    }

    /// The address it listens on, with the port that was chosen if none was given.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Has reads answered, where no source has their path. Once per server.
    pub fn answer_reads(&self, reads: Reads) {
        let set = self.shared.reads.set(reads);
        assert!(set.is_ok(), "reads are set once");
    }

    /// Number of lanes; a source has a log for each.
    pub fn lanes(&self) -> usize {
        self.shared.stats.len()
    }

    /// What was counted since the start.
    pub fn stats(&self) -> IngestStats {
        let mut sum = IngestStats::default();
        for lane in &self.shared.stats {
            lane.add_to(&mut sum);
        }
        sum
    }

    /// Stops accepting, finishes the requests in flight within [`Limits::shutdown_grace`], and ends the
    /// lanes. Sources that are still open end as if they had been stopped.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        let ended = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        for lane in ended {
            // An error means that the lane has ended already.
            let _ = lane.await;
        }
        self.shared.routes.close_all().await;
    }

    /// See [`Routes::claim`].
    pub(super) fn claim(&self, path: &str, holder: &str) -> Result<()> {
        self.shared.routes.claim(path, holder)
    }

    /// Opens the path of `endpoint` and closes it in order when `stop` is cancelled.
    pub(super) fn open(&self, endpoint: Arc<Endpoint>, stop: CancellationToken) -> Result<()> {
        if self.shared.stop.is_cancelled() {
            return Err(Error::retry("the ingest server is stopping"));
        }
        self.shared.routes.open(endpoint.clone())?;
        let shared = self.shared.clone();
        self.control.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => shared.routes.close(&endpoint).await,
                () = endpoint.closed.cancelled() => {}
            }
        });
        Ok(())
    }

    /// See [`Routes::abandon`].
    pub(super) fn abandon(&self, endpoint: &Arc<Endpoint>) {
        self.shared.routes.abandon(endpoint);
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// One listener per lane on one port.
fn bind_all(listen: SocketAddr, lanes: usize) -> std::io::Result<(Vec<std::net::TcpListener>, SocketAddr)> {
    if listen.port() != 0 {
        // A shared port can be shared with another process too, which would silently take half of the
        // connections. Asked for alone, it is refused if anyone has it.
        drop(bind(listen, false)?);
    }
    let first = bind(listen, true)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..lanes {
        listeners.push(bind(address, true)?);
    }
    Ok((listeners, address))
}

fn bind(address: SocketAddr, shared: bool) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn start_lane(
    shared: Arc<Shared>,
    index: usize,
    listener: std::net::TcpListener,
) -> Result<(Handle, oneshot::Receiver<()>)> {
    let cannot = |e: std::io::Error| Error::config(format!("cannot start ingest lane {index}: {e}"));
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot)?;
    let handle = runtime.handle().clone();
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name(format!("ingest-lane-{index}"))
        .spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => run_lane(Rc::new(Lane::new(shared, index)), listener).await,
                    Err(e) => warn!(lane = index, error = %e, "the listener cannot be used"),
                }
            });
            // Nobody waits if the process is ending without a shutdown.
            let _ = end.send(());
        })
        .map_err(cannot)?;
    Ok((handle, ended))
}

async fn run_lane(lane: Rc<Lane>, listener: TcpListener) {
    let (connections, turned_away) = (Crowd::default(), Crowd::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = lane.shared.stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                lane.stats()
                    .connections
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let lane = lane.clone();
                if connections.len() < lane.limits().connections_per_lane {
                    connections.spawn(connection::serve(lane, stream, peer.ip()));
                } else if turned_away.len() < TURNED_AWAY {
                    turned_away.spawn(connection::turn_away(lane, stream));
                }
            }
            Err(e) => {
                warn!(lane = lane.index, error = %e, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    let finishing = async {
        connections.gone().await;
        lane.quiet().await;
    };
    if tokio::time::timeout(lane.limits().shutdown_grace, finishing)
        .await
        .is_err()
    {
        let open = connections.len();
        warn!(
            lane = lane.index,
            open, "connections were cut at the end of the grace period"
        );
    }
}
