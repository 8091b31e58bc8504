//! What is known of markers: whether they are there, and when to look again. Waits grow while one is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use millstream_engine::time::Timestamp;
use tokio::sync::mpsc;

use crate::catalog::Entry;
use crate::catalog::model::Job;
use crate::catalog::state::RunState;
use crate::scheduler::execute::Execute;
use crate::scheduler::hands::{Done, Task};

/// The wait before a marker that is not there is looked for again; doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait. Objects are looked for one by one, so that a year of missing markers is a request a second.
const LONGEST: Duration = Duration::from_secs(300);

/// Markers of a job that are looked for at one time: each is a request.
const MOST_LOOKED_FOR: usize = 32;

/// The markers of all jobs.
pub struct Markers {
    execute: Arc<dyn Execute>,
    end: mpsc::Sender<Done>,
    of: BTreeMap<String, BTreeMap<NaiveDate, Marker>>,
}

#[derive(Default)]
struct Marker {
    there: Option<bool>,
    error: Option<String>,
    /// The task that looks.
    looking: Option<Task>,
    wait: Duration,
    again: Option<Timestamp>,
}

impl Marker {
    fn is_due(&self, now: Timestamp) -> bool {
        self.looking.is_none() && self.there != Some(true) && self.again.is_none_or(|at| at <= now)
    }
}

impl Markers {
    pub fn new(execute: Arc<dyn Execute>, end: mpsc::Sender<Done>) -> Markers {
        Markers {
            execute,
            end,
            of: BTreeMap::new(),
        }
    }

    /// What is known.
    pub fn known(&self, job: &str) -> BTreeMap<NaiveDate, bool> {
        let all = self.of.get(job).into_iter().flatten();
        all.filter_map(|(date, marker)| Some((*date, marker.there?)))
            .collect()
    }

    /// Why a marker could not be looked for, or none where it could.
    pub fn errors(&self, job: &str) -> Vec<(NaiveDate, Option<String>)> {
        let all = self.of.get(job).into_iter().flatten();
        all.map(|(date, marker)| (*date, marker.error.clone())).collect()
    }

    /// Looks for the markers of `dates` that it is time to look for, those first that have waited for longest, and
    /// forgets the others of the job; gives when to look again.
    pub fn ask(&mut self, job: &Job, dates: &BTreeSet<NaiveDate>, now: Timestamp) -> Option<Timestamp> {
        if dates.is_empty() && !self.of.contains_key(&job.uuid) {
            return None;
        }
        let all = self.of.entry(job.uuid.clone()).or_default();
        all.retain(|date, marker| dates.contains(date) || marker.there == Some(true));
        for date in dates {
            all.entry(*date).or_default();
        }
        let looking = all.values().filter(|marker| marker.looking.is_some()).count();
        let mut due: Vec<(&NaiveDate, &mut Marker)> =
            all.iter_mut().filter(|(_, marker)| marker.is_due(now)).collect();
        due.sort_by_key(|(date, marker)| (marker.again, **date));
        for (date, marker) in due.into_iter().take(MOST_LOOKED_FOR.saturating_sub(looking)) {
            marker.looking = Some(look(self.execute.clone(), self.end.clone(), job.clone(), *date));
        }
        // Those that are due and have to wait are looked for as soon as an answer makes room.
        let later = all.values().filter(|marker| marker.there != Some(true));
        let later = later.filter_map(|marker| marker.again);
        later.filter(|at| *at > now).min()
    }

    /// Notes an answer.
    pub fn answered(&mut self, job: &str, date: NaiveDate, there: Result<bool, String>, now: Timestamp) {
        let Some(marker) = self.of.get_mut(job).and_then(|all| all.get_mut(&date)) else {
            return;
        };
        marker.looking = None;
        marker.there = Some(there == Ok(true));
        marker.error = there.err();
        marker.wait = (marker.wait * 2).clamp(FIRST, LONGEST);
        marker.again = Some(now.plus(marker.wait));
    }

    /// Forgets a marker, to look for it anew should its date be made again.
    pub fn forget(&mut self, job: &str, date: NaiveDate) {
        if let Some(all) = self.of.get_mut(job) {
            all.remove(&date);
        }
    }
}

fn look(execute: Arc<dyn Execute>, end: mpsc::Sender<Done>, job: Job, date: NaiveDate) -> Task {
    Task::spawn(async move {
        let there = execute.ready(&job, date).await.map_err(|e| e.message);
        let job = job.uuid;
        // The loop is gone only when everything is.
        let _ = end.send(Done::Marker { job, date, there }).await;
    })
}

/// Shows why the marker of a date that waits for it could not be looked for.
pub fn note(entry: &mut Entry, date: NaiveDate, error: Option<String>) {
    if let Some(run) = entry.runs.get_mut(&date)
        && run.status == RunState::Waiting
    {
        run.error = error.map(|e| format!("its marker cannot be looked for: {e}"));
    }
}
