//! A seeded stream of rows: what columns there are, what is in them, how they are cut into windows, when they
//! arrive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_engine::time::timestamp_type;
use millstream_engine::window::Window;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::window::Panes;

pub const SECOND: i64 = 1_000_000;
/// The tables, each less full than the one before.
pub const TABLES: [&str; 3] = ["impressions", "clicks", "orders"];
const ROWS: [usize; 3] = [90, 45, 20];
/// No window is longer.
pub const LONGEST_WINDOW: i64 = 60 * SECOND;
/// From the first event time to the last, in window ends.
const LASTS: i64 = 5;

/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `i001`, …: one for each row.
    Id,
    /// A few skewed keys, the empty string and one that is not ASCII among them.
    Key,
    /// `u1` to `u7`.
    User,
    /// Quarters from -1 to 4, so that sums are exact in whatever order they are made.
    Double,
    /// NaN, infinities, zeros of both signs.
    Odd,
    /// Small numbers.
    Bigint,
    /// The ends of the type's range.
    Extreme,
    Int,
    Boolean,
    Timestamp,
    Date,
    EventTime,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    nullable: bool,
    /// One in so many is null, where any may be.
    nulls: u32,
}

/// The columns that every table has, so that queries can be written down.
const ALWAYS: [(&str, Kind, bool); 12] = [
    ("id", Kind::Id, false),
    ("ad_id", Kind::Key, true),
    ("user_id", Kind::User, false),
    ("amount", Kind::Double, true),
    ("n", Kind::Bigint, true),
    ("big", Kind::Extreme, true),
    ("score", Kind::Int, true),
    ("flag", Kind::Boolean, true),
    ("at", Kind::Timestamp, true),
    ("day", Kind::Date, true),
    ("odd", Kind::Odd, true),
    ("occurred_at", Kind::EventTime, false),
];

/// Kinds of the columns that only some streams have, for generated queries.
const RANDOM: [Kind; 7] = [
    Kind::Key,
    Kind::Double,
    Kind::Bigint,
    Kind::Int,
    Kind::Boolean,
    Kind::Timestamp,
    Kind::Date,
];

/// A table of the stream.
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: RecordBatch,
    pub event_time: usize,
}

/// A row on its way: its table, its number there, event time and when it arrives. A row may arrive twice.
pub struct Arrival {
    pub table: usize,
    pub row: u32,
    pub at: i64,
    pub arrives: i64,
}

/// Rows for all tables, and how they are cut.
pub struct Stream {
    pub window: Window,
    pub tables: Vec<Table>,
    pub arrivals: Vec<Arrival>,
    /// The watermark moves by this much; it passes one window's end at most.
    pub step: i64,
    /// The watermark is this far behind arrival.
    pub behind: i64,
    /// The first event time is not before this, the last arrival not after that.
    pub first: i64,
    pub last: i64,
}

impl Stream {
    pub fn new(seed: u64) -> Stream {
        let random = &mut StdRng::seed_from_u64(seed);
        let (window, every) = window(random);
        let first = random.random_range(-2 * every..every) - SECOND * random.random_range(0..100_000);
        let mut stream = Stream {
            window,
            tables: Vec::new(),
            arrivals: Vec::new(),
            step: every / random.random_range(1..4),
            behind: every / 2 + random.random_range(0..every),
            first,
            last: first,
        };
        for table in 0..TABLES.len() {
            let made = stream.table(table, every, random);
            stream.tables.push(made);
        }
        stream.arrivals.sort_by_key(|a| a.arrives);
        stream.last = stream.arrivals.last().map_or(first, |a| a.arrives);
        stream
    }

    pub fn panes(&self) -> Panes {
        Panes::new(&self.window).expect("a window")
    }

    /// The last watermark before that of the end, past the end of every window with rows.
    pub fn last_watermark(&self) -> i64 {
        let steps = (self.last + LONGEST_WINDOW + self.behind - self.first) / self.step + 1;
        self.first + steps * self.step - self.behind
    }

