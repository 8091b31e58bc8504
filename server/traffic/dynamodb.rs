//! Days from a DynamoDB table with the key `ad_id` (S, hash), `day` (S, range).

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use millstream_engine::ErrorClass;
use millstream_operators::aws::{self, AwsOptions};

use super::request::{Page, Refusal};
use super::{Day, Store};

/// A table, and who may read it.
pub struct Table {
    client: Client,
    name: String,
}

impl Table {
    /// Makes no request.
    pub async fn open(name: &str, options: &AwsOptions) -> anyhow::Result<Table> {
        Ok(Table {
            client: aws::dynamodb(options).await?,
            name: name.into(),
        })
    }
}

#[async_trait]
impl Store for Table {
    async fn days(&self, page: &Page, limit: usize) -> Result<Vec<Day>, Refusal> {
        let text = |text: String| AttributeValue::S(text);
        // A hundred small items are far below the megabyte that one answer holds.
        let asked = self
            .client
            .query()
            .table_name(&self.name)
            .key_condition_expression("ad_id = :ad AND #day BETWEEN :first AND :last")
            .expression_attribute_names("#day", "day")
            .expression_attribute_values(":ad", text(page.ad.clone()))
            .expression_attribute_values(":first", text(page.first.to_string()))
            .expression_attribute_values(":last", text(page.last.to_string()))
            .scan_index_forward(true)
            .limit(limit as i32);
        let found = asked.send().await.map_err(|e| {
            let e = aws::classify(e, format_args!("reading DynamoDB table {:?}", self.name));
            match e.class() {
                ErrorClass::Config => Refusal::missing(format!("no traffic can be read: {e}")),
                _ => Refusal::unavailable(e),
            }
        })?;
        let days = found.items.unwrap_or_default();
        let days = days.iter().map(|item| {
            day(item).ok_or_else(|| {
                Refusal::missing(format!(
                    "items of DynamoDB table {:?} are not day (S), impressions (N), clicks (N)",
                    self.name
                ))
            })
        });
        days.collect()
    }
}

fn day(item: &HashMap<String, AttributeValue>) -> Option<Day> {
    let number = |name: &str| item.get(name)?.as_n().ok()?.parse().ok();
    Some(Day {
        day: item.get("day")?.as_s().ok()?.parse().ok()?,
        impressions: number("impressions")?,
        clicks: number("clicks")?,
    })
}
