//! `millstream schema` as its users meet it. Each file of `schemas/` has files, commands, and exactly what they print and
//! end with. `UPDATE_CASES=1` writes the answers anew; read the difference before committing it.

#[path = "support/commands.rs"]
mod commands;

use std::path::{Path, PathBuf};

use commands::{answer, packed, parts};

#[test]
fn cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas");
    let files = std::fs::read_dir(&folder).expect("a folder of cases");
    let mut cases: Vec<PathBuf> = files.map(|entry| entry.expect("a case").path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    let wrong: Vec<String> = cases.iter().filter_map(|case| differs(case)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a case gives, where that is not what it says. Files and commands are taken in their order.
fn differs(case: &Path) -> Option<String> {
    let text = std::fs::read_to_string(case).expect("a case");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut got = String::new();
    for (heading, text) in parts(&text) {
        if let Some(name) = heading.strip_prefix("file ") {
            std::fs::write(dir.path().join(name), packed(name, &text)).expect("a writable directory");
            got.push_str(&format!("--- {heading}\n{text}"));
        } else if let Some(command) = heading.strip_prefix("$ ") {
            got.push_str(&answer(dir.path(), command, str::to_owned));
        }
    }
    if std::env::var_os("UPDATE_CASES").is_some() {
        std::fs::write(case, &got).expect("a writable case");
    }
    let name = case.file_stem().unwrap_or_default().display();
    (got != text).then(|| format!("=== {name} expected\n{text}=== {name} got\n{got}"))
}
