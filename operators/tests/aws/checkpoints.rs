//! Checkpoints in S3: one writer owns an epoch, what has not changed is not written again, what nobody needs goes.

use millstream_engine::checkpoint::manifest::{FORMAT, Manifest, TaskId};
use millstream_engine::checkpoint::store::CheckpointStore;
use millstream_engine::state::Snapshot;
use millstream_operators::checkpoint_s3::S3Store;

use super::*;

/// How Python finds what is left: epochs and kinds.
pub const FOUND: &str =
    "keys = [o['Key'] for o in s3.list_objects_v2(Bucket='lake', Prefix='checkpoints/')['Contents']]
names = [key.split('/')[-1] for key in keys]
out(sorted((name[:20].lstrip('0'), name.split('.', 1)[1]) for name in names))";

/// What must be left.
pub const LEFT: [(&str, &str); 5] = [
    ("4", "manifest.json"),
    ("4", "state"),
    ("5", "manifest.json"),
    ("5", "state"),
    ("6", "manifest.json"),
];

#[tokio::test]
#[ignore = "run by sinks_against_ministack, in its environment"]
async fn inside_checkpoints() {
    let open = async || S3Store::open("s3://lake/checkpoints", "rows").await.unwrap();
    let (one, twin) = (open().await, open().await);
    assert!(one.latest().await.unwrap().is_none());
    let manifest = |epoch: u64, at: i64| Manifest {
        format: FORMAT,
        pipeline: "rows".into(),
        epoch: Epoch(epoch),
        at: Timestamp(at),
        last: false,
        nodes: Default::default(),
        sources: Default::default(),
        state: Vec::new(),
        files: Vec::new(),
        sinks: Default::default(),
    };
    let states = |n: i64| {
        let mut of = Snapshot::default();
        of.push("rows", rows(0..n));
        vec![(TaskId::Query("q".into()), "sql.q/global".to_string(), of)]
    };
    for epoch in 1..=5 {
        one.save(manifest(epoch, 0), states(epoch as i64)).await.unwrap();
    }
    one.save(manifest(5, 0), states(5))
        .await
        .expect("its own, saved again");
    let error = twin.save(manifest(5, 1), states(7)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Data, "{error}");
    // Stopped for so long that its epoch was made, used and deleted: the epoch is free, and still not its own.
    let error = twin.save(manifest(2, 1), states(7)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Data, "{error}");
    let found = twin.latest().await.unwrap().expect("five were saved");
    assert_eq!(
        (found.manifest.epoch, found.manifest.at),
        (Epoch(5), Timestamp(0))
    );
    let key = (TaskId::Query("q".into()), "sql.q/global".to_string());
    assert_eq!(found.states[&key].parts[0].rows, rows(0..5));
    // What is read is not written again, and what nobody needs is deleted.
    let saved = twin.save(
        manifest(6, 1),
        vec![(key.0, key.1.clone(), found.states.into_values().next().unwrap())],
    );
    assert_eq!(saved.await.unwrap().files, found.manifest.files);
}
