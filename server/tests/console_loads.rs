//! The console's pages about loads in a real browser, against the running binary and its catalog.

mod support;

use std::process::Command;

use support::{Launch, Millstream, python, root};

const TOKEN: &str = "only-for-this-test";

const PIPELINE: &str = r#"
name = "idle"
[source.rows]
type = "http"
path = "/rows"
event_time = "at"
columns = { at = "timestamp not null" }
[sink.out]
type = "console"
input = "rows"
"#;

#[test]
fn the_pages_about_loads_work() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("idle.toml"), PIPELINE).expect("written");
    let catalog = dir.path().join("catalog.db").display().to_string();
    let launch = Launch {
        dir: dir.path(),
        pipeline: "idle.toml",
        port: 0,
        env: vec![("MILLSTREAM_TOKEN".into(), TOKEN.into())],
    };
    let it = Millstream::start_with(&launch, &["--catalog", &catalog]);
    let out = Command::new(python())
        .arg(root().join("server/tests/console_loads.py"))
        .args([&it.admin, &catalog, TOKEN])
        // Pictures of every page, for those who want to see them.
        .args(
            std::env::var("CONSOLE_SCREENSHOTS")
                .iter()
                .flat_map(|to| ["--screenshots", to]),
        )
        .output()
        .expect("python runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&out.stdout), text(&out.stderr));
    assert!(out.contains("the pages about loads work"), "{out}{err}");
}