    /// Ends of all windows from the first one that is open at the first watermark.
    pub fn ends(&self) -> impl Iterator<Item = i64> {
        let panes = self.panes();
        let next = move |end: &i64| Some(panes.next_end(*end));
        let first = panes.next_end(self.first + self.step - self.behind);
        let last = self.last_watermark();
        std::iter::successors(Some(first), next).take_while(move |end| *end <= last)
    }

    fn table(&mut self, table: usize, every: i64, random: &mut StdRng) -> Table {
        let times = self.times(table, every, random);
        for (row, at) in times.iter().enumerate() {
            for _ in 0..if random.random_range(0..10) == 0 { 2 } else { 1 } {
                let delay = match random.random_range(0..10) {
                    0 => random.random_range(0..3 * every),
                    _ => random.random_range(0..self.behind),
                };
                self.arrivals.push(Arrival {
                    table,
                    row: row as u32,
                    at: *at,
                    arrives: at + delay,
                });
            }
        }
        let columns = columns(random);
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for column in &columns {
            let values = values(column, table, &times, random);
            fields.push(Field::new(
                &column.name,
                values.data_type().clone(),
                column.nullable,
            ));
            arrays.push(values);
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("rows");
        let event_time = columns.iter().position(|c| c.kind == Kind::EventTime);
        Table {
            columns,
            rows,
            event_time: event_time.expect("an event time"),
        }
    }

    /// Event times with two holes: one that is everyone's and one of all tables but the first.
    fn times(&self, table: usize, every: i64, random: &mut StdRng) -> Vec<i64> {
        let mut times = Vec::new();
        while times.len() < ROWS[table] {
            let at = random.random_range(0..LASTS * every);
            let part = at / every;
            if part != 1 && (part != 3 || table == 0) {
                times.push(self.first + at);
            }
        }
        times
    }
}

/// A window of any shape, and how far its ends are apart.
fn window(random: &mut StdRng) -> (Window, i64) {
    let seconds = |of: u64| Duration::from_secs(of);
    let unit = 5 * random.random_range(2..5);
    let offset = match random.random_range(0..2) {
        0 => Duration::ZERO,
        _ => Duration::from_millis(random.random_range(0..60_000)),
    };
    let window = match random.random_range(0..3) {
        0 => Window::Tumbling {
            size: seconds(unit * 2),
            offset,
        },
        // Half of them are no whole number of slides.
        1 => Window::Hopping {
            size: seconds(unit + 5 * random.random_range(0..7)),
            slide: seconds(unit),
            offset,
        },
        _ => Window::Cumulative {
            size: seconds(unit * random.random_range(2..4)),
            step: seconds(unit),
            offset,
        },
    };
    let every = match &window {
        Window::Tumbling { size, .. } => size,
        _ => &seconds(unit),
    };
    let every = every.as_micros() as i64;
    (window, every)
}

fn columns(random: &mut StdRng) -> Vec<Column> {
    let always = ALWAYS.map(|(name, kind, nullable)| Column {
        name: name.to_owned(),
        kind,
        nullable: nullable && random.random_range(0..6) > 0,
        nulls: [8, 8, 2, 30][random.random_range(0..4)],
    });
    let more = (0..random.random_range(0..5)).map(|n| Column {
        name: format!("x{n}"),
        kind: RANDOM[random.random_range(0..RANDOM.len())],
        nullable: random.random_range(0..3) > 0,
        nulls: [8, 2, 30][random.random_range(0..3)],
    });
    let more: Vec<Column> = more.collect();
    let mut columns: Vec<Column> = always.into_iter().chain(more).collect();
    columns.shuffle(random);
    columns
}

fn values(column: &Column, table: usize, times: &[i64], random: &mut StdRng) -> ArrayRef {
    macro_rules! array {
        ($array:ty, $value:expr) => {{
            let value: fn(&mut StdRng) -> _ = $value;
            let maybe = (0..times.len()).map(|_| nullable(column, random).then(|| value(random)));
            Arc::new(maybe.collect::<$array>()) as ArrayRef
        }};
    }
    match column.kind {
        Kind::Id => {
            let ids = (0..times.len()).map(|n| format!("{}{n:03}", ["i", "c", "o"][table]));
            Arc::new(StringArray::from_iter_values(ids))
        }
        Kind::EventTime => Arc::new(TimestampMicrosecondArray::from(times.to_vec())),
        Kind::Key => array!(StringArray, |r| {
            ["a1", "a1", "a1", "a1", "a2", "a2", "a3", "a4", "", "größe"][r.random_range(0..10)]
        }),
        Kind::User => array!(StringArray, |r| format!("u{}", r.random_range(1..8))),
        Kind::Double => array!(Float64Array, |r| f64::from(r.random_range(-4..17)) / 4.0),
        Kind::Odd => array!(Float64Array, |r| {
            let odd = [
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                0.0,
                -0.0,
                f64::MAX,
                f64::MIN_POSITIVE,
            ];
            match r.random_range(0..14) {
                at if at < odd.len() => odd[at],
                at => at as f64,
            }
        }),
        Kind::Bigint => array!(Int64Array, |r| r.random_range(-5..20)),
        Kind::Extreme => array!(Int64Array, |r| [i64::MIN, i64::MAX, -1, 0, 1, 7]
            [r.random_range(0..6)]),
        Kind::Int => array!(Int32Array, |r| match r.random_range(0..12) {
            0 => i32::MAX / 2,
            _ => r.random_range(-3..8),
        }),
        Kind::Boolean => array!(BooleanArray, |r| r.random_range(0..3) > 0),
        Kind::Timestamp => array!(TimestampMicrosecondArray, |r| SECOND
            * r.random_range(-90_000..90_000)),
        Kind::Date => array!(Date32Array, |r| r.random_range(-3..6)),
    }
}

fn nullable(column: &Column, random: &mut StdRng) -> bool {
    !(column.nullable && random.random_range(0..column.nulls) == 0)
}

/// The rows each window holds of each table, by its end: those that arrived before the watermark passed it.
pub fn by_window(stream: &Stream) -> BTreeMap<i64, [Vec<u32>; 3]> {
    let panes = stream.panes();
    let mut windows: BTreeMap<i64, [Vec<u32>; 3]> = BTreeMap::new();
    for arrival in &stream.arrivals {
        // The watermark that stood before the step in which the row arrived.
        let steps = (arrival.arrives - stream.first).div_euclid(stream.step);
        let watermark = stream.first + steps * stream.step - stream.behind;
        for end in panes
            .ends_of(panes.pane_of(arrival.at))
            .filter(|end| *end > watermark)
        {
            windows.entry(end).or_default()[arrival.table].push(arrival.row);
        }
    }
    windows
}

#[test]
fn streams_have_what_the_cases_need() {
    let mut kinds = [0; 3];
    for seed in 1..40 {
        let stream = Stream::new(seed);
        let table = &stream.tables[0];
        assert_eq!(table.rows.column(table.event_time).data_type(), &timestamp_type());
        let nulls: usize = table.rows.columns().iter().map(|c| c.null_count()).sum();
        assert!(nulls > 0, "seed {seed}: nothing is null");
        let mut seen = std::collections::BTreeSet::new();
        let twice = stream.arrivals.iter().any(|a| !seen.insert((a.table, a.row)));
        assert!(twice, "seed {seed}: no row comes twice");
        let windows = by_window(&stream);
        let held: std::collections::BTreeSet<u32> = windows.values().flat_map(|w| w[0].clone()).collect();
        assert!(windows.len() > 2, "seed {seed}: {} windows", windows.len());
        assert!(held.len() > ROWS[0] / 2, "seed {seed}: almost every row is late");
        kinds[match stream.window {
            Window::Tumbling { .. } => 0,
            Window::Hopping { .. } => 1,
            _ => 2,
        }] += 1;
        assert_ne!(table.rows.schema().field(0).data_type(), &DataType::Null);
    }
    assert!(kinds.iter().all(|n| *n > 5), "windows of every shape: {kinds:?}");
}
