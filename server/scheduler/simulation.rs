//! Whole days of two processes on one catalog, with everything that can go wrong, in virtual time.
//!
//! One seed is one history: how long phases take, which fail, hang or panic, when a process is killed and when it
//! comes back, when someone pauses, cancels, resumes or asks for dates again. The warehouse is a map that outlives the
//! processes. The oracle, whatever happened: a load is begun only by who has claimed it in the catalog; never are two
//! loads of the job or two phases of a date under way; regular dates are loaded in order; a cancel ends; and in the
//! end every date is loaded, from its last transform, and the job is complete.
//!
//! ```text
//! SEED=4711 cargo test --workspace --bin millstream the_scheduler_survives -- --nocapture
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::NaiveDate;
use millstream_engine::runtime::timer::Sleep;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::sync::oneshot;

use super::backfill::{Backfill, newest_eligible};
use super::execute::{Counts, RunError};
use super::*;
use crate::catalog::model::Run;
use crate::catalog::state::{Request, RunState};

/// Histories in a test run.
const SEEDS: u64 = 12;
/// Virtual time in which a history has to end once nothing goes wrong any more. Retries wait a minute at most, a hung
/// phase ten minutes.
const PATIENCE: Duration = Duration::from_secs(8 * 3600);
/// Virtual time in which a cancel has to end while a process is alive: a dead one's lease, and a sweep.
const CANCEL_ENDS: Duration = Duration::from_secs(180);
const TIMEOUT: Duration = Duration::from_secs(600);

#[test]
fn the_scheduler_survives() {
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        println!("SEED={seed}");
        runtime.block_on(History::new(seed).run());
    }
}

fn begin() -> Timestamp {
    crate::catalog::text::read_time("2026-11-20T12:00:00Z").expect("a time")
}

fn day(of: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 11, of).expect("a date")
}

/// Time that moves when everybody waits.
#[derive(Default)]
struct Clock {
    state: Mutex<Moment>,
}

#[derive(Default)]
struct Moment {
    /// Microseconds since the beginning.
    now: i64,
    /// Who waits until when; told apart by a number.
    sleepers: BTreeMap<(i64, u64), oneshot::Sender<()>>,
    number: u64,
}

impl Timer for Clock {
    fn now(&self) -> Timestamp {
        begin().plus(self.elapsed())
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.state.lock().expect("not poisoned").now as u64)
    }

    fn sleep(&self, wait: Duration) -> Sleep {
        let mut state = self.state.lock().expect("not poisoned");
        let (wake, woken) = oneshot::channel();
        let at = state.now + wait.as_micros() as i64;
        state.number += 1;
        let key = (at, state.number);
        state.sleepers.insert(key, wake);
        Box::pin(async move {
            let _ = woken.await;
        })
    }
}

impl Clock {
    /// Moves to the next moment somebody waits for.
    fn advance(&self) {
        let mut state = self.state.lock().expect("not poisoned");
        while let Some((key, wake)) = state.sleepers.pop_first() {
            if wake.is_closed() {
                continue;
            }
            state.now = key.0;
            let _ = wake.send(());
            return;
        }
    }
}

/// What outlives processes.
struct World {
    rng: StdRng,
    clock: Arc<Clock>,
    /// Whether anything still goes wrong.
    weather: bool,
    loaded: BTreeMap<NaiveDate, u32>,
    /// Dates in the order of their first load.
    order: Vec<NaiveDate>,
    /// Phases under way.
    under_way: BTreeSet<(NaiveDate, Phase)>,
    staged: BTreeMap<(String, NaiveDate), u32>,
    wrong: Vec<String>,
}

/// What one process does of it.
struct Hand {
    world: Arc<Mutex<World>>,
    catalog: Catalog,
    worker: String,
}

/// A phase under way, until it ends in whatever way.
struct UnderWay(Arc<Mutex<World>>, (NaiveDate, Phase));

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().expect("not poisoned").under_way.remove(&self.1);
    }
}

