//! Mails and webhooks about jobs: a real mail server that is away, refuses and hangs, and a receiver on which little
//! can be relied. None is lost.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::{Value, json};
use support::receiver::Receiver;
use support::{
    IDLE, Launch, Millstream, PATIENCE, ask, certificate, free_port, get, log, pause, python, root,
};

const SECRET: &str = "between you and me";

/// A mail server of ours, ended when dropped.
struct Mails {
    child: Child,
    dir: PathBuf,
}

impl Mails {
    fn start(port: u16, dir: &Path, secure: &[&str]) -> Mails {
        let child = Command::new(python())
            .arg(root().join("server/tests/smtp.py"))
            .args([&port.to_string(), &dir.display().to_string()])
            .args(secure)
            .spawn();
        Mails {
            child: child.expect("python starts"),
            dir: dir.into(),
        }
    }

    /// All mails so far, one text each.
    fn all(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.dir).expect("a folder of mails");
        let paths = files.map(|file| file.expect("a readable folder").path());
        let mut paths: Vec<PathBuf> = paths
            .filter(|path| path.extension().is_some_and(|e| e == "eml"))
            .collect();
        paths.sort();
        paths
            .iter()
            .map(|path| std::fs::read_to_string(path).expect("a mail"))
            .collect()
    }
}

impl Drop for Mails {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that knows a load, and where its mails go.
struct World {
    dir: tempfile::TempDir,
    port: u16,
    /// The mail server, if it is not one of this machine without TLS.
    smtp: Option<String>,
    env: Vec<(String, String)>,
    it: Option<Millstream>,
}

impl World {
    /// Nothing runs yet.
    fn at(port: u16) -> World {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("idle.toml"), IDLE).expect("a writable directory");
        std::fs::create_dir(dir.path().join("mails")).expect("a writable directory");
        World {
            dir,
            port,
            smtp: None,
            env: vec![("MILLSTREAM_WEBHOOK_SECRET".into(), SECRET.into())],
            it: None,
        }
    }

    fn new(contacts: &[&str]) -> World {
        let mut world = World::at(free_port());
        world.start(&[]);
        world.post("/v1/clusters", &json!({
            "redshift_id": "main", "dialect": "postgres", "host": "127.0.0.1", "database": "dw", "user": "u",
        }));
        let yaml = "version: 1\ntables:\n  people:\n    src: ''\n    src_type: dict\n    columns:\n    - {log_key: name, sql_attr: varchar(9)}\n";
        let (status, _, said) = ask(world.admin(), "POST /v1/schema/people/1", &[], yaml);
        assert_eq!(status, 200, "{said}");
        // Nothing of it is due in this century.
        world.post("/v1/jobs", &json!({
            "log_name": "people", "log_schema_version": "1", "s3_path": "s3://logs/people", "redshift_id": "main",
            "start_date": "2126-11-01", "contact_emails": contacts,
        }));
        world
    }

    fn start(&mut self, more: &[&str]) {
        self.it = None;
        let launch = Launch {
            dir: self.dir.path(),
            pipeline: "idle.toml",
            port: 0,
            env: self.env.clone(),
        };
        let plain = format!("smtp://127.0.0.1:{}", self.port);
        let smtp = self.smtp.clone().unwrap_or(plain);
        let args = [
            "--smtp",
            &smtp,
            "--notify",
            "resumed",
            "--mail-from",
            "mill@example.com",
        ];
        self.it = Some(Millstream::start_with(&launch, &[&args[..], more].concat()));
    }

    fn it(&self) -> &Millstream {
        self.it.as_ref().expect("it runs")
    }

    fn admin(&self) -> &str {
        &self.it().admin
    }

    fn mails(&self) -> Mails {
        Mails::start(self.port, &self.dir.path().join("mails"), &[])
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.json(&format!("POST {path}"), body)
    }

    fn json(&self, line: &str, body: &Value) -> Value {
        let header = "content-type: application/json";
        let (status, _, said) = ask(self.admin(), line, &[header], &body.to_string());
        assert_eq!(status, 200, "{line}: {said}");
        serde_json::from_str(&said).expect("the API answers with JSON")
    }

