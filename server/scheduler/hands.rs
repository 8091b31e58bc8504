//! What the scheduler has in hand: a task for each phase that runs. Dropped, they stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::catalog::model::Job;
use crate::scheduler::decide::Phase;
use crate::scheduler::execute::{Counts, Execute, RunError, RunKey};

/// How long a phase that was told to stop is waited for. Dropping stops at the next await; one that does not get
/// there is left behind, as ending a job must not depend on it.
const STOP: Duration = Duration::from_secs(10);

/// What tasks tell the loop.
#[derive(Debug)]
pub enum Done {
    Phase(Ended),
    Marker {
        job: String,
        date: NaiveDate,
        there: Result<bool, String>,
    },
}

/// How a phase ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub job: String,
    pub key: RunKey,
    pub phase: Phase,
    /// Counts of a transform, nothing of a load.
    pub result: Result<Counts, RunError>,
}

/// The phases that run.
pub struct Hands {
    execute: Arc<dyn Execute>,
    end: mpsc::Sender<Done>,
    running: BTreeMap<(String, NaiveDate), (Phase, u32, Task)>,
}

/// A task that stops when this is dropped.
pub struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Task {
    pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(tokio::spawn(work))
    }
}

impl Hands {
    pub fn new(execute: Arc<dyn Execute>, end: mpsc::Sender<Done>) -> Hands {
        Hands {
            execute,
            end,
            running: BTreeMap::new(),
        }
    }

    /// Begins a phase.
    pub fn begin(&mut self, job: &Job, key: RunKey, phase: Phase) {
        let (execute, job, end) = (self.execute.clone(), job.clone(), self.end.clone());
        let of = (job.uuid.clone(), key.date);
        let task = Task::spawn(async move {
            let uuid = job.uuid.clone();
            // A task of its own, so that a panic is a failure of the phase.
            let mut work = Guarded(tokio::spawn(async move {
                match phase {
                    Phase::Transform => execute.transform(&job, &key).await,
                    Phase::Load => execute.load(&job, &key).await.map(|()| Counts::default()),
                }
            }));
            let result = (&mut work.0).await.unwrap_or_else(|panic| {
                Err(RunError {
                    message: format!("it panicked: {panic} (this is a bug in millstream)"),
                    hopeless: false,
                })
            });
            let ended = Ended {
                job: uuid,
                key,
                phase,
                result,
            };
            // The loop is gone only when everything is.
            let _ = end.send(Done::Phase(ended)).await;
        });
        self.running.insert(of, (phase, key.attempt, task));
    }

    /// The dates of a job that run.
    pub fn of(&self, job: &str) -> BTreeSet<NaiveDate> {
        let mine = self.running.keys().filter(|(of, _)| of == job);
        mine.map(|(_, date)| *date).collect()
    }

    /// How many transforms run.
    pub fn transforming(&self) -> usize {
        self.running
            .values()
            .filter(|(phase, ..)| *phase == Phase::Transform)
            .count()
    }

    /// The transforms that run.
    pub fn transforms(&self) -> Vec<(String, NaiveDate)> {
        let all = self
            .running
            .iter()
            .filter(|(_, (phase, ..))| *phase == Phase::Transform);
        all.map(|(of, _)| of.clone()).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Stops a phase and waits until it has.
    pub async fn stop(&mut self, job: &str, date: NaiveDate) {
        let Some((.., mut task)) = self.running.remove(&(job.to_owned(), date)) else {
            return;
        };
        task.0.abort();
        if tokio::time::timeout(STOP, &mut task.0).await.is_err() {
            tracing::error!("{date} of the job {job} does not stop; it is left behind");
        }
    }

    /// A phase has ended. One that was stopped may have ended just before; what was begun since stays.
    pub fn let_go(&mut self, ended: &Ended) {
        let of = (ended.job.clone(), ended.key.date);
        if let Some((phase, attempt, _)) = self.running.get(&of)
            && (*phase, *attempt) == (ended.phase, ended.key.attempt)
        {
            self.running.remove(&of);
        }
    }

    /// Stops everything.
    pub fn drop_all(&mut self) {
        self.running.clear();
    }
}

/// The work inside a task: stops with it.
struct Guarded<T>(JoinHandle<T>);

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
