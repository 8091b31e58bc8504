//! The one rule for SQL over windows, checked against DataFusion itself.
//!
//! Each query of `cases/*.sql`, and as many again from a generator, runs over a random stream: random columns
//! and windows, rows out of order, late, twice, full of nulls, with skewed keys and extreme values, and holes
//! without rows (`stream.rs`, `generate.rs`). It runs incrementally in one and in three partitions, undisturbed
//! and with everything snapshotted, thrown away and restored to another number of partitions (`run.rs`), with
//! and without the windows that hold nothing.
//! Whatever a window gives must be what a plain DataFusion session gives for that window's rows (`batch.rs`).
//!
//! ```text
//! CASES=20 cargo test --workspace --lib oracle                            # twenty seeds per query
//! SEED=17 CASE="left join" cargo test --workspace --lib oracle            # what a failure printed
//! ```
//!
//! What is compared, and how (`compare.rs`): rows as multisets, in order where a case's name ends with
//! "ordered"; types; floating point within one part in 10⁹, because sums depend on the order of addition.
//! `approx_distinct` is compared as it is: HyperLogLog merges exactly. A t-digest of some thirty values keeps
//! each of them, so percentiles of the cases are compared as they are too; what it does to many values is
//! `percentiles.rs`. Aggregates that depend on the order of rows have a defined result only with ORDER BY, in
//! batch as well; without, the cases ask for what every order gives (`cases/ordered.sql`).

mod batch;
mod compare;
mod generate;
mod percentiles;
mod run;
mod stream;

use std::collections::{BTreeMap, BTreeSet};

use datafusion::prelude::SessionContext;
use millstream_engine::sql::SqlPlan;
use millstream_engine::time::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::batch::{batch_result, session};
use self::compare::{Rows, difference};
use self::run::{RUNS, Run, WITH_EMPTY, plan, run};
use self::stream::{Stream, TABLES, by_window};

/// Seeds per query in an ordinary run; some 80 ms of a core each in the dev profile.
const SEEDS: u64 = 2;
/// Generated queries in an ordinary run.
const GENERATED: u64 = 70;

/// The seeds of a query: what the environment asks for, else its own.
fn seeds(own: u64) -> Vec<u64> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    let first = number("SEED").unwrap_or(own);
    let count = number("CASES").unwrap_or(SEEDS);
    // Far apart, so that the seeds of one query are not those of the next.
    (0..count).map(|n| first + n * 10_000).collect()
}

/// The queries of a file, with their names.
fn cases(file: &'static str) -> Vec<(&'static str, &'static str)> {
    let blocks = file.split("-- case: ").skip(1);
    blocks
        .map(|block| block.split_once('\n').expect("a name and a query"))
        .collect()
}

