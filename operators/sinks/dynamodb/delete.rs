//! Deletes of items on the wire.

use std::collections::HashSet;
use std::time::Duration;

use aws_sdk_dynamodb::types::{DeleteRequest, WriteRequest};
use futures::{StreamExt, TryStreamExt};
use millstream_engine::{Error, Result};

use super::item::{Item, Mapping};
use super::put::{Puts, REQUEST_ITEMS, REQUESTS};
use super::{FIRST_PAUSE, LONGEST_PAUSE};

impl Puts {
    /// Deletes items by their keys, which are all that they hold. One that is not there is no error.
    pub async fn delete(&self, mut items: Vec<Item>, mapping: &Mapping) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        while !items.is_empty() {
            let before = items.len();
            let requests: Vec<Vec<Item>> = items.chunks(REQUEST_ITEMS).map(<[Item]>::to_vec).collect();
            let sent = requests
                .into_iter()
                .map(|some| async move { self.delete_some(some, mapping).await });
            let left: Vec<Vec<Item>> = futures::stream::iter(sent)
                .buffer_unordered(REQUESTS)
                .try_collect()
                .await?;
            items = left.into_iter().flatten().collect();
            if items.len() == before {
                return Err(Error::retry(format!(
                    "DynamoDB table {:?} puts off {before} deletes, and took none",
                    self.table
                )));
            }
            if !items.is_empty() {
                tokio::time::sleep(pause).await;
                pause = Duration::min(pause * 2, LONGEST_PAUSE);
            }
        }
        Ok(())
    }

    /// The items that DynamoDB put off.
    async fn delete_some(&self, items: Vec<Item>, mapping: &Mapping) -> Result<Vec<Item>> {
        let writes = items.iter().map(|item| {
            let delete = DeleteRequest::builder().set_key(Some(item.attributes.clone()));
            let delete = delete
                .build()
                .map_err(|e| Error::bug(format!("an item without a key: {e}")))?;
            Ok(WriteRequest::builder().delete_request(delete).build())
        });
        let writes: Vec<WriteRequest> = writes.collect::<Result<_>>()?;
        let request = self.client.batch_write_item().request_items(&self.table, writes);
        let answer = request.send().await.map_err(|e| self.classify(e))?;
        let put_off = answer.unprocessed_items.unwrap_or_default();
        let put_off: HashSet<String> = put_off
            .values()
            .flatten()
            .filter_map(|write| Some(mapping.key_of(write.delete_request()?.key())))
            .collect();
        let left = items.into_iter().filter(|item| put_off.contains(&item.key));
        Ok(left.collect())
    }
}
