//! SQL over what pipelines have written: the Parquet of a lake, and trees of raw JSON lines.
//!
//! Every directory that holds Parquet is a table, named by its path; its Hive partitions are columns, and directories
//! that a query cannot need are not listed. Raw trees are tables of the schema `raw`, where the times in their paths
//! are such columns. Nothing is read that no query names, and a result is a stream: what is in memory at one time is
//! bounded by [`MEMORY`], beyond which sorts and aggregates go to disk.
//!
//! Only reads are possible. How it fails: with class config, for what the user can put right (an unknown table, with the
//! names that are near; SQL, with the place); with class retry where S3 is away.

mod lines;
mod place;
mod s3;
mod tables;
mod tree;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider};
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::config::Dialect;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use millstream_engine::{Error, Result};

use self::lines::LeftOut;
use self::place::Place;
use self::tables::Tables;
use crate::sql::errors::Text;
use crate::sql::functions::scalar_functions;

/// Bytes that the rows of a query take at one time, about.
const MEMORY: usize = 2 << 30;

/// The names under which tables are found: `lake.public.impressions`, or just `impressions`.
const CATALOG: &str = "lake";
const LAKE: &str = "public";
const RAW: &str = "raw";

/// What can be queried.
pub struct Lake {
    context: SessionContext,
    left_out: LeftOut,
}

/// A result: its columns, and its rows as they come.
pub struct Rows {
    pub schema: SchemaRef,
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

impl Lake {
    /// The tables below `lake`, and those below `raw` where it is given: directories, or `s3://bucket/prefix`, behind a ?
    /// the keys of [`AwsOptions`](crate::aws::AwsOptions). Lists names of directories only.
    pub async fn open(lake: &str, raw: Option<&str>) -> Result<Lake> {
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, LAKE)
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(true)
            // Files are read whole, several side by side: packed ones cannot be cut.
            .with_repartition_file_scans(false);
        // Errors say where they are.
        config.options_mut().sql_parser.collect_spans = true;
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_limit(MEMORY, 1.0)
            .build_arc();
        let runtime = runtime.map_err(|e| Error::bug(format!("a runtime for queries: {e}")))?;
        let reading = SessionContext::new_with_config_rt(SessionConfig::new(), runtime.clone());
        let context = SessionContext::new_with_config_rt(config, runtime);
        for function in scalar_functions() {
            context.register_udf(function);
        }
        let left_out = LeftOut::default();
        let catalog = MemoryCatalogProvider::new();
        let found = Tables::of_lake(&Place::open(lake).await?, &reading).await?;
        register(&catalog, LAKE, Arc::new(found));
        match raw {
            Some(raw) => {
                let found = Tables::of_raw(&Place::open(raw).await?, &reading, &left_out).await?;
                register(&catalog, RAW, Arc::new(found));
            }
            None => register(&catalog, RAW, Arc::new(Tables::none(&reading))),
        }
        context.register_catalog(CATALOG, Arc::new(catalog));
        Ok(Lake { context, left_out })
    }

    /// Files that queries read so far, with the number of their lines that are no JSON objects.
    pub fn left_out(&self) -> Vec<(String, u64)> {
        self.left_out.all()
    }

    /// Begins a query.
    pub async fn query(&self, sql: &str) -> Result<Rows> {
        let wrong = |e: DataFusionError| match ours(&e) {
            Some(e) => e,
            None => Error::config(located(sql, &e)),
        };
        let state = self.context.state();
        let statement = state.sql_to_statement(sql, &Dialect::Generic).map_err(wrong)?;
        if !reads(&statement) {
            return Err(Error::config(
                "queries only read: write SELECT, SHOW TABLES, DESCRIBE or EXPLAIN",
            ));
        }
        let plan = state.statement_to_plan(statement).await.map_err(wrong)?;
        // SELECT … INTO is a query to the parser, too.
        let only_reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false);
        only_reads.verify_plan(&plan).map_err(wrong)?;
        let planned = self.context.execute_logical_plan(plan).await.map_err(wrong)?;
        let rows = planned.execute_stream().await.map_err(wrong)?;
        let failed = |e: DataFusionError| ours(&e).unwrap_or_else(|| Error::data(e.strip_backtrace()));
        Ok(Rows {
            schema: rows.schema(),
            batches: rows.map_err(failed).boxed(),
        })
    }
}

fn reads(statement: &Statement) -> bool {
    use ast::Statement::*;
    match statement {
        Statement::Statement(of) => matches!(
            of.as_ref(),
            Query(_) | ShowTables { .. } | ShowColumns { .. } | ShowFunctions { .. } | ExplainTable { .. }
        ),
        Statement::Explain(of) => reads(&of.statement),
        _ => false,
    }
}

fn register(
    catalog: &MemoryCatalogProvider,
    name: &str,
    tables: Arc<dyn datafusion::catalog::SchemaProvider>,
) {
    let registered = catalog.register_schema(name, tables);
    registered.expect("a catalog in memory takes schemas");
}

/// An error of ours that went through DataFusion.
fn ours(e: &DataFusionError) -> Option<Error> {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(e);
    while let Some(e) = at {
        if let Some(ours) = e.downcast_ref::<Error>() {
            let message = ours.to_string();
            return Some(match ours {
                Error::Retry { after, .. } => Error::Retry {
                    message,
                    after: *after,
                },
                Error::Config(_) => Error::Config(message),
                _ => Error::Data(message),
            });
        }
        at = e.source();
    }
    None
}

/// An error with the place in the query where it is, and what stands there.
fn located(sql: &str, e: &DataFusionError) -> String {
    let mut error = Text(sql).error(e);
    if let DataFusionError::SchemaError(of, _) = e.find_root()
        && matches!(of.as_ref(), SchemaError::FieldNotFound { .. })
    {
        error.message += " (a table has the columns of its first and its last files)";
    }
    let Some(at) = error.at else {
        return error.message;
    };
    let before = &sql[..at.start];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = sql[start..at.start].chars().count() + 1;
    let text = sql[start..].lines().next().unwrap_or_default();
    let marks = "^".repeat(sql[at].chars().count().max(1));
    format!(
        "line {line}, column {column}: {}\n  {text}\n  {:indent$}{marks}",
        error.message,
        "",
        indent = column - 1
    )
}
