//! The outside world of a simulated pipeline: virtual time, seeded faults, and everything that survives a
//! crash. What breaks a promise is written down in `violations` where it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arrow::array::RecordBatch;
use millstream_engine::runtime::timer::{Sleep, Timer};
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

/// Virtual time begins here: 2026-11-23T12:00:00Z.
pub const BEGINNING: Timestamp = Timestamp(1_795_435_200_000_000);
/// A schedule that takes longer than this, in virtual time, hangs.
const LONGEST: Duration = Duration::from_secs(6 * 3_600);
/// Marks the errors that the simulation injects.
pub const INJECTED: &str = "injected";

/// How badly a schedule is treated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Chance of a fault at each place that can fail.
    pub faults: f64,
    /// Faults until the weather clears, so that every schedule ends.
    pub budget: u32,
    /// The longest delay of an outside call.
    pub delay: Duration,
    /// From when on the wall clock is set wrong, and by how many microseconds: the last one that has come counts.
    pub clock: [(Duration, i64); 2],
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// It fails in passing, without effect.
    Refused,
    /// It fails in passing, but has had its effect.
    AnswerLost,
    /// It fails for a reason that ends the try.
    Fatal,
    /// The process dies before it.
    CrashBefore,
    /// The process dies after it.
    CrashAfter,
}

/// Everything outside the process.
pub struct World {
    time: Mutex<Time>,
    chance: Mutex<Chance>,
    outside: Mutex<Outside>,
    crash: Notify,
}

#[derive(Default)]
struct Time {
    now: Duration,
    /// By deadline and number.
    sleepers: BTreeMap<(Duration, u64), Waker>,
    numbers: u64,
}

struct Chance {
    rng: StdRng,
    weather: Weather,
    trace: Vec<String>,
}

/// What survives a crash.
#[derive(Default)]
pub struct Outside {
    /// Rows of each source, by partition.
    pub inputs: BTreeMap<String, BTreeMap<String, RecordBatch>>,
    /// Rows that a source yields for now, by source and partition; all where nothing is said.
    pub gates: BTreeMap<(String, String), usize>,
    /// Rows that a source has released: they are gone for good.
    pub released: BTreeMap<(String, String), usize>,
    /// What sinks prepared, by name.
    pub staged: BTreeMap<String, Vec<RecordBatch>>,
    /// What sinks published: names of what they staged, by sink.
    pub published: BTreeMap<String, BTreeSet<String>>,
    /// Manifests of checkpoints as written, by epoch.
    pub checkpoints: BTreeMap<u64, Vec<u8>>,
    /// Files of state, by name.
    pub states: BTreeMap<String, Vec<u8>>,
    /// Writes on their way to the checkpoint store.
    pub writes: Vec<crate::store::Write>,
    /// Broken promises.
    pub violations: Vec<String>,
}

impl World {
    /// A world whose chances are those of `seed`.
    pub fn new(seed: u64, weather: Weather) -> Arc<World> {
        Arc::new(World {
            time: Mutex::default(),
            chance: Mutex::new(Chance {
                rng: StdRng::seed_from_u64(seed),
                weather,
                trace: Vec::new(),
            }),
            outside: Mutex::default(),
            crash: Notify::new(),
        })
    }

