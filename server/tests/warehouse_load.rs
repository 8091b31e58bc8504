//! A log that is loaded into a warehouse, from nothing: cluster, schema and load over `/v1`, ten dates in S3, a real
//! PostgreSQL, a real mail server. One date has no marker, one has bad lines, one has so many that it fails and is made
//! again; the process is killed in between. Every row is there once, and making dates again changes nothing. In
//! `states.rs` loads are paused, cancelled and deleted in each state; in `kills.rs` the process is killed at each step.

#[path = "warehouse_load/kills.rs"]
mod kills;
#[path = "support/redshift/mod.rs"]
mod redshift;
#[path = "warehouse_load/states.rs"]
mod states;
mod support;
#[path = "warehouse_load/world.rs"]
mod world;

use serde_json::json;
use world::{Load, MOST_BAD, ROWS, World, date, expected};

const LOG: &str = "people";

/// This date has as many bad lines as it may.
const WITH_BAD: usize = 4;
/// This one has more, until someone mends it.
const FAILING: usize = 7;
/// This one has no marker for a while.
const UNMARKED: usize = 10;

#[test]
fn ten_dates_come_into_the_warehouse_once_each() {
    let mut world = World::new();
    for day in 1..=10 {
        let bad = match day {
            WITH_BAD => MOST_BAD,
            FAILING => MOST_BAD + 1,
            _ => 0,
        };
        world.put_date(LOG, day, bad);
        if day != UNMARKED {
            world.mark(LOG, day);
        }
    }
    let load = world.post(LOG, 10, &json!({ "max_errors": MOST_BAD }));

    // Killed while it is at it, whatever it is at.
    loaded(&world, &load, 2);
    world.it.take().expect("it runs").kill();
    world.start();

    // Up to the one that fails; those behind it wait for their turn.
    world.wait_for_run(&load, FAILING, "failed", |run| {
        run["status"] == "et_error" && run["error"].as_str().is_some_and(|why| !why.is_empty())
    });
    loaded(&world, &load, FAILING - 1);
    world.wait_for_run(&load, FAILING + 2, "transformed", |run| {
        run["status"] == "et_success"
    });
    assert_eq!(world.rows_by_date("people"), expected(1..FAILING, ROWS));
    assert_eq!(world.rows_by_date("people_tags"), expected(1..FAILING, 2 * ROWS));
    let run = world.run(&load, WITH_BAD);
    assert_eq!(run["invalid"], MOST_BAD);
    // As Mycroft's clients read it.
    for (theirs, ours) in [
        ("data_date", "date"),
        ("etl_status", "status"),
        ("et_starttime", "et_started_at"),
        ("et_runtime", "et_seconds"),
        ("load_starttime", "load_started_at"),
        ("load_runtime", "load_seconds"),
        ("run_by", "worker"),
    ] {
        assert!(
            !run[theirs].is_null() && run[theirs] == run[ours],
            "{theirs}: {run}"
        );
    }
    let bad =
        "SELECT run_date, line_number, error_reason, raw_line FROM pipeline_errors ORDER BY line_number";
    let bad = world.query(bad);
    assert_eq!(bad.len(), MOST_BAD, "{bad:?}");
    let first = format!("{}|{}|", date(WITH_BAD), ROWS + 1);
    assert!(
        bad[0].starts_with(&first) && bad[0].ends_with("|not a line of this log"),
        "{bad:?}"
    );

    // Mended, and made again.
    world.put_date(LOG, FAILING, 0);
    let again = json!({"from": date(1), "to": date(10), "retry_errors": true});
    let dates = world.call(&format!("POST /v1/runs/{}/backfill", load.uuid), &again);
    assert_eq!(dates, json!({"dates": [date(FAILING)]}));
    loaded(&world, &load, UNMARKED - 1);
    world.wait_for_run(&load, UNMARKED, "waiting", |run| {
        run["status"] == "waiting" && run["error"].is_null()
    });
    assert_eq!(world.rows_by_date("people"), expected(1..UNMARKED, ROWS));

    // The marker that was missing.
    world.mark(LOG, UNMARKED);
    loaded(&world, &load, UNMARKED);
    world.wait_for_status(&load, "complete");
    assert_eq!(world.rows_by_date("people"), expected(1..=10, ROWS));
    assert_eq!(world.rows_by_date("people_tags"), expected(1..=10, 2 * ROWS));

    again_changes_nothing(&world, &load);
    world.wait_for_mails(&load, ["complete"]);
    forgotten(&world, &load);
    posted_again(&world);
}

