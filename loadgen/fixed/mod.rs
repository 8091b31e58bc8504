//! Load by the number: `--rate` sends rows on a fixed schedule (open loop), `--closed-loop` as fast as answers
//! come back.
//!
//! **Open loop.** Request *k* is due at `start + k × interval`, whatever the server does. Any free connection takes
//! the next due request, and its latency counts from the moment it was due, so a stall of the server is seen
//! by every request it delayed (no coordinated omission). A request that found no free connection until the end is
//! reported as never sent, and stands among the latencies with the time for which it had waited by then: a server
//! that stalls to the end does not hide that.
//!
//! **Closed loop.** Each connection keeps `--pipeline` requests in flight; latency counts from the send, and says
//! little: a slow server is asked less.
//!
//! **Its own cost.** Threads (`worker`) share nothing but the schedule (`pace`). A request is one piece of memory
//! (`maker`), sent by one write; what the socket gives is cut into replies where it lies (`wire`). `benches/loadgen`
//! compares it with `wrk`; the report says how busy both sides were.

mod lane;
mod maker;
mod pace;
mod worker;

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tokio::task::JoinSet;

use self::maker::Maker;
use self::pace::Pace;
use self::worker::Worker;
use crate::report::Tally;
use crate::run::Run;

/// Runs until the run stops and all answers are in. Also returns how many due requests were never sent.
pub async fn drive(run: Arc<Run>) -> anyhow::Result<(Tally, u64)> {
    let address = run.endpoint.resolve().await?;
    let (connections, threads) = (run.plan.connections, run.plan.threads.min(run.plan.connections));
    let makers: Vec<_> = (0..threads).map(|index| Maker::new(&run, index)).collect();
    let pace = Arc::new(Pace::new(run.plan.mode, run.plan.batch));
    let worker = |(index, maker): (usize, Maker)| {
        let share = connections / threads + usize::from(index < connections % threads);
        Worker::new(run.clone(), pace.clone(), address, share, maker)
    };
    let workers: Vec<_> = makers
        .into_iter()
        .enumerate()
        .map(worker)
        .collect::<Result<_, _>>()
        .context("cannot start the threads")?;
    let pacer = pace.start(&run, workers.iter().map(Worker::sleeper).collect())?;
    let mut running = JoinSet::new();
    for worker in workers {
        let run = run.clone();
        running.spawn_blocking(move || worker.run().inspect_err(|_| run.stop()));
    }
    run.stopped().await;
    let end = Instant::now();
    let mut total = Tally::default();
    while let Some(tally) = running.join_next().await {
        total.merge(&tally?.context("cannot wait for the sockets")?);
    }
    if let Some(pacer) = pacer {
        pacer
            .join()
            .map_err(|_| anyhow::anyhow!("the schedule's thread panicked"))?;
    }
    let never_sent = note_unsent(&run, &pace, end, &mut total);
    Ok((total, never_sent))
}

/// Adds what was due by `end` and not sent to the latencies; how many they are.
fn note_unsent(run: &Run, pace: &Pace, end: Instant, total: &mut Tally) -> u64 {
    if run.all_rows_claimed() {
        // It needed no more requests than it took.
        return 0;
    }
    let mut count = 0;
    for due in pace.left(end) {
        total.waited(end - due);
        count += 1;
    }
    count
}
