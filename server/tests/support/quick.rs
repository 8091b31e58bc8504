//! pipelines/advertising.toml at a quick pace: checkpoints every second, files every few seconds.

use std::path::Path;

/// Windows are this long instead of a minute.
pub const WINDOW_SECONDS: i64 = 5;

/// What every test changes in the pipeline.
const QUICK: [(&str, &str); 4] = [
    (
        "[source.impressions]",
        "[checkpoint]\ninterval = \"1s\"\n\n[source.impressions]",
    ),
    ("idle_after = \"10s\"", "idle_after = \"3s\""),
    // A machine that is busy may hold a row up; late rows are not what these tests are about.
    ("max_out_of_orderness = \"5s\"", "max_out_of_orderness = \"10s\""),
    ("size = \"1m\"", "size = \"5s\""),
];
/// How long a Parquet file grows, in each pipeline.
const ROLL: [&str; 2] = ["interval = \"1m\"", "interval = \"15m\""];

/// Writes `pipelines/NAME` into `dir` with [`QUICK`] and then `changes` made, each of which must apply.
pub fn write(dir: &Path, name: &str, changes: &[(&str, &str)]) -> String {
    let file = super::root().join("pipelines").join(name);
    let text = std::fs::read_to_string(file).expect("the pipeline is there");
    let text = QUICK.iter().chain(changes).fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{name} has no {from}");
        text.replace(from, to)
    });
    let text = ROLL
        .iter()
        .fold(text, |text, roll| text.replace(roll, "interval = \"3s\""));
    let file = dir.join(name);
    std::fs::write(&file, text).expect("a writable directory");
    file.display().to_string()
}

/// Publishes to a receiver instead of the console.
pub fn published_to(url: &str) -> String {
    format!("type = \"http\"\nurl = {url:?}\ntimeout = \"2s\"")
}