/// Runs every query of a file.
async fn check_file(file: &'static str) {
    let only = std::env::var("CASE").unwrap_or_default();
    let mut wrong = Vec::new();
    for (own, (name, query)) in (1..)
        .zip(cases(file))
        .filter(|(_, (name, _))| name.contains(&only))
    {
        let mut given = 0;
        for seed in seeds(own) {
            let stream = Stream::new(seed);
            match check(query, name.ends_with("ordered"), &stream, seed).await {
                Ok(windows) => given += windows,
                Err(what) => wrong.push(format!(
                    "SEED={seed} CASE={name:?}, {:?}:\n{query}\n{what}",
                    stream.window
                )),
            }
        }
        if given == 0 && wrong.is_empty() && std::env::var("SEED").is_err() {
            wrong.push(format!(
                "{name}: no stream gives it anything to do; choose other values or another seed"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} cases differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Runs one query in every way; gives the number of windows that gave rows. A query that DataFusion itself
/// refuses gives none.
async fn check(query: &str, ordered: bool, stream: &Stream, seed: u64) -> Result<usize, String> {
    let plan_it = |emit_empty| plan(query, stream, emit_empty);
    let plan = match plan_it(false) {
        Ok(plan) => plan,
        Err(errors) => {
            let anywhere = stream.panes().ending(stream.panes().next_end(stream.first));
            let nothing = session(stream, anywhere, &Default::default());
            return match batch_result(query, &nothing).await {
                Ok(_) => Err(format!("refused: {errors:?}")),
                Err(_) => Ok(0),
            };
        }
    };
    let mut windows = by_window(stream);
    let read = |table: usize| plan.inputs().iter().any(|input| input == TABLES[table]);
    let held = |_: &i64, rows: &mut [Vec<u32>; 3]| (0..TABLES.len()).any(|t| read(t) && !rows[t].is_empty());
    windows.retain(held);
    let mut expected = expected(query, ordered, stream, &windows).await?;
    for how in RUNS {
        compare(plan.as_ref(), ordered, stream, how, seed, &expected).await?;
    }
    // One query in three also with the windows that hold nothing.
    if seed.is_multiple_of(3) {
        let plan = plan_it(true).map_err(|errors| format!("refused: {errors:?}"))?;
        let mut empty = BTreeMap::new();
        for end in stream.ends() {
            if !windows.contains_key(&end) {
                empty.insert(end, Default::default());
            }
        }
        expected.extend(self::expected(query, ordered, stream, &empty).await?);
        compare(plan.as_ref(), ordered, stream, WITH_EMPTY, seed, &expected).await?;
    }
    Ok(expected.len())
}

async fn compare(
    plan: &dyn SqlPlan,
    ordered: bool,
    stream: &Stream,
    how: Run,
    seed: u64,
    expected: &BTreeMap<i64, Rows>,
) -> Result<(), String> {
    let mut got = BTreeMap::new();
    for (end, batches) in &run(plan, stream, how, seed).await {
        for batch in batches {
            assert_eq!(
                batch.schema(),
                plan.schema(),
                "a result is not of the query's schema"
            );
        }
        got.insert(*end, Rows::new(batches, ordered));
    }
    match difference(&got, expected) {
        Some(difference) => Err(format!("{how:?}\n{difference}")),
        None => Ok(()),
    }
}

/// What batch gives for windows, where it gives anything.
async fn expected(
    query: &str,
    ordered: bool,
    stream: &Stream,
    windows: &BTreeMap<i64, [Vec<u32>; 3]>,
) -> Result<BTreeMap<i64, Rows>, String> {
    let mut expected = BTreeMap::new();
    for (end, rows) in windows {
        let window = stream.panes().ending(*end);
        let result = batch_result(query, &session(stream, window, rows)).await;
        let result = result.map_err(|e| format!("batch fails for the window to {}: {e}", Timestamp(*end)))?;
        expected.insert(*end, Rows::new(&result, ordered));
    }
    expected.retain(|_, rows: &mut Rows| !rows.is_empty());
    Ok(expected)
}

macro_rules! families {
    ($($name:ident),*) => {
        const FILES: &[&str] = &[$(include_str!(concat!("../cases/", stringify!($name), ".sql"))),*];

        $(#[tokio::test]
        async fn $name() {
            check_file(include_str!(concat!("../cases/", stringify!($name), ".sql"))).await;
        })*
    };
}

families!(
    queries, aggregates, ordered, grouping, joins, subqueries, sets, ranking, functions, windows
);

/// A new version of DataFusion with a new function is noticed here.
#[test]
fn every_aggregate_and_ranking_function_has_a_case() {
    let state = SessionContext::new().state();
    let aggregates = state.aggregate_functions().values();
    let ranking = state.window_functions().values();
    let names = aggregates.map(|f| (f.name().to_owned(), f.aliases().to_vec()));
    let names = names.chain(ranking.map(|f| (f.name().to_owned(), f.aliases().to_vec())));
    let called = |name: &String| FILES.iter().any(|file| file.contains(&format!("{name}(")));
    let missing: BTreeSet<String> = names
        .filter(|(name, aliases)| !called(name) && !aliases.iter().any(called))
        .map(|(name, _)| name)
        .collect();
    assert!(missing.is_empty(), "no case calls {missing:?}");
}

/// Queries over the random columns of a stream.
#[tokio::test]
async fn generated() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for own in 0..GENERATED {
        for seed in seeds(1_000 + own) {
            let stream = Stream::new(seed);
            let query = generate::query(&stream, &mut StdRng::seed_from_u64(seed));
            match check(&query, false, &stream, seed).await {
                Ok(_) => checked += 1,
                Err(what) => wrong.push(format!(
                    "SEED={seed} generated, {:?}:\n{query}\n{what}",
                    stream.window
                )),
            }
        }
        if std::env::var("SEED").is_ok() {
            break;
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ\n{}",
        wrong.len(),
        wrong.len() + checked,
        wrong.join("\n")
    );
}
