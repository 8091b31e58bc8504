//! The catalog on a real file: what is kept, what is refused, what two connections see of one another.

use chrono::NaiveDate;
use millstream_engine::time::Timestamp;
use serde_json::json;

use super::model::{Cluster, Event, JobKind, NewJob, NoticeState, StoredSchema};
use super::state::{JobState, Request, RunState};
use super::*;

const NOW: Timestamp = Timestamp(1_795_600_000_000_000);

fn day(of: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 11, of).expect("a date")
}

fn new_load() -> NewJob {
    serde_json::from_value(json!({
        "log_name": "people", "log_schema_version": "initial", "s3_path": "s3://logs/people",
        "start_date": "2026-11-01", "redshift_id": "main", "contact_emails": ["a@example.com"],
    }))
    .expect("a load")
}

fn open(dir: &tempfile::TempDir) -> Catalog {
    Catalog::open(&dir.path().join("catalog.db")).expect("a catalog")
}

#[tokio::test]
async fn a_job_is_kept_shown_and_unique() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let uuid = {
        let catalog = open(&dir);
        let uuid = catalog.post_job(new_load(), NOW).await.expect("posted");
        let again = catalog.post_job(new_load(), NOW).await.expect_err("the same key");
        assert!(
            matches!(&again, CatalogError::Conflict(m) if m.contains(&uuid)),
            "{again}"
        );
        uuid
    };
    let catalog = open(&dir);
    catalog
        .change(&uuid, NOW, |entry| {
            entry
                .advance(day(1), RunState::EtStarted)
                .rows
                .insert("warehouse".into(), 7);
            entry.advance(day(2), RunState::Waiting);
            Ok(())
        })
        .await
        .expect("changed");
    let job = catalog.job(&uuid).await.expect("there");
    let shown = serde_json::to_value(&job).expect("json");
    assert_eq!(shown["key"], "main:people:initial:2026-11-01:None");
    assert_eq!(shown["status"], "null");
    assert_eq!(shown["start_date"], "2026-11-01");
    assert_eq!(shown["end_date"], json!(null));
    assert_eq!(shown["kind"], "load");
    assert_eq!(shown["created_at"], NOW.to_string());
    assert_eq!(
        shown["dates"],
        json!({"success": 0, "error": 0, "running": 1, "waiting": 1})
    );
    let runs = serde_json::to_value(catalog.runs(&uuid).await.expect("runs")).expect("json");
    assert_eq!(runs[0]["date"], "2026-11-01");
    assert_eq!(runs[0]["status"], "et_started");
    assert_eq!(runs[0]["rows"], json!({"warehouse": 7}));
    assert_eq!(runs[1]["status"], "waiting");
}

#[tokio::test]
async fn a_change_and_its_notice_are_one_and_an_error_undoes_both() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let catalog = open(&dir);
    let mut changes = catalog.changes();
    let uuid = catalog.post_job(new_load(), NOW).await.expect("posted");
    let failed = catalog.change(&uuid, NOW, |entry| {
        entry.enter_and_tell(JobState::Error);
        Err::<(), _>(CatalogError::Conflict("no".into()))
    });
    failed.await.expect_err("undone");
    assert_eq!(catalog.job(&uuid).await.expect("there").status, JobState::Null);
    assert!(catalog.notices(None, 10).await.expect("notices").is_empty());

    let done = catalog.change(&uuid, NOW, |entry| {
        entry.advance(day(3), RunState::EtStarted);
        entry.job.error = Some("a wall".into());
        entry.enter_and_tell(JobState::Error);
        Ok(())
    });
    done.await.expect("done");
    let notices = catalog.notices(None, 10).await.expect("notices");
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].event, Event::Error);
    assert_eq!(notices[0].job["status"], "error");
    assert_eq!(notices[0].job["error"], "a wall");
    assert_eq!(notices[0].job["dates"]["running"], 1);

    let mut heard = Vec::new();
    while let Ok(change) = changes.try_recv() {
        assert_eq!(change.job, uuid);
        heard.push(change.date);
    }
    assert_eq!(heard, [None, None, Some(day(3))]);
}

#[tokio::test]
async fn a_notice_stays_until_it_is_delivered() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let catalog = open(&dir);
    let uuid = catalog.post_job(new_load(), NOW).await.expect("posted");
    let done = catalog.change(&uuid, NOW, |entry| {
        entry.tell(Event::Success);
        entry.tell(Event::Complete);
        Ok(())
    });
    done.await.expect("done");
    let later = NOW.plus(Duration::from_secs(60));
    let taken = catalog.take_notices(NOW, later, 10).await.expect("taken");
    assert_eq!(taken.len(), 2);
    // Nobody else takes what is in hand.
    assert!(
        catalog
            .take_notices(NOW, later, 10)
            .await
            .expect("taken")
            .is_empty()
    );
    let sent = NoticeState::Sent;
    let done = catalog.notice_done(taken[0].id, sent, String::new(), None, later, NOW);
    done.await.expect("done");
    let kept = catalog.undelivered(taken[1].id, "smtp".into(), "no route".into(), later);
    kept.await.expect("kept");
    drop(catalog);
    let catalog = open(&dir);
    let left = catalog.take_notices(later, later, 10).await.expect("left");
    assert_eq!(left.len(), 1);
    let counts = catalog.notice_counts().await.expect("counts");
    assert_eq!(counts[..2], [(NoticeState::Pending, 1), (sent, 1)]);
    let left = (
        left[0].event,
        left[0].attempts,
        left[0].progress.as_str(),
        left[0].error.as_deref(),
    );
    assert_eq!(left, (Event::Complete, 1, "smtp", Some("no route")));
}

