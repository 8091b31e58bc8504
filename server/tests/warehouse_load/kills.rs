//! A load whose process is killed in the middle of each step of a date: while rows are staged, before each table's
//! commit, and between the last commit and the note about it in the catalog. Or another process goes on. Every row is there
//! once in the end.

use serde_json::json;

use crate::states::lock;
use crate::support::clock::Clock;
use crate::world::{Load, MOST_BAD, ROWS, World, date, expected};

/// The date that is under way then.
const DAY: usize = 2;
const LAST: usize = 3;

#[test]
fn a_load_survives_a_kill_at_each_step() {
    let mut world = World::new();
    staging(&mut world);
    for (log, table) in [("one", "one"), ("two", "two_tags"), ("three", "pipeline_errors")] {
        before_commit(&mut world, log, table);
    }
    before_the_note(&mut world);
}

/// Its clock is moved on by more than the minute that a process may be silent.
#[test]
fn another_process_takes_over_what_a_dead_one_had_in_hand() {
    let mut world = World::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clock = Clock::new(dir.path());
    let load = until_one_is_loaded(&world, "over");
    let held = lock(&world.warehouse, "over");
    world.mark("over", DAY);
    wait_for_waiter(&world, "over");
    let first = world.run(&load, DAY)["worker"].clone();
    let other = world.process_with(dir.path(), clock.env());
    kill(&mut world);
    world.it = Some(other);
    drop(held);
    clock.set(120);
    ends(&world, &load);
    let run = world.run(&load, DAY);
    assert!(run["attempt"] == 2 && run["worker"] != first, "{run}");
}

/// Rows are on their way to S3.
fn staging(world: &mut World) {
    put(world, "staging");
    world.mark("staging", 1);
    let request = "PUT /staging/";
    world.s3.close(request);
    let load = post(world, "staging");
    world.wait_for_run(&load, 1, "held up", |_| world.s3.holds(request));
    kill(world);
    world.s3.open(request);
    goes_on(world, &load);
}

/// The transaction of a table, or of the bad rows, is open. Tables before it are loaded, those after it are not.
fn before_commit(world: &mut World, log: &str, table: &str) {
    let load = until_one_is_loaded(world, log);
    let held = lock(&world.warehouse, table);
    world.mark(log, DAY);
    wait_for_waiter(world, table);
    kill(world);
    drop(held);
    goes_on(world, &load);
}

/// All is in the warehouse, and the catalog cannot be written.
fn before_the_note(world: &mut World) {
    let log = "note";
    let load = until_one_is_loaded(world, log);
    let held = lock(&world.warehouse, log);
    world.mark(log, DAY);
    wait_for_waiter(world, log);
    let catalog = rusqlite::Connection::open(world.catalog()).expect("the catalog");
    catalog.busy_timeout(crate::support::PATIENCE).expect("a timeout");
    catalog.execute_batch("BEGIN IMMEDIATE").expect("it is free");
    drop(held);
    let ledger = format!(
        "SELECT count(*) FROM millstream_ledger WHERE pipeline = 'load-{}' AND run = '{}'",
        load.uuid,
        date(DAY)
    );
    let loads = || world.query(&ledger).concat();
    world
        .it()
        .wait_for("three tables to be loaded", || loads() == "3");
    kill(world);
    catalog.execute_batch("ROLLBACK").expect("it is ours");
    goes_on(world, &load);
}

fn put(world: &World, log: &str) {
    for day in 1..=LAST {
        world.put_date(log, day, usize::from(day == DAY));
    }
}

fn post(world: &World, log: &str) -> Load {
    world.post(log, LAST, &json!({ "max_errors": MOST_BAD, "parallelism": 1 }))
}

fn until_one_is_loaded(world: &World, log: &str) -> Load {
    put(world, log);
    world.mark(log, 1);
    let load = post(world, log);
    world.wait_for_run_status(&load, 1, "load_success");
    load
}

fn wait_for_waiter(world: &World, table: &str) {
    let waiting =
        format!("SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass AND NOT granted");
    world.it().wait_for("the load to wait for the table", || {
        world.query(&waiting) != ["0"]
    });
}

fn kill(world: &mut World) {
    world.it.take().expect("it runs").kill();
}

/// The next process ends what was begun.
fn goes_on(world: &mut World, load: &Load) {
    world.start();
    ends(world, load);
}

/// Every row is there once.
fn ends(world: &World, load: &Load) {
    let log = &load.log;
    (1..=LAST).for_each(|day| world.mark(log, day));
    world.wait_for_status(load, "complete");
    assert_eq!(world.rows_by_date(log), expected(1..=LAST, ROWS), "{log}");
    let tags = world.rows_by_date(&format!("{log}_tags"));
    assert_eq!(tags, expected(1..=LAST, 2 * ROWS), "{log}");
    let bad =
        format!("SELECT run_date, count(*) FROM pipeline_errors WHERE run_pipeline = '{log}:1' GROUP BY 1");
    assert_eq!(world.query(&bad), [format!("{}|1", date(DAY))], "{log}");
}
