//! `millstream schema` as its users meet it. Each file of `schemas/` has files, commands, and exactly what they print and
//! end with. `UPDATE_CASES=1` writes the answers anew; read the difference before committing it.

#[path = "support/commands.rs"]
mod commands;

use commands::{answer, check, packed, parts};

#[test]
fn cases() {
    check("schemas", |_, text| answered(text));
}

/// A case with what is answered. Files and commands are taken in their order.
fn answered(text: &str) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut got = String::new();
    for (heading, text) in parts(text) {
        if let Some(name) = heading.strip_prefix("file ") {
            std::fs::write(dir.path().join(name), packed(name, &text)).expect("a writable directory");
            got.push_str(&format!("--- {heading}\n{text}"));
        } else if let Some(command) = heading.strip_prefix("$ ") {
            got.push_str(&answer(dir.path(), command, str::to_owned));
        }
    }
    got
}
