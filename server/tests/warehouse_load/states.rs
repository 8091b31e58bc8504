//! Loads that are paused, cancelled and deleted in each state, over the API. Each case is a load of its own of three dates;
//! the second one is brought into the state and held there. What was paused or cancelled is taken up again, and ends with
//! every row once.

use std::thread;

use serde_json::json;

use crate::redshift::postgres::{self, Postgres};
use crate::world::{Load, MOST_BAD, ROWS, World, date, expected, part};

/// The date that is brought into a state.
const DAY: usize = 2;
const LAST: usize = 3;

/// The state of the second date or, in capitals, of the load; what is asked; what becomes of the load; the dates in the
/// warehouse then. With `load_error later` the date is tried again by itself, with `load_error` it is not.
const CASES: &[(&str, &str, &str, &[usize])] = &[
    // What is in flight is finished, and nothing begun.
    ("et_started", "pause", "paused", &[1, 2]),
    ("load_started", "pause", "paused", &[1, 2]),
    ("waiting", "pause", "paused", &[1]),
    ("et_error", "pause", "paused", &[1]),
    ("load_error", "pause", "refused", &[1]),
    ("COMPLETE", "pause", "refused", &[1, 2, 3]),
    ("NULL", "pause", "paused", &[]),
    ("SUCCESS", "pause", "paused", &[1]),
    ("et_success", "pause", "paused", &[]),
    ("load_error later", "pause", "paused", &[1]),
    ("CANCELLED", "pause", "refused", &[1]),
    // Nobody has paused it.
    ("load_error", "resume", "error", &[1]),
    // What is in flight is let go.
    ("et_started", "cancel", "cancelled", &[1]),
    ("load_started", "cancel", "cancelled", &[1]),
    ("waiting", "cancel", "cancelled", &[1]),
    ("et_error", "cancel", "cancelled", &[1]),
    ("load_error", "cancel", "cancelled", &[1]),
    ("COMPLETE", "cancel", "refused", &[1, 2, 3]),
    ("NULL", "cancel", "cancelled", &[]),
    ("SUCCESS", "cancel", "cancelled", &[1]),
    ("et_success", "cancel", "cancelled", &[]),
    ("load_error later", "cancel", "cancelled", &[1]),
    ("PAUSED", "cancel", "cancelled", &[1]),
    // What was loaded stays.
    ("et_started", "cancel and delete", "gone", &[1]),
    ("load_started", "cancel and delete", "gone", &[1]),
    ("waiting", "cancel and delete", "gone", &[1]),
    ("et_error", "cancel and delete", "gone", &[1]),
    ("load_error", "cancel and delete", "gone", &[1]),
    ("PAUSED", "cancel and delete", "gone", &[1]),
    ("PAUSED", "delete", "refused", &[1]),
    ("waiting", "delete", "refused", &[1]),
    ("COMPLETE", "delete", "gone", &[1, 2, 3]),
];

#[test]
fn loads_are_paused_resumed_cancelled_and_deleted_in_each_state() {
    let world = World::new();
    thread::scope(|threads| {
        // A few side by side: most of the time is waiting.
        let shares = CASES.chunks(CASES.len().div_ceil(4));
        for (share, cases) in (0..).zip(shares) {
            let world = &world;
            threads.spawn(move || {
                for (n, case) in (0..).zip(cases) {
                    check(world, &format!("log{share}_{n}"), case);
                }
            });
        }
    });
}

fn check(world: &World, log: &str, case: &(&str, &str, &str, &[usize])) {
    let (state, request, becomes, dates) = *case;
    let (load, hold) = reach(world, log, state);
    let asked = world.ask(
        &load,
        match request {
            "pause" => json!({ "pause_requested": true }),
            "cancel" => json!({ "cancel_requested": true }),
            "delete" => json!({ "delete_requested": true }),
            "resume" => json!({ "pause_requested": false }),
            _ => json!({ "cancel_requested": true, "delete_requested": true }),
        },
    );
    let rows = |dates: &[usize]| {
        if dates.is_empty() {
            let table = world.query(&format!("SELECT to_regclass('{log}')"));
            return assert_eq!(table, [""], "{case:?}");
        }
        let (one, two) = (
            world.rows_by_date(log),
            world.rows_by_date(&format!("{log}_tags")),
        );
        let wanted = |rows| expected(dates.iter().copied(), rows);
        assert_eq!((one, two), (wanted(ROWS), wanted(2 * ROWS)), "{case:?}");
    };
    if becomes == "refused" {
        assert_eq!(asked, 409, "{case:?}");
        return rows(dates);
    }
    assert_eq!(asked, 200, "{case:?}");
    if becomes == "paused" {
        // What is in flight is finished first; everything else ends, whatever hangs.
        drop(hold);
        world.wait_for_status(&load, becomes);
    } else {
        world.wait_for_status(&load, becomes);
        drop(hold);
    }
    rows(dates);
    if becomes == "gone" {
        world.wait_for_nothing_left(&load);
    } else {
        go_on(world, &load, state, becomes);
        world.wait_for_status(&load, "complete");
        rows(&[1, 2, 3]);
    }
    let was = state == "SUCCESS";
    let told: &[&str] = match becomes {
        "paused" => &["paused", "resumed", "complete"],
        "cancelled" => &["cancelled", "complete"],
        "gone" => &["deleted"],
        _ => &["error", "complete"],
    };
    world.wait_for_mails(&load, told.iter().copied().chain(was.then_some("success")));
}

