//! The bounded edge between two tasks.
//!
//! A queue limited by messages alone would let a few huge batches fill memory, and one limited by bytes
//! alone would let a million tiny ones wait. An edge is limited by messages, rows and bytes; a sender waits
//! until there is room, which is all there is to backpressure.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::{Error, Result};
use crate::message::Message;
use crate::metrics::NodeMetrics;

/// Messages that may wait on one edge; enough to keep both sides busy, few enough that a barrier is not
/// stuck behind minutes of work.
pub const EDGE_MESSAGES: usize = 64;
/// Rows that may wait on one edge.
pub const EDGE_ROWS: usize = 262_144;
/// Bytes of array memory that may wait on one edge.
pub const EDGE_BYTES: usize = 32 << 20;

/// Rows and bytes are metered in thousandths of an edge.
const ROOM: usize = 1_000;

struct Queued {
    message: Message,
    _room: Option<OwnedSemaphorePermit>,
}

/// The sending end of an edge.
pub struct EdgeSender {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    receiver: NodeMetrics,
}

/// The receiving end of an edge.
pub struct EdgeReceiver {
    queue: mpsc::Receiver<Queued>,
    receiver: NodeMetrics,
}

/// A new edge into the node that `receiver` measures.
pub fn edge(receiver: NodeMetrics) -> (EdgeSender, EdgeReceiver) {
    let (tx, rx) = mpsc::channel(EDGE_MESSAGES);
    let sender = EdgeSender {
        queue: tx,
        room: Arc::new(Semaphore::new(ROOM)),
        receiver: receiver.clone(),
    };
    (sender, EdgeReceiver { queue: rx, receiver })
}

impl EdgeSender {
    /// Sends, waiting for room. Fails only when the receiving task is gone.
    pub async fn send(&self, message: Message) -> Result<()> {
        let room = match &message {
            Message::Batch(batch) => {
                let permits = share_of_edge(batch.rows.num_rows(), batch.rows.get_array_memory_size());
                let room = self.room.clone().acquire_many_owned(permits).await;
                Some(room.map_err(|_| gone())?)
            }
            _ => None,
        };
        let queued = Queued { message, _room: room };
        self.queue.send(queued).await.map_err(|_| gone())?;
        self.receiver.queued.inc();
        Ok(())
    }
}

impl EdgeReceiver {
    /// The next message; `None` when the sending task is gone.
    pub fn poll_recv(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Message>> {
        self.queue.poll_recv(cx).map(|queued| {
            let queued = queued?;
            self.receiver.queued.dec();
            Some(queued.message)
        })
    }
}

impl Drop for EdgeReceiver {
    fn drop(&mut self) {
        self.receiver.queued.dec_by(self.queue.len() as i64);
    }
}

/// A batch larger than the whole edge may still pass, alone.
fn share_of_edge(rows: usize, bytes: usize) -> u32 {
    let share = (rows * ROOM / EDGE_ROWS).max(bytes / (EDGE_BYTES / ROOM));
    share.clamp(1, ROOM) as u32
}

fn gone() -> Error {
    Error::bug("the task at the other end of an edge is gone")
}
