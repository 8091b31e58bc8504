//! The operators of one task and the edges that leave it: a small tree that rows are pushed through.
//!
//! A task has one chain. In a partition task it starts at the source's rows; in an operator task at what
//! arrives on its edges. Streams branch ("fan out") to a tap, to operators of the same task, and to edges
//! into other tasks. Nothing is queued inside a chain: rows that enter have left, or are in operator state,
//! when `push` returns.
//!
//! A watermark may set off much: a hundred thousand windows, or one with a million rows. Operators do it in
//! pieces ([`Rest`]), and each piece has left before the next is asked for. Between two results of the chain's
//! first operator the task may even take rows and barriers ([`Chain::advance`] returns); operators after the
//! first are not interrupted, because they have not all heard of the watermark that such rows follow.

use std::collections::VecDeque;
use std::time::Instant;

use crate::error::Result;
use crate::message::{Barrier, Batch, Message, Moved};
use crate::metrics::NodeMetrics;
use crate::operator::{Operator, Output, Rest};
use crate::runtime::channel::EdgeSender;
use crate::runtime::tap::Tap;
use crate::state::Snapshot;
use crate::time::Timestamp;

/// Index of a fan in its chain.
pub type FanId = usize;

/// Where a stream goes within a task.
pub struct Fan {
    /// Who looks at it.
    pub tap: Option<Tap>,
    /// Operators of this task that take it: index in the chain, and which of their inputs.
    pub operators: Vec<(usize, usize)>,
    /// Edges that leave the task.
    pub edges: Vec<usize>,
    /// The watermark that those who take it have been told.
    pub watermark: Timestamp,
}

impl Default for Fan {
    fn default() -> Self {
        Fan {
            tap: None,
            operators: Vec::new(),
            edges: Vec::new(),
            watermark: Timestamp::MIN,
        }
    }
}

/// An operator in a chain.
pub struct ChainedOperator {
    /// Name under which its state is kept; unique within the task and stable across restarts.
    pub state_name: String,
    /// The state machine.
    pub operator: Box<dyn Operator>,
    /// What it emits.
    pub main: FanId,
    /// What it emits aside.
    pub side: Option<FanId>,
    /// Counts of its node.
    pub metrics: NodeMetrics,
    /// Whether `metrics.rows_in` counts here; false for a half whose rows its other half counts.
    pub counts_in: bool,
    /// Whether `metrics.rows_out` counts here.
    pub counts_out: bool,
}

/// Operators in topological order, the streams between them, and the edges that leave.
#[derive(Default)]
pub struct Chain {
    /// Operators, each after those it takes rows from.
    pub operators: Vec<ChainedOperator>,
    /// Streams.
    pub fans: Vec<Fan>,
    /// Edges that leave.
    pub edges: Vec<EdgeSender>,
    /// The stream that each operator takes.
    taken: Vec<FanId>,
    /// The watermark that is being passed on.
    passing: Option<Passing>,
}

/// A watermark on its way through a chain.
struct Passing {
    /// Where each stream stands, as far as is known.
    stands: Vec<Timestamp>,
    /// Operators before this one have heard of it, and done what follows.
    next: usize,
    /// When it moved.
    since: Instant,
}

impl Chain {
    /// Adds a stream.
    pub fn add_fan(&mut self, tap: Option<Tap>) -> FanId {
        self.fans.push(Fan {
            tap,
            ..Fan::default()
        });
        self.fans.len() - 1
    }

    /// Adds an operator that takes `from` as its input `input`.
    pub fn add_operator(&mut self, from: FanId, input: usize, operator: ChainedOperator) {
        self.operators.push(operator);
        self.taken.push(from);
        self.fans[from].operators.push((self.operators.len() - 1, input));
    }

    /// Adds an edge that carries `from`.
    pub fn add_edge(&mut self, from: FanId, edge: EdgeSender) {
        self.edges.push(edge);
        self.fans[from].edges.push(self.edges.len() - 1);
    }

    /// Pushes rows into stream `fan` and everything that follows from them out of the task.
    pub async fn push(&mut self, fan: FanId, batch: Batch) -> Result<()> {
        let mut work = VecDeque::from([(fan, batch)]);
        while let Some((fan, batch)) = work.pop_front() {
            self.leave(fan, &batch).await?;
            for at in 0..self.fans[fan].operators.len() {
                let (index, input) = self.fans[fan].operators[at];
                let it = &mut self.operators[index];
                let mut out = Output::default();
                let started = Instant::now();
                if it.counts_in && batch.pane.is_none() {
                    it.metrics.rows_in.inc_by(batch.rows.num_rows() as u64);
                }
                it.operator.on_batch(input, batch.clone(), &mut out)?;
                it.metrics.busy.inc_by(started.elapsed().as_secs_f64());
                it.route(out, batch.due, &mut work);
            }
        }
        Ok(())
    }

    /// Moves event time on for every operator, in order, and then for everyone downstream. An operator may
    /// hold the watermark of its stream back; who takes that stream hears only of what is left.
    pub async fn watermark(&mut self, moved: Moved) -> Result<()> {
        self.start(moved).await?;
        self.finish().await
    }

