//! Checkpoints in S3, through the real binary: the machine's disk may keep the log, but what was promised is
//! in the bucket.

mod support;

use serde_json::json;
use support::{Launch, Millstream, post, python_json, root};

/// A stop with an open window, the local checkpoints' place empty, and a start from the bucket.
#[test]
fn a_pipeline_goes_on_from_checkpoints_in_a_bucket() {
    let aws = support::Aws::start();
    python_json("bucket.py", &["checkpoints"], &aws.env);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipeline = root().join("pipelines/advertising.toml").display().to_string();
    let launch = Launch {
        dir: dir.path(),
        pipeline: &pipeline,
        port: 0,
        env: aws.env.clone(),
    };
    let args = ["--checkpoint", "s3://checkpoints/here"];
    let it = Millstream::start_with(&launch, &args);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis() as u64;
    let row = json!({"impressions": [{"impression_id": "i1", "ad_id": "a", "occurred_at": now}]});
    assert_eq!(
        post(&it.ingest, "/advertising/impressions", &row.to_string()).0,
        200
    );
    it.wait_for("the row to flow", || {
        it.node("advertising", "source.impressions")["rows_in"] == 1
    });
    assert_eq!(it.terminate(), 0, "{}", support::log(dir.path()));
    assert!(
        !dir.path().join("data/advertising/checkpoints").exists(),
        "nothing is kept on disk"
    );

    let it = Millstream::start_with(&launch, &args);
    let counted = || {
        it.printed_rows()
            .iter()
            .map(|row| row["impressions"].as_u64().unwrap_or(0))
            .sum::<u64>()
    };
    it.wait_for("the minute that was open at the stop", || counted() > 0);
    assert_eq!(counted(), 1);
    assert_eq!(
        it.node("advertising", "source.impressions")["rows_in"],
        0,
        "the log is not read again"
    );
    assert_eq!(it.terminate(), 0);
}
