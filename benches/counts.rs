//! What a row costs in instructions and allocations, held against `counts.toml`: a regression check that needs no
//! quiet machine.
//!
//! It runs itself once under callgrind, which counts the instructions of all threads between two calls of a
//! function, and the calls of the allocator with them. A case fails when it costs more than [`TOLERANCE`] above what
//! the file says. Counts are those of the dev profile, because that is what CI builds: they say *that* something
//! has changed and by how much, the benches say what it means in time.
//!
//! - `cargo test --workspace --test counts` checks (as does `ci/test`);
//! - `UPDATE_COUNTS=1 cargo test --workspace --test counts` writes what it finds into the file, after a change that
//!   is meant;
//! - `… --test counts -- --profile` keeps callgrind's output and says where, for `callgrind_annotate`.
//!
//! Counts repeated within 0.5 % (random seeds of hash maps, turns of threads). They may move with the compiler, with libc
//! and with what the processor can do.
//!
//! The dev profile leaves our own crates plain, so their code weighs more here than it does in a release: a clone per row
//! is 3 to 5 % of decoding, and is told by its allocation.

mod counts_cases;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use serde::Deserialize;

use counts_cases::CASES;

/// Ten times what counts were seen to differ by from run to run.
const TOLERANCE: f64 = 0.05;

/// Allocations per row that are no change: a batch's one more or less.
const FEW_ALLOCATIONS: f64 = 0.002;

/// How this program calls itself under callgrind.
const MEASURE: &str = "--measure";
/// The functions between whose calls callgrind counts, as it calls them. (Of two patterns with an asterisk it would
/// see only one.)
const STARTS: &str = "counts::counts_cases::counting_starts";
const ENDS: &str = "counts::counts_cases::counting_ends";
/// Every way into libc's allocator.
const ALLOCATORS: [&str; 5] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some(MEASURE) => counts_cases::run(&args[1..]).map(|()| true),
        // Test runners ask for names; these cases are one program, and have none to give one by one.
        Some("--list") => Ok(true),
        _ => check(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("counts: {error:#}\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored");
            ExitCode::FAILURE
        }
    }
}

/// Runs the cases whose names contain one of the words and reports them as Rust's tests are reported.
fn check(args: &[String]) -> anyhow::Result<bool> {
    let words: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let cases: Vec<_> = CASES
        .iter()
        .map(|case| case.name)
        .filter(|name| wanted(name))
        .collect();
    if cases.is_empty() {
        return Ok(true);
    }
    println!("\nrunning {} counts", cases.len());
    if let Some(why) = cannot_count() {
        println!(
            "ignored: {why}\n\ntest result: ok. 0 passed; 0 failed; {} ignored",
            cases.len()
        );
        return Ok(true);
    }
    let found = measure(&cases, args.iter().any(|arg| arg == "--profile"))?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("counts.toml");
    let mut kept = read(&file)?;
    if std::env::var_os("UPDATE_COUNTS").is_some() {
        kept.extend(found.clone());
        kept.retain(|name, _| CASES.iter().any(|case| case.name == name));
        write(&file, &kept)?;
        println!("wrote {}", file.display());
    }
    let verdicts = found
        .iter()
        .map(|(name, cost)| verdict(name, cost, kept.get(name)));
    let failed = verdicts.filter(|passed| !passed).count();
    if failed > 0 {
        println!(
            "\nA row costs more than it did. Where: cargo test --workspace --test counts -- --profile\n\
             If that is meant, say why in the commit and keep the new counts:\n    \
             UPDATE_COUNTS=1 cargo test --workspace --test counts"
        );
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {failed} failed; 0 ignored",
        found.len() - failed
    );
    Ok(failed == 0)
}

fn cannot_count() -> Option<&'static str> {
    if !cfg!(debug_assertions) {
        return Some("counts are kept for the dev profile only");
    }
    if !cfg!(target_arch = "x86_64") {
        return Some("counts are kept for x86-64 only");
    }
    let found = Command::new("valgrind").arg("--version").output();
    found
        .is_err()
        .then_some("valgrind is missing: ./ci/test installs it")
}

/// What a row costs.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cost {
    instructions: f64,
    allocations: f64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} instructions, {:.4} allocations a row",
            self.instructions, self.allocations
        )
    }
}

