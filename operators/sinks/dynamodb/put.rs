//! Items on the wire: requests side by side, and what became of every item.

use std::collections::HashSet;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use futures::StreamExt;
use millstream_engine::sql::REVISION;
use millstream_engine::{Error, Result};

use super::item::{Item, Mapping};
use crate::aws;

/// Items of one request: the limit of BatchWriteItem.
pub(super) const REQUEST_ITEMS: usize = 25;

/// Bytes of the items of one request. BatchWriteItem takes 16 MB; binary values grow by a third on the way, and text by
/// what JSON escapes.
const REQUEST_BYTES: usize = 4 << 20;

/// Requests of many items under way at once: enough to hide the way there and back.
pub(super) const REQUESTS: usize = 8;

/// As [`REQUESTS`], for requests of one item.
const SINGLE_REQUESTS: usize = 64;

/// Puts items into one table.
pub(super) struct Puts {
    pub client: Client,
    pub table: String,
    /// The column that says which item is newer.
    pub version: Option<String>,
}

/// What became of items.
#[derive(Default)]
pub(super) struct Outcome {
    pub written: u64,
    /// A newer item was there.
    pub stale: u64,
    /// Never to be taken, each with the reason.
    pub refused: Vec<(Item, String)>,
    /// How many DynamoDB put off.
    pub put_off: u64,
    /// Not taken, this time.
    pub left: Vec<Item>,
    /// Why, where it was not that DynamoDB put them off.
    pub error: Option<Error>,
}

impl Outcome {
    fn add(mut self, other: Outcome) -> Outcome {
        self.written += other.written;
        self.stale += other.stale;
        self.put_off += other.put_off;
        self.refused.extend(other.refused);
        self.left.extend(other.left);
        // What a person must act on comes before what passes.
        self.error = match (self.error, other.error) {
            (Some(Error::Retry { .. }), Some(error)) => Some(error),
            (known, other) => known.or(other),
        };
        self
    }

    fn failed(left: Vec<Item>, error: Error) -> Outcome {
        Outcome {
            left,
            error: Some(error),
            ..Outcome::default()
        }
    }
}

impl Puts {
    /// Puts items, each with a key of its own.
    pub async fn put(&self, items: Vec<Item>, mapping: &Mapping) -> Outcome {
        let one_by_one = self.version.is_some();
        let (requests, at_once) = match one_by_one {
            true => (
                items.into_iter().map(|item| vec![item]).collect(),
                SINGLE_REQUESTS,
            ),
            false => (requests(items), REQUESTS),
        };
        let sent = requests.into_iter().map(|items| async move {
            match one_by_one {
                true => self.put_each(items).await,
                false => self.put_batch(items, mapping).await,
            }
        });
        let sent = futures::stream::iter(sent).buffer_unordered(at_once);
        sent.fold(Outcome::default(), async |all, one| all.add(one)).await
    }

    async fn put_batch(&self, items: Vec<Item>, mapping: &Mapping) -> Outcome {
        let request = self.client.batch_write_item();
        let writes = match items.iter().map(write_request).collect::<Result<Vec<_>>>() {
            Ok(writes) => writes,
            Err(error) => return Outcome::failed(items, error),
        };
        match request.request_items(&self.table, writes).send().await {
            Ok(answer) => {
                let put_off = answer.unprocessed_items.unwrap_or_default();
                let put_off: HashSet<String> = put_off
                    .values()
                    .flatten()
                    .filter_map(|write| Some(mapping.key_of(write.put_request()?.item())))
                    .collect();
                let (left, taken): (Vec<Item>, Vec<Item>) =
                    items.into_iter().partition(|item| put_off.contains(&item.key));
                Outcome {
                    written: taken.len() as u64,
                    put_off: left.len() as u64,
                    left,
                    ..Outcome::default()
                }
            }
            // One bad item fails all of its request.
            Err(e) if is_refusal(&e) => self.put_each(items).await,
            Err(e) => Outcome::failed(items, self.classify(e)),
        }
    }

    async fn put_each(&self, items: Vec<Item>) -> Outcome {
        let mut all = Outcome::default();
        for item in items {
            all = all.add(self.put_one(item).await);
        }
        all
    }

    async fn put_one(&self, item: Item) -> Outcome {
        let mut put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item.attributes.clone()));
        if let Some(version) = &self.version {
            let attribute = |name: &str| item.attributes.get(name).cloned();
            put = put
                .expression_attribute_names("#v", version)
                .expression_attribute_values(":v", attribute(version).unwrap_or(AttributeValue::Null(true)));
            put = match attribute(REVISION) {
                Some(revision) => put
                    .expression_attribute_names("#r", REVISION)
                    .expression_attribute_values(":r", revision)
                    .condition_expression(
                        "attribute_not_exists(#v) OR #v < :v OR (#v = :v AND (attribute_not_exists(#r) OR #r <= :r))",
                    ),
                // An equal one is the same result again.
                None => put.condition_expression("attribute_not_exists(#v) OR #v <= :v"),
            };
        }
        match put.send().await {
            Ok(_) => Outcome {
                written: 1,
                ..Outcome::default()
            },
            Err(e)
                if e.as_service_error()
                    .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                Outcome {
                    stale: 1,
                    ..Outcome::default()
                }
            }
            Err(e) if is_refusal(&e) => {
                let why = e.message().unwrap_or("refused without a reason").into();
                Outcome {
                    refused: vec![(item, why)],
                    ..Outcome::default()
                }
            }
            Err(e) => Outcome::failed(vec![item], self.classify(e)),
        }
    }

    pub(super) fn classify<E>(&self, e: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let conflict = ["TransactionConflictException", "ReplicatedWriteConflictException"];
        let passes = e.code().is_some_and(|code| conflict.contains(&code));
        let error = aws::classify(e, format!("writing to DynamoDB table {:?}", self.table));
        match passes {
            true => Error::retry(error.to_string()),
            false => error,
        }
    }
}

/// Whether DynamoDB refused what was put, whoever puts it.
fn is_refusal<E: ProvideErrorMetadata>(e: &SdkError<E, HttpResponse>) -> bool {
    let too_large = e.raw_response().is_some_and(|r| r.status().as_u16() == 413);
    too_large || e.code() == Some("ValidationException")
}

fn write_request(item: &Item) -> Result<WriteRequest> {
    let put = PutRequest::builder().set_item(Some(item.attributes.clone()));
    let put = put
        .build()
        .map_err(|e| Error::bug(format!("an item without attributes: {e}")))?;
    Ok(WriteRequest::builder().put_request(put).build())
}

fn requests(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut requests: Vec<Vec<Item>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        match requests.last_mut() {
            Some(last) if last.len() < REQUEST_ITEMS && bytes + item.bytes <= REQUEST_BYTES => {
                bytes += item.bytes;
                last.push(item);
            }
            _ => {
                bytes = item.bytes;
                requests.push(vec![item]);
            }
        }
    }
    requests
}
