//! Fan-in: several edges become one ordered sequence.
//!
//! Watermarks combine to their minimum. Barriers are aligned: once an edge has delivered the barrier of a
//! checkpoint, it is not read until every other edge has delivered it too.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::error::{Error, Result};
use crate::message::{Barrier, Batch, Message, Moved};
use crate::runtime::channel::EdgeReceiver;
use crate::time::Timestamp;

/// What comes out of an inbox.
#[derive(Debug)]
pub enum Arrival {
    /// Rows from one of the edges.
    Batch(Batch),
    /// The combined watermark moved on.
    Watermark(Moved),
    /// Every edge has reached this barrier.
    Barrier(Barrier),
    /// Every edge has ended.
    End,
}

struct Edge {
    from: EdgeReceiver,
    watermark: Timestamp,
    at_barrier: Option<Barrier>,
    ended: bool,
}

/// The receiving side of a task.
pub struct Inbox {
    edges: Vec<Edge>,
    next: usize,
    watermark: Timestamp,
}

impl Inbox {
    /// Reads from `edges`.
    pub fn new(edges: Vec<EdgeReceiver>) -> Inbox {
        let edges = edges.into_iter().map(|from| Edge {
            from,
            watermark: Timestamp::MIN,
            at_barrier: None,
            ended: false,
        });
        Inbox {
            edges: edges.collect(),
            next: 0,
            watermark: Timestamp::MIN,
        }
    }

    /// The next arrival. Cancel-safe.
    pub async fn recv(&mut self) -> Result<Arrival> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// What has arrived by now, if anything has.
    pub async fn try_recv(&mut self) -> Result<Option<Arrival>> {
        poll_fn(|cx| {
            Poll::Ready(match self.poll_recv(cx) {
                Poll::Ready(arrival) => arrival.map(Some),
                Poll::Pending => Ok(None),
            })
        })
        .await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arrival>> {
        let count = self.edges.len();
        let mut waiting = 0;
        while waiting < count {
            let at = self.next;
            self.next = (self.next + 1) % count;
            let edge = &mut self.edges[at];
            if edge.ended || edge.at_barrier.is_some() {
                waiting += 1;
                continue;
            }
            match edge.from.poll_recv(cx) {
                Poll::Pending => waiting += 1,
                Poll::Ready(None) => {
                    return Poll::Ready(Err(Error::bug("a task upstream is gone without ending its edge")));
                }
                Poll::Ready(Some(message)) => {
                    waiting = 0;
                    if let Some(arrival) = self.take(at, message) {
                        return Poll::Ready(Ok(arrival));
                    }
                }
            }
        }
        Poll::Pending
    }

    fn take(&mut self, at: usize, message: Message) -> Option<Arrival> {
        let edge = &mut self.edges[at];
        let since = match message {
            Message::Batch(batch) => return Some(Arrival::Batch(batch)),
            Message::Watermark(moved) => {
                edge.watermark = edge.watermark.max(moved.to);
                moved.since
            }
            Message::Barrier(barrier) => {
                edge.at_barrier = Some(barrier);
                return self.aligned();
            }
            Message::End => {
                // An edge ends behind the last barrier, where all edges have met. Its watermark still
                // counts: without it the others would close windows that the checkpoint holds open, and
                // send them to tasks that may have ended.
                edge.ended = true;
                return self.edges.iter().all(|e| e.ended).then_some(Arrival::End);
            }
        };
        let combined = self.edges.iter().map(|e| e.watermark).min()?;
        (combined > self.watermark).then(|| {
            self.watermark = combined;
            Arrival::Watermark(Moved { to: combined, since })
        })
    }

    fn aligned(&mut self) -> Option<Arrival> {
        let mut open = self.edges.iter().filter(|e| !e.ended);
        let barrier = open.next()?.at_barrier?;
        if open.any(|e| e.at_barrier.is_none()) {
            return None;
        }
        for edge in &mut self.edges {
            edge.at_barrier = None;
        }
        Some(Arrival::Barrier(barrier))
    }
}