/// Prints the line of a case; false if it has become dearer.
fn verdict(name: &str, cost: &Cost, kept: Option<&Cost>) -> bool {
    let Some(kept) = kept else {
        println!(
            "test {name} ... FAILED: {cost}, and counts.toml does not have it: UPDATE_COUNTS=1 puts it there"
        );
        return false;
    };
    let instructions = cost.instructions / kept.instructions - 1.0;
    let allocations = cost.allocations - kept.allocations;
    let many = kept.allocations * TOLERANCE + FEW_ALLOCATIONS;
    let passed = instructions <= TOLERANCE && allocations <= many;
    let word = if passed { "ok" } else { "FAILED" };
    println!(
        "test {name} ... {word}: {cost} ({:+.1} %, {allocations:+.4})",
        instructions * 100.0
    );
    if passed && (instructions < -TOLERANCE || allocations < -many) {
        println!("     well below the {kept} of counts.toml: UPDATE_COUNTS=1 keeps what was won");
    }
    passed
}

/// Runs `cases` under callgrind.
fn measure(cases: &[&str], keep: bool) -> anyhow::Result<BTreeMap<String, Cost>> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("callgrind");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(format!("--zero-before={STARTS}"))
        .arg(format!("--dump-before={ENDS}"))
        .arg(std::env::current_exe()?)
        .arg(MEASURE)
        .args(cases)
        .output()
        .context("valgrind does not start")?;
    ensure!(
        output.status.success(),
        "the cases failed under valgrind:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Each case says how many rows it took, in the order in which it was measured.
    let rows = String::from_utf8(output.stdout)?;
    let rows: Vec<f64> = rows.lines().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(
        rows.len() == cases.len(),
        "{} of {} cases were measured",
        rows.len(),
        cases.len()
    );
    let mut found = BTreeMap::new();
    for (index, (name, rows)) in cases.iter().zip(rows).enumerate() {
        let dump = out.with_extension((index + 1).to_string());
        found.insert(
            (*name).to_owned(),
            cost(&dump, rows).with_context(|| (*name).to_owned())?,
        );
    }
    if keep {
        println!(
            "profiles: {}.1 … in the order of names",
            dir.keep().join("callgrind").display()
        );
    }
    Ok(found)
}

/// Reads a dump of callgrind: <https://valgrind.org/docs/manual/cl-format.html>.
fn cost(dump: &PathBuf, rows: f64) -> anyhow::Result<Cost> {
    let text = fs::read_to_string(dump).context("callgrind saw no call")?;
    let instructions = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let instructions: u64 = instructions.context("a dump without totals")?.trim().parse()?;
    Ok(Cost {
        instructions: instructions as f64 / rows,
        allocations: calls(&text, &ALLOCATORS)? as f64 / rows,
    })
}

/// How often one of `names` was called. A name stands in full where it appears first, `(12) malloc`, and then as `(12)`.
fn calls(dump: &str, names: &[&str]) -> anyhow::Result<u64> {
    let mut ids: Vec<&str> = Vec::new();
    let mut callee = "";
    let mut total = 0;
    for line in dump.lines() {
        if let Some(function) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (id, name) = function.split_once(' ').unwrap_or((function, ""));
            if names.contains(&name) {
                ids.push(id);
            }
            callee = id;
        } else if let Some(count) = line.strip_prefix("calls=")
            && ids.contains(&callee)
        {
            let count = count
                .split_whitespace()
                .next()
                .context("calls without a number")?;
            total += count.parse::<u64>()?;
        }
    }
    Ok(total)
}

fn read(file: &Path) -> anyhow::Result<BTreeMap<String, Cost>> {
    match fs::read_to_string(file) {
        Ok(text) => toml::from_str(&text).with_context(|| file.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

fn write(file: &Path, costs: &BTreeMap<String, Cost>) -> anyhow::Result<()> {
    let mut text = "# What a row costs in the dev profile, see counts.rs. Written by:\n\
        # UPDATE_COUNTS=1 cargo test --workspace --test counts\n"
        .to_owned();
    for (name, cost) in costs {
        let Cost {
            instructions,
            allocations,
        } = cost;
        text += &format!("\n[{name}]\ninstructions = {instructions:.1}\nallocations = {allocations:.4}\n");
    }
    fs::write(file, text).with_context(|| file.display().to_string())
}
