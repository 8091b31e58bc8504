//! The `generate` source: rows made up, for demos, tests and benchmarks.
//!
//! Every row is a function of the seed and its number, so an offset is a number, a replay gives the same rows, and
//! counts stay exactly once through crashes. Event times are `start` plus the number times `interval`: in order,
//! and independent of the wall clock.
//!
//! Rows are dealt to partitions in small runs, so that each partition has the same share of everything.

mod columns;
mod nexmark;
mod options;
mod random;
mod source;

use std::sync::Arc;

use arrow::array::RecordBatch;
use millstream_engine::Result;
use millstream_engine::source::{Source, SourceConnector, SourceContext, options as typed};

pub use self::options::GenerateOptions;
use self::options::Kind;
use self::source::GenerateSource;

/// `type = "generate"`.
pub struct GenerateConnector;

impl SourceConnector for GenerateConnector {
    fn name(&self) -> &'static str {
        "generate"
    }

    /// With any of these changed, the row behind a number is another one.
    fn identity(&self) -> &'static [&'static str] {
        &[
            "generator",
            "stream",
            "values",
            "seed",
            "partitions",
            "start",
            "interval",
            "rate",
        ]
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(GenerateOptions)
    }

    fn check(&self, cx: &SourceContext) -> Result<()> {
        let options: GenerateOptions = typed(&cx.options)?;
        Generator::new(&options, cx).map(drop)
    }

    fn open(&self, cx: SourceContext) -> Result<Arc<dyn Source>> {
        let options: GenerateOptions = typed(&cx.options)?;
        let generator = Generator::new(&options, &cx)?;
        Ok(Arc::new(GenerateSource::new(generator, &options, cx)))
    }
}

/// What makes rows.
enum Generator {
    Columns(columns::Columns),
    Nexmark(nexmark::Nexmark),
}

impl Generator {
    fn new(options: &GenerateOptions, cx: &SourceContext) -> Result<Generator> {
        let schedule = options.check(cx)?;
        match options.generator {
            Kind::Columns => columns::Columns::new(options, cx, schedule).map(Generator::Columns),
            Kind::Nexmark => nexmark::Nexmark::new(options, cx, schedule).map(Generator::Nexmark),
        }
    }

    /// So many numbers in a row go to the same partition.
    fn run(&self) -> u64 {
        match self {
            Generator::Columns(_) => 1,
            Generator::Nexmark(_) => nexmark::PROPORTIONS,
        }
    }

    /// The rows of some numbers.
    fn rows(&self, numbers: &[u64]) -> Result<RecordBatch> {
        match self {
            Generator::Columns(columns) => columns.rows(numbers),
            Generator::Nexmark(nexmark) => nexmark.rows(numbers),
        }
    }
}

#[cfg(test)]
mod tests;