/// Every date is made once more.
fn again_changes_nothing(world: &World, load: &Load) {
    let before = world.content();
    let attempts = |world: &World| -> Vec<u64> {
        (1..=10)
            .map(|day| world.run(load, day)["attempt"].as_u64().unwrap_or(0))
            .collect()
    };
    let first = attempts(world);
    let asked = json!({"from": date(1), "to": date(10)});
    world.call(&format!("POST /v1/runs/{}/backfill", load.uuid), &asked);
    world.it().wait_for("all dates to be made again", || {
        let newer = attempts(world)
            .iter()
            .zip(&first)
            .all(|(now, before)| now > before);
        newer && world.status(load) == "complete"
    });
    assert_eq!(world.content(), before);
    assert_eq!(
        world.rows_by_date("pipeline_errors"),
        [format!("{}|{MOST_BAD}", date(WITH_BAD))]
    );
}

/// The job goes; what it has loaded stays.
fn forgotten(world: &World, load: &Load) {
    let before = world.content();
    assert_eq!(world.ask(load, json!({ "delete_requested": true })), 200);
    world.wait_for_status(load, "gone");
    assert_eq!(world.get("/v1/jobs/filtered/people"), json!({ "jobs": [] }));
    assert_eq!(world.content(), before);
    world.wait_for_mails(load, ["deleted"]);
    let failed = world.get("/v1/notices?state=failed");
    assert_eq!(failed, json!({"notices": []}));
}

/// The same load again, and from now on only a week is kept: each date replaces what the forgotten one has loaded, its
/// bad rows too. Deleted space is given back once a day, not once a date.
fn posted_again(world: &World) {
    let arguments = json!({ "max_errors": MOST_BAD, "retention_days": 7, "vacuum": "daily" });
    let load = world.post(LOG, 10, &arguments);
    world.wait_for_status(&load, "complete");
    assert_eq!(world.rows_by_date("people"), expected(4..=10, ROWS));
    assert_eq!(world.rows_by_date("people_tags"), expected(4..=10, 2 * ROWS));
    assert_eq!(
        world.rows_by_date("pipeline_errors"),
        [format!("{}|{MOST_BAD}", date(WITH_BAD))]
    );
    let vacuums = || {
        let counted = world.query("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'people'");
        counted[0].parse::<u32>().expect("a number")
    };
    world.it().wait_for("the table to be vacuumed", || vacuums() > 0);
    // Two if midnight has come between.
    assert!(vacuums() <= 2, "{} times for ten dates", vacuums());
}

fn loaded(world: &World, load: &Load, day: usize) {
    world.wait_for_run_status(load, day, "load_success");
}

/// Each date is loaded by one of them, which made it once.
#[test]
fn two_processes_with_one_catalog_load_each_date_once() {
    let world = World::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let other = world.process(dir.path());
    for day in 1..=10 {
        world.put_date(LOG, day, 0);
        world.mark(LOG, day);
    }
    let load = world.post(LOG, 10, &json!({}));
    world.wait_for_status(&load, "complete");
    assert_eq!(world.rows_by_date("people"), expected(1..=10, ROWS));
    assert_eq!(world.rows_by_date("people_tags"), expected(1..=10, 2 * ROWS));
    for day in 1..=10 {
        let run = world.run(&load, day);
        assert_eq!(run["attempt"], 1, "{run}");
    }
    let loads = world.query("SELECT count(*), min(number), max(number) FROM millstream_ledger");
    // Of each date and each of the three tables.
    assert_eq!(loads, ["30|1|1"]);
    drop(other);
}
