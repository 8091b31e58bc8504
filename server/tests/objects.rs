//! Rows in objects and files through the real binary: a lake built from raw deliveries with a kill in the middle, and
//! new objects followed, by listing and by a queue. The lake is read by pyarrow and must hold each row once.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Child;
use std::time::Instant;

use serde_json::{Value, json};
use support::proxy::{Fate, Proxy};
use support::{Aws, Launch, Millstream, PATIENCE, log, newest_manifest, pause, python_json, root};

const BUCKET: &str = "millstream-raw";

/// Every request takes its time, so that a kill meets a job half done.
const SLOW: &[Fate] = &[Fate::Slow];

/// Some go wrong on the way, or half way.
const BAD: &[Fate] = &[
    Fate::Good,
    Fate::Good,
    Fate::Busy,
    Fate::Good,
    Fate::Good,
    Fate::Cut,
    Fate::Good,
    Fate::Good,
    Fate::Lost,
    Fate::Good,
    Fate::Cut,
    Fate::Good,
    Fate::Good,
    Fate::Unanswered,
    Fate::Good,
];

/// Checkpoints come quickly.
const QUICK: (&str, &str) = (
    "[source.impressions]",
    "[checkpoint]\ninterval = \"250ms\"\n\n[source.impressions]",
);

#[test]
fn a_lake_is_built_from_raw_deliveries() {
    let aws = Aws::start();
    let delivered = python_json("raw.py", &["deliver", BUCKET], &aws.env);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipeline = rebuild(dir.path(), &[QUICK, ("type = \"file\"", "type = \"s3\"")]);
    let mut job = Job::new(
        dir.path(),
        &pipeline,
        &aws.env,
        &format!("s3://{BUCKET}/data/raw"),
    );

    // Killed with some objects read, some half, some not; and then over a line that loses requests.
    let slow = Proxy::start(&aws.endpoint, SLOW);
    job.endpoint(&slow.url);
    let mut child = job.start();
    let half_done = || {
        let offsets = offsets(dir.path());
        let ended = offsets.iter().filter(|(_, at)| at.starts_with("end")).count();
        ended >= 3 && ended < offsets.len()
    };
    wait_for("a checkpoint of a job half done", &mut child, half_done);
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    let broken = Proxy::start(&aws.endpoint, BAD);
    job.endpoint(&broken.url);
    job.run();
    let expect = once(&delivered["impressions"]);
    job.holds("impressions", "impression_id", &expect);
    job.holds("clicks", "click_id", &once(&delivered["clicks"]));
    let folder = format!("s3://{BUCKET}/data/raw/ad/impressions/2026/11/24");
    let bad = BTreeMap::from([
        (
            format!("{folder}/20/impressions-1-2026-11-24-20-00-00-0f.gz:51"),
            1,
        ),
        (
            format!("{folder}/21/impressions-1-2026-11-24-21-00-00-0f.gz:1"),
            1,
        ),
    ]);
    job.holds("impressions_invalid", "origin", &bad);

    // Another version of an object is read, the others are not again.
    job.endpoint(&aws.endpoint);
    let more = python_json("raw.py", &["overwrite", BUCKET], &aws.env);
    job.run();
    job.run();
    let mut expect = expect;
    expect.extend(once(&more["impressions"]));
    job.holds("impressions", "impression_id", &expect);
    job.holds("impressions_invalid", "origin", &bad);

    // The same deliveries as files, of which only the newest version is there.
    let files = tempfile::tempdir().expect("a temporary directory");
    let copy = files.path().join("copy").display().to_string();
    python_json("download.py", &[BUCKET, &copy], &aws.env);
    let pipeline = rebuild(files.path(), &[QUICK]);
    let job = Job::new(files.path(), &pipeline, &[], &format!("{copy}/data/raw"));
    job.run();
    expect.retain(|id, _| !id.starts_with("i0-"));
    job.holds("impressions", "impression_id", &expect);
    job.holds("clicks", "click_id", &once(&delivered["clicks"]));
}

#[test]
fn new_objects_are_followed_by_a_queue_and_by_listing() {
    let aws = Aws::start();
    python_json("bucket.py", &[BUCKET], &aws.env);
    let url = python_json("raw.py", &["notify", BUCKET, "new-objects"], &aws.env);
    let url = url.as_str().expect("a URL");
    for (name, key) in [
        ("queue", format!("notifications = {url:?}")),
        ("listing", String::new()),
    ] {
        let prefix = format!("in/{name}");
        let put = |object: &str, from: u64| {
            let (key, from, to) = (
                format!("{prefix}/{object}"),
                from.to_string(),
                (from + 10).to_string(),
            );
            python_json("raw.py", &["put", BUCKET, &key, &from, &to], &aws.env);
        };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pipeline = following(dir.path(), &prefix, &key);
        let launch = Launch {
            dir: dir.path(),
            pipeline: &pipeline,
            port: 0,
            env: aws.env.clone(),
        };
        put("a", 0);
        let it = Millstream::start(&launch);
        let has_read = |it: &Millstream, rows: u64| {
            it.wait_for("new objects to be read", || {
                it.node("follow", "source.rows")["rows_in"].as_u64() >= Some(rows)
            });
        };
        has_read(&it, 10);
        put("b", 10);
        has_read(&it, 20);
        it.kill();
        // Nobody is there to see it come, and one is overwritten.
        put("c d+e", 20);
        put("a", 30);
        let it = Millstream::start(&launch);
        it.wait_for("every object to be in a checkpoint", || {
            let offsets = offsets_of(dir.path(), "follow", "rows");
            offsets.values().filter(|at| at.starts_with("end")).count() == 4
        });
        put("e", 40);
        it.wait_for("the last object to be in a checkpoint", || {
            let offsets = offsets_of(dir.path(), "follow", "rows");
            offsets.values().filter(|at| at.starts_with("end")).count() == 5
        });
        if name == "queue" {
            it.wait_for("the queue to be empty", || {
                python_json("raw.py", &["waiting", url], &aws.env) == json!(0)
            });
        }
        assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
        let lake = dir.path().join("lake").display().to_string();
        let found = python_json("lake.py", &[&lake, "impression_id"], &[]);
        let expect: BTreeMap<String, u64> = (0..50).map(|n| (format!("n{n}"), 1)).collect();
        assert_eq!(found["keys"], json!(expect), "{name}");
    }
}

