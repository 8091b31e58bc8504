//! What `deploy/` says, held against tools and against what the binary does: the CloudFormation stack is created on the
//! emulator, pipelines run on what it made, and each component's requests are compared with its role.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::record::Recorder;
use support::{Aws, Launch, Millstream, get, log, now_seconds, post, put_object, python, python_json, root};

/// A pipeline that runs in a component, is killed, and goes on. All runs of a component together do everything it ever does.
struct Run {
    /// Part of a deployment, whose role is the stack's output `<Component>RoleArn`.
    component: &'static str,
    pipeline: &'static str,
    /// What makes its file quick, or another one.
    changes: &'static [(&'static str, &'static str)],
    /// Environment; `{Name}` stands for an output of the stack, here and in arguments.
    env: &'static [(&'static str, &'static str)],
    args: &'static [&'static str],
    /// Requests after which it is killed, by parts of their heads.
    first: &'static [&'static str],
    /// Requests after which it is stopped, in its second life.
    second: &'static [&'static str],
}

/// One after the other: what one puts into streams and bucket the next ones read. What a role allows and no run needs
/// stands in `UNUSED` of `iam.py`.
const RUNS: [Run; 6] = [
    Run {
        component: "collector",
        pipeline: "advertising-collector.toml",
        changes: &[],
        env: &[
            ("IMPRESSIONS_STREAM", "{ImpressionsStreamName}"),
            ("CLICKS_STREAM", "{ClicksStreamName}"),
            ("IMPRESSIONS_DELIVERY", "{ImpressionsDeliveryName}"),
            ("CLICKS_DELIVERY", "{ClicksDeliveryName}"),
        ],
        args: &["--serve", "dynamodb://{TrafficTableName}"],
        first: &["PutRecords", "PutRecordBatch", "Query"],
        second: &["PutRecords", "PutRecordBatch"],
    },
    Run {
        component: "dataflow",
        pipeline: "advertising-aws.toml",
        changes: &QUICK,
        env: &[("LAKE_BUCKET", "{BucketName}/lake")],
        args: &["--checkpoint", "s3://{BucketName}/checkpoints"],
        first: &["GetMetricData", "/lake/clicks/year", "DELETE /"],
        second: &["uploads"],
    },
    Run {
        component: "dataflow",
        pipeline: "advertising-kinesis.toml",
        changes: &QUICK,
        env: &KINESIS,
        args: &[],
        first: &["GetRecords", "PutMetricData", "/lake/clicks/year"],
        second: &["GetRecords"],
    },
    Run {
        component: "dataflow",
        pipeline: "advertising-kinesis.toml",
        changes: &[
            ("name = \"advertising-kinesis\"", "name = \"advertising-fan-out\""),
            ("start = \"trim_horizon\"", "consumer = \"millstream\""),
        ],
        env: &KINESIS,
        args: &[],
        first: &["SubscribeToShard"],
        second: &["SubscribeToShard"],
    },
    Run {
        component: "dataflow",
        pipeline: "advertising-raw.toml",
        changes: &QUICK_RAW,
        env: &RAW,
        args: &["--cloudwatch-metrics", "Millstream"],
        first: &["PutMetricData", "CreateTable", "BatchWriteItem", "DeleteMessage"],
        second: &["ReceiveMessage"],
    },
    // Another one of the same lake, with a column more.
    Run {
        component: "dataflow",
        pipeline: "advertising-raw.toml",
        changes: &[
            QUICK_RAW[0],
            QUICK_RAW[1],
            QUICK_RAW[2],
            (
                "name = \"advertising-raw\"",
                "name = \"advertising-raw-campaigns\"",
            ),
            (
                "occurred_at   = \"timestamp not null\"",
                "occurred_at = \"timestamp not null\"\ncampaign = \"string\"",
            ),
        ],
        env: &RAW,
        args: &[],
        first: &["UpdateTable"],
        second: &[],
    },
];

