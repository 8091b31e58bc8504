//! How a phase ended, noted in the catalog. Pure.

use std::time::Duration;

use chrono::NaiveDate;
use millstream_engine::time::Timestamp;

use crate::catalog::Entry;
use crate::catalog::state::RunState;
use crate::scheduler::decide::Phase;
use crate::scheduler::hands::Ended;
use crate::scheduler::rules::{Retry, recovered};

/// Notes how a phase ended, unless the run has been taken from this process meanwhile.
pub fn note(entry: &mut Entry, worker: &str, ended: &Ended, retry: &Retry) {
    let started = match ended.phase {
        Phase::Transform => RunState::EtStarted,
        Phase::Load => RunState::LoadStarted,
    };
    let now = entry.now;
    let run = entry.runs.get(&ended.key.date);
    let ours = run.is_some_and(|run| {
        run.status == started && run.attempt == ended.key.attempt && run.worker.as_deref() == Some(worker)
    });
    if !ours {
        return;
    }
    let to = match (ended.phase, &ended.result) {
        (Phase::Transform, Ok(_)) => RunState::EtSuccess,
        (Phase::Transform, Err(_)) => RunState::EtError,
        (Phase::Load, Ok(_)) => RunState::LoadSuccess,
        (Phase::Load, Err(_)) => RunState::LoadError,
    };
    let run = entry.advance(ended.key.date, to);
    match &ended.result {
        Err(error) => retry.failed(run, error.message.clone(), error.hopeless, now),
        Ok(counts) => {
            recovered(run);
            if ended.phase == Phase::Transform {
                run.et_seconds = run.et_started_at.map(|at| seconds(at, now));
                run.rows = counts.rows.clone();
                run.invalid = counts.invalid;
            } else {
                run.load_seconds = run.load_started_at.map(|at| seconds(at, now));
                run.forced = false;
            }
        }
    }
}

/// Gives a transform back that was stopped with the process, as if it had not begun.
pub fn give_back(entry: &mut Entry, worker: &str, date: NaiveDate) {
    if let Some(run) = entry.runs.get_mut(&date)
        && run.status == RunState::EtStarted
        && run.worker.as_deref() == Some(worker)
    {
        run.status = RunState::Null;
        run.et_started_at = None;
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    Duration::from_micros((to.0 - from.0).max(0) as u64).as_secs_f64()
}