/// Takes away what stopped a load, and has it go on.
fn go_on(world: &World, load: &Load, state: &str, was: &str) {
    mend(world, load, state);
    match was {
        "paused" => assert_eq!(world.ask(load, json!({ "pause_requested": false })), 200),
        "cancelled" => assert_eq!(world.ask(load, json!({ "cancel_requested": false })), 200),
        _ => {}
    }
    let failed = ["et_error", "load_error", "load_error later"].contains(&state);
    if failed && was != "cancelled" {
        // It would be tried again in minutes, or not by itself.
        let again = json!({ "from": date(DAY), "to": date(DAY), "retry_errors": true });
        world.call(&format!("POST /v1/runs/{}/backfill", load.uuid), &again);
    }
}

/// What keeps a date where it is, until this is dropped.
pub enum Hold<'w> {
    Nothing,
    /// A request for the rows is held up.
    Request(&'w World, String),
    /// A transaction of someone else has the table.
    Lock(
        Option<std::sync::mpsc::SyncSender<()>>,
        Option<thread::JoinHandle<()>>,
    ),
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        match self {
            Hold::Nothing => {}
            Hold::Request(world, part) => world.s3.open(part),
            Hold::Lock(release, holder) => {
                release.take();
                holder.take().map(thread::JoinHandle::join);
            }
        }
    }
}

/// Posts a load and brings it, or its second date, into a state.
fn reach<'w>(world: &'w World, log: &str, state: &str) -> (Load, Hold<'w>) {
    let bad = if state == "et_error" { MOST_BAD + 1 } else { 0 };
    for day in 1..=LAST {
        world.put_date(log, day, if day == DAY { bad } else { 0 });
        // What is to come later than what it is about.
        let later = match state {
            "waiting" | "load_error" => day == DAY,
            "et_started" | "load_started" | "load_error later" | "SUCCESS" | "PAUSED" | "CANCELLED" => {
                day >= DAY
            }
            "et_success" => day == 1,
            "NULL" => true,
            _ => false,
        };
        if !later {
            world.mark(log, day);
        }
    }
    let part = format!("/{}", part(log, DAY));
    if state == "et_started" {
        world.s3.close(&part);
    }
    let load = world.post(log, LAST, &json!({ "max_errors": MOST_BAD, "parallelism": 1 }));
    if state == "COMPLETE" {
        world.wait_for_status(&load, "complete");
        return (load, Hold::Nothing);
    }
    if !["NULL", "et_success"].contains(&state) {
        world.wait_for_run_status(&load, 1, "load_success");
    }
    let mut hold = Hold::Nothing;
    match state {
        "et_started" => {
            world.mark(log, DAY);
            world.it().wait_for("rows to be read", || world.s3.holds(&part));
            hold = Hold::Request(world, part);
        }
        "load_started" => {
            hold = lock(&world.warehouse, log);
            world.mark(log, DAY);
        }
        "load_error" => {
            // Nothing that a load would change by itself.
            let spoil =
                format!("ALTER TABLE {log} ALTER COLUMN height TYPE varchar(9) USING height::varchar");
            world.warehouse.query(&spoil);
            world.mark(log, DAY);
        }
        "load_error later" => {
            // The rows may be others the next time.
            let spoil = format!("ALTER TABLE {log} ADD CONSTRAINT not_yet CHECK (name NOT LIKE '{DAY}-%')");
            world.warehouse.query(&spoil);
            world.mark(log, DAY);
        }
        _ => {}
    }
    match state {
        "NULL" | "SUCCESS" | "PAUSED" | "CANCELLED" => {
            world.wait_for_run_status(&load, DAY, "waiting");
            if state == "PAUSED" {
                assert_eq!(world.ask(&load, json!({ "pause_requested": true })), 200);
            } else if state == "CANCELLED" {
                assert_eq!(world.ask(&load, json!({ "cancel_requested": true })), 200);
            }
            world.wait_for_status(&load, &state.to_lowercase());
        }
        "load_error later" => world.wait_for_run(&load, DAY, "waiting to be tried again", |run| {
            run["status"] == "load_error" && run["next_try_at"].is_string()
        }),
        _ => world.wait_for_run_status(&load, DAY, state),
    }
    if state == "load_error" {
        world.wait_for_status(&load, "error");
        assert!(world.staged(&load) > 0, "what is not loaded waits in S3");
    }
    (load, hold)
}

/// Takes away what stopped the second date.
fn mend(world: &World, load: &Load, state: &str) {
    let log = &load.log;
    match state {
        "waiting" => world.mark(log, DAY),
        "NULL" => (1..=LAST).for_each(|day| world.mark(log, day)),
        "SUCCESS" | "PAUSED" => (DAY..=LAST).for_each(|day| world.mark(log, day)),
        "et_success" => world.mark(log, 1),
        "load_error later" => {
            world
                .warehouse
                .query(&format!("ALTER TABLE {log} DROP CONSTRAINT not_yet"));
            world.mark(log, LAST);
        }
        "et_started" | "load_started" => world.mark(log, LAST),
        "et_error" => world.put_date(log, DAY, 0),
        "load_error" => {
            let back = format!("ALTER TABLE {log} ALTER COLUMN height TYPE int4 USING height::int4");
            world.warehouse.query(&back);
        }
        _ => {}
    }
}

/// Has a table in a transaction that stays open.
pub fn lock<'w>(warehouse: &Postgres, table: &str) -> Hold<'w> {
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let (has, had) = std::sync::mpsc::sync_channel(1);
    let (port, lock) = (
        warehouse.port,
        format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"),
    );
    let holder = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let client = runtime.block_on(async {
            let client = postgres::connect(port).await.expect("it takes connections");
            client.batch_execute(&lock).await.expect("it is free");
            client
        });
        has.send(()).expect("the test waits for it");
        // Until it is dropped, an error.
        let _ = released.recv();
        runtime.block_on(async { client.batch_execute("COMMIT").await.expect("nothing is changed") });
    });
    had.recv().expect("the table is locked");
    Hold::Lock(Some(release), Some(holder))
}