const QUICK: [(&str, &str); 4] = [
    (
        "[source.impressions]",
        "[checkpoint]\ninterval = \"1s\"\n\n[source.impressions]",
    ),
    ("idle_after = \"10s\"", "idle_after = \"2s\""),
    ("size = \"1m\"", "size = \"5s\""),
    ("interval = \"15m\"", "interval = \"2s\""),
];

const QUICK_RAW: [(&str, &str); 3] = [
    QUICK[0],
    ("idle_after = \"1h\"", "idle_after = \"2s\""),
    (
        "catalog = \"glue\"",
        "catalog = \"glue\"\nroll = { interval = \"2s\" }",
    ),
];

const KINESIS: [(&str, &str); 3] = [
    ("IMPRESSIONS_STREAM", "{ImpressionsStreamName}"),
    ("CLICKS_STREAM", "{ClicksStreamName}"),
    ("LAKE", "s3://{BucketName}/lake"),
];

const RAW: [(&str, &str); 5] = [
    ("RAW", "s3://{BucketName}/data/raw"),
    ("LAKE", "s3://{BucketName}/lake"),
    ("IMPRESSIONS_QUEUE", "{ImpressionsQueueUrl}"),
    ("CLICKS_QUEUE", "{ClicksQueueUrl}"),
    ("TRAFFIC_TABLE", "{TrafficTableName}"),
];

/// So that the datapoints are in doubt and read back, as after a crash.
const WITHHOLD: &str = "operation/PutMetricData";