#[tokio::test]
async fn requests_change_what_they_may() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let catalog = open(&dir);
    let uuid = catalog.post_job(new_load(), NOW).await.expect("posted");
    let refused = catalog
        .request(&uuid, Request::Delete(true), NOW)
        .await
        .expect_err("not over");
    assert!(matches!(refused, CatalogError::Conflict(_)), "{refused}");
    catalog
        .request(&uuid, Request::Pause(true), NOW)
        .await
        .expect("asked");
    assert!(catalog.job(&uuid).await.expect("there").pause_requested);
    let paused = catalog.change(&uuid, NOW, |entry| {
        entry.enter_and_tell(JobState::Paused);
        Ok(())
    });
    paused.await.expect("paused");
    catalog
        .request(&uuid, Request::Pause(false), NOW)
        .await
        .expect("resumed");
    let job = catalog.job(&uuid).await.expect("there");
    assert_eq!((job.status, job.pause_requested), (JobState::Null, false));
    let told: Vec<Event> = catalog
        .notices(None, 9)
        .await
        .expect("notices")
        .iter()
        .map(|n| n.event)
        .collect();
    // The newest first.
    assert_eq!(told, [Event::Resumed, Event::Paused]);
    let missing = catalog
        .request("nobody", Request::Cancel(true), NOW)
        .await
        .expect_err("missing");
    assert!(matches!(missing, CatalogError::Missing(_)), "{missing}");
}

#[tokio::test]
async fn two_connections_never_decide_on_the_same_state() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let catalogs = [open(&dir), open(&dir)];
    let uuid = catalogs[0].post_job(new_load(), NOW).await.expect("posted");
    let claims = (0..40).map(|n| {
        let catalog = catalogs[n % 2].clone();
        let uuid = uuid.clone();
        tokio::spawn(async move {
            let claim = catalog.change(&uuid, NOW, |entry| {
                let next = (1..=20).map(day).find(|date| !entry.runs.contains_key(date));
                Ok(next.map(|date| entry.advance(date, RunState::EtStarted).date))
            });
            claim.await.expect("a claim")
        })
    });
    let claims = futures::future::join_all(claims.collect::<Vec<_>>()).await;
    let mut claimed: Vec<_> = claims.into_iter().filter_map(|c| c.expect("no panic")).collect();
    claimed.sort();
    assert_eq!(claimed, (1..=20).map(day).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_pipeline_keeps_its_first_date_over_restarts() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let catalog = open(&dir);
    let pipeline = |start: u32, end: Option<u32>| NewJob {
        kind: JobKind::Pipeline,
        log_name: "daily".into(),
        log_schema_version: String::new(),
        s3_path: String::new(),
        redshift_id: String::new(),
        start_date: day(start),
        end_date: end.map(day),
        ..new_load()
    };
    let first = catalog.register(pipeline(5, None), None, NOW).await.expect("new");
    let again = catalog
        .register(pipeline(9, Some(20)), None, NOW)
        .await
        .expect("known");
    assert_eq!(again.uuid, first.uuid);
    assert_eq!((again.start_date, again.end_date), (day(5), Some(day(20))));
    let named = catalog
        .register(pipeline(2, None), Some(day(2)), NOW)
        .await
        .expect("known");
    assert_eq!(catalog.job("daily").await.expect("by name"), named);
    assert_eq!(named.start_date, day(2));
}

