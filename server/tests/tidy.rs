//! Habits that a compiler does not check.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

/// Each crate and the workspace crates it may depend on.
const ALLOWED: [(&str, &[&str]); 5] = [
    ("engine", &[]),
    ("operators", &["millstream-engine"]),
    ("server", &["millstream-engine", "millstream-operators"]),
    ("loadgen", &[]),
    ("benches", &["millstream-engine", "millstream-operators"]),
];

#[test]
fn crates_depend_in_one_direction() {
    for (name, allowed) in ALLOWED {
        let text =
            std::fs::read_to_string(support::root().join(name).join("Cargo.toml")).expect("a manifest");
        let manifest: toml::Table = text.parse().expect("TOML");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let dependencies = manifest.get(section).and_then(|d| d.as_table());
            let names = dependencies.into_iter().flat_map(|d| d.keys());
            let ours = names.filter(|d| d.starts_with("millstream") || *d == "loadgen");
            for dependency in ours {
                assert!(
                    allowed.contains(&dependency.as_str()),
                    "{name} must not depend on {dependency}"
                );
            }
        }
    }
}

#[test]
fn every_rust_file_says_what_it_is() {
    let mut without = Vec::new();
    for (path, text) in sources() {
        if !text.starts_with("//!") && !path.ends_with("build.rs") {
            without.push(path);
        }
    }
    assert!(without.is_empty(), "no module doc in {without:?}");
}

#[test]
fn heavy_crates_come_in_one_version() {
    let lock = std::fs::read_to_string(support::root().join("Cargo.lock")).expect("a lock file");
    let lock: toml::Table = lock.parse().expect("TOML");
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for package in lock["package"].as_array().expect("packages") {
        *versions
            .entry(package["name"].as_str().expect("a name"))
            .or_default() += 1;
    }
    for heavy in [
        "arrow",
        "datafusion",
        "parquet",
        "tokio",
        "hyper",
        "rustls",
        "zstd-sys",
        "aws-lc-sys",
        "sqlparser",
    ] {
        assert_eq!(versions.get(heavy), Some(&1), "{heavy}");
    }
}

fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, _) in ALLOWED {
        collect(&support::root().join(name), &mut found);
    }
    found
}

fn collect(dir: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).expect("a text file");
            found.insert(path.display().to_string(), text);
        }
    }
}