#[test]
fn a_bucket_that_is_not_there_is_an_error_of_configuration() {
    let aws = Aws::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipeline = rebuild(dir.path(), &[("type = \"file\"", "type = \"s3\"")]);
    let job = Job::new(dir.path(), &pipeline, &aws.env, "s3://nowhere/raw");
    assert_eq!(end_of(&mut job.start(), dir.path()), Some(1));
    let log = log(dir.path());
    assert!(
        log.contains("listing s3://nowhere/raw/ad/") && log.contains("NoSuchBucket"),
        "{log}"
    );
}

/// Writes pipelines/rebuild.toml into `dir` with changes made, each of which must apply.
fn rebuild(dir: &Path, changes: &[(&str, &str)]) -> String {
    let text = std::fs::read_to_string(root().join("pipelines/rebuild.toml")).expect("it is there");
    let text = changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "no {from}");
        text.replace(from, to)
    });
    let file = dir.join("rebuild.toml");
    std::fs::write(&file, text).expect("a writable directory");
    file.display().to_string()
}

fn following(dir: &Path, prefix: &str, key: &str) -> String {
    let lake = dir.join("lake").display().to_string();
    let text = format!(
        r#"
name = "follow"
[checkpoint]
interval = "250ms"

[source.rows]
type = "s3"
path = "s3://{BUCKET}/{prefix}"
follow = true
poll = "200ms"
{key}
event_time = "occurred_at"
[source.rows.columns]
impression_id = "string not null"
occurred_at   = "timestamp not null"

[sink.lake]
type = "parquet"
input = "rows"
path = {lake:?}
"#
    );
    let file = dir.join("follow.toml");
    std::fs::write(&file, text).expect("a writable directory");
    file.display().to_string()
}

/// A run of the rebuild pipeline, which ends by itself.
struct Job<'a> {
    launch: Launch<'a>,
}

impl<'a> Job<'a> {
    fn new(dir: &'a Path, pipeline: &'a str, env: &[(String, String)], raw: &str) -> Job<'a> {
        let mut env = env.to_vec();
        env.push(("RAW".into(), raw.into()));
        env.push(("LAKE".into(), dir.join("lake").display().to_string()));
        let launch = Launch {
            dir,
            pipeline,
            port: 0,
            env,
        };
        Job { launch }
    }

    fn endpoint(&mut self, url: &str) {
        self.launch.env.push(("AWS_ENDPOINT_URL".into(), url.into()));
    }

    fn start(&self) -> Child {
        support::spawn(&self.launch, &[])
    }

    /// Runs it to its end, which must be a good one.
    fn run(&self) {
        let code = end_of(&mut self.start(), self.launch.dir);
        assert_eq!(code, Some(0), "{}", log(self.launch.dir));
    }

    /// Checks which keys are in the lake, and how often each.
    fn holds(&self, stream: &str, key: &str, expect: &BTreeMap<String, u64>) {
        let lake = self.launch.dir.join("lake").join(stream).display().to_string();
        let found = python_json("lake.py", &[&lake, key], &[]);
        let found = found["keys"].as_object().expect("counts by key");
        let times = |key: &String| found.get(key).and_then(Value::as_u64).unwrap_or_default();
        let wrong: Vec<String> = expect
            .keys()
            .chain(found.keys())
            .filter(|key| times(key) != expect.get(*key).copied().unwrap_or_default())
            .map(|key| format!("{key} {} times", times(key)))
            .collect();
        let shown = &wrong[..wrong.len().min(10)];
        assert!(
            wrong.is_empty(),
            "{stream}: {} keys are wrong: {shown:?}\n{}",
            wrong.len(),
            log(self.launch.dir)
        );
    }
}

fn once(ids: &Value) -> BTreeMap<String, u64> {
    let ids = ids.as_array().into_iter().flatten();
    ids.map(|id| (id.as_str().expect("an id").into(), 1)).collect()
}

/// Waits for the end of a process; gives its exit code.
fn end_of(child: &mut Child, dir: &Path) -> Option<i32> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("its state is known") {
            return status.code();
        }
        if started.elapsed() > PATIENCE {
            child.kill().expect("it can be killed");
            panic!("it does not end; it logged:\n{}", log(dir));
        }
        pause(std::time::Duration::from_millis(50));
    }
}

/// Waits for something to be so, or for the end of the process: a machine that is held up may miss the moment.
fn wait_for(what: &str, child: &mut Child, mut ready: impl FnMut() -> bool) {
    let started = Instant::now();
    while !ready() && child.try_wait().expect("its state is known").is_none() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        pause(std::time::Duration::from_millis(20));
    }
}

/// What the newest checkpoint says of the objects of impressions.
fn offsets(dir: &Path) -> BTreeMap<String, String> {
    offsets_of(dir, "rebuild", "impressions")
}

fn offsets_of(dir: &Path, pipeline: &str, source: &str) -> BTreeMap<String, String> {
    let manifest = newest_manifest(dir, pipeline);
    serde_json::from_value(manifest["sources"][source]["offsets"].clone()).unwrap_or_default()
}
