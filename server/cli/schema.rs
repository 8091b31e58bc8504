//! `millstream schema`: schemas of what people write, and of the logs that feed a warehouse.

mod files;
mod infer;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use millstream_operators::warehouse::types::Dialect;

use crate::cli::Exit;

/// Which schema.
#[derive(Debug, Subcommand)]
pub enum Schema {
    /// JSON Schema of pipeline files, for editors
    Pipeline,
    /// Write the schema of a log whose JSON lines come on standard input
    ///
    /// What is found on the way and needs a look (keys with values of several types, lines that are no JSON) is told on
    /// standard error.
    Infer(infer::Infer),
    /// Write one schema of several: what the first has stays, what the others have more comes behind it
    Merge {
        /// The schema that stays as it is
        #[arg(value_name = "BASE.yaml")]
        base: PathBuf,
        /// Schemas of the same log
        #[arg(value_name = "OTHER.yaml", required = true)]
        others: Vec<PathBuf>,
    },
    /// Find every mistake in schemas of logs
    Check {
        /// Schemas; - is standard input
        #[arg(value_name = "SCHEMA.yaml", required = true)]
        files: Vec<PathBuf>,
    },
    /// Write the SQL that makes the tables of a schema
    Ddl {
        /// The schema; - is standard input
        #[arg(value_name = "SCHEMA.yaml")]
        file: PathBuf,
        #[command(flatten)]
        sql: Sql,
    },
    /// Write the SQL that makes the tables of one schema those of another, or say why it is not possible
    ///
    /// Columns can be added at the end, and varchar can be widened. Nothing is run.
    Diff {
        /// The schema that the tables were made by
        #[arg(value_name = "OLD.yaml")]
        old: PathBuf,
        /// The schema they are to have
        #[arg(value_name = "NEW.yaml")]
        new: PathBuf,
        #[command(flatten)]
        sql: Sql,
    },
}

/// Whose SQL, and where the tables are.
#[derive(Args, Clone, Debug)]
pub struct Sql {
    /// Whose SQL
    #[arg(long, value_name = "DIALECT", default_value = "redshift")]
    dialect: DialectName,
    /// Where the tables are
    #[arg(long, value_name = "NAME", default_value = "public")]
    namespace: String,
}

/// Whose SQL.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DialectName {
    /// Amazon Redshift.
    Redshift,
    /// PostgreSQL, without keys of distribution and order.
    Postgres,
}

impl Sql {
    fn dialect(&self) -> Dialect {
        match self.dialect {
            DialectName::Redshift => Dialect::Redshift,
            DialectName::Postgres => Dialect::Postgres,
        }
    }
}

pub fn run(schema: &Schema) -> anyhow::Result<Exit> {
    match schema {
        Schema::Pipeline => {
            let registry = millstream_operators::registry(Default::default());
            println!("{:#}", millstream_engine::config::schema(&registry));
            Ok(Exit::Ok)
        }
        Schema::Infer(options) => infer::run(options),
        Schema::Merge { base, others } => files::merge(base, others),
        Schema::Check { files } => files::check(files),
        Schema::Ddl { file, sql } => files::ddl(file, sql),
        Schema::Diff { old, new, sql } => files::diff(old, new, sql),
    }
}
