//! The functions that queries have beyond DataFusion's own; `docs/functions.md` lists them with examples, and the
//! examples are this module's tests (`page.rs`).
//!
//! - `window.rs`: `window_start()` and `window_end()`, which answer from the window that fires.
//! - `rows.rs`: what a function of texts and integers is; `url.rs`, `user_agent.rs`, `json.rs`, `regexp.rs` and
//!   `text.rs` are such functions.
//! - `dialect.rs`: what Flink and Kinesis Analytics write differently, rewritten in the syntax tree: other names
//!   (`templates.rs`), and `TUMBLE_START(…)` and its like (`accessors.rs`).
//!
//! All of them are pure: immutable, NULL in → NULL out, and whatever a row holds makes a value or NULL, never an
//! error, because an error would stop the pipeline at that row for good. What is wrong with the query itself (a
//! malformed path or pattern) is refused when it is planned.

mod accessors;
pub(super) mod dialect;
mod json;
#[cfg(test)]
mod page;
mod regexp;
mod rows;
mod templates;
#[cfg(test)]
mod tests;
mod text;
mod url;
mod user_agent;
mod window;

use datafusion::logical_expr::ScalarUDF;

pub(super) use self::window::{
    Bound, FiringWindow, bound_called, calls_window, substitute, window_functions,
};

/// The functions that are the same in every query.
pub(crate) fn scalar_functions() -> impl Iterator<Item = ScalarUDF> {
    let all = [
        url::FUNCTIONS,
        user_agent::FUNCTIONS,
        json::FUNCTIONS,
        regexp::FUNCTIONS,
        text::FUNCTIONS,
    ];
    all.into_iter().flatten().map(rows::RowFunction::udf)
}