#[tokio::test]
async fn clusters_can_be_changed_and_schemas_cannot() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let catalog = open(&dir);
    let cluster: Cluster = serde_json::from_value(json!({
        "redshift_id": "main", "host": "db.example", "database": "dw", "user": "loader", "password_env": "WAREHOUSE_PASSWORD",
    }))
    .expect("a cluster");
    assert_eq!((cluster.port, cluster.dialect.as_str()), (5439, "redshift"));
    catalog.post_cluster(cluster.clone()).await.expect("posted");
    let twice = catalog.post_cluster(cluster.clone()).await.expect_err("twice");
    assert!(matches!(twice, CatalogError::Conflict(_)), "{twice}");
    let changed = Cluster {
        port: 5440,
        ..cluster
    };
    catalog.put_cluster(changed.clone()).await.expect("put");
    assert_eq!(catalog.clusters().await.expect("clusters"), [changed]);
    catalog.post_job(new_load(), NOW).await.expect("posted");
    let used = catalog.delete_cluster("main").await.expect_err("in use");
    assert!(matches!(used, CatalogError::Conflict(_)), "{used}");
    let none = catalog.delete_cluster("other").await.expect_err("unknown");
    assert!(matches!(none, CatalogError::Missing(_)), "{none}");

    let schema = |text: &str| StoredSchema {
        log_name: "people".into(),
        version: "initial".into(),
        text: text.into(),
        posted_at: NOW,
    };
    catalog.post_schema(schema("version: 1")).await.expect("posted");
    catalog
        .post_schema(schema("version: 1"))
        .await
        .expect("the same again");
    let other = catalog
        .post_schema(schema("version: 2"))
        .await
        .expect_err("immutable");
    assert!(matches!(other, CatalogError::Conflict(_)), "{other}");
    assert_eq!(
        catalog.schema("people", "initial").await.expect("there"),
        schema("version: 1")
    );
}

#[tokio::test]
async fn who_is_silent_is_not_alive() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let catalog = open(&dir);
    let uuid = catalog.post_job(new_load(), NOW).await.expect("posted");
    let minute = Duration::from_secs(60);
    catalog.alive("a", NOW.plus(minute)).await.expect("said");
    catalog.alive("b", NOW.plus(minute)).await.expect("said");
    catalog.gone("b").await.expect("said");
    let alive = |at| {
        let (catalog, uuid) = (catalog.clone(), uuid.clone());
        async move { catalog.entry(&uuid, at).await.expect("an entry").alive }
    };
    assert_eq!(alive(NOW).await.into_iter().collect::<Vec<_>>(), ["a"]);
    assert!(alive(NOW.plus(minute)).await.is_empty());
}

/// Two would take each other's rows away.
#[tokio::test]
async fn loads_have_no_table_and_date_in_common() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let catalog = open(&dir);
    let cluster = |name: &str, namespace: &str| -> Cluster {
        serde_json::from_value(json!({
            "redshift_id": name, "host": "db.example", "database": "dw", "user": "u", "namespace": namespace,
        }))
        .expect("a cluster")
    };
    for (name, namespace) in [("main", "public"), ("same", "PUBLIC"), ("other", "attic")] {
        catalog
            .post_cluster(cluster(name, namespace))
            .await
            .expect("posted");
    }
    for (log, tables) in [("people", "a b"), ("persons", "B c"), ("things", "c d")] {
        let tables: Vec<String> = tables
            .split(' ')
            .map(|name| {
                format!("  {name}: {{src: '', src_type: dict, columns: [{{log_key: n, sql_attr: int4}}]}}\n")
            })
            .collect();
        let schema = StoredSchema {
            log_name: log.into(),
            version: "1".into(),
            text: format!("version: 1\ntables:\n{}", tables.concat()),
            posted_at: NOW,
        };
        catalog.post_schema(schema).await.expect("posted");
    }
    let new = |cluster: &str, log: &str, first: u32, last: Option<u32>| NewJob {
        log_name: log.into(),
        log_schema_version: "1".into(),
        redshift_id: cluster.into(),
        start_date: day(first),
        end_date: last.map(day),
        ..new_load()
    };
    let post = async |cluster, log, first, last| catalog.post_job(new(cluster, log, first, last), NOW).await;
    let refused = |posted: Result<String>| matches!(posted, Err(CatalogError::Conflict(_)));

    let first = post("main", "people", 10, Some(20)).await.expect("the first");
    // The table b, whatever its case and the cluster's name, and one date of it.
    assert!(refused(post("same", "persons", 20, None).await));
    assert!(refused(post("main", "persons", 1, Some(10)).await));
    assert!(refused(post("main", "people", 5, None).await));
    for free in [
        ("other", "persons", 10, None),
        ("main", "things", 10, Some(20)),
        ("main", "people", 21, None),
        ("main", "people", 1, Some(9)),
    ] {
        let (cluster, log, from, to) = free;
        post(cluster, log, from, to)
            .await
            .unwrap_or_else(|error| panic!("{free:?}: {error}"));
    }
    // Outside of its own dates.
    let outside = catalog.change(&first, NOW, |entry| {
        entry.advance(day(21), RunState::Waiting);
        Ok(())
    });
    assert!(matches!(outside.await, Err(CatalogError::Conflict(_))));

    // One that is cancelled loads nothing, until it is taken up.
    let cancelled = catalog.change(&first, NOW, |entry| {
        entry.enter(JobState::Cancelled);
        Ok(())
    });
    cancelled.await.expect("cancelled");
    let second = post("same", "people", 12, Some(12)).await.expect("it is free");
    let taken_up = catalog.request(&first, Request::Cancel(false), NOW).await;
    let taken_up = taken_up.expect_err("the dates are another's");
    assert!(taken_up.to_string().contains(&second), "{taken_up}");
    assert_eq!(
        catalog.job(&first).await.expect("there").status,
        JobState::Cancelled
    );
}
