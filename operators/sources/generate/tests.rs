//! The same rows however they are read, the published proportions, and what is refused.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
use arrow::util::pretty::pretty_format_batches;
use futures::StreamExt;
use millstream_engine::metrics::Counters;
use millstream_engine::source::{Offset, Offsets, PartitionId, Source};
use millstream_engine::time::timestamp_type;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;

fn context(columns: &[(&str, DataType)], event_time: &str, options: Value) -> SourceContext {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, kind)| Field::new(*name, kind.clone(), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    SourceContext {
        run: None,
        pipeline: "p".into(),
        name: "s".into(),
        event_time: schema.index_of(event_time).expect("the event time"),
        schema,
        options,
        data_dir: "unused".into(),
        stop: CancellationToken::new(),
        counters: Counters::detached(),
    }
}

fn bids(options: Value) -> SourceContext {
    let columns = [
        ("auction", DataType::Int64),
        ("bidder", DataType::Int64),
        ("price", DataType::Int64),
        ("channel", DataType::Utf8),
        ("url", DataType::Utf8),
        ("date_time", timestamp_type()),
        ("extra", DataType::Utf8),
    ];
    context(&columns, "date_time", options)
}

fn open(cx: SourceContext) -> Arc<dyn Source> {
    GenerateConnector.open(cx).expect("good options")
}

/// A partition's batches from an offset on.
async fn read(source: &dyn Source, partition: &str, from: Option<&str>) -> Vec<(RecordBatch, String)> {
    let from = from.map(|from| Offset(from.into()));
    let batches = source.read(&PartitionId(partition.into()), from);
    batches
        .map(|batch| batch.expect("rows"))
        .map(|batch| (batch.rows, batch.offset.0))
        .collect()
        .await
}

async fn all(source: &dyn Source) -> RecordBatch {
    let mut batches = Vec::new();
    for partition in source
        .partitions(&Offsets::new())
        .await
        .expect("partitions")
        .ids()
    {
        batches.extend(
            read(source, &partition.0, None)
                .await
                .into_iter()
                .map(|(rows, _)| rows),
        );
    }
    concat_batches(&source.schema(), &batches).expect("one schema")
}

fn text(rows: &RecordBatch) -> String {
    pretty_format_batches(std::slice::from_ref(rows))
        .expect("printable")
        .to_string()
}

fn sorted(rows: &RecordBatch) -> Vec<String> {
    let mut lines: Vec<String> = text(rows).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn reading_on_from_an_offset_gives_the_same_rows() {
    let source = open(bids(
        json!({"generator": "nexmark", "stream": "bid", "rows": 30_000, "partitions": 2}),
    ));
    let straight = read(source.as_ref(), "1", None).await;
    assert!(straight.len() > 1, "one batch shows nothing");
    for (index, (_, offset)) in straight.iter().enumerate() {
        let rest = read(source.as_ref(), "1", Some(offset)).await;
        assert_eq!(rest, straight[index + 1..], "from {offset}");
    }
}

#[tokio::test]
async fn partitions_share_the_same_rows() {
    let options = |partitions| json!({"generator": "nexmark", "stream": "bid", "rows": 5_001, "partitions": partitions});
    let one = all(open(bids(options(1))).as_ref()).await;
    let three = all(open(bids(options(3))).as_ref()).await;
    assert_eq!(sorted(&one), sorted(&three));
    let other = json!({"generator": "nexmark", "stream": "bid", "rows": 5_001, "seed": 1});
    assert_ne!(
        sorted(&one),
        sorted(&all(open(bids(other)).as_ref()).await),
        "another seed, other rows"
    );
}

#[tokio::test]
async fn nexmark_as_published() {
    let options =
        |stream: &str| json!({"generator": "nexmark", "stream": stream, "rows": 50_000, "interval": "1ms"});
    let bid = all(open(bids(options("bid"))).as_ref()).await;
    let ids = |stream: &str, column: &str| {
        let columns = [(column, DataType::Int64), ("date_time", timestamp_type())];
        open(context(&columns, "date_time", options(stream)))
    };
    let auction = all(ids("auction", "id").as_ref()).await;
    let person = all(ids("person", "id").as_ref()).await;
    let counts = [&person, &auction, &bid].map(RecordBatch::num_rows);
    assert_eq!(counts, [1_000, 3_000, 46_000]);
    let column =
        |rows: &RecordBatch, index: usize| rows.column(index).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(column(&auction, 0), (1_000..4_000).collect::<Vec<_>>());
    assert_eq!(column(&person, 0), (1_000..2_000).collect::<Vec<_>>());
    // Ids run at most ten ahead of what is there.
    assert!(column(&bid, 0).iter().all(|id| (1_000..4_010).contains(id)));
    assert!(column(&bid, 1).iter().all(|id| (1_000..2_010).contains(id)));
    let share = |hot: &dyn Fn(usize) -> bool| (0..46_000).filter(|row| hot(*row)).count() as f64 / 46_000.0;
    let (auctions, bidders) = (column(&bid, 0), column(&bid, 1));
    // A cold id is hot by chance as well, one in a hundred.
    let hot = share(&|row| auctions[row] % 100 == 0);
    assert!((0.49..0.52).contains(&hot), "bids for hot auctions: {hot}");
    let hot = share(&|row| bidders[row] % 100 == 1);
    assert!((0.74..0.77).contains(&hot), "bids of hot bidders: {hot}");
    let channels = bid.column(3).as_string::<i32>();
    let hot = share(&|row| !channels.value(row).starts_with("channel-"));
    assert!((0.49..0.51).contains(&hot), "bids over hot channels: {hot}");
    let urls = bid.column(4).as_string::<i32>();
    let named = share(&|row| urls.value(row).contains("&channel_id="));
    assert!(
        (0.43..0.47).contains(&named),
        "urls that name their channel: {named}"
    );
    let mut of_channel: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    (0..46_000).for_each(|row| {
        of_channel
            .entry(channels.value(row))
            .or_default()
            .insert(urls.value(row));
    });
    assert!(
        of_channel.values().all(|urls| urls.len() == 1),
        "a channel has one address"
    );
    let times = bid.column(5).as_primitive::<TimestampMicrosecondType>().values();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "in order");
    let sizes = (0..46_000).map(|row| bid.column(6).as_string::<i32>().value(row).len());
    let average = sizes.sum::<usize>() as f64 / 46_000.0;
    assert!((66.0..70.0).contains(&average), "padding of bids: {average}");
}

