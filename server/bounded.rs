//! Runs a plan on given rows to their end, with its sources and sinks taken off: for `test` and `preview`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::metrics::Metrics;
use millstream_engine::plan::Plan;
use millstream_engine::registry::Registry;
use millstream_engine::runtime::{self, BoundedRun, PipelineHandle, RunOptions};
use millstream_engine::sink::{Committable, Sink};
use millstream_engine::source::Source;
use tempfile::TempDir;

/// A plan that runs on given rows.
pub struct Bounded {
    /// The run.
    pub handle: PipelineHandle,
    collected: Vec<Collected>,
    /// Nothing should be written; what is, is gone with the run.
    _data_dir: TempDir,
}

/// What a run is given.
#[derive(Default)]
pub struct Given {
    /// One for each of the plan's sources.
    pub sources: BTreeMap<String, Arc<dyn Source>>,
    /// Rows of reference tables; the others are read from their files.
    pub tables: BTreeMap<String, Vec<RecordBatch>>,
}

impl Bounded {
    /// Starts a run on what is given, that keeps what `streams` carry.
    pub fn start<'s>(
        plan: &Arc<Plan>,
        registry: &Registry,
        given: Given,
        streams: impl IntoIterator<Item = &'s str>,
    ) -> anyhow::Result<Bounded> {
        let mut collected = Vec::new();
        let mut collect: Vec<(String, Box<dyn Sink>)> = Vec::new();
        for stream in streams {
            let rows = Collected::default();
            collect.push((stream.to_owned(), Box::new(rows.clone())));
            collected.push(rows);
        }
        let data_dir = tempfile::tempdir().context("cannot create a temporary directory")?;
        let options = RunOptions {
            data_dir: data_dir.path().to_path_buf(),
            registry: registry.clone(),
            metrics: Arc::new(Metrics::new()),
            reset: Vec::new(),
            checkpoints: None,
            cores: runtime::cores(),
            timer: runtime::timer::real(),
            run: None,
            bounded: Some(BoundedRun {
                sources: given.sources,
                tables: given.tables,
                collect,
            }),
        };
        Ok(Bounded {
            handle: runtime::start(plan.clone(), options),
            collected,
            _data_dir: data_dir,
        })
    }

    /// What the streams carried, in the order they were named; nothing twice.
    pub fn take(&self) -> impl Iterator<Item = Vec<RecordBatch>> {
        self.collected.iter().map(Collected::take)
    }
}

/// A sink that keeps what it gets.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<RecordBatch>>>);

impl Collected {
    fn take(&self) -> Vec<RecordBatch> {
        std::mem::take(&mut *self.0.lock().expect("nothing panics while it holds the rows"))
    }
}

#[async_trait]
impl Sink for Collected {
    async fn write(&mut self, rows: RecordBatch) -> millstream_engine::Result<()> {
        self.0
            .lock()
            .expect("nothing panics while it holds the rows")
            .push(rows);
        Ok(())
    }

    async fn prepare(&mut self, _: Barrier) -> millstream_engine::Result<Committable> {
        Ok(Committable::default())
    }

    async fn commit(&mut self, _: Epoch, _: Committable) -> millstream_engine::Result<()> {
        Ok(())
    }
}
