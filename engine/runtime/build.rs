//! From a checked plan to tasks and edges.
//!
//! Every partition of every source becomes a task whose chain holds all that runs on its rows: stateless
//! queries, windows, the local halves of windowed queries and interval joins. Every global half becomes a task,
//! every sink becomes a task. Where a stream leaves a task there is an edge, also from a sink that refuses rows to
//! one that takes them.
//!
//! A client's retry may come in by another partition than the row it repeats. So the partitions of a source
//! with `dedup` only hand their rows on, to one task whose chain starts with the dedup and holds what the
//! partitions' chains would. A `[dedup.x]` is the same behind any stream. The rows of a session, too, may come by
//! several partitions, so where there is a session window partitions only hand their rows on to its task, which
//! holds what others do behind a window. That keeps operators free of locks, for parallelism which only they pay.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::metrics::NodeMetrics;
use crate::operator::Operator;
use crate::pipeline::LateRows;
use crate::plan::{DedupNode, Plan, SourceNode, SqlNode, WindowNode, rejected};
use crate::registry::Registry;
use crate::runtime::chain::{Chain, ChainedOperator, FanId};
use crate::runtime::channel::{EdgeReceiver, edge};
use crate::runtime::tap::Tap;
use crate::window::Window;

/// What a chain is attached with.
pub struct Builder<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Where window operators come from.
    pub registry: &'a Registry,
    /// Taps, by stream.
    pub taps: &'a BTreeMap<String, Tap>,
    /// Metrics, by node.
    pub nodes: &'a BTreeMap<String, NodeMetrics>,
    /// The sinks that run: name and stream.
    pub sinks: &'a [(String, String)],
    /// Edges into each dedup, by node: that of a source is part of the source's node.
    pub into_dedup: BTreeMap<String, Vec<EdgeReceiver>>,
    /// Edges into each session window.
    pub into_window: BTreeMap<String, Vec<EdgeReceiver>>,
    /// Edges into each query's global half.
    pub into_query: BTreeMap<String, Vec<EdgeReceiver>>,
    /// Edges into each sink.
    pub into_sink: BTreeMap<String, Vec<EdgeReceiver>>,
}

/// The streams that a source feeds.
pub struct SourceStreams {
    /// Its rows.
    pub rows: FanId,
    /// Invalid input.
    pub invalid: FanId,
    /// Rows of its tables.
    pub tables: BTreeMap<String, FanId>,
}

