//! `millstream preview` as its users meet it. Each file of `preview/` is a command, the files it finds, and exactly
//! what it prints and ends with; a file whose name ends in `.gz` or `.zst` is packed first. `UPDATE_CASES=1` writes
//! the answers anew; read the difference before committing it.

#[path = "support/commands.rs"]
mod commands;

use std::path::Path;

use commands::{answer, check, packed, parts};

#[test]
fn cases() {
    check("preview", answered);
}

/// A case with what is answered.
fn answered(case: &Path, text: &str) -> String {
    let parts = parts(text);
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
            answered.push_str(&answer(dir.path(), command, timeless));
        }
    }
    let kept = parts
        .iter()
        .filter(|(h, _)| h.starts_with("file ") || h.starts_with('#'));
    let kept: String = kept.map(|(h, text)| format!("--- {h}\n{text}")).collect();
    assert!(!dir.path().join("data").exists(), "a preview keeps nothing");
    kept + &answered
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
