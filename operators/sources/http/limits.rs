//! The limits of the ingest server, each with its reason.

use std::time::Duration;

/// What the ingest server allows. The limits of one source (rows, bytes) are keys of the source.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Threads that take requests, each with a listener and a log per source. One per core; more than
    /// eight saturate the fsyncs of one disk before they saturate the cores.
    pub lanes: usize,
    /// Open connections of one lane; beyond, a new one is told 503 and closed. Bounds memory at about
    /// 16 KiB each and keeps far below common limits on open files.
    pub connections_per_lane: usize,
    /// Time to send the head of a request; also how long a connection may stay open between two requests.
    /// A browser reuses a connection within seconds; a slow one that holds a slot is an attack.
    pub header_timeout: Duration,
    /// Time to send a body: 4 MiB in 30 s is 140 KB/s, less than a bad mobile line.
    pub body_timeout: Duration,
    /// Body bytes that arrived in pieces and wait for the rest, per lane. Beyond: 503.
    pub buffered_bytes: usize,
    /// Requests of one HTTP/2 connection at a time.
    pub h2_streams: u32,
    /// Requests that wait for delivery at a time, of one source in one lane (`ack = "delivered"`); beyond: 503. At the
    /// default interval of checkpoints 80,000 requests/s pass, and each costs some hundred bytes.
    pub awaiting_delivery: usize,
    /// Bytes of a refused body that are read and thrown away, so that the client, which may still be
    /// writing, sees the answer instead of a reset.
    pub drain_bytes: usize,
    /// Time for the same.
    pub drain_timeout: Duration,
    /// Time for the requests in flight when the server stops. The slowest honest one is a group commit
    /// on a busy disk.
    pub shutdown_grace: Duration,
    /// Rows of a batch that is written without waiting for more: one Arrow batch as DataFusion likes it.
    pub batch_rows: usize,
    /// The same in bytes.
    pub batch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        const MOST_LANES: usize = 8;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Limits {
            lanes: cores.min(MOST_LANES),
            connections_per_lane: 4096,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            buffered_bytes: 256 << 20,
            h2_streams: 128,
            awaiting_delivery: 16_384,
            drain_bytes: 16 << 20,
            drain_timeout: Duration::from_secs(2),
            shutdown_grace: Duration::from_secs(10),
            batch_rows: 8192,
            batch_bytes: 4 << 20,
        }
    }
}
