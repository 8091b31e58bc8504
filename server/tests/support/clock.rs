//! A wall clock of a test's own: libfaketime stands between the binary and the system's. Time that passes (timeouts,
//! intervals) is not touched.

use std::path::{Path, PathBuf};

/// The clock of a process.
pub struct Clock(PathBuf);

impl Clock {
    /// That of the system, until it is set; `dir` is for its file.
    pub fn new(dir: &Path) -> Clock {
        let clock = Clock(dir.join("clock"));
        clock.set(0);
        clock
    }

    /// Sets it so many seconds ahead of the system's.
    pub fn set(&self, seconds_ahead: i64) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, format!("{seconds_ahead:+}\n")).expect("a writable directory");
        std::fs::rename(&new, &self.0).expect("a writable directory");
    }

    /// The environment of a process that goes by it.
    pub fn env(&self) -> Vec<(String, String)> {
        let file = self.0.display().to_string();
        let env = [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            // By the names of its older and its newer versions.
            ("DONT_FAKE_MONOTONIC", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ];
        env.map(|(name, value)| (name.to_string(), value)).to_vec()
    }
}

/// Debian keeps it in a directory by architecture, others beside their libraries.
fn library() -> String {
    let triplet = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let dirs = [triplet.as_str(), "/usr/lib64", "/usr/lib", "/usr/local/lib"];
    let paths = dirs.map(|dir| format!("{dir}/faketime/libfaketimeMT.so.1"));
    let found = paths.iter().find(|path| Path::new(path).exists());
    found
        .cloned()
        .unwrap_or_else(|| panic!("libfaketime is in none of {paths:?}; run ./ci/test, which installs it"))
}
