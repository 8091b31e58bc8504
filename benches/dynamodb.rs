//! The `dynamodb` sink beside the SDK alone, which puts the same items with as many requests under way: as batches, and
//! one by one under a condition (`version`).
//!
//! Both write to an emulator on this machine, which is slower than either and shares its cores: what is measured is how
//! much the sink adds (its outbox, deduplication, mapping), not what DynamoDB can take. In turns, median of the rounds.
//!
//! | variable | meaning |
//! |---|---|
//! | `ITEMS` | items of a round (default 5,000) |
//! | `ROUNDS` | rounds of each (default 5) |
//! | `MILLSTREAM_VENV` | where `ci/test` has installed ministack |

use std::path::Path;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, PutRequest,
    ScalarAttributeType, Select, WriteRequest,
};
use futures::StreamExt;
use millstream_benches::{Table, impressions, service};
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::metrics::Counters;
use millstream_engine::sink::{SinkConnector, SinkContext};
use millstream_operators::aws::{self, AwsOptions};
use millstream_operators::sinks::dynamodb::DynamodbConnector;
use serde_json::json;

/// As many as the sink has.
const BATCHES_UNDER_WAY: usize = 8;
const PUTS_UNDER_WAY: usize = 64;

/// Rows of a batch that comes to the sink.
const BATCH_ROWS: usize = 1_000;

fn main() -> anyhow::Result<()> {
    if !service::is_there() {
        return service::with_emulator();
    }
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let items = variable("ITEMS", 5_000)?;
    let rounds = variable("ROUNDS", 5)?;
    let rows = impressions(items, 1_000, 3_600);
    let client = aws::dynamodb(&AwsOptions::default()).await?;
    println!("{items} items a round, {rounds} rounds:\n");
    let table = Table::new("puts", "items/s", "SDK alone");
    for conditional in [false, true] {
        let (mut sdk, mut sink) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let table = format!("sdk_{conditional}_{round}");
            create(&client, &table).await?;
            sdk.push(rate(items, by_sdk(&table, &rows, conditional)).await?);
            anyhow::ensure!(count(&client, &table).await? == items, "the SDK lost items");
            let table = format!("sink_{conditional}_{round}");
            create(&client, &table).await?;
            sink.push(rate(items, by_sink(&table, &rows, conditional)).await?);
            anyhow::ensure!(count(&client, &table).await? == items, "the sink lost items");
        }
        let how = if conditional {
            "conditional puts"
        } else {
            "batches"
        };
        table.line(how, &sink, &sdk);
    }
    Ok(())
}

async fn rate(items: usize, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<f64> {
    let started = Instant::now();
    work.await?;
    Ok(items as f64 / started.elapsed().as_secs_f64())
}

async fn by_sdk(table: &str, rows: &RecordBatch, conditional: bool) -> anyhow::Result<()> {
    // Of its own, as the sink has one: its connections are new.
    let client = &aws::dynamodb(&AwsOptions::default()).await?;
    let items = items(rows);
    if conditional {
        let puts = items.into_iter().map(|item| async {
            let put = client.put_item().table_name(table);
            put.expression_attribute_names("#v", "occurred_at")
                .expression_attribute_values(":v", item["occurred_at"].clone())
                .condition_expression("attribute_not_exists(#v) OR #v <= :v")
                .set_item(Some(item))
                .send()
                .await
        });
        let mut puts = futures::stream::iter(puts).buffer_unordered(PUTS_UNDER_WAY);
        while let Some(put) = puts.next().await {
            put?;
        }
        return Ok(());
    }
    let requests: Vec<Vec<Item>> = items.chunks(25).map(<[Item]>::to_vec).collect();
    let puts = requests.into_iter().map(|items| async {
        let writes = items.into_iter().map(|item| {
            let put = PutRequest::builder().set_item(Some(item)).build();
            put.map(|put| WriteRequest::builder().put_request(put).build())
        });
        let writes = writes.collect::<Result<Vec<_>, _>>()?;
        anyhow::Ok(
            client
                .batch_write_item()
                .request_items(table, writes)
                .send()
                .await?,
        )
    });
    let mut puts = futures::stream::iter(puts).buffer_unordered(BATCHES_UNDER_WAY);
    while let Some(put) = puts.next().await {
        anyhow::ensure!(put?.unprocessed_items.is_none_or(|left| left.is_empty()));
    }
    Ok(())
}

type Item = std::collections::HashMap<String, AttributeValue>;

/// What the sink makes of the rows.
fn items(rows: &RecordBatch) -> Vec<Item> {
    let ids = rows.column(0).as_string::<i32>();
    let ads = rows.column(1).as_string::<i32>();
    let times = rows
        .column(2)
        .as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    let item = |row: usize| {
        let at = times.value_as_datetime(row).expect("a time of our age");
        let at = at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        Item::from([
            ("impression_id".into(), AttributeValue::S(ids.value(row).into())),
            ("ad_id".into(), AttributeValue::S(ads.value(row).into())),
            ("occurred_at".into(), AttributeValue::S(at)),
        ])
    };
    (0..rows.num_rows()).map(item).collect()
}

/// From the rows to the end of the checkpoint that covers them.
async fn by_sink(table: &str, rows: &RecordBatch, conditional: bool) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut sink = DynamodbConnector
        .open(context(table, rows, dir.path(), conditional))
        .await?;
    for from in (0..rows.num_rows()).step_by(BATCH_ROWS) {
        sink.write(rows.slice(from, BATCH_ROWS.min(rows.num_rows() - from)))
            .await?;
    }
    let epoch = Epoch(1);
    let what = sink.prepare(Barrier { epoch, last: true }).await?;
    Ok(sink.commit(epoch, what).await?)
}

fn context(table: &str, rows: &RecordBatch, dir: &Path, conditional: bool) -> SinkContext {
    let version = conditional.then_some("occurred_at");
    SinkContext {
        run: None,
        pipeline: "bench".into(),
        name: "items".into(),
        input: "impressions".into(),
        schema: rows.schema(),
        event_time: Some(2),
        options: json!({ "table": table, "key": ["impression_id"], "version": version }),
        data_dir: dir.into(),
        counters: Counters::detached(),
    }
}

async fn create(client: &Client, table: &str) -> anyhow::Result<()> {
    let key = "impression_id";
    let element = KeySchemaElement::builder()
        .attribute_name(key)
        .key_type(KeyType::Hash);
    let attribute = AttributeDefinition::builder()
        .attribute_name(key)
        .attribute_type(ScalarAttributeType::S);
    client
        .create_table()
        .table_name(table)
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(element.build()?)
        .attribute_definitions(attribute.build()?)
        .send()
        .await?;
    Ok(())
}

async fn count(client: &Client, table: &str) -> anyhow::Result<usize> {
    let mut pages = client
        .scan()
        .table_name(table)
        .select(Select::Count)
        .into_paginator()
        .send();
    let mut items = 0;
    while let Some(page) = pages.next().await {
        items += page?.count() as usize;
    }
    Ok(items)
}

fn variable(name: &str, otherwise: usize) -> anyhow::Result<usize> {
    match std::env::var(name) {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(otherwise),
    }
}
