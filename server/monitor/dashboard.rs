//! The bodies of CloudWatch dashboards, and the real-time one: what the `cloudwatch` sinks of a pipeline publish.
//!
//! The format is AWS's:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html>.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::Result;
use millstream_engine::plan::{Plan, SinkNode};
use millstream_engine::source::options;
use millstream_operators::sinks::cloudwatch::options::{CloudwatchOptions, Metric, Ratio, Resolution};
use serde_json::{Map, Value, json};

/// Columns of a dashboard.
const WIDTH: usize = 24;
/// Rows of a widget that fills the width.
const TALL: usize = 12;
/// Rows of one of several beside each other.
const SHORT: usize = 6;

/// A dashboard that grows downwards.
pub struct Board {
    widgets: Vec<Value>,
    y: usize,
}

impl Board {
    /// An empty one.
    pub fn new() -> Board {
        Board {
            widgets: Vec::new(),
            y: 0,
        }
    }

    /// Adds a line of text over the width.
    pub fn heading(&mut self, text: &str) {
        self.place("text", (0, WIDTH, 1), json!({ "markdown": format!("## {text}") }));
        self.y += 1;
    }

    /// Adds a graph over the width.
    pub fn tall(&mut self, graph: Value) {
        self.place("metric", (0, WIDTH, TALL), graph);
        self.y += TALL;
    }

    /// Adds graphs beside each other.
    pub fn row(&mut self, graphs: Vec<Value>) {
        let width = WIDTH / graphs.len().max(1);
        for (number, graph) in graphs.into_iter().enumerate() {
            self.place("metric", (number * width, width, SHORT), graph);
        }
        self.y += SHORT;
    }

    fn place(&mut self, kind: &str, (x, width, height): (usize, usize, usize), properties: Value) {
        let y = self.y;
        self.widgets.push(
            json!({ "type": kind, "x": x, "y": y, "width": width, "height": height, "properties": properties }),
        );
    }

    /// The body of a dashboard that shows the last hour.
    pub fn body(self) -> Value {
        json!({ "start": "-PT1H", "periodOverride": "inherit", "widgets": self.widgets })
    }
}

/// A graph of lines over time, from 0 up on the left; with `ratio` from 0 to 1 on the right.
pub fn graph(title: &str, region: &str, period: i32, ratio: bool, lines: Vec<Value>) -> Value {
    let mut axes = json!({ "left": { "min": 0, "showUnits": false } });
    if ratio {
        axes["right"] = json!({ "min": 0, "max": 1, "showUnits": false });
    }
    json!({
        "title": title,
        "view": "timeSeries",
        "stacked": false,
        "region": region,
        "period": period,
        "yAxis": axes,
        "metrics": lines,
    })
}

/// The dashboards that the `cloudwatch` sinks of a plan name, by name. `region` is that of sinks without one.
pub fn real_time(plan: &Plan, region: &str) -> Result<BTreeMap<String, Value>> {
    let mut boards: BTreeMap<String, Board> = BTreeMap::new();
    for sink in plan.sinks.iter().filter(|s| s.kind == "cloudwatch") {
        let of: CloudwatchOptions = options(&sink.options)?;
        let name = of.dashboard.clone().unwrap_or_else(|| derived_name(&plan.name));
        let board = boards.entry(name).or_insert_with(Board::new);
        let region = of.aws.region.clone().unwrap_or_else(|| region.to_owned());
        Shown { sink, of, region }.add_to(board);
    }
    Ok(boards
        .into_iter()
        .map(|(name, board)| (name, board.body()))
        .collect())
}

fn derived_name(pipeline: &str) -> String {
    format!("RealTime{}Dashboard", camel(pipeline))
}

/// `ad-clicks` as `AdClicks`.
pub fn camel(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let word = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    words.map(word).collect()
}

/// A sink whose metrics are shown.
struct Shown<'p> {
    sink: &'p SinkNode,
    of: CloudwatchOptions,
    region: String,
}

