//! Exactly once, by simulation: the real runtime, planner and operators between simulated edges.
//!
//! One seed is one schedule: how rows arrive, how long every outside call takes, which calls fail, whether
//! their effect had happened, when the process dies or is asked to stop. Time is virtual and all tasks share
//! a thread, so a seed always gives the same schedule. The oracle: whatever happened, every row is published
//! exactly once by itself, and exactly once in the counts of its window or as late.
//!
//! ```text
//! SCHEDULES=100000 cargo test --workspace --test simulation     # as long as you like
//! SEED=4711 cargo test --workspace --test simulation -- --nocapture   # one, with everything that happened
//! ```

mod edges;
mod golden;
mod joins;
mod log;
mod oracle;
mod refused;
mod store;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use millstream_engine::config::{self, PipelineSource};
use millstream_engine::metrics::Metrics;
use millstream_engine::plan::Plan;
use millstream_engine::registry::Registry;
use millstream_engine::runtime::{self, PipelineHandle, RunOptions};
use millstream_operators::Environment;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::edges::{BRANCH, SimSinks, SimSources};
use crate::store::SimStore;
use crate::world::{BEGINNING, VirtualTimer, Weather, World};

/// Schedules of an ordinary run; some 50 ms of a core each in the dev profile.
const SCHEDULES: u64 = 2_000;
/// Seeds that once showed a bug; always run. 146: the last barrier overtook the end of a source.
/// 865: the first checkpoint landed torn.
const REGRESSIONS: &[u64] = &[146, 865];
/// Starts of one schedule, by when the weather has long cleared.
const MAX_STARTS: u32 = 100;

/// What a simulated schedule never waits for.
const NEVER: Duration = Duration::from_secs(1_000_000);
/// The `type` of the edges in [`PIPELINE`].
const KIND: &str = "simulated";

const PIPELINE: &str = r#"
name = "simulated"

[source.impressions]
type = "simulated"
event_time = "at"
max_out_of_orderness = "5s"
[source.impressions.columns]
id = "bigint not null"
ad = "string not null"
at = "timestamp not null"

[source.clicks]
type = "simulated"
event_time = "at"
max_out_of_orderness = "5s"
[source.clicks.columns]
id = "bigint not null"
ad = "string not null"
at = "timestamp not null"

[window.impressions_window]
input = "impressions"
type = "tumbling"
size = "10s"

[window.clicks_window]
input = "clicks"
type = "tumbling"
size = "10s"

[window.impressions_hopping]
input = "impressions"
type = "hopping"
size = "20s"
slide = "10s"

[window.impression_sessions]
input = "impressions"
type = "session"
gap = "3s"
key = ["ad"]

[sql.clickthrough]
emit_empty = true
query = """
SELECT window_start() AS at, i.n AS impressions, i.total AS impressions_total, c.n AS clicks, c.total AS clicks_total
FROM (SELECT count(*) AS n, sum(id) AS total FROM impressions_window) i
CROSS JOIN (SELECT count(*) AS n, sum(id) AS total FROM clicks_window) c
"""

[sql.by_ad]
query = "SELECT window_start() AS at, ad, count(*) AS n, count(DISTINCT id) AS ids FROM impressions_hopping GROUP BY ad"

[sql.sessions]
query = """
SELECT window_start AS at, ad, count(*) AS n, sum(id) AS total, window_end AS until FROM impression_sessions
GROUP BY window_start, ad, window_end
"""

[sink.clickthrough]
type = "simulated"
input = "clickthrough"
[sink.sessions]
type = "simulated"
input = "sessions"
[sink.late_sessions]
type = "simulated"
input = "impression_sessions.late"
[sink.by_ad]
type = "simulated"
input = "by_ad"
[sink.impressions]
type = "simulated"
input = "impressions"
[sink.clicks]
type = "simulated"
input = "clicks"
[sink.late_impressions]
type = "simulated"
input = "impressions_window.late"
[sink.late_clicks]
type = "simulated"
input = "clicks_window.late"
"#;

#[test]
fn exactly_once_whatever_happens() {
    keeps_its_promises(PIPELINE, oracle::check, SCHEDULES);
}

/// Whether a world's promises were kept; `true`: no row was late.
type Check = fn(&World, bool) -> Result<(), String>;

