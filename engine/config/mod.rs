//! From the text of a pipeline file to a checked [`Plan`], or to everything that is wrong with it.
//!
//! A file passes four steps, and each goes on as far as it can after what it finds:
//!
//! 1. `tree` parses the TOML into values with positions and replaces `${VAR}`; `text` knows where every
//!    byte of a string was written.
//! 2. `walk` checks keys, types, words and formats against the [`schema()`], and repairs what it reports
//!    the way it was probably meant.
//! 3. `check` resolves names, builds schemas and windows, asks the connectors.
//! 4. `queries` plans the SQL, each query after those it reads.
//!
//! Whoever repairs must have reported: a plan is handed out only when there is no problem at all.

use std::cell::{Cell, RefCell};

mod check;
mod checkpoint;
pub(crate) mod columns;
mod dedups;
mod diagnostic;
mod queries;
mod rejected;
mod revisions;
mod schedule;
mod schema;
mod shape;
mod tables;
mod text;
mod tree;
mod walk;
mod windows;

#[cfg(test)]
mod tests;

use chrono::NaiveDate;

pub use diagnostic::{Diagnostic, did_you_mean};
pub use schema::schema;

use crate::plan::Plan;
use crate::registry::Registry;
use crate::schedule::{self as dates, date_of};
use crate::secret::{Secrets, is_secret};
use crate::time::Timestamp;

/// A pipeline file on its way in.
pub struct PipelineSource<'a> {
    /// The file as named by the user; diagnostics begin with it.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
    /// What `${NAME}` stands for: the environment.
    pub vars: &'a dyn Fn(&str) -> Option<String>,
    /// What `${date}` stands for in a file with a `[schedule]`; none: today, as any date does for a check.
    pub date: Option<NaiveDate>,
}

/// Checks a pipeline file and makes its plan. Without side effects: nothing is opened, nothing is asked of
/// the network.
///
/// # Errors
/// Everything that is wrong with the file, by position.
pub fn load(source: &PipelineSource<'_>, registry: &Registry) -> Result<Plan, Vec<Diagnostic>> {
    let mut problems = diagnostic::Problems::default();
    let secrets = RefCell::default();
    let date = source.date.unwrap_or_else(|| date_of(Timestamp::now()));
    let dated = Cell::new(false);
    let vars = |name: &str| match dates::variable(name, date) {
        Some(value) => {
            dated.set(true);
            value.ok()
        }
        None => noting_secrets(name, source.vars, &secrets),
    };
    let plan = tree::parse(source.text, &vars, &mut problems).map(|mut root| {
        problems.secrets.extend(&secrets.borrow());
        if dated.get() && root.get("schedule").is_none() {
            let help = "a pipeline with a [schedule] has a run per date";
            problems.help(
                &(0..0),
                "`${date}` stands for the date of a run, and there are no runs",
                help,
            );
        }
        walk::check(&mut root, &schema(registry), &mut problems);
        check::plan(&root, registry, date, &mut problems)
    });
    match plan {
        Some(mut plan) if problems.count() == 0 => {
            plan.secrets = problems.secrets;
            Ok(plan)
        }
        _ => Err(problems.into_diagnostics(source.file, source.text)),
    }
}

/// What the variable `name` stands for; noted where its name is that of a secret.
fn noting_secrets(
    name: &str,
    vars: &dyn Fn(&str) -> Option<String>,
    secrets: &RefCell<Secrets>,
) -> Option<String> {
    let value = vars(name)?;
    if is_secret(name) {
        secrets.borrow_mut().add(&value);
    }
    Some(value)
}