    /// Starts to move event time on, as far as [`Chain::advance`] goes.
    pub async fn start(&mut self, moved: Moved) -> Result<()> {
        debug_assert!(
            self.passing.is_none(),
            "one watermark goes through a chain at a time"
        );
        // Streams that no operator of the chain makes move with the task.
        self.passing = Some(Passing {
            stands: vec![moved.to; self.fans.len()],
            next: 0,
            since: moved.since,
        });
        self.advance().await
    }

    /// Whether a watermark has started and not left yet.
    pub fn is_advancing(&self) -> bool {
        self.passing.is_some()
    }

    /// Goes on until the watermark has left.
    pub async fn finish(&mut self) -> Result<()> {
        while self.is_advancing() {
            self.advance().await?;
        }
        Ok(())
    }

    /// Goes on until the watermark has left, or to a point where rows and barriers may come in between.
    pub async fn advance(&mut self) -> Result<()> {
        let Some(mut passing) = self.passing.take() else {
            return Ok(());
        };
        while passing.next < self.operators.len() {
            let index = passing.next;
            let from = self.taken[index];
            let at = passing.stands[from];
            if at > self.fans[from].watermark {
                match self.piece(index, at, passing.since).await? {
                    Rest::Nothing => {}
                    Rest::Results if index == 0 => {
                        self.passing = Some(passing);
                        return Ok(());
                    }
                    Rest::Results | Rest::OfResult => continue,
                }
            }
            let it = &self.operators[index];
            passing.stands[it.main] = it.operator.watermark_behind(at);
            if let Some(side) = it.side {
                passing.stands[side] = at;
            }
            passing.next += 1;
        }
        self.tell(&passing).await
    }

    /// Lets one operator do one piece of what a watermark sets off; what it emits goes on before those behind
    /// it hear of the time, and other tasks of the thread run before there is more.
    async fn piece(&mut self, index: usize, at: Timestamp, since: Instant) -> Result<Rest> {
        let it = &mut self.operators[index];
        let mut out = Output::default();
        let started = Instant::now();
        it.operator.on_watermark(at, &mut out).await?;
        it.metrics.busy.inc_by(started.elapsed().as_secs_f64());
        let rest = out.rest;
        if rest == Rest::Nothing {
            it.metrics.saw_watermark(at);
        }
        let mut work = VecDeque::new();
        it.route(out, Some(since), &mut work);
        for (fan, batch) in work {
            self.push(fan, batch).await?;
        }
        if rest != Rest::Nothing {
            tokio::task::yield_now().await;
        }
        Ok(rest)
    }

    /// Sends every stream's watermark down its edges.
    async fn tell(&mut self, passing: &Passing) -> Result<()> {
        for (fan, at) in self.fans.iter_mut().zip(&passing.stands) {
            if *at <= fan.watermark {
                continue;
            }
            fan.watermark = *at;
            let moved = Moved {
                to: *at,
                since: passing.since,
            };
            for edge in &fan.edges {
                self.edges[*edge].send(Message::Watermark(moved)).await?;
            }
        }
        Ok(())
    }

    /// The state of every operator, by name.
    pub fn snapshot(&mut self) -> Result<Vec<(String, Snapshot)>> {
        let mut all = Vec::new();
        for it in &mut self.operators {
            let started = Instant::now();
            let state = it.operator.snapshot().map_err(|e| e.within(&it.state_name))?;
            it.metrics.busy.inc_by(started.elapsed().as_secs_f64());
            if !state.is_empty() {
                all.push((it.state_name.clone(), state));
            }
        }
        Ok(all)
    }

    /// Sends a barrier down every edge, and the end after the last one.
    pub async fn barrier(&mut self, barrier: Barrier) -> Result<()> {
        self.broadcast(&Message::Barrier(barrier)).await?;
        if barrier.last {
            self.broadcast(&Message::End).await?;
        }
        Ok(())
    }

    async fn leave(&mut self, fan: FanId, batch: &Batch) -> Result<()> {
        let fan = &self.fans[fan];
        if let Some(tap) = &fan.tap {
            tap.publish(&batch.rows);
        }
        for edge in &fan.edges {
            self.edges[*edge].send(Message::Batch(batch.clone())).await?;
        }
        Ok(())
    }

    async fn broadcast(&mut self, message: &Message) -> Result<()> {
        for edge in &self.edges {
            edge.send(message.clone()).await?;
        }
        Ok(())
    }
}

impl ChainedOperator {
    /// What an operator has made goes on; `due` says when the watermark moved that made it.
    fn route(&self, out: Output, due: Option<Instant>, work: &mut VecDeque<(FanId, Batch)>) {
        for (what, rows) in out.counts {
            self.metrics.counters.add(what, rows);
        }
        for batch in out.main {
            if self.counts_out && batch.pane.is_none() {
                self.metrics.rows_out.inc_by(batch.rows.num_rows() as u64);
            }
            work.push_back((self.main, Batch { due, ..batch }));
        }
        for rows in out.side {
            self.metrics.rows_late.inc_by(rows.num_rows() as u64);
            if let Some(side) = self.side {
                work.push_back((side, rows.into()));
            }
        }
    }
}
