//! `millstream test`: the `[[test]]` blocks of pipeline files.

use std::sync::Arc;

use anyhow::{Context, bail};
use chrono::NaiveDate;
use millstream_engine::pipeline::TestSpec;
use millstream_engine::plan::Plan;
use millstream_engine::registry::Registry;

use crate::cli::{Exit, Global, Which};
use crate::pipelines::Checked;
use crate::{logging, pipelines, testing};

pub fn run(global: &Global, which: &Which) -> anyhow::Result<Exit> {
    // The report is the output; what the runs log is shown to those who ask for it.
    if std::env::var_os("RUST_LOG").is_some() {
        logging::init(global.log_format);
    }
    let registry = millstream_operators::registry(Default::default());
    let checked = match pipelines::load_all(&which.paths, &registry) {
        Ok(checked) => checked,
        Err(exit) => return Ok(exit),
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    let mut tally = Tally::default();
    for one in &checked {
        println!("{}", one.file.name);
        if one.plan.tests.is_empty() {
            println!("  no [[test]] blocks");
        }
        for test in &one.plan.tests {
            let ok = match dated(one, test, &registry) {
                Ok(plan) => runtime.block_on(report(&plan, test, &registry)),
                Err(error) => {
                    println!("  FAIL  {}\n{}", test.name, indented(&format!("{error:#}")));
                    false
                }
            };
            tally.add(ok);
        }
    }
    println!("{}", tally.summary());
    Ok(if tally.failed == 0 { Exit::Ok } else { Exit::Failed })
}

/// The plan of the date that a test names.
fn dated(one: &Checked, test: &TestSpec, registry: &Registry) -> anyhow::Result<Arc<Plan>> {
    let Some(date) = &test.date else {
        return Ok(one.plan.clone());
    };
    if one.plan.schedule.is_none() {
        bail!("the test has a date, and the pipeline has no [schedule]");
    }
    let read = date.parse::<NaiveDate>();
    let date = read.with_context(|| format!("{date:?} is not a date; write for example \"2026-11-24\""))?;
    match one.file.plan(registry, Some(date)) {
        Ok(plan) => Ok(Arc::new(plan)),
        Err(wrong) => bail!(
            wrong
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        ),
    }
}

/// Runs a test and says how it went; whether it went well.
async fn report(plan: &Arc<Plan>, test: &TestSpec, registry: &Registry) -> bool {
    let differences = match testing::run(plan, test, registry).await {
        Ok(differences) => differences,
        Err(error) => vec![format!("{error:#}")],
    };
    let verdict = if differences.is_empty() { "ok  " } else { "FAIL" };
    println!("  {verdict}  {}", test.name);
    for difference in &differences {
        println!("{}", indented(difference));
    }
    differences.is_empty()
}

fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| format!("        {line}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[derive(Default)]
struct Tally {
    ok: usize,
    failed: usize,
}

impl Tally {
    fn add(&mut self, ok: bool) {
        if ok {
            self.ok += 1;
        } else {
            self.failed += 1;
        }
    }

    fn summary(&self) -> String {
        let all = self.ok + self.failed;
        let tests = if all == 1 { "test" } else { "tests" };
        format!("{all} {tests}: {} ok, {} failed", self.ok, self.failed)
    }
}
