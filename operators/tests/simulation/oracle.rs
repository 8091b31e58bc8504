//! Whether every row was counted exactly once.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

use crate::world::World;

/// Length of the tumbling windows, and of the step of the hopping ones.
const SLICE: i64 = 10_000_000;

/// The silence that ends a session.
const GAP: i64 = 3_000_000;

/// A row of either source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    id: i64,
    ad: String,
    at: i64,
}

/// Count and sum of ids.
type Total = (i64, i64);

/// Compares what was published with what came in.
pub fn check(world: &World, strict: bool) -> Result<(), String> {
    let published = published(world, "clickthrough");
    for (n, source) in ["impressions", "clicks"].into_iter().enumerate() {
        let inputs: Vec<RecordBatch> = world.outside().inputs[source].values().cloned().collect();
        let sent = rows(&inputs);
        same(source, &sent, &rows(&published_of(world, source)))?;
        let late = rows(&published_of(world, &format!("late_{source}")));
        if strict && !late.is_empty() {
            return Err(format!("{source}: late, but in time: {late:?}"));
        }
        let mut counted = totals(&late);
        for (at, total) in windows(&published, 1 + 2 * n) {
            add(counted.entry(at).or_default(), total);
        }
        counted.retain(|_, total| *total != (0, 0));
        same(&format!("{source} by window"), &totals(&sent), &counted)?;
        if source == "impressions" && strict {
            let expect = hopping(&sent);
            same("impressions by ad", &expect, &by_ad(world)?)?;
        }
    }
    once("clickthrough", times(&published))?;
    sessions(world, strict)?;
    by_ad(world).map(drop)
}

/// Every impression is in one session or late; without late ones it is known in which.
fn sessions(world: &World, strict: bool) -> Result<(), String> {
    let inputs: Vec<RecordBatch> = world.outside().inputs["impressions"].values().cloned().collect();
    let sent = rows(&inputs);
    let late = rows(&published_of(world, "late_sessions"));
    if strict && !late.is_empty() {
        return Err(format!("sessions: late, but in time: {late:?}"));
    }
    let mut got = Vec::new();
    for batch in published_of(world, "sessions") {
        let numbers = |column: usize| batch.column(column).as_primitive::<Int64Type>();
        let times = |column: usize| batch.column(column).as_primitive::<TimestampMicrosecondType>();
        let ads = batch.column(1).as_string::<i32>();
        got.extend((0..batch.num_rows()).map(|i| {
            let (start, end) = (times(0).value(i), times(4).value(i));
            (
                ads.value(i).to_owned(),
                start,
                end,
                (numbers(2).value(i), numbers(3).value(i)),
            )
        }));
    }
    got.sort();
    if let Some(pair) = got
        .windows(2)
        .find(|pair| pair[0].0 == pair[1].0 && pair[1].1 < pair[0].2)
    {
        return Err(format!("sessions that overlap: {pair:?}"));
    }
    if strict {
        return same("sessions", &cut(&sent), &got);
    }
    let mut counted = Total::default();
    got.iter().for_each(|session| add(&mut counted, session.3));
    late.iter().for_each(|row| add(&mut counted, (1, row.id)));
    same(
        "rows in sessions",
        &(sent.len() as i64, sent.iter().map(|row| row.id).sum()),
        &counted,
    )
}

/// A session: its key, start and end, and what is in it.
type Session = (String, i64, i64, Total);

/// Rows cut where a key is silent for [`GAP`].
fn cut(rows: &[Row]) -> Vec<Session> {
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by_key(|row| (&row.ad, row.at));
    let mut all: Vec<Session> = Vec::new();
    for row in rows {
        match all.last_mut() {
            Some(last) if last.0 == row.ad && row.at < last.2 => {
                last.2 = row.at + GAP;
                add(&mut last.3, (1, row.id));
            }
            _ => all.push((row.ad.clone(), row.at, row.at + GAP, (1, row.id))),
        }
    }
    all
}

fn published(world: &World, sink: &str) -> Vec<RecordBatch> {
    published_of(world, sink)
}

/// Everything a sink has published.
pub fn published_of(world: &World, sink: &str) -> Vec<RecordBatch> {
    let outside = world.outside();
    let names = outside.published.get(sink).into_iter().flatten();
    names.flat_map(|name| outside.staged[name].clone()).collect()
}

fn rows(of: &[RecordBatch]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for batch in of {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let ads = batch.column(1).as_string::<i32>();
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>();
        rows.extend((0..batch.num_rows()).map(|i| Row {
            id: ids.value(i),
            ad: ads.value(i).into(),
            at: times.value(i),
        }));
    }
    rows.sort();
    rows
}

fn totals(of: &[Row]) -> BTreeMap<i64, Total> {
    let mut all = BTreeMap::new();
    for row in of {
        add(all.entry(row.at / SLICE * SLICE).or_default(), (1, row.id));
    }
    all
}

fn add(to: &mut Total, (n, sum): Total) {
    to.0 += n;
    to.1 += sum;
}

/// Windows of `clickthrough`: count in column `column`, sum in the next.
fn windows(of: &[RecordBatch], column: usize) -> Vec<(i64, Total)> {
    let mut all = Vec::new();
    for batch in of {
        let at = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let n = batch.column(column).as_primitive::<Int64Type>();
        let sum = batch.column(column + 1).as_primitive::<Int64Type>();
        all.extend((0..batch.num_rows()).map(|i| (at.value(i), (n.value(i), sum.value(i)))));
    }
    all
}

fn times(of: &[RecordBatch]) -> Vec<i64> {
    windows(of, 1).into_iter().map(|(at, _)| at).collect()
}

/// What the hopping windows must hold, by start and ad.
fn hopping(rows: &[Row]) -> BTreeMap<(i64, String), i64> {
    let mut all = BTreeMap::new();
    for row in rows {
        let start = row.at / SLICE * SLICE;
        for start in [start - SLICE, start] {
            *all.entry((start, row.ad.clone())).or_default() += 1;
        }
    }
    all
}

/// What they were published with.
fn by_ad(world: &World) -> Result<BTreeMap<(i64, String), i64>, String> {
    let mut all = Vec::new();
    for batch in published_of(world, "by_ad") {
        let at = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let ads = batch.column(1).as_string::<i32>();
        let n = batch.column(2).as_primitive::<Int64Type>();
        let ids = batch.column(3).as_primitive::<Int64Type>();
        for i in 0..batch.num_rows() {
            if n.value(i) != ids.value(i) {
                return Err(format!(
                    "a window counts {} rows, but {} ids",
                    n.value(i),
                    ids.value(i)
                ));
            }
            all.push(((at.value(i), ads.value(i).to_owned()), n.value(i)));
        }
    }
    once("by_ad", all.iter().map(|(key, _)| key).collect())?;
    Ok(all.into_iter().collect())
}

fn once<T: Ord + std::fmt::Debug>(what: &str, mut keys: Vec<T>) -> Result<(), String> {
    keys.sort();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("{what}: published twice: {:?}", pair[0])),
        None => Ok(()),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, expect: &T, got: &T) -> Result<(), String> {
    if expect == got {
        return Ok(());
    }
    Err(format!("{what}: expected\n{expect:?}\ngot\n{got:?}"))
}
