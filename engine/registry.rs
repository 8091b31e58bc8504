//! The list of what a pipeline file can name: sources, sinks and the SQL planner. The engine ships none;
//! `millstream_operators::registry()` is the one list.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use crate::sql::SqlPlanner;
use crate::table::TableLoader;

/// Everything pluggable, by the word that names it.
#[derive(Clone)]
pub struct Registry {
    /// Kinds of source.
    pub sources: BTreeMap<&'static str, Arc<dyn SourceConnector>>,
    /// Kinds of sink.
    pub sinks: BTreeMap<&'static str, Arc<dyn SinkConnector>>,
    /// What reads reference tables.
    pub tables: Option<Arc<dyn TableLoader>>,
    /// What turns queries into operators.
    pub sql: Arc<dyn SqlPlanner>,
}

impl Registry {
    /// A registry with a planner and no connectors.
    pub fn new(sql: Arc<dyn SqlPlanner>) -> Registry {
        Registry {
            sources: BTreeMap::new(),
            sinks: BTreeMap::new(),
            tables: None,
            sql,
        }
    }

    /// Lets pipelines have reference tables.
    pub fn tables(mut self, loader: impl TableLoader + 'static) -> Registry {
        self.tables = Some(Arc::new(loader));
        self
    }

    /// Adds a kind of source.
    pub fn source(mut self, connector: impl SourceConnector + 'static) -> Registry {
        self.sources.insert(connector.name(), Arc::new(connector));
        self
    }

    /// Adds a kind of sink.
    pub fn sink(mut self, connector: impl SinkConnector + 'static) -> Registry {
        self.sinks.insert(connector.name(), Arc::new(connector));
        self
    }
}
