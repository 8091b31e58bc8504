//! Cases of commands: files, what is run with them, and exactly what it prints and ends with.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A part of a case: its heading and its text.
pub type Part = (String, String);

/// Checks every case of a folder of `tests/`: `answered` gives it with the answers that came. With `UPDATE_CASES=1` they are
/// written into it.
pub fn check(folder: &str, answered: impl Fn(&Path, &str) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let files = std::fs::read_dir(&folder).expect("a folder of cases");
    let paths = files.map(|entry| entry.expect("a readable folder").path());
    let mut cases: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "case"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    let differs = |case: &PathBuf| {
        let text = std::fs::read_to_string(case).expect("a case");
        let got = answered(case, &text);
        if std::env::var_os("UPDATE_CASES").is_some() {
            std::fs::write(case, &got).expect("a writable case");
        }
        let name = case.file_stem().unwrap_or_default().display();
        (got != text).then(|| format!("=== {name} expected\n{text}=== {name} got\n{got}"))
    };
    let wrong: Vec<String> = cases.iter().filter_map(differs).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The parts of a case; each begins with a line `--- heading`.
pub fn parts(text: &str) -> Vec<Part> {
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

/// What a file of a case holds: packed, if its name says so.
pub fn packed(name: &str, text: &str) -> Vec<u8> {
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

/// Runs `ARGUMENTS [< FILE]`; gives the command, both outputs and the exit code as parts of a case. `clean` takes from the
/// output what differs from run to run.
pub fn answer(dir: &Path, command: &str, clean: impl Fn(&str) -> String) -> String {
    answer_with(dir, command, &[], &[], clean)
}

/// As [`answer`], with arguments in front that the case does not show, and with environment.
pub fn answer_with(
    dir: &Path,
    command: &str,
    first: &[&str],
    env: &[(&str, &str)],
    clean: impl Fn(&str) -> String,
) -> String {
    let (arguments, stdin) = match command.split_once(" < ") {
        Some((arguments, file)) => {
            let file = std::fs::File::open(dir.join(file)).expect("a file of the case");
            (arguments, Stdio::from(file))
        }
        None => (command, Stdio::null()),
    };
    let out = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(first)
        .args(arguments.split_whitespace())
        .current_dir(dir)
        .stdin(stdin)
        .env_remove("RUST_LOG")
        .envs(env.iter().copied())
        .output()
        .expect("the binary starts");
    let mut text = format!("--- $ {command}\n");
    text.push_str(&clean(&String::from_utf8(out.stdout).expect("text")));
    if !out.stderr.is_empty() {
        text.push_str("--- on standard error\n");
        text.push_str(&clean(&String::from_utf8(out.stderr).expect("text")));
    }
    if out.status.code() != Some(0) {
        text.push_str(&format!("--- exit code {}\n", out.status.code().unwrap_or(-1)));
    }
    text
}