impl Builder<'_> {
    /// A partition's chain, which starts with the streams of `source`.
    pub fn source_chain(&mut self, source: &SourceNode) -> Result<(Chain, SourceStreams)> {
        let mut chain = Chain::default();
        let name = &source.name;
        let rows = match source.dedup {
            Some(_) => self.rows_to_dedup(&mut chain, name)?,
            None => self.stream(&mut chain, name)?,
        };
        let invalid = self.stream(&mut chain, &format!("{name}.invalid"))?;
        let mut tables = BTreeMap::new();
        for table in &source.tables {
            let fan = self.stream(&mut chain, &format!("{name}.{table}"))?;
            tables.insert(table.clone(), fan);
        }
        let streams = SourceStreams {
            rows,
            invalid,
            tables,
        };
        Ok((chain, streams))
    }

    fn rows_to_dedup(&mut self, chain: &mut Chain, source: &str) -> Result<FanId> {
        let rows = chain.add_fan(None);
        self.edge_into_dedup(chain, rows, &format!("source.{source}"))?;
        Ok(rows)
    }

    fn edge_into_dedup(&mut self, chain: &mut Chain, rows: FanId, node: &str) -> Result<()> {
        let (to, from) = edge(self.metrics(node)?);
        chain.add_edge(rows, to);
        self.into_dedup.entry(node.into()).or_default().push(from);
        Ok(())
    }

    /// The chain of a dedup, which counts for `node` and gives the stream of its name; gives the stream that
    /// arrivals enter. The dedup of a source stands behind all its partitions, which have counted its rows in.
    pub fn dedup_chain(&mut self, node: &str, it: &DedupNode) -> Result<(Chain, FanId)> {
        let mut chain = Chain::default();
        let entry = chain.add_fan(None);
        // The dedup goes first: at a watermark it forgets before anyone else hears of it.
        let main = chain.add_fan(self.taps.get(&it.name).cloned());
        let sql = &self.registry.sql;
        let operator = sql.dedup(&it.schema, it.event_time, &it.dedup.key, it.dedup.within)?;
        let counts_in = it.name != it.input;
        let operator = self.chained(node, "dedup", operator, main, None, (counts_in, true))?;
        chain.add_operator(entry, 0, operator);
        self.attach(&mut chain, &it.name, main)?;
        Ok((chain, entry))
    }

    /// A chain that starts with a session window; gives the stream that arrivals enter.
    pub fn session_chain(
        &mut self,
        window: &WindowNode,
        gap: Duration,
        key: &[String],
    ) -> Result<(Chain, FanId)> {
        let mut chain = Chain::default();
        let entry = chain.add_fan(None);
        let stream = self.plan.streams.get(&window.input);
        let schema = &stream
            .ok_or_else(|| Error::bug(format!("window {} is over no stream", window.name)))?
            .schema;
        let key: Result<Vec<usize>, _> = key.iter().map(|name| schema.index_of(name)).collect();
        let key = key.map_err(|e| Error::bug(format!("window {}: {e}", window.name)))?;
        let operator = self.registry.sql.session(schema, window.event_time, gap, &key)?;
        self.window_chain(&mut chain, window, entry, operator)?;
        Ok((chain, entry))
    }

    /// A chain that starts with the global half of `query`; gives the stream that arrivals enter.
    pub fn query_chain(&mut self, query: &SqlNode, global: Box<dyn Operator>) -> Result<(Chain, FanId)> {
        let mut chain = Chain::default();
        let entry = chain.add_fan(None);
        let node = format!("sql.{}", query.name);
        // The global half goes first: its results must be out before later operators see the watermark.
        let main = chain.add_fan(self.taps.get(&query.name).cloned());
        let operator = self.chained(&node, "global", global, main, None, (false, true))?;
        chain.add_operator(entry, 0, operator);
        self.attach(&mut chain, &query.name, main)?;
        Ok((chain, entry))
    }

    /// The chain of what a sink refuses: nothing but edges into the sinks that take it. Gives its stream.
    pub fn rejected_chain(&mut self, sink: &str) -> Result<(Chain, FanId)> {
        let mut chain = Chain::default();
        let refused = self.stream(&mut chain, &rejected(sink))?;
        Ok((chain, refused))
    }

    /// Adds a stream and everything of the plan that takes it within the task.
    fn stream(&mut self, chain: &mut Chain, stream: &str) -> Result<FanId> {
        let fan = chain.add_fan(self.taps.get(stream).cloned());
        self.attach(chain, stream, fan)?;
        Ok(fan)
    }

    fn attach(&mut self, chain: &mut Chain, stream: &str, fan: FanId) -> Result<()> {
        let plan = self.plan;
        for query in &plan.queries {
            match query.plan.inputs() {
                [one] if one == stream => self.attach_stateless(chain, query, fan)?,
                inputs => {
                    for (input, _) in inputs.iter().enumerate().filter(|(_, of)| *of == stream) {
                        self.attach_local(chain, query, input, fan)?;
                    }
                }
            }
        }
        for dedup in plan.dedups.iter().filter(|d| d.input == stream) {
            self.edge_into_dedup(chain, fan, &format!("dedup.{}", dedup.name))?;
        }
        for window in plan.windows.iter().filter(|w| w.input == stream) {
            self.attach_window(chain, window, fan)?;
        }
        for (sink, _) in self.sinks.iter().filter(|(_, input)| input == stream) {
            let (to, from) = edge(self.metrics(&format!("sink.{sink}"))?);
            chain.add_edge(fan, to);
            self.into_sink.entry(sink.clone()).or_default().push(from);
        }
        Ok(())
    }

    fn attach_stateless(&mut self, chain: &mut Chain, query: &SqlNode, from: FanId) -> Result<()> {
        let node = format!("sql.{}", query.name);
        let main = chain.add_fan(self.taps.get(&query.name).cloned());
        let operator = query.plan.local(0)?;
        let operator = self.chained(&node, "local", operator, main, None, (true, true))?;
        chain.add_operator(from, 0, operator);
        self.attach(chain, &query.name, main)
    }

    fn attach_window(&mut self, chain: &mut Chain, window: &WindowNode, from: FanId) -> Result<()> {
        if let Window::Session { .. } = window.window {
            let (to, received) = edge(self.metrics(&format!("window.{}", window.name))?);
            chain.add_edge(from, to);
            let edges = self.into_window.entry(window.name.clone());
            edges.or_default().push(received);
            return Ok(());
        }
        let lateness = window.lateness.unwrap_or_default();
        let sql = &self.registry.sql;
        let operator = sql.window(&window.window, window.event_time, lateness)?;
        self.window_chain(chain, window, from, operator)
    }

    /// Adds a window's operator, its late rows and the lower halves of the queries over it.
    fn window_chain(
        &mut self,
        chain: &mut Chain,
        window: &WindowNode,
        from: FanId,
        operator: Box<dyn Operator>,
    ) -> Result<()> {
        let node = format!("window.{}", window.name);
        let main = chain.add_fan(None);
        let late = format!("{}.late", window.name);
        let side = (window.late == LateRows::Side).then(|| chain.add_fan(self.taps.get(&late).cloned()));
        let operator = self.chained(&node, "window", operator, main, side, (true, true))?;
        chain.add_operator(from, 0, operator);
        if let Some(side) = side {
            self.attach(chain, &late, side)?;
        }
        let plan = self.plan;
        for query in &plan.queries {
            for (input, _) in query
                .plan
                .inputs()
                .iter()
                .enumerate()
                .filter(|(_, t)| **t == window.name)
            {
                self.attach_local(chain, query, input, main)?;
            }
        }
        Ok(())
    }

    fn attach_local(&mut self, chain: &mut Chain, query: &SqlNode, input: usize, from: FanId) -> Result<()> {
        let node = format!("sql.{}", query.name);
        let partial = chain.add_fan(None);
        let operator = query.plan.local(input)?;
        let operator = self.chained(
            &node,
            &format!("local.{input}"),
            operator,
            partial,
            None,
            (true, false),
        )?;
        chain.add_operator(from, input, operator);
        let (to, received) = edge(self.metrics(&node)?);
        chain.add_edge(partial, to);
        self.into_query
            .entry(query.name.clone())
            .or_default()
            .push(received);
        Ok(())
    }

    fn chained(
        &self,
        node: &str,
        part: &str,
        operator: Box<dyn Operator>,
        main: FanId,
        side: Option<FanId>,
        (counts_in, counts_out): (bool, bool),
    ) -> Result<ChainedOperator> {
        Ok(ChainedOperator {
            state_name: format!("{node}/{part}"),
            operator,
            main,
            side,
            metrics: self.metrics(node)?,
            counts_in,
            counts_out,
        })
    }

    fn metrics(&self, node: &str) -> Result<NodeMetrics> {
        let found = self.nodes.get(node).cloned();
        found.ok_or_else(|| Error::bug(format!("node {node} is not in the plan")))
    }
}
