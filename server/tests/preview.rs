//! `millstream preview` as its users meet it. Each file of `preview/` is a command, the files it finds, and exactly
//! what it prints and ends with; a file whose name ends in `.gz` or `.zst` is packed first. `UPDATE_CASES=1` writes
//! the answers anew; read the difference before committing it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A part of a case: its heading and its text.
type Part = (String, String);

#[test]
fn cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preview");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("a folder of cases")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == "case"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    let wrong: Vec<String> = cases.iter().filter_map(|case| differs(case)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a case gives, where that is not what it says.
fn differs(case: &Path) -> Option<String> {
    let text = std::fs::read_to_string(case).expect("a case");
    let parts = parts(&text);
    let dir = tempfile::tempdir().expect("a temporary directory");
    for pipeline in ["ads.toml", "prices.toml"] {
        std::fs::copy(case.with_file_name(pipeline), dir.path().join(pipeline))
            .expect("a pipeline of the cases");
    }
    for (heading, text) in &parts {
        if let Some(name) = heading.strip_prefix("file ") {
            std::fs::write(dir.path().join(name), packed(name, text)).expect("a writable directory");
        }
    }
    let mut answered = String::new();
    for (heading, _) in &parts {
        if let Some(command) = heading.strip_prefix("$ ") {
            answered.push_str(&answer(dir.path(), command));
        }
    }
    let kept = parts
        .iter()
        .filter(|(h, _)| h.starts_with("file ") || h.starts_with('#'));
    let kept: String = kept.map(|(h, text)| format!("--- {h}\n{text}")).collect();
    let got = kept + &answered;
    assert!(!dir.path().join("data").exists(), "a preview keeps nothing");
    if std::env::var_os("UPDATE_CASES").is_some() {
        std::fs::write(case, &got).expect("a writable case");
    }
    let name = case.file_stem().unwrap_or_default().display();
    (got != text).then(|| format!("=== {name} expected\n{text}=== {name} got\n{got}"))
}

/// The parts of a case; each begins with a line `--- heading`.
fn parts(text: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("--- ") {
            parts.push((heading.into(), String::new()));
        } else if let Some((_, text)) = parts.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    parts
}

fn packed(name: &str, text: &str) -> Vec<u8> {
    match name.rsplit('.').next() {
        Some("gz") => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(text.as_bytes()).expect("memory takes it");
            packed.finish().expect("memory takes it")
        }
        Some("zst") => zstd::encode_all(text.as_bytes(), 1).expect("memory takes it"),
        _ => text.into(),
    }
}

/// Runs `ARGUMENTS [< FILE]`; gives the command, both outputs and the exit code as parts of a case.
fn answer(dir: &Path, command: &str) -> String {
    let (arguments, stdin) = match command.split_once(" < ") {
        Some((arguments, file)) => {
            let file = std::fs::File::open(dir.join(file)).expect("a file of the case");
            (arguments, Stdio::from(file))
        }
        None => (command, Stdio::null()),
    };
    let out = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .stdin(stdin)
        .env_remove("RUST_LOG")
        .output()
        .expect("the binary starts");
    let mut text = format!("--- $ {command}\n");
    text.push_str(&timeless(&String::from_utf8(out.stdout).expect("text")));
    if !out.stderr.is_empty() {
        text.push_str("--- on standard error\n");
        text.push_str(&String::from_utf8(out.stderr).expect("text"));
    }
    if out.status.code() != Some(0) {
        text.push_str(&format!("--- exit code {}\n", out.status.code().unwrap_or(-1)));
    }
    text
}

/// The text without the time of reading, which rows that could not be read are stamped with.
fn timeless(text: &str) -> String {
    const FIELD: &str = "{\"received_at\":\"";
    let mut pieces = text.split(FIELD);
    let mut timeless = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (time, rest) = piece.split_once('"').expect("a time ends");
        let given = time.starts_with("2025-");
        timeless.push_str(FIELD);
        timeless.push_str(if given { time } else { "now" });
        timeless.push('"');
        timeless.push_str(rest);
    }
    timeless
}
