//! `millstream schema`: schemas of what people write.

use clap::Subcommand;

use crate::cli::Exit;

/// Which schema.
#[derive(Debug, Subcommand)]
pub enum Schema {
    /// JSON Schema of pipeline files, for editors
    Pipeline,
}

pub fn run(schema: &Schema) -> anyhow::Result<Exit> {
    match schema {
        Schema::Pipeline => {
            let registry = millstream_operators::registry(Default::default());
            println!("{:#}", millstream_engine::config::schema(&registry));
        }
    }
    Ok(Exit::Ok)
}