impl Hand {
    /// Notes that a phase is under way, and what must not be at the same time.
    async fn enter(&self, job: &Job, key: &RunKey, phase: Phase) -> UnderWay {
        let runs = self.catalog.runs(&job.uuid).await.expect("runs");
        let run = runs.iter().find(|run| run.date == key.date).expect("claimed");
        let mut world = self.world.lock().expect("not poisoned");
        let state = match phase {
            Phase::Transform => RunState::EtStarted,
            Phase::Load => RunState::LoadStarted,
        };
        let claimed = |run: &Run| {
            run.status == state && run.attempt == key.attempt && run.worker.as_ref() == Some(&self.worker)
        };
        // A cancel may have come between the claim and now.
        let cancelled = matches!(run.status, RunState::EtCancelled | RunState::LoadCancelled);
        if !claimed(run) && !cancelled {
            world.wrong.push(format!(
                "{key:?} {phase:?} is begun by {} but is {run:?}",
                self.worker
            ));
        }
        let of_date = world.under_way.iter().any(|(date, _)| *date == key.date);
        let load = world.under_way.iter().any(|(_, other)| *other == Phase::Load) && phase == Phase::Load;
        if of_date || load {
            let under_way = format!("{:?}", world.under_way);
            world
                .wrong
                .push(format!("{key:?} {phase:?} is begun beside {under_way}"));
        }
        if phase == Phase::Load {
            let before = runs.iter().filter(|run| run.date < key.date && !run.backfill);
            let early = before.filter(|run| !world.loaded.contains_key(&run.date)).count();
            let missing = day(1).iter_days().take_while(|date| *date < key.date);
            let missing = missing.filter(|date| !world.loaded.contains_key(date)).count();
            if !run.backfill && early + missing > 0 {
                world
                    .wrong
                    .push(format!("{key:?} is loaded before {missing} earlier dates"));
            }
        }
        world.under_way.insert((key.date, phase));
        UnderWay(self.world.clone(), (key.date, phase))
    }