#[tokio::test]
async fn columns_by_rules() {
    let columns = [
        ("id", DataType::Utf8),
        ("n", DataType::Int64),
        ("price", DataType::Float64),
        ("ad", DataType::Utf8),
        ("ok", DataType::Boolean),
        ("at", timestamp_type()),
    ];
    let options = json!({"generator": "columns", "rows": 1_000, "start": "2026-11-23 12:00:00", "interval": "1s",
        "values": {"id": {"sequence": 1, "prefix": "i"}, "n": {"uniform": [-5, 5]}, "price": {"uniform": [0.5, 1.5]},
                   "ad": {"choice": ["a", "b", null]}, "ok": {"choice": [true]}}});
    let rows = all(open(context(&columns, "at", options)).as_ref()).await;
    let ids = rows.column(0).as_string::<i32>();
    assert_eq!([ids.value(0), ids.value(999)], ["i1", "i1000"]);
    let n: HashSet<i64> = rows
        .column(1)
        .as_primitive::<Int64Type>()
        .values()
        .iter()
        .copied()
        .collect();
    assert_eq!(n, (-5..5).collect());
    let prices = rows
        .column(2)
        .as_primitive::<arrow::datatypes::Float64Type>()
        .values();
    assert!(prices.iter().all(|p| (0.5..1.5).contains(p)));
    assert!(
        (250..420).contains(&rows.column(3).null_count()),
        "a third is null"
    );
    assert_eq!(rows.column(4).as_boolean().true_count(), 1_000);
    let at = rows.column(5).as_primitive::<TimestampMicrosecondType>().values();
    assert_eq!(at[10] - at[0], 10_000_000);
}

#[tokio::test]
async fn an_endless_source_stops_with_the_pipeline() {
    let cx = bids(json!({"generator": "nexmark", "stream": "bid", "rate": 1}));
    let stop = cx.stop.clone();
    let source = open(cx);
    stop.cancel();
    assert!(read(source.as_ref(), "0", None).await.is_empty());
}

#[test]
fn refuses_what_cannot_be_made() {
    let columns = [
        ("n", DataType::Int64),
        ("t", DataType::Utf8),
        ("at", timestamp_type()),
    ];
    let values = |values: Value| json!({"generator": "columns", "values": values});
    let cases = [
        (json!({"generator": "nexmark"}), "needs stream"),
        (
            json!({"generator": "nexmark", "stream": "bid"}),
            "happen at \"date_time\"",
        ),
        (
            json!({"generator": "columns", "stream": "bid"}),
            "stream goes with",
        ),
        (
            json!({"generator": "columns", "partitions": 0}),
            "partitions must be",
        ),
        (json!({"generator": "columns", "rate": 0}), "rate must be"),
        (
            json!({"generator": "columns", "start": "today"}),
            "start \"today\" is not a time",
        ),
        (
            json!({"generator": "columns", "interval": "0s"}),
            "interval must be",
        ),
        (values(json!({})), "values.n: nothing says"),
        (values(json!({"m": {"sequence": 1}})), "there is no column \"m\""),
        (values(json!({"n": {}})), "exactly one of"),
        (
            values(json!({"n": {"sequence": 1, "choice": [1]}})),
            "exactly one of",
        ),
        (values(json!({"n": {"uniform": [2, 1]}})), "the second larger"),
        (values(json!({"n": {"uniform": [0.5, 1]}})), "whole numbers"),
        (
            values(json!({"n": {"sequence": 1, "prefix": "x"}})),
            "prefix is for",
        ),
        (values(json!({"n": {"choice": ["x"]}})), "values.n.choice"),
        (values(json!({"n": {"choice": []}})), "at least one value"),
    ];
    for (options, says) in cases {
        let refused = GenerateConnector.check(&context(&columns, "at", options.clone()));
        let message = refused.expect_err(&options.to_string()).to_string();
        assert!(message.contains(says), "{options}: {message}");
    }
    let unknown = context(
        &[("id", DataType::Int64), ("date_time", timestamp_type())],
        "date_time",
        json!({"generator": "nexmark", "stream": "bid"}),
    );
    let message = GenerateConnector
        .check(&unknown)
        .expect_err("no such column")
        .to_string();
    assert!(
        message.contains("has no column \"id\"; it has auction, bidder, price"),
        "{message}"
    );
}