    fn get(&self, path: &str) -> Value {
        let (status, said) = get(self.admin(), path);
        assert!([200, 503].contains(&status), "{path}: {said}");
        serde_json::from_str(&said).expect("the API answers with JSON")
    }

    /// Pauses the load and goes on with it: people are told of the latter.
    fn resume(&self) -> String {
        let job = || self.get("/v1/jobs/filtered/people")["jobs"][0].clone();
        let uuid = job()["uuid"].as_str().expect("a uuid").to_owned();
        let put = |requested: bool| {
            self.json(
                "PUT /v1/jobs/job",
                &json!({ "uuid": uuid, "pause_requested": requested }),
            )
        };
        put(true);
        self.it().wait_for("the pause", || job()["status"] == "paused");
        put(false);
        uuid
    }

    /// The newest notice that someone is to be told.
    fn notice(&self) -> Value {
        let all = self.get("/v1/notices")["notices"].clone();
        let told = |notice: &&Value| notice["event"] == "resumed";
        all.as_array()
            .into_iter()
            .flatten()
            .find(told)
            .cloned()
            .unwrap_or_default()
    }
}

#[test]
fn a_server_that_is_away_gets_its_mails_later_and_a_refusal_is_seen() {
    let hooks = Receiver::start(3);
    let mut world = World::new(&["ops@example.com", "refused@example.com", "busy@example.com"]);
    world.start(&["--webhook", &hooks.url, "--public-url", "https://mill.example/"]);
    let uuid = world.resume();
    world
        .it()
        .wait_for("a vain attempt", || world.notice()["attempts"].as_u64() > Some(0));
    let notice = world.notice();
    assert_eq!(notice["state"], "pending", "{notice}");
    world.it().wait_for("the mail server to be missed", || {
        world.get("/readyz")["mail"]["reachable"] == json!(false)
    });
    assert_eq!(
        world.get("/readyz")["ready"],
        true,
        "a mail server that is away stops nothing"
    );

    let mails = world.mails();
    world
        .it()
        .wait_for("the end of the notice", || world.notice()["state"] != "pending");
    let notice = world.notice();
    assert_eq!(notice["state"], "failed", "{notice}");
    assert_eq!(notice["receivers"]["ops@example.com"], "sent");
    assert_eq!(notice["receivers"]["busy@example.com"], "sent");
    let why = notice["receivers"]["refused@example.com"]
        .as_str()
        .unwrap_or_default();
    assert!(
        why.starts_with("failed: ") && why.contains("nobody of this name"),
        "{notice}"
    );
    let (_, metrics) = get(world.admin(), "/metrics");
    assert!(
        metrics.contains("millstream_notices{state=\"failed\"} 1\n"),
        "{metrics}"
    );

    let all = mails.all();
    let sent = |to: &str| {
        all.iter()
            .filter(|mail| mail.starts_with(&format!("To-Be: {to}\r\n")))
            .count()
    };
    assert_eq!(
        (sent("ops@example.com"), sent("busy@example.com"), all.len()),
        (1, 1, 2),
        "{all:?}"
    );
    for part in [
        &format!("Subject: Millstream job {uuid} status changed\r\n"),
        "From: mill@example.com\r\n",
        "status: resumed\r\n",
        "s3 path: s3://logs/people\r\n",
        "cluster: main\r\n",
        &format!("link: https://mill.example/loads/{uuid}\r\n"),
    ] {
        assert!(all[0].contains(part), "no {part:?} in {}", all[0]);
    }

    let signed = hooks.signed();
    assert_eq!(signed.len(), 1, "{}", hooks.summary());
    let (key, (body, signature)) = signed.first_key_value().expect("one");
    let body = String::from_utf8(body.clone()).expect("text");
    let told: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        (&told["id"], &told["event"], &told["job"]["uuid"]),
        (&json!(key), &json!("resumed"), &json!(uuid))
    );
    assert_eq!(*signature, signed_by_python(&body));
}

fn signed_by_python(body: &str) -> String {
    let script = "import hmac,sys;print('sha256='+hmac.new(sys.argv[1].encode(),sys.argv[2].encode(),'sha256').hexdigest())";
    let out = Command::new(python())
        .args(["-c", script, SECRET, body])
        .output()
        .expect("python runs");
    String::from_utf8_lossy(&out.stdout).trim().into()
}