    /// What survives a crash.
    pub fn outside(&self) -> MutexGuard<'_, Outside> {
        self.outside
            .lock()
            .expect("nothing panics while it holds the outside")
    }

    /// A promise is broken.
    pub fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        self.note(format!("VIOLATION {what}"));
        self.outside().violations.push(what);
    }

    /// For people who replay a seed.
    pub fn note(&self, what: impl std::fmt::Display) {
        let at = self.elapsed();
        self.chance().trace.push(format!("{at:>12.3?} {what}"));
    }

    /// Everything noted so far.
    pub fn trace(&self) -> String {
        self.chance().trace.join("\n")
    }

    /// A number below `end`.
    pub fn below(&self, end: usize) -> usize {
        self.chance().rng.random_range(0..end)
    }

    /// Up to the longest delay of an outside call; often none.
    pub fn delay(&self) -> Duration {
        let mut chance = self.chance();
        let longest = chance.weather.delay.as_millis() as u64;
        if longest == 0 || chance.rng.random_bool(0.5) {
            return Duration::ZERO;
        }
        Duration::from_millis(chance.rng.random_range(0..=longest))
    }

    /// Whether something goes wrong at `place`, and what.
    pub fn fault(&self, place: &str) -> Option<Fault> {
        let mut chance = self.chance();
        let weather = chance.weather;
        if weather.budget == 0 || !chance.rng.random_bool(weather.faults) {
            return None;
        }
        chance.weather.budget -= 1;
        let fault = match chance.rng.random_range(0..8) {
            0..=1 => Fault::Refused,
            2..=3 => Fault::AnswerLost,
            4 => Fault::Fatal,
            5 => Fault::CrashBefore,
            _ => Fault::CrashAfter,
        };
        drop(chance);
        self.note(format!("{fault:?} at {place}"));
        Some(fault)
    }

    /// An outside call at `place`: delay, fault, effect, delay. `repeatable` effects may happen although the
    /// caller is told that they did not; the others happen once or not at all.
    pub async fn call<T>(
        &self,
        place: &str,
        repeatable: bool,
        effect: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        self.wait(self.delay()).await;
        let fault = self.fault(place);
        match fault {
            Some(Fault::Refused) => return Err(refused(place)),
            Some(Fault::AnswerLost) if !repeatable => return Err(refused(place)),
            Some(Fault::Fatal) => return Err(fatal(place)),
            Some(Fault::CrashBefore) => self.die().await,
            _ => {}
        }
        let done = effect();
        self.wait(self.delay()).await;
        match fault {
            Some(Fault::AnswerLost) => Err(refused(place)),
            Some(Fault::CrashAfter) => self.die().await,
            _ => done,
        }
    }

    /// The process is no more.
    pub async fn die<T>(&self) -> T {
        self.crash.notify_one();
        std::future::pending().await
    }

    /// Done when the process died.
    pub async fn crashed(&self) {
        self.crash.notified().await;
    }

    /// Waits in virtual time; without a wait the others still get their turn.
    pub async fn wait(&self, wait: Duration) {
        if wait.is_zero() {
            tokio::task::yield_now().await;
            return;
        }
        let deadline = self.elapsed() + wait;
        Sleeper {
            world: self,
            deadline,
            number: None,
        }
        .await;
    }

    /// Called when no task can go on: moves time to the next deadline.
    pub fn advance(&self) {
        let mut time = self.time();
        let Some((&(deadline, number), _)) = time.sleepers.first_key_value() else {
            drop(time);
            return self.stuck("every task waits for another");
        };
        let waker = time.sleepers.remove(&(deadline, number));
        time.now = deadline;
        drop(time);
        if deadline > LONGEST {
            return self.stuck("no end in sight");
        }
        waker.expect("it was there").wake();
    }

    /// The wall clock.
    fn now(&self) -> Timestamp {
        let elapsed = self.elapsed();
        let clock = self.chance().weather.clock;
        let off = clock.iter().rev().find(|(from, _)| *from <= elapsed);
        Timestamp(BEGINNING.plus(elapsed).0 + off.map_or(0, |(_, off)| *off))
    }

    fn stuck(&self, why: &str) {
        self.violation(format!("hangs: {why}"));
        self.crash.notify_one();
    }

    fn elapsed(&self) -> Duration {
        self.time().now
    }

    fn time(&self) -> MutexGuard<'_, Time> {
        self.time.lock().expect("nothing panics while it holds the time")
    }

    fn chance(&self) -> MutexGuard<'_, Chance> {
        self.chance
            .lock()
            .expect("nothing panics while it holds the dice")
    }
}

fn refused(place: &str) -> Error {
    Error::retry(format!("{INJECTED} at {place}"))
}

fn fatal(place: &str) -> Error {
    Error::data(format!("{INJECTED} at {place}"))
}

struct Sleeper<W: std::ops::Deref<Target = World>> {
    world: W,
    deadline: Duration,
    number: Option<u64>,
}

impl<W: std::ops::Deref<Target = World> + Unpin> Future for Sleeper<W> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let it = &mut *self;
        let mut time = it.world.time();
        if time.now >= it.deadline {
            return Poll::Ready(());
        }
        let number = *it.number.get_or_insert_with(|| {
            time.numbers += 1;
            time.numbers
        });
        time.sleepers.insert((it.deadline, number), cx.waker().clone());
        Poll::Pending
    }
}

impl<W: std::ops::Deref<Target = World>> Drop for Sleeper<W> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.world.time().sleepers.remove(&(self.deadline, number));
        }
    }
}

/// The clocks of a world.
pub struct VirtualTimer(pub Arc<World>);

impl Timer for VirtualTimer {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, wait: Duration) -> Sleep {
        Box::pin(Sleeper {
            world: self.0.clone(),
            deadline: self.0.elapsed() + wait,
            number: None,
        })
    }
}
