//! What should come out: by the rule, with DataFusion in batch for every firing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use arrow::util::display::array_value_to_string;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use millstream_engine::time::{Timestamp, micros, timestamp_type};

use super::stream::{Step, Stream};
use super::{How, TABLES};
use crate::window::{Interval, Panes};

/// Results by the end of their window and their revision, as text.
pub type Results = BTreeMap<(i64, i64), Vec<String>>;

/// What should come.
pub struct Expected {
    /// By step.
    pub results: Vec<Results>,
    pub updated: u64,
    pub late: u64,
}

pub struct Model<'a> {
    how: &'a How,
    query: &'a str,
    stream: &'a Stream,
    panes: Panes,
    watermark: i64,
    taken: BTreeMap<i64, [Vec<u32>; 2]>,
    touched: BTreeSet<i64>,
    fired: BTreeMap<i64, i64>,
    /// Windows end from here on, where empty ones fire.
    known: Option<i64>,
}

impl Model<'_> {
    fn is_kept(&self, end: i64) -> bool {
        end.saturating_add(micros(self.how.lateness)) > self.watermark
    }

    /// A model of nothing yet.
    pub fn new<'a>(how: &'a How, query: &'a str, stream: &'a Stream) -> Model<'a> {
        Model {
            how,
            query,
            stream,
            panes: Panes::new(&how.window).expect("window"),
            watermark: i64::MIN,
            taken: BTreeMap::new(),
            touched: BTreeSet::new(),
            fired: BTreeMap::new(),
            known: None,
        }
    }

    /// Goes through the stream.
    pub async fn expected(mut self) -> Expected {
        let (mut results, mut updated, mut late) = (Vec::new(), 0, 0);
        for step in &self.stream.steps {
            let mut of_step = Results::new();
            match step {
                Step::Rows(table, _, rows) if self.reads(*table) => {
                    for row in rows {
                        let ends: Vec<i64> = self
                            .panes
                            .ends_of(self.panes.pane_of(self.stream.at(*table, *row)))
                            .collect();
                        let last = *ends.last().expect("a row has a window");
                        late += u64::from(!self.is_kept(last));
                        updated += u64::from(self.is_kept(last) && last <= self.watermark);
                        let kept: Vec<i64> = ends.into_iter().filter(|end| self.is_kept(*end)).collect();
                        for end in kept {
                            self.taken.entry(end).or_default()[*table].push(*row);
                            self.touched.insert(end);
                        }
                    }
                }
                Step::Rows(..) => {}
                Step::Watermark(at) => {
                    for end in self.due(*at) {
                        let revision = self.fired.entry(end).and_modify(|n| *n += 1).or_insert(0);
                        let key = (end, *revision);
                        let rows = self.batch(end).await;
                        if !rows.is_empty() {
                            of_step.insert(key, rows);
                        }
                    }
                    self.watermark = *at;
                }
            }
            results.push(of_step);
        }
        Expected {
            results,
            updated,
            late,
        }
    }

    fn reads(&self, table: usize) -> bool {
        self.how.plan.inputs().iter().any(|i| i == TABLES[table])
    }

    fn due(&mut self, at: i64) -> Vec<i64> {
        let again = |end: &i64| *end <= self.watermark;
        let mut due: BTreeSet<i64> = self.touched.iter().copied().filter(again).collect();
        let first = self
            .taken
            .keys()
            .copied()
            .filter(|end| *end > self.watermark && *end <= at);
        due.extend(first);
        if self.how.emit_empty {
            let new = |end: &&i64| **end > self.watermark;
            let (first, last) = (due.iter().find(new).copied(), due.iter().rev().find(new).copied());
            let mut end = match self.known {
                None => first.unwrap_or(i64::MAX).min(self.panes.next_end(at)),
                Some(_) => self.panes.next_end(self.watermark),
            };
            self.known = Some(end);
            let until = if at == i64::MAX {
                last.unwrap_or(i64::MIN)
            } else {
                at
            };
            while end <= until {
                due.insert(end);
                end = self.panes.next_end(end);
            }
        }
        self.touched.retain(|end| *end > at);
        due.into_iter().collect()
    }

    /// What DataFusion gives in batch for the rows of a window taken so far.
    async fn batch(&self, end: i64) -> Vec<String> {
        let rows = self.taken.get(&end).cloned().unwrap_or_default();
        let tables = [0, 1].map(|t| self.stream.take(t, &rows[t]));
        let result = batch_result(self.query, self.panes.ending(end), tables).await;
        let mut lines: Vec<String> = result
            .iter()
            .flat_map(|rows| lines(rows, rows.num_columns()))
            .collect();
        lines.sort();
        lines
    }
}

async fn batch_result(query: &str, window: Interval, tables: [RecordBatch; 2]) -> Vec<RecordBatch> {
    let context = SessionContext::new();
    let bound = |at: Timestamp| format!("arrow_cast({}, 'Timestamp(Microsecond, None)')", at.0);
    let query = query
        .replace("window_start()", &bound(window.start))
        .replace("window_end()", &bound(window.end));
    for (name, rows) in TABLES.iter().zip(tables) {
        let mut fields = rows.schema().fields().to_vec();
        let mut columns = rows.columns().to_vec();
        for (bound, at) in [("window_start", window.start), ("window_end", window.end)] {
            fields.push(Arc::new(Field::new(bound, timestamp_type(), false)));
            let of_rows = TimestampMicrosecondArray::from_value(at.0, rows.num_rows());
            columns.push(Arc::new(of_rows));
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("rows");
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).expect("table");
        context.register_table(*name, Arc::new(table)).expect("register");
    }
    let frame = context.sql(&query).await;
    let rows = frame.unwrap_or_else(|e| panic!("{query}\n{e}")).collect().await;
    rows.unwrap_or_else(|e| panic!("{query}\n{e}"))
}

pub fn lines(rows: &RecordBatch, columns: usize) -> Vec<String> {
    let cell = |column: &ArrayRef, row| array_value_to_string(column, row).expect("a printable value");
    let line = |row| {
        let cells: Vec<_> = rows.columns()[..columns].iter().map(|c| cell(c, row)).collect();
        cells.join(" | ")
    };
    (0..rows.num_rows()).map(line).collect()
}
