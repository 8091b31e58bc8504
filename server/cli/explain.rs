//! `millstream explain`: how a pipeline will run, as text, a Mermaid diagram or JSON.

use clap::ValueEnum;
use millstream_engine::explain;
use millstream_engine::plan::Plan;

use crate::cli::{Exit, Which};
use crate::pipelines;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// A diagram for documents.
    Mermaid,
    /// Nodes and edges, one object per pipeline.
    Json,
}

pub fn run(which: &Which, format: Format) -> anyhow::Result<Exit> {
    let registry = millstream_operators::registry(Default::default());
    match pipelines::load_all(&which.paths, &registry) {
        Ok(checked) => {
            for (n, one) in checked.iter().enumerate() {
                if n > 0 && format != Format::Json {
                    println!();
                }
                let text = explained(&one.plan, format);
                println!("{}", one.plan.secrets.hide(text.trim_end()));
            }
            Ok(Exit::Ok)
        }
        Err(exit) => Ok(exit),
    }
}

fn explained(plan: &Plan, format: Format) -> String {
    match format {
        Format::Text => explain::text(plan),
        Format::Mermaid => explain::mermaid(plan),
        Format::Json => format!("{:#}", explain::json(plan)),
    }
}