#[test]
fn a_process_that_dies_before_the_mark_sends_again() {
    let mut world = World::new(&["ops@example.com"]);
    let mails = world.mails();
    let hold = world.dir.path().join("mails/hold");
    std::fs::write(&hold, "").expect("a writable directory");
    world.resume();
    world.it().wait_for("the mail", || mails.all().len() == 1);
    world.it.take().expect("it runs").kill();
    std::fs::remove_file(&hold).expect("it is there");

    world.start(&[]);
    world
        .it()
        .wait_for("the mark", || world.notice()["state"] == "sent");
    let all = mails.all();
    let id = |mail: &String| {
        let mut lines = mail.lines();
        lines
            .find(|line| line.starts_with("Message-ID: "))
            .expect("an id")
            .to_owned()
    };
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(id(&all[0]), id(&all[1]));

    // What was sent and marked is not sent again.
    world.start(&[]);
    let started = std::time::Instant::now();
    while !log(world.dir.path()).contains("console  http") && started.elapsed() < PATIENCE {
        pause(std::time::Duration::from_millis(50));
    }
    world.resume();
    world.it().wait_for("the next mail", || mails.all().len() > 2);
    assert_eq!(mails.all().len(), 3);
    assert_ne!(id(&mails.all()[2]), id(&all[0]));
}

#[test]
fn two_processes_with_one_catalog_send_each_mail_once() {
    const RESUMED: usize = 10;
    let mut world = World::new(&["ops@example.com"]);
    let catalog = world.dir.path().join("data/catalog.db").display().to_string();
    let shared = ["--catalog", catalog.as_str()];
    world.start(&shared);
    let mut other = World::at(world.port);
    other.start(&shared);
    let mails = world.mails();
    for _ in 0..RESUMED {
        world.resume();
    }
    let sent = || {
        let all = world.get("/v1/notices?state=sent")["notices"].clone();
        let all = all
            .as_array()
            .map_or(0, |all| all.iter().filter(|n| n["event"] == "resumed").count());
        assert!(all <= RESUMED);
        all == RESUMED
    };
    world.it().wait_for("all to be sent", sent);
    assert_eq!(mails.all().len(), RESUMED);
}

/// STARTTLS and a password, by a certificate that nobody knows until the process is told whom to trust.
#[test]
fn a_server_that_wants_tls_and_a_user_gets_its_mails() {
    let mut world = World::new(&["ops@example.com"]);
    let (certificate, key) = certificate(world.dir.path());
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let secure = [certificate.as_str(), key.as_str(), "mill", "between us"];
    let mails = Mails::start(world.port, &world.dir.path().join("mails"), &secure);
    let port = world.port;
    let address = |password: &str| format!("smtp://mill:{password}@localhost:{port}?tls=required");
    let (right, wrong) = (address("between%20us"), address("wrong"));
    let trusting = ("SSL_CERT_FILE".to_owned(), certificate.clone());

    world.smtp = Some(right.clone());
    world.start(&[]);
    world.resume();
    for (smtp, says) in [(&right, "certificate"), (&wrong, "535")] {
        world.smtp = Some(smtp.clone());
        if smtp == &wrong {
            world.env.push(trusting.clone());
        }
        world.start(&[]);
        world.it().wait_for(says, || {
            let mail = world.get("/readyz")["mail"].clone();
            mail["reachable"] == json!(false) && mail.to_string().contains(says)
        });
    }
    assert_eq!(
        world.notice()["state"],
        "pending",
        "it is kept: {}",
        world.notice()
    );
    assert!(mails.all().is_empty(), "{:?}", mails.all());

    world.smtp = Some(right);
    world.start(&[]);
    world
        .it()
        .wait_for("the mail", || world.notice()["state"] == "sent");
    let all = mails.all();
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(
        all[0].starts_with("To-Be: ops@example.com\r\nBy: mill over TLS"),
        "{}",
        all[0]
    );
    let said = log(world.dir.path());
    assert!(!said.contains("between"), "a password in the log: {said}");
}