/// Runs a pipeline through so many schedules, those that once showed a bug, or the one that `SEED` names.
fn keeps_its_promises(pipeline: &str, check: Check, schedules: u64) {
    let plan = plan(
        pipeline,
        &registry(World::new(0, Weather::default()), KIND, false),
    );
    if let Ok(seed) = std::env::var("SEED") {
        let seed = seed.parse().expect("SEED is a number");
        let (trace, outcome) = schedule(seed, &plan, check);
        println!("{trace}");
        outcome.unwrap_or_else(|e| panic!("SEED={seed}: {e}"));
        return;
    }
    let schedules =
        std::env::var("SCHEDULES").map_or(schedules, |n| n.parse().expect("SCHEDULES is a number"));
    let seeds: Vec<u64> = REGRESSIONS.iter().copied().chain(0..schedules).collect();
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let failed: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let at = || next.fetch_add(1, Ordering::Relaxed) as usize;
            let seeds = std::iter::from_fn(|| seeds.get(at()).copied());
            let failed = seeds.filter_map(|seed| {
                let (_, outcome) = schedule(seed, &plan, check);
                outcome.err().map(|e| format!("SEED={seed}: {e}"))
            });
            failed.take(5).collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(|w| w.join().expect("no schedule panics"));
        ended.flatten().collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    println!("{} schedules, seeds 0..{schedules}", seeds.len());
}

/// The same seed gives the same schedule, or replaying one would show something else.
#[test]
fn a_seed_is_a_schedule() {
    let plan = plan(
        PIPELINE,
        &registry(World::new(0, Weather::default()), KIND, false),
    );
    for seed in 0..20 {
        let [first, second] = [(); 2].map(|()| schedule(seed, &plan, oracle::check).0);
        assert!(first == second, "SEED={seed}:\n{first}\n--- and then\n{second}");
    }
}

/// What differs from schedule to schedule beside the weather.
struct Scenario {
    weather: Weather,
    /// No row is late and no partition idle: every window is known beforehand.
    strict: bool,
    interval: Duration,
    /// How often it is asked to stop, and started again.
    stops: u32,
}

fn scenario(rng: &mut StdRng) -> Scenario {
    let pick = |rng: &mut StdRng, of: &[u64]| of[rng.random_range(0..of.len())];
    Scenario {
        weather: Weather {
            faults: [0.0, 0.01, 0.05, 0.2][rng.random_range(0..4)],
            budget: rng.random_range(1..20),
            delay: Duration::from_millis(pick(rng, &[0, 20, 500, 8_000])),
            clock: Default::default(),
        },
        strict: rng.random_bool(0.5),
        interval: Duration::from_millis(pick(rng, &[300, 2_000, 10_000])),
        stops: [0, 0, 1, 5][rng.random_range(0..4)],
    }
}

/// In half of the schedules the wall clock jumps by an hour, and then back or to the other side.
fn clock(seed: u64) -> [(Duration, i64); 2] {
    const HOUR: i64 = 3_600_000_000;
    let mut rng = StdRng::seed_from_u64(seed.rotate_left(32));
    if rng.random_bool(0.5) {
        return Default::default();
    }
    let at = Duration::from_millis(rng.random_range(0..30_000));
    let later = at + Duration::from_millis(rng.random_range(0..60_000));
    let jump = [HOUR, -HOUR][rng.random_range(0..2)];
    [(at, jump), (later, [0, -jump][rng.random_range(0..2)])]
}

/// In half of the schedules partitions come and go: some end before their last row, and one or two follow them, which may
/// end early in their turn.
fn branch(seed: u64, inputs: BTreeMap<String, RecordBatch>) -> BTreeMap<String, RecordBatch> {
    let mut rng = StdRng::seed_from_u64(seed.rotate_left(16));
    if rng.random_bool(0.5) {
        return inputs;
    }
    let mut all = BTreeMap::new();
    let mut rest: Vec<(String, RecordBatch)> = inputs.into_iter().collect();
    while let Some((name, rows)) = rest.pop() {
        if name.len() > 8 || rng.random_bool(0.4) {
            all.insert(name, rows);
            continue;
        }
        let cut = rng.random_range(0..=rows.num_rows());
        all.insert(name.clone(), rows.slice(0, cut));
        let (after, children) = (rows.slice(cut, rows.num_rows() - cut), rng.random_range(1..=2));
        for child in 0..children {
            let of = (child..after.num_rows()).step_by(children).map(|row| row as u64);
            let of: UInt64Array = of.collect::<Vec<_>>().into();
            let rows = arrow::compute::take_record_batch(&after, &of);
            rest.push((format!("{name}{BRANCH}{child}"), rows.expect("rows are there")));
        }
    }
    all
}

/// Runs one schedule: what happened, and whether every promise was kept.
fn schedule(seed: u64, plan: &Plan, check: Check) -> (String, Result<(), String>) {
    let mut rng = StdRng::seed_from_u64(!seed);
    let mut scenario = scenario(&mut rng);
    scenario.weather.clock = clock(seed);
    let world = World::new(seed, scenario.weather);
    let mut plan = plan.clone();
    plan.checkpoint_interval = scenario.interval;
    for source in &mut plan.sources {
        source.idle_after = if scenario.strict {
            NEVER
        } else {
            Duration::from_secs(10)
        };
        let rows = inputs(&mut rng, &source.schema, scenario.strict);
        let rows = branch(seed, rows);
        world.outside().inputs.insert(source.name.clone(), rows);
    }
    let plan = Arc::new(plan);
    let guard = log::record(&world);
    let mut ended = false;
    for number in 0..MAX_STARTS {
        let stop = (number < scenario.stops).then(|| Duration::from_millis(rng.random_range(0..60_000)));
        if start(&world, &plan, stop) {
            ended = true;
            break;
        }
        if !world.outside().violations.is_empty() {
            break;
        }
    }
    drop(guard);
    if !ended {
        world.violation("does not end");
    }
    let kept = if world.outside().violations.is_empty() {
        check(&world, scenario.strict)
    } else {
        Err(world.outside().violations.join("; "))
    };
    (world.trace(), kept)
}

