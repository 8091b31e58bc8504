//! The operations dashboard: how a pipeline is doing, from what its process publishes.

use millstream_engine::plan::{Plan, SourceNode, rejected};
use serde_json::{Value, json};

use super::dashboard::{Board, camel, graph};
use super::{HTTP, Metric, Of, PERIOD, nodes, of_node, of_source};

/// Name and body.
pub fn dashboard(plan: &Plan, namespace: &str, region: &str) -> (String, Value) {
    let mut all = Operations {
        plan,
        namespace,
        region,
        board: Board::new(),
    };
    all.ingest();
    all.sources();
    all.streams();
    all.sinks();
    all.pipeline();
    (
        format!("Operations{}Dashboard", camel(&plan.name)),
        all.board.body(),
    )
}

struct Operations<'a> {
    plan: &'a Plan,
    namespace: &'a str,
    region: &'a str,
    board: Board,
}

impl Operations<'_> {
    fn ingest(&mut self) {
        if !self.plan.sources.iter().any(|s| s.kind == HTTP) {
            return;
        }
        let of_all = |metric: Metric, label: &str| (Of::Ingest, metric, label.to_owned());
        let requests = [
            of_all(Metric::Requests, "all"),
            of_all(Metric::RequestsRefused, "refused"),
            of_all(Metric::RequestsFailed, "failed"),
        ];
        let bytes = [of_all(Metric::RequestBytes, "bytes")];
        let times = ["p50", "p95", "p99"].map(|percentile| {
            let mut line = Of::Ingest.line(self.namespace, Metric::AnswerTime);
            line.push(json!({ "label": percentile, "stat": percentile }));
            Value::Array(line)
        });
        let graphs = vec![
            self.rates("Requests per second", &requests),
            self.rates("Bytes per second", &bytes),
            self.graph("Time to an answer (ms)", times.to_vec()),
        ];
        self.section("Ingest", graphs);
    }

    fn sources(&mut self) {
        let mut graphs = vec![
            self.rates_of("Rows per second", Metric::RowsIn, &["source"]),
            self.lines_of("Invalid rows", Metric::RowsInvalid, &["source"]),
            self.lines_of("Watermark lag (s)", Metric::WatermarkLag, &["source"]),
        ];
        for (title, metric) in [
            ("Behind the newest (s)", Metric::SourceLag),
            ("Log (bytes)", Metric::LogBytes),
        ] {
            let having = |s: &&SourceNode| of_source(&s.kind).contains(&metric);
            let sources = self.plan.sources.iter().filter(having);
            let lines: Vec<Value> = sources
                .map(|s| self.line(&format!("source.{}", s.name), metric))
                .collect();
            graphs.extend((!lines.is_empty()).then(|| self.graph(title, lines)));
        }
        self.section("Sources", graphs);
    }

    fn streams(&mut self) {
        let kinds = ["dedup", "window", "sql"];
        let mut graphs = Vec::new();
        for (title, metric) in [
            ("Rows taken per second", Metric::RowsIn),
            ("Rows made per second", Metric::RowsOut),
        ] {
            graphs.extend(
                self.has(metric, &kinds)
                    .then(|| self.rates_of(title, metric, &kinds)),
            );
        }
        for (title, metric) in [
            ("Late rows", Metric::RowsLate),
            ("Watermark lag (s)", Metric::WatermarkLag),
        ] {
            graphs.extend(
                self.has(metric, &kinds)
                    .then(|| self.lines_of(title, metric, &kinds)),
            );
        }
        if !graphs.is_empty() {
            self.section("Windows and queries", graphs);
        }
    }

    fn sinks(&mut self) {
        let mut graphs = vec![
            self.rates_of("Rows per second", Metric::RowsIn, &["sink"]),
            self.lines_of("Retries", Metric::Retries, &["sink"]),
            self.lines_of("Watermark lag (s)", Metric::WatermarkLag, &["sink"]),
        ];
        let refusing = refusing(self.plan);
        if !refusing.is_empty() {
            let lines = refusing.iter().map(|node| self.line(node, Metric::RowsRejected));
            graphs.push(self.graph("Rejected rows", lines.collect()));
        }
        self.section("Sinks", graphs);
    }

    fn pipeline(&mut self) {
        let of = Of::Pipeline(self.plan.name.clone());
        let line = |metric: Metric, label: &str| {
            let mut line = of.line(self.namespace, metric);
            line.push(json!({ "label": label, "stat": metric.statistic() }));
            Value::Array(line)
        };
        let graphs = vec![
            self.graph("Restarts", vec![line(Metric::Restarts, "restarts")]),
            self.graph(
                "Last checkpoint (s)",
                vec![
                    line(Metric::CheckpointSeconds, "took"),
                    line(Metric::CheckpointAge, "ago"),
                ],
            ),
            self.graph(
                "Checkpoints per minute",
                vec![line(Metric::Checkpoints, "checkpoints")],
            ),
            self.graph("Running", vec![line(Metric::Running, "running")]),
        ];
        self.section("Pipeline", graphs);
    }

    fn section(&mut self, title: &str, graphs: Vec<Value>) {
        self.board.heading(title);
        self.board.row(graphs);
    }

    fn graph(&self, title: &str, lines: Vec<Value>) -> Value {
        graph(title, self.region, PERIOD, false, lines)
    }

    /// Whether a node of the plan, of one of the kinds, publishes the metric.
    fn has(&self, metric: Metric, kinds: &[&str]) -> bool {
        !self.publishing(metric, kinds).is_empty()
    }

    fn publishing(&self, metric: Metric, kinds: &[&str]) -> Vec<String> {
        let all = nodes(self.plan).into_iter();
        let these = all.filter(|(kind, _)| kinds.contains(kind) && of_node(kind).contains(&metric));
        these.map(|(_, node)| node).collect()
    }

    fn lines_of(&self, title: &str, metric: Metric, kinds: &[&str]) -> Value {
        let nodes = self.publishing(metric, kinds);
        self.graph(title, nodes.iter().map(|node| self.line(node, metric)).collect())
    }

    fn line(&self, node: &str, metric: Metric) -> Value {
        let of = Of::Node(self.plan.name.clone(), node.into());
        let mut line = of.line(self.namespace, metric);
        line.push(json!({ "label": node, "stat": metric.statistic() }));
        Value::Array(line)
    }

    fn rates_of(&self, title: &str, metric: Metric, kinds: &[&str]) -> Value {
        let of = |node: String| (Of::Node(self.plan.name.clone(), node.clone()), metric, node);
        let all: Vec<_> = self.publishing(metric, kinds).into_iter().map(of).collect();
        self.rates(title, &all)
    }

    /// Counts of a minute as what that is per second.
    fn rates(&self, title: &str, all: &[(Of, Metric, String)]) -> Value {
        let mut lines = Vec::new();
        for (number, (of, metric, label)) in all.iter().enumerate() {
            let (counted, rate) = (format!("m{number}"), format!("e{number}"));
            lines.push(
                json!([{ "expression": format!("{counted}/PERIOD({counted})"), "label": label, "id": rate }]),
            );
            let mut line = of.line(self.namespace, *metric);
            line.push(json!({ "id": counted, "visible": false, "stat": "Sum" }));
            lines.push(Value::Array(line));
        }
        self.graph(title, lines)
    }
}

/// The sinks that refuse rows, by section.
pub fn refusing(plan: &Plan) -> Vec<String> {
    let refuses = |name: &str| plan.streams.contains_key(&rejected(name));
    let sinks = plan.sinks.iter().filter(|s| refuses(&s.name));
    sinks.map(|s| format!("sink.{}", s.name)).collect()
}
