//! What `deploy/` says, held against tools and against what the binary does: the CloudFormation stack is created on the
//! emulator, pipelines run on what it made, and each component's requests are compared with its role.

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::record::Recorder;
use support::{Aws, Launch, Millstream, log, now_seconds, post, python, python_json, quick, root};

/// Part of a deployment that has a role of its own, and pipelines in which it does all that it ever does.
struct Component {
    /// The role is the stack's output `<Name>RoleArn`.
    name: &'static str,
    runs: &'static [Run],
}

/// A pipeline that runs, is killed, and goes on.
struct Run {
    pipeline: &'static str,
    /// Checkpoints every second and windows of seconds: for pipelines with windows.
    quick: bool,
    /// Environment: the name, an output of the stack, and what follows it.
    env: &'static [(&'static str, &'static str, &'static str)],
    /// Where checkpoints go, with `{BucketName}` for the output.
    checkpoint: Option<&'static str>,
    /// Requests after which it is killed, by parts of their heads.
    first: &'static [&'static str],
    /// Requests after which it is stopped, in its second life.
    second: &'static [&'static str],
}

/// More is a line here. What a role allows and no run needs stands in `UNUSED` of `iam.py`.
const COMPONENTS: [Component; 2] = [
    Component {
        name: "collector",
        runs: &[Run {
            pipeline: "advertising-collector.toml",
            quick: false,
            env: &[
                ("IMPRESSIONS_STREAM", "ImpressionsStreamName", ""),
                ("CLICKS_STREAM", "ClicksStreamName", ""),
                ("IMPRESSIONS_DELIVERY", "ImpressionsDeliveryName", ""),
                ("CLICKS_DELIVERY", "ClicksDeliveryName", ""),
            ],
            checkpoint: None,
            first: &["PutRecords", "PutRecordBatch"],
            second: &[],
        }],
    },
    Component {
        name: "dataflow",
        runs: &[Run {
            pipeline: "advertising-aws.toml",
            quick: true,
            env: &[("LAKE_BUCKET", "BucketName", "/lake")],
            checkpoint: Some("s3://{BucketName}/checkpoints"),
            first: &["GetMetricData", "/lake/clicks/year", "DELETE /"],
            second: &["uploads"],
        }],
    },
];

/// So that the datapoints are in doubt and read back, as after a crash.
const WITHHOLD: &str = "operation/PutMetricData";

#[test]
fn components_may_do_what_they_do_and_nothing_else() {
    let aws = Aws::start();
    let template = root().join("deploy/cloudformation.yaml").display().to_string();
    let outputs = python_json("stack.py", &[&template], &aws.env);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut arguments = vec![outputs.to_string()];
    for component in COMPONENTS {
        let dir = dir.path().join(component.name);
        std::fs::create_dir(&dir).expect("a writable directory");
        let file = dir.join("requests.jsonl");
        let recorder = Recorder::start(&aws.endpoint, &file, WITHHOLD);
        for run in component.runs {
            run.run(&dir, &aws, &outputs, &recorder);
        }
        arguments.push(format!("{}={}", component.name, file.display()));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let needed = python_json("iam.py", &arguments, &aws.env);
    assert_eq!(
        needed["collector"],
        json!(["firehose:PutRecordBatch", "kinesis:PutRecords"])
    );
}

impl Run {
    fn run(&self, dir: &Path, aws: &Aws, outputs: &Value, recorder: &Recorder) {
        let output = |name: &str| outputs[name].as_str().expect("an output of the stack");
        let mut env = aws.env.clone();
        env.push(("AWS_ENDPOINT_URL".into(), recorder.url.clone()));
        let ours = self.env.iter().map(|(name, of, more)| (*name, output(of), more));
        env.extend(ours.map(|(name, value, more)| (name.into(), format!("{value}{more}"))));
        let launch = Launch {
            dir,
            pipeline: &match self.quick {
                true => quick::write(dir, self.pipeline, &[]),
                false => root().join("pipelines").join(self.pipeline).display().to_string(),
            },
            port: 0,
            env,
        };
        let checkpoint = self
            .checkpoint
            .map(|c| c.replace("{BucketName}", output("BucketName")));
        let args: Vec<&str> = checkpoint
            .iter()
            .flat_map(|c| ["--checkpoint", c.as_str()])
            .collect();

        let it = Millstream::start_with(&launch, &args);
        send(&it);
        wait(&it, recorder, self.first);
        it.kill();
        recorder.forget();
        let it = Millstream::start_with(&launch, &args);
        send(&it);
        wait(&it, recorder, self.second);
        assert_eq!(it.terminate(), 0, "{}", log(dir));
    }
}

fn wait(it: &Millstream, recorder: &Recorder, requests: &[&str]) {
    for request in requests {
        it.wait_for(request, || recorder.saw(request));
    }
}

/// An impression and a click of a minute ago.
fn send(it: &Millstream) {
    let at = (now_seconds() - 60) * 1000;
    let impression = json!({ "impression_id": format!("i{at}"), "ad_id": "a", "occurred_at": at });
    let mut click = impression.clone();
    click["click_id"] = json!(format!("c{at}"));
    for (path, rows) in [
        ("/advertising/impressions", json!({ "impressions": [impression] })),
        ("/advertising/clicks", json!({ "clicks": [click] })),
    ] {
        let (status, said) = post(&it.ingest, path, &rows.to_string());
        assert_eq!(status, 200, "{said}");
    }
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
