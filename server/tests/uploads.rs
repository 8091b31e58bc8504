//! Files of many megabytes in S3, which are sent while they grow, through the real binary: a bad object store all
//! the time, and kills with uploads under way. Every acked row is in the lake once, and no upload is left over once
//! the store is well again.

mod support;

use serde_json::{Value, json};
use support::load::{Load, verify_lake};
use support::proxy::{self, Proxy};
use support::{Aws, Launch, Millstream, free_port, log, newest_manifest, python_json, quick};

/// A part, 8 MiB, every few seconds.
const TRAFFIC: [&str; 4] = ["--rate", "20000", "--ads", "1000"];

#[test]
fn large_files_are_sent_while_they_grow_and_survive_kills() {
    let aws = Aws::start();
    let bucket = "millstream-uploads";
    python_json("bucket.py", &[bucket], &aws.env);
    let proxy = Proxy::start(&aws.endpoint, proxy::ANY);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = "path = \"s3://${LAKE_BUCKET}/impressions\"";
    let plain = format!("{path}\ncompression = \"none\"");
    let changes = [
        (path, plain.as_str()),
        ("interval = \"15m\" }", "interval = \"1h\" }"),
    ];
    let pipeline = quick::write(dir.path(), "advertising-aws.toml", &changes);
    let mut env = aws.env.clone();
    env.push(("LAKE_BUCKET".into(), bucket.into()));
    env.push(("AWS_ENDPOINT_URL".into(), proxy.url.clone()));
    let mut launch = Launch {
        dir: dir.path(),
        pipeline: &pipeline,
        port: free_port(),
        env,
    };
    for life in 0..3 {
        let it = Millstream::start(&launch);
        let before = newest_manifest(dir.path(), "advertising-aws");
        let load = Load::start(dir.path(), &it.ingest, &TRAFFIC);
        it.wait_for("a checkpoint of this life that names a part", || {
            let now = newest_manifest(dir.path(), "advertising-aws");
            now["epoch"] != before["epoch"] && names_a_part(&now)
        });
        if life < 2 {
            it.kill();
            load.stop();
        } else {
            load.stop();
            it.terminate_in_bad_weather();
        }
    }
    // To end an upload may fail on the way, too. What is left over is made good by the next start.
    launch.env.push(("AWS_ENDPOINT_URL".into(), aws.endpoint.clone()));
    assert_eq!(Millstream::start(&launch).terminate(), 0, "{}", log(dir.path()));
    let found = python_json("uploads.py", &[bucket], &aws.env);
    assert_eq!(found["unfinished"], json!(0), "{found}");
    assert!(found["multipart"].as_u64() >= Some(3), "{found}");
    let lake = dir.path().join("downloaded");
    python_json("download.py", &[bucket, &lake.display().to_string()], &aws.env);
    let proof = verify_lake(dir.path(), &lake, &[]);
    assert!(proof.holds, "{}", proof.text);
}

/// Whether a checkpoint holds the ETag of a part of a file that is still open.
fn names_a_part(manifest: &Value) -> bool {
    let open = manifest["sinks"]["lake_impressions"]["open"].as_array();
    let mut parts = open
        .into_iter()
        .flatten()
        .filter_map(|file| file["upload"]["parts"].as_array());
    parts.any(|parts| !parts.is_empty())
}
