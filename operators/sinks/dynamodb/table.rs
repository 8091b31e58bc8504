//! The table that takes the items: whether it is there with the right key, and creating it.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription,
    TableStatus,
};
use millstream_engine::{Error, Result};

use crate::aws;

/// A table that was created is usually there within ten seconds; after this, the pipeline starts again.
const CREATION: Duration = Duration::from_secs(120);

/// Between two looks at a table that is being created.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The name and type of every key attribute, partition key first.
pub(super) type Key = [(String, ScalarAttributeType)];

/// Comes back when the table can take items with the key. It is created if it does not exist and `create` says so.
pub(super) async fn ready(client: &Client, table: &str, key: &Key, create: bool) -> Result<()> {
    let started = Instant::now();
    loop {
        match describe(client, table).await? {
            Some(found) => {
                check(&found, table, key)?;
                if takes_items(&found) {
                    return Ok(());
                }
            }
            None if create => self::create(client, table, key).await?,
            None => {
                return Err(Error::config(format!(
                    "there is no DynamoDB table {table:?}; create it, or write create = true"
                )));
            }
        }
        if started.elapsed() > CREATION {
            return Err(Error::retry(format!(
                "DynamoDB table {table:?} is not active yet"
            )));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// While its settings are changed a table serves as ever.
fn takes_items(table: &TableDescription) -> bool {
    !matches!(
        table.table_status(),
        Some(TableStatus::Creating | TableStatus::Deleting)
    )
}

async fn describe(client: &Client, table: &str) -> Result<Option<TableDescription>> {
    match client.describe_table().table_name(table).send().await {
        Ok(found) => Ok(found.table),
        Err(e)
            if e.as_service_error()
                .is_some_and(|e| e.is_resource_not_found_exception()) =>
        {
            Ok(None)
        }
        Err(e) => Err(aws::classify(e, format!("describing DynamoDB table {table:?}"))),
    }
}

async fn create(client: &Client, table: &str, key: &Key) -> Result<()> {
    let mut request = client
        .create_table()
        .table_name(table)
        .billing_mode(BillingMode::PayPerRequest);
    for ((name, of), kind) in key.iter().zip([KeyType::Hash, KeyType::Range]) {
        let incomplete = |e| Error::bug(format!("a key of a DynamoDB table: {e}"));
        let element = KeySchemaElement::builder().attribute_name(name).key_type(kind);
        let attribute = AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(of.clone());
        request = request
            .key_schema(element.build().map_err(incomplete)?)
            .attribute_definitions(attribute.build().map_err(incomplete)?);
    }
    match request.send().await {
        Ok(_) => {
            tracing::info!(table, "created a DynamoDB table with on-demand capacity");
            Ok(())
        }
        // By another process meanwhile.
        Err(e)
            if e.as_service_error()
                .is_some_and(|e| e.is_resource_in_use_exception()) =>
        {
            Ok(())
        }
        Err(e) => Err(aws::classify(e, format!("creating DynamoDB table {table:?}"))),
    }
}

fn check(table: &TableDescription, name: &str, key: &Key) -> Result<()> {
    let types = table.attribute_definitions();
    let of = |kind: KeyType| {
        let element = table.key_schema().iter().find(|e| e.key_type == kind)?;
        let of = types
            .iter()
            .find(|t| t.attribute_name == element.attribute_name)?;
        Some((of.attribute_name.clone(), of.attribute_type.clone()))
    };
    let has: Vec<_> = [of(KeyType::Hash), of(KeyType::Range)]
        .into_iter()
        .flatten()
        .collect();
    if has == key {
        return Ok(());
    }
    Err(Error::config(format!(
        "key: DynamoDB table {name:?} has the key {}, not {}; name its columns in that order, cast to those types, or \
         use another table",
        shown(&has),
        shown(key)
    )))
}

/// `ad_id (S), day (S)`.
fn shown(key: &Key) -> String {
    let parts: Vec<String> = key
        .iter()
        .map(|(name, of)| format!("{name} ({})", of.as_str()))
        .collect();
    parts.join(", ")
}