impl Shown<'_> {
    /// Each ratio has a graph with the two metrics it is made of. The other metrics have one for each unit, and one
    /// each where dimensions make many of one.
    fn add_to(&self, board: &mut Board) {
        let mut left: Vec<&Metric> = self.of.metrics.iter().collect();
        for ratio in &self.of.ratios {
            left.retain(|m| m.name != ratio.part && m.name != ratio.whole);
            board.tall(self.ratio(ratio));
        }
        let (single, many): (Vec<&Metric>, Vec<&Metric>) =
            left.into_iter().partition(|m| self.dimensions(m).is_empty());
        let units: BTreeSet<&str> = single.iter().map(|m| m.unit.as_str()).collect();
        let mut graphs = Vec::new();
        for unit in units {
            let lines = single.iter().filter(|m| m.unit == unit);
            let lines = lines.map(|m| self.line(m, json!({ "label": m.name }))).collect();
            graphs.push(self.graph(&format!("{} ({unit})", self.sink.name), false, lines));
        }
        graphs.extend(many.into_iter().map(|m| self.by_dimensions(m)));
        for some in graphs.chunks(2) {
            board.row(some.to_vec());
        }
    }

    fn graph(&self, title: &str, ratio: bool, lines: Vec<Value>) -> Value {
        graph(title, &self.region, self.period(), ratio, lines)
    }

    fn ratio(&self, ratio: &Ratio) -> Value {
        let metric = |name: &str| self.of.metrics.iter().find(|m| m.name == name);
        let (part, whole) = (id(&ratio.part, "part"), id(&ratio.whole, "whole"));
        let expression = json!([{
            "expression": format!("{part}/{whole}"),
            "label": ratio.name,
            "id": id(&ratio.name, "ratio"),
            "yAxis": "right",
            "period": self.period(),
        }]);
        let named = [(&ratio.part, part), (&ratio.whole, whole)];
        let lines = named.into_iter().filter_map(|(name, id)| {
            let rest = json!({ "id": id, "label": name, "yAxis": "left" });
            Some(self.line(metric(name)?, rest))
        });
        self.graph(
            &ratio.name,
            true,
            std::iter::once(expression).chain(lines).collect(),
        )
    }

    fn line(&self, metric: &Metric, rest: Value) -> Value {
        let mut rest: Map<String, Value> = rest.as_object().cloned().unwrap_or_default();
        rest.insert("stat".into(), json!(statistic(metric)));
        rest.insert("period".into(), json!(self.period()));
        json!([self.of.namespace, metric.name, rest])
    }

    /// The values of dimensions are known only once there are rows: CloudWatch finds them.
    fn by_dimensions(&self, metric: &Metric) -> Value {
        let mut schema = format!("\"{}\"", self.of.namespace);
        for name in self.dimensions(metric).keys() {
            schema += &format!(",\"{name}\"");
        }
        let expression = format!(
            "SEARCH('{{{schema}}} MetricName=\"{}\"', '{}', {})",
            metric.name,
            statistic(metric),
            self.period()
        );
        let title = format!("{} by {}", metric.name, self.names(metric));
        self.graph(
            &title,
            false,
            vec![json!([{ "expression": expression, "id": "all" }])],
        )
    }

    fn names(&self, metric: &Metric) -> String {
        let names: Vec<&str> = self.dimensions(metric).keys().map(String::as_str).collect();
        names.join(", ")
    }

    fn dimensions<'a>(&'a self, metric: &'a Metric) -> &'a BTreeMap<String, String> {
        metric.dimensions.as_ref().unwrap_or(&self.of.dimensions)
    }

    /// Seconds.
    fn period(&self) -> i32 {
        match self.of.resolution {
            Resolution::Second => 1,
            Resolution::Minute => 60,
        }
    }
}

/// What adds up is added; of sets and lists the percentile is shown, of anything else the average.
fn statistic(metric: &Metric) -> &'static str {
    let adds_up = matches!(
        metric.unit.as_str(),
        "Count" | "Bytes" | "Kilobytes" | "Megabytes" | "Gigabytes" | "Terabytes"
    );
    match (adds_up, &metric.distribution) {
        (true, _) => "Sum",
        (false, Some(_)) => "p95",
        (false, None) => "Average",
    }
}

/// The id of a metric within its graph: letters, digits and `_`, the first a small letter. `Clicks` is `clicks`; what has
/// too little of that is `or`.
fn id(name: &str, or: &str) -> String {
    let id: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .collect();
    match id.starts_with(|c: char| c.is_ascii_lowercase()) {
        true => id,
        false => format!("{or}_{id}"),
    }
}