    /// Some time passes; then it may fail.
    async fn weather(&self) -> Result<(), RunError> {
        let (wait, clock, fate) = {
            let mut world = self.world.lock().expect("not poisoned");
            let wait = Duration::from_millis(world.rng.random_range(1..30_000));
            let fate = if world.weather {
                world.rng.random_range(0..100)
            } else {
                99
            };
            (wait, world.clock.clone(), fate)
        };
        clock.sleep(wait).await;
        match fate {
            0..10 => Err(RunError {
                message: "the other side is away".into(),
                hopeless: false,
            }),
            10..12 => Err(RunError {
                message: "no such column".into(),
                hopeless: true,
            }),
            12..14 => std::future::pending().await,
            // A panic that is not printed.
            14..16 => std::panic::resume_unwind(Box::new("as the seed wants it")),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Execute for Hand {
    async fn rules(&self, _: &Job, now: Timestamp) -> Result<Option<Rules>, RunError> {
        Ok(Some(Rules {
            start: day(1),
            end: Some(day(10)),
            newest: newest_eligible(now, Duration::from_secs(48 * 3600)),
            next_look: now.plus(Duration::from_secs(3600)),
            marker: true,
            catch_up: true,
            parallelism: 3,
            retry: Retry {
                first: Duration::from_secs(5),
                longest: Duration::from_secs(60),
                give_up_after: Duration::from_secs(900),
            },
            timeout: Some(TIMEOUT),
        }))
    }

    async fn ready(&self, _: &Job, _: NaiveDate) -> Result<bool, RunError> {
        let mut world = self.world.lock().expect("not poisoned");
        if !world.weather {
            return Ok(true);
        }
        match world.rng.random_range(0..10) {
            0 => Err(RunError {
                message: "the bucket is away".into(),
                hopeless: false,
            }),
            1..4 => Ok(false),
            _ => Ok(true),
        }
    }

    async fn transform(&self, job: &Job, key: &RunKey) -> Result<Counts, RunError> {
        let _under_way = self.enter(job, key, Phase::Transform).await;
        self.weather().await?;
        let mut world = self.world.lock().expect("not poisoned");
        world.staged.insert((self.worker.clone(), key.date), key.attempt);
        Ok(Counts::default())
    }

    async fn load(&self, job: &Job, key: &RunKey) -> Result<(), RunError> {
        let _under_way = self.enter(job, key, Phase::Load).await;
        let half = self.world.lock().expect("not poisoned").rng.random();
        // The effect comes before the end, or with it: a process may be killed between.
        if half {
            self.weather().await?;
        }
        {
            let mut world = self.world.lock().expect("not poisoned");
            let staged = world.staged.get(&(self.worker.clone(), key.date)).copied();
            if staged != Some(key.attempt) {
                world.wrong.push(format!(
                    "{key:?} is loaded by {}, which has {staged:?}",
                    self.worker
                ));
            }
            if world.loaded.insert(key.date, key.attempt).is_none() {
                world.order.push(key.date);
            }
        }
        self.weather().await
    }

    async fn forget(&self, _: &Job) {}
}

struct History {
    rng: StdRng,
    world: Arc<Mutex<World>>,
    clock: Arc<Clock>,
    dir: tempfile::TempDir,
    /// The processes: a catalog of its own each, and its loop unless it is dead.
    processes: Vec<(Catalog, Option<Task>)>,
    job: String,
}

/// A loop that is killed when this is dropped.
struct Task(tokio::task::JoinHandle<()>, CancellationToken);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl History {
    fn new(seed: u64) -> History {
        let clock = Arc::new(Clock::default());
        let world = World {
            rng: StdRng::seed_from_u64(!seed),
            clock: clock.clone(),
            weather: true,
            loaded: BTreeMap::new(),
            order: Vec::new(),
            under_way: BTreeSet::new(),
            staged: BTreeMap::new(),
            wrong: Vec::new(),
        };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = |dir: &Path| Catalog::open(&dir.join("catalog.db")).expect("a catalog");
        History {
            rng: StdRng::seed_from_u64(seed),
            world: Arc::new(Mutex::new(world)),
            clock,
            processes: (0..2).map(|_| (open(dir.path()), None)).collect(),
            dir,
            job: String::new(),
        }
    }

    async fn run(mut self) {
        let new = serde_json::from_value(json!({
            "log_name": "l", "log_schema_version": "1", "s3_path": "s3://b", "start_date": "2026-11-01",
            "end_date": "2026-11-10", "redshift_id": "c",
        }));
        let posted = self.processes[0].0.post_job(new.expect("a job"), begin()).await;
        self.job = posted.expect("posted");
        for _ in 0..self.rng.random_range(15..40) {
            let quiet = self.rng.random_range(1..400);
            self.pass(quiet).await;
            self.disturb().await;
        }
        self.world.lock().expect("not poisoned").weather = false;
        self.finish().await;
        self.judge().await;
    }

    /// Lets so many moments pass, each until everybody waits.
    async fn pass(&mut self, moments: u32) {
        for _ in 0..moments {
            self.settle().await;
            self.clock.advance();
        }
    }

    async fn settle(&self) {
        let mut still = 0;
        while still < 6 {
            tokio::task::yield_now().await;
            let busy = self.processes.iter().any(|(catalog, _)| catalog.busy());
            still = if busy { 0 } else { still + 1 };
        }
    }

    async fn disturb(&mut self) {
        let at = self.rng.random_range(0..2);
        let catalog = self.processes[at].0.clone();
        let now = self.clock.now();
        let all = Backfill {
            from: day(1),
            to: day(10),
            dry_run: false,
            transform_only: false,
            load_only: false,
            retry_errors: true,
            parallelism: None,
            force: false,
        };
        // What is refused in the job's state is no less a history.
        match self.rng.random_range(0..12) {
            0..3 => self.processes[at].1 = None,
            3..6 => self.start(at),
            6 => self.stop(at).await,
            7 => drop(catalog.request(&self.job, Request::Pause(true), now).await),
            8 => drop(catalog.request(&self.job, Request::Pause(false), now).await),
            9 => self.cancel(&catalog).await,
            10 => drop(catalog.change(&self.job, now, move |entry| all.mark(entry)).await),
            _ => {
                let date = day(self.rng.random_range(1..=10));
                let again = Backfill {
                    from: date,
                    to: date,
                    retry_errors: false,
                    ..all
                };
                drop(
                    catalog
                        .change(&self.job, now, move |entry| again.mark(entry))
                        .await,
                );
            }
        }
    }

    fn start(&mut self, at: usize) {
        if self.processes[at].1.is_some() {
            return;
        }
        let worker = format!("process-{at}");
        // A process that starts opens the catalog anew.
        let catalog = Catalog::open(&self.dir.path().join("catalog.db")).expect("a catalog");
        let hand = Hand {
            world: self.world.clone(),
            catalog: catalog.clone(),
            worker: worker.clone(),
        };
        let scheduler = Scheduler::new(catalog.clone(), Arc::new(hand), self.clock.clone(), worker);
        let stop = CancellationToken::new();
        let task = tokio::spawn(scheduler.run(stop.clone()));
        self.processes[at] = (catalog, Some(Task(task, stop)));
    }

    /// An orderly end, of which it gets to see only a part.
    async fn stop(&mut self, at: usize) {
        if let Some(Task(_, stop)) = &self.processes[at].1 {
            stop.cancel();
        }
        self.pass(20).await;
        self.processes[at].1 = None;
    }

    async fn cancel(&mut self, catalog: &Catalog) {
        self.start(0);
        if catalog
            .request(&self.job, Request::Cancel(true), self.clock.now())
            .await
            .is_err()
        {
            return;
        }
        let limit = self.clock.now().plus(CANCEL_ENDS);
        while self.status(catalog).await != JobState::Cancelled {
            assert!(
                self.clock.now() < limit,
                "the cancel does not end: {}",
                self.shown(catalog).await
            );
            self.pass(1).await;
        }
        let revived = catalog
            .request(&self.job, Request::Cancel(false), self.clock.now())
            .await;
        revived.expect("a cancelled job can be taken up");
    }

    async fn status(&self, catalog: &Catalog) -> JobState {
        catalog.job(&self.job).await.expect("there").status
    }

    async fn shown(&self, catalog: &Catalog) -> String {
        let entry = catalog.entry(&self.job, self.clock.now()).await.expect("there");
        format!("{:?}\n{:#?}\nalive: {:?}", entry.job, entry.runs, entry.alive)
    }

    /// Nothing goes wrong any more, and whatever stopped is told to go on.
    async fn finish(&mut self) {
        self.start(0);
        self.start(1);
        let limit = self.clock.now().plus(PATIENCE);
        let catalog = self.processes[0].0.clone();
        loop {
            let now = self.clock.now();
            let (from, to) = (day(1), day(10));
            match self.status(&catalog).await {
                JobState::Complete => return,
                JobState::Paused => drop(catalog.request(&self.job, Request::Pause(false), now).await),
                JobState::Error => {
                    let retry = json!({"from": from.to_string(), "to": to.to_string(), "retry_errors": true});
                    let retry: Backfill = serde_json::from_value(retry).expect("a backfill");
                    drop(
                        catalog
                            .change(&self.job, now, move |entry| retry.mark(entry))
                            .await,
                    );
                }
                _ => {}
            }
            assert!(now < limit, "it does not end: {}", self.shown(&catalog).await);
            self.pass(20).await;
        }
    }

    async fn judge(&self) {
        let loaded = self.said();
        let runs = self.processes[0].0.runs(&self.job).await.expect("runs");
        let noted: BTreeMap<NaiveDate, u32> = runs.iter().map(|run| (run.date, run.attempt)).collect();
        assert_eq!(loaded, noted, "each date holds its last transform");
        assert!(
            runs.iter().all(|run| run.status == RunState::LoadSuccess),
            "{runs:#?}"
        );
    }

    /// What the warehouse has seen, checked; gives what it holds.
    fn said(&self) -> BTreeMap<NaiveDate, u32> {
        let world = self.world.lock().expect("not poisoned");
        assert!(world.wrong.is_empty(), "{:#?}", world.wrong);
        let dates: Vec<NaiveDate> = (1..=10).map(day).collect();
        assert_eq!(world.order, dates, "dates were first loaded in this order");
        world.loaded.clone()
    }
}
