//! Single turns of the loop, where what is done beside it is made up.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use millstream_engine::runtime::timer;
use serde_json::json;

use super::execute::Counts;
use super::*;
use crate::catalog::model::{NewJob, NoticeState};
use crate::catalog::state::Request;

/// Plans fail with an error, and no marker is there.
struct Away(RunError, AtomicU32);

#[async_trait]
impl Execute for Away {
    async fn rules(&self, _: &Job, _: Timestamp) -> Result<Option<Rules>, RunError> {
        let request = self.1.fetch_add(1, Ordering::Relaxed);
        Err(RunError {
            message: format!("no plan (request {request})"),
            ..self.0.clone()
        })
    }

    async fn ready(&self, _: &Job, _: NaiveDate) -> Result<bool, RunError> {
        Ok(false)
    }

    async fn transform(&self, _: &Job, _: &RunKey) -> Result<Counts, RunError> {
        Err(self.0.clone())
    }

    async fn load(&self, _: &Job, _: &RunKey) -> Result<(), RunError> {
        Err(self.0.clone())
    }

    async fn forget(&self, _: &Job) {}
}

fn away(hopeless: bool) -> Away {
    let error = RunError {
        message: "no plan".into(),
        hopeless,
    };
    Away(error, AtomicU32::new(0))
}

fn new_job(kind: JobKind) -> NewJob {
    let said = json!({
        "log_name": "l", "log_schema_version": "1", "s3_path": "s3://b", "start_date": "2026-11-01", "redshift_id": "c",
    });
    NewJob {
        kind,
        ..serde_json::from_value(said).expect("a job")
    }
}

/// A job in a state, and a loop that cannot plan it.
async fn at(kind: JobKind, status: JobState, hopeless: bool) -> (Scheduler, String) {
    let catalog = Catalog::open(Path::new(":memory:")).expect("a catalog");
    let uuid = catalog.post_job(new_job(kind), Timestamp::now()).await;
    let uuid = uuid.expect("posted");
    let entered = catalog.change(&uuid, Timestamp::now(), move |entry| {
        entry.enter(status);
        Ok(())
    });
    entered.await.expect("entered");
    let scheduler = Scheduler::new(catalog, Arc::new(away(hopeless)), timer::real(), "me".into());
    (scheduler, uuid)
}

#[tokio::test]
async fn only_what_someone_must_mend_stops_a_job() {
    use JobState::{Cancelled, Complete, Error, Null, Paused, Running, Success};
    let cases = [
        (JobKind::Load, Null, true, Error, true),
        (JobKind::Load, Running, true, Error, true),
        (JobKind::Load, Success, false, Success, true),
        (JobKind::Load, Running, false, Running, true),
        (JobKind::Load, Paused, true, Paused, true),
        // What is over stays, whatever became of its cluster.
        (JobKind::Load, Complete, true, Complete, false),
        (JobKind::Load, Cancelled, true, Cancelled, false),
        (JobKind::Pipeline, Complete, true, Complete, false),
    ];
    for (kind, status, hopeless, becomes, says_why) in cases {
        let case = format!("{kind:?} {status:?} {hopeless}");
        let (mut scheduler, uuid) = at(kind, status, hopeless).await;
        scheduler.turn().await.expect("a turn");
        let job = scheduler.catalog.job(&uuid).await.expect("there");
        assert_eq!((job.status, job.error.is_some()), (becomes, says_why), "{case}");
        // Looking again changes nothing, or it would never end.
        scheduler.look_soon(&uuid, Timestamp::now());
        scheduler.turn().await.expect("a turn");
        assert_eq!(scheduler.catalog.job(&uuid).await.expect("there"), job, "{case}");
        let told = scheduler.catalog.notices(Some(NoticeState::Pending), 9).await;
        let told = told.expect("notices").len();
        assert_eq!(told, usize::from(becomes == Error), "{case}");
    }
}

#[tokio::test]
async fn a_complete_load_without_its_cluster_can_be_deleted() {
    let (mut scheduler, uuid) = at(JobKind::Load, JobState::Complete, true).await;
    scheduler.turn().await.expect("a turn");
    let asked = scheduler
        .catalog
        .request(&uuid, Request::Delete(true), Timestamp::now());
    asked.await.expect("it is over");
    scheduler.look_soon(&uuid, Timestamp::now());
    scheduler.turn().await.expect("a turn");
    let gone = scheduler.catalog.job(&uuid).await;
    assert!(matches!(gone, Err(CatalogError::Missing(_))));
}

/// More markers are missing than are looked for at one time.
#[tokio::test]
async fn markers_take_turns() {
    let (end, mut ended) = mpsc::channel(ENDED);
    let mut markers = Markers::new(Arc::new(away(false)), end);
    let job = Job::new(new_job(JobKind::Load), Timestamp(0));
    let first = NaiveDate::from_ymd_opt(2026, 10, 1).expect("a date");
    let dates: BTreeSet<NaiveDate> = first.iter_days().take(40).collect();
    let mut now = Timestamp(0);
    let mut asked = Vec::new();
    for round in [32, 8] {
        markers.ask(&job, &dates, now);
        // Asking again, as the loop may at any time, asks for no more.
        markers.ask(&job, &dates, now);
        for _ in 0..round {
            let Some(Done::Marker { job, date, there }) = ended.recv().await else {
                panic!("no answer");
            };
            markers.answered(&job, date, there, now);
            asked.push(date);
        }
        assert!(ended.try_recv().is_err(), "no more than {round} are asked for");
        now = now.plus(Duration::from_millis(1));
    }
    asked.sort();
    assert!(asked.iter().eq(&dates), "each once: {asked:?}");
    assert_eq!(markers.known(&job.uuid).len(), 40);
}