#[test]
fn components_may_do_what_they_do_and_nothing_else() {
    let aws = Aws::start();
    let template = root().join("deploy/cloudformation.yaml").display().to_string();
    let stack = Stack {
        outputs: python_json("stack.py", &[&template], &aws.env),
        aws,
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut arguments = vec![stack.outputs.to_string()];
    for (n, run) in RUNS.iter().enumerate() {
        let dir = dir.path().join(n.to_string());
        std::fs::create_dir(&dir).expect("a writable directory");
        run.run(&dir, &stack);
        arguments.push(format!("{}={}", run.component, requests(&dir).display()));
    }
    let dir = dir.path().join("dashboards");
    std::fs::create_dir(&dir).expect("a writable directory");
    stack.push_dashboards(&dir);
    arguments.push(format!("dashboards={}", requests(&dir).display()));

    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let needed = python_json("iam.py", &arguments, &stack.aws.env);
    assert_eq!(
        needed["collector"],
        json!(["dynamodb:Query", "firehose:PutRecordBatch", "kinesis:PutRecords"])
    );
}

/// What was created.
struct Stack {
    aws: Aws,
    outputs: Value,
}

impl Stack {
    /// `text` with outputs in place of their names.
    fn fill(&self, text: &str) -> String {
        let outputs = self.outputs.as_object().into_iter().flatten();
        outputs.fold(text.into(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value.as_str().unwrap_or_default())
        })
    }

    fn env(&self, recorder: &Recorder, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut env = self.aws.env.clone();
        env.push(("AWS_ENDPOINT_URL".into(), recorder.url.clone()));
        env.extend(
            more.iter()
                .map(|(name, value)| (name.to_string(), self.fill(value))),
        );
        env
    }

    fn push_dashboards(&self, dir: &Path) {
        let recorder = Recorder::start(&self.aws.endpoint, &requests(dir), "");
        let out = Command::new(env!("CARGO_BIN_EXE_millstream"))
            .args(["dashboards", "push", "pipelines/advertising-aws.toml"])
            .args(["--cloudwatch-metrics", "Millstream"])
            .args(["--alarm-topic", &self.fill("{AlarmTopicArn}")])
            .current_dir(root())
            .envs(self.env(&recorder, &[("LAKE_BUCKET", "{BucketName}/lake")]))
            .output()
            .expect("the binary starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

fn requests(dir: &Path) -> PathBuf {
    dir.join("requests.jsonl")
}

impl Run {
    fn run(&self, dir: &Path, stack: &Stack) {
        let recorder = Recorder::start(&stack.aws.endpoint, &requests(dir), WITHHOLD);
        let launch = Launch {
            dir,
            pipeline: &self.write(dir),
            port: 0,
            env: stack.env(&recorder, self.env),
        };
        let args: Vec<String> = self.args.iter().map(|arg| stack.fill(arg)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        for (life, requests) in [self.first, self.second].into_iter().enumerate() {
            recorder.forget();
            let it = Millstream::start_with(&launch, &args);
            match it.ingest.is_empty() {
                true => deliver(stack),
                false => send(&it),
            }
            if self.args.contains(&"--serve") {
                ask(&it);
            }
            assert_eq!(health(&it.admin), Some(0));
            for request in requests {
                it.wait_for(request, || recorder.saw(request));
            }
            match life {
                0 => it.kill(),
                _ => assert_eq!(it.terminate(), 0, "{}", log(dir)),
            }
        }
    }

    fn write(&self, dir: &Path) -> String {
        let text = std::fs::read_to_string(root().join("pipelines").join(self.pipeline));
        let text = self
            .changes
            .iter()
            .fold(text.expect("it is there"), |text, (from, to)| {
                assert!(text.contains(from), "{} has no {from}", self.pipeline);
                text.replace(from, to)
            });
        let file = dir.join(self.pipeline);
        std::fs::write(&file, text).expect("a writable directory");
        file.display().to_string()
    }
}

/// As containers are asked.
fn health(admin: &str) -> Option<i32> {
    let status = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["health", "--admin", admin.trim_start_matches("http://")])
        .stdout(Stdio::null())
        .status();
    status.expect("the binary starts").code()
}

/// An impression and a click of a minute ago.
fn send(it: &Millstream) {
    let at = (now_seconds() - 60) * 1000;
    let (impression, click) = rows(at);
    for (path, rows) in [
        ("/advertising/impressions", json!({ "impressions": [impression] })),
        ("/advertising/clicks", json!({ "clicks": [click] })),
    ] {
        let (status, said) = post(&it.ingest, path, &rows.to_string());
        assert_eq!(status, 200, "{said}");
    }
}

/// Asks for the traffic of an ad that nobody knows.
fn ask(it: &Millstream) {
    let (status, said) = get(&it.ingest, &format!("/advertising/traffic/{AD}"));
    assert_eq!((status, said.contains("\"count\":0")), (200, true), "{said}");
}

const AD: &str = "5f0c3a6e-8a55-4d0e-9a93-0d8a44f7a001";

/// The same of two days ago, as Firehose would deliver it.
fn deliver(stack: &Stack) {
    let at = (now_seconds() - 2 * 24 * 3600) * 1000;
    let (impression, click) = rows(at);
    for (kind, row) in [("impressions", impression), ("clicks", click)] {
        let place = format!(
            "{}/data/raw/ad/{kind}/2026/01/01/00/{at}",
            stack.fill("{BucketName}")
        );
        put_object(&stack.aws.endpoint, &place, &format!("{row}\n"));
    }
}

fn rows(at: i64) -> (Value, Value) {
    let impression = json!({ "impression_id": format!("i{at}"), "ad_id": "a", "occurred_at": at });
    let mut click = impression.clone();
    click["click_id"] = json!(format!("c{at}"));
    (impression, click)
}

/// The linters of each kind of file, all in one Python process.
#[test]
fn what_is_deployed_passes_its_linters() {
    let out = Command::new(python())
        .arg(root().join("server/tests/lint.py"))
        .arg(root().join("deploy"))
        .output()
        .expect("python runs");
    let said = String::from_utf8_lossy(&[&out.stdout[..], &out.stderr].concat()).into_owned();
    assert!(out.status.success(), "{said}");
}

/// They are examples, and what the guide says to deploy.
#[test]
fn every_pipeline_that_is_shipped_passes_its_own_tests() {
    let out = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["test", "pipelines"])
        .current_dir(root())
        .env("LAKE_BUCKET", "lake")
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&[&out.stdout[..], &out.stderr].concat()).into_owned();
    assert!(out.status.success() && said.contains(" 0 failed"), "{said}");
}