/// Runs one process to its end: whether the pipeline has read everything.
fn start(world: &Arc<World>, plan: &Arc<Plan>, stop: Option<Duration>) -> bool {
    process(world).block_on(async {
        world.note("the process starts");
        let handle = launch(world, plan, KIND, false);
        let mut stopped = false;
        loop {
            let wait = stop.filter(|_| !stopped).unwrap_or(NEVER);
            tokio::select! {
                biased;
                () = world.crashed() => {
                    world.note("the process is gone");
                    return false;
                }
                done = handle.done() => {
                    match done {
                        Ok(()) => world.note("the process ends"),
                        // A stop while it was failing ends with the failure; the next start goes on.
                        Err(e) if stopped => world.note(format!("stopped while failing: {e}")),
                        Err(e) => world.violation(format!("failed for good: {e}")),
                    }
                    return !stopped;
                }
                () = world.wait(wait) => {
                    world.note("asked to stop");
                    handle.stop();
                    stopped = true;
                }
            }
        }
    })
}

/// A process: dropping it forgets everything at once. When none of its tasks can go on, time does.
fn process(world: &Arc<World>) -> tokio::runtime::Runtime {
    let world = world.clone();
    let mut process = tokio::runtime::Builder::new_current_thread();
    process.on_thread_park(move || world.advance());
    process.build().expect("a runtime on this thread")
}

/// Starts the pipeline in the current process.
fn launch(world: &Arc<World>, plan: &Arc<Plan>, kind: &'static str, row_by_row: bool) -> PipelineHandle {
    let options = RunOptions {
        reset: Vec::new(),
        data_dir: "/nowhere".into(),
        registry: registry(world.clone(), kind, row_by_row),
        metrics: Arc::new(Metrics::new()),
        checkpoints: Some(Arc::new(SimStore::new(world.clone()))),
        cores: 2,
        timer: Arc::new(VirtualTimer(world.clone())),
        bounded: None,
        run: None,
    };
    runtime::start(plan.clone(), options)
}

/// What ships, with simulated edges called `kind`.
fn registry(world: Arc<World>, kind: &'static str, row_by_row: bool) -> Registry {
    let sources = SimSources {
        kind,
        world: world.clone(),
        row_by_row,
    };
    millstream_operators::registry(Environment::default())
        .source(sources)
        .sink(SimSinks {
            kind,
            world: world.clone(),
            refuses: false,
        })
        .sink(SimSinks {
            kind: "refusing",
            world,
            refuses: true,
        })
}

fn plan(text: &str, registry: &Registry) -> Plan {
    let vars = &|_: &str| None;
    let file = "simulated.toml";
    config::load(
        &PipelineSource {
            file,
            text,
            vars,
            date: None,
        },
        registry,
    )
    .unwrap_or_else(|problems| {
        let all: Vec<String> = problems.iter().map(|d| d.render()).collect();
        panic!("{}", all.join("\n"))
    })
}

/// Rows of a source by partition. Within a partition, times run on with jumps back of up to four seconds,
/// one less than is allowed; in a loose schedule some rows come minutes late.
fn inputs(rng: &mut StdRng, schema: &SchemaRef, strict: bool) -> BTreeMap<String, RecordBatch> {
    let mut id = 0;
    let partitions = rng.random_range(1..=3);
    let mut partition = |n: usize| {
        let rows = rng.random_range(0..25);
        let mut at = BEGINNING.0;
        let mut times = Vec::new();
        let mut ids = Vec::new();
        let mut ads = Vec::new();
        for _ in 0..rows {
            at += rng.random_range(0..2_000_000);
            let late = !strict && rng.random_bool(0.05);
            let back = rng.random_range(0..if late { 120_000_000 } else { 4_000_000 });
            id += 1;
            times.push((at - back).max(BEGINNING.0));
            ids.push(id);
            ads.push(["a", "b", "c"][rng.random_range(0..3)]);
        }
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(Int64Array::from(ids)),
            Arc::new(StringArray::from(ads)),
            Arc::new(TimestampMicrosecondArray::from(times)),
        ];
        let rows = RecordBatch::try_new(schema.clone(), columns).expect("rows fit the schema");
        (format!("p{n}"), rows)
    };
    (0..partitions).map(&mut partition).collect()
}
