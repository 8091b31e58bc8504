//! New objects as S3 tells of them over SQS: directly, over SNS or over EventBridge.
//!
//! A message is deleted once the objects it names are in a checkpoint, read or not: from then on the checkpoint knows of
//! them. What is not deleted comes again, and then names objects that are known. So a message may come twice, late, or
//! for an object that a listing has found before; only one that is lost altogether has to wait for the next listing.
//! A message that is none of S3's stays in the queue, for its dead-letter queue to take.

use std::collections::HashSet;
use std::sync::Mutex;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use futures::TryStreamExt;
use millstream_engine::source::{Offsets, PartitionId};
use millstream_engine::{Error, ErrorClass, Result};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::aws::{self, AwsOptions};

/// Messages of one request, the most that SQS gives and takes.
const MESSAGES: usize = 10;

/// A request waits so long for messages, in seconds; one that does not wait may miss some.
const WAIT: i32 = 1;

/// Objects that one look into the queue brings, about.
const ENOUGH: usize = 1_000;

/// Requests for deletion side by side.
const DELETES: usize = 16;

/// Messages that wait for a checkpoint, at most; the others stay in the queue.
const MOST_WAITING: usize = 10_000;

/// A queue that tells of new objects.
pub(super) struct Notices {
    url: String,
    aws: AwsOptions,
    client: OnceCell<Client>,
    waiting: Mutex<Vec<Waiting>>,
}

/// A message, and the objects that have to be in a checkpoint before it is deleted.
struct Waiting {
    receipt: String,
    objects: HashSet<PartitionId>,
}

/// A message and the keys that it names.
pub(super) struct Notice {
    pub receipt: String,
    pub keys: Vec<String>,
}

impl Notices {
    pub fn new(url: String, aws: AwsOptions) -> Notices {
        Notices {
            url,
            aws,
            client: OnceCell::new(),
            waiting: Mutex::default(),
        }
    }

    /// What there is to know of objects in a bucket.
    pub async fn receive(&self, bucket: &str) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let mut keys = 0;
        while keys < ENOUGH && self.lock().len() + notices.len() < MOST_WAITING {
            let request = self.client().await?.receive_message().queue_url(&self.url);
            let request = request
                .max_number_of_messages(MESSAGES as i32)
                .wait_time_seconds(WAIT);
            let got = request.send().await;
            let got = got.map_err(|e| aws::classify(e, format!("asking {}", self.url)))?;
            if got.messages().is_empty() {
                break;
            }
            for message in got.messages() {
                let (Some(receipt), Some(body)) = (message.receipt_handle(), message.body()) else {
                    continue;
                };
                let Some(named) = named(body) else {
                    let queue = &self.url;
                    tracing::warn!(
                        queue,
                        body,
                        "a message is not one of S3's; it is left in the queue"
                    );
                    continue;
                };
                let here = named.into_iter().filter(|(of, _)| of == bucket);
                let notice = Notice {
                    receipt: receipt.into(),
                    keys: here.map(|(_, key)| key).collect(),
                };
                keys += notice.keys.len();
                notices.push(notice);
            }
        }
        Ok(notices)
    }

    /// Keeps a message until the objects are in a checkpoint.
    pub fn keep(&self, receipt: String, objects: HashSet<PartitionId>) {
        self.lock().push(Waiting { receipt, objects });
    }

    /// Deletes the messages whose objects are all among `done`.
    pub async fn commit(&self, done: &Offsets) -> Result<()> {
        let receipts: Vec<String> = {
            let mut waiting = self.lock();
            for it in waiting.iter_mut() {
                it.objects.retain(|id| !done.contains_key(id));
            }
            let done = waiting.extract_if(.., |it| it.objects.is_empty());
            done.map(|it| it.receipt).collect()
        };
        let batches = futures::stream::iter(receipts.chunks(MESSAGES).map(Ok));
        batches
            .try_for_each_concurrent(DELETES, |receipts| self.delete(receipts))
            .await
    }

    /// Objects that need not be remembered any longer are in a checkpoint as good as others.
    pub fn forget(&self, forgotten: &[PartitionId]) {
        for it in self.lock().iter_mut() {
            it.objects.retain(|id| !forgotten.contains(id));
        }
    }

    /// A message that cannot be deleted now comes again, and is deleted then.
    async fn delete(&self, receipts: &[String]) -> Result<()> {
        let mut request = self.client().await?.delete_message_batch().queue_url(&self.url);
        for (n, receipt) in receipts.iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder();
            let entry = entry.id(n.to_string()).receipt_handle(receipt).build();
            request = request.entries(entry.map_err(|e| Error::bug(e.to_string()))?);
        }
        let deleted = request.send().await;
        match deleted.map_err(|e| aws::classify(e, format!("deleting messages of {}", self.url))) {
            Ok(_) => Ok(()),
            Err(e) if matches!(e.class(), ErrorClass::Retry { .. }) => {
                tracing::warn!(error = %e, "messages stay in the queue and will come again");
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting
            .lock()
            .expect("nothing panics while it holds the messages")
    }

    async fn client(&self) -> Result<&Client> {
        self.client.get_or_try_init(|| aws::sqs(&self.aws)).await
    }
}

/// The bucket and key of each object that a message says has been created; none where it is no message of S3's.
///
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>
fn named(body: &str) -> Option<Vec<(String, String)>> {
    match serde_json::from_str(body).ok()? {
        Body::Direct { records } => Some(records.into_iter().filter_map(Record::created).collect()),
        Body::EventBridge { kind, detail } => {
            let created = kind == "Object Created";
            Some(
                created
                    .then_some((detail.bucket.name, detail.object.key))
                    .into_iter()
                    .collect(),
            )
        }
        // Of SNS, around either of the others.
        Body::Wrapped { message } => named(&message),
        // Sent when notifications are set up.
        Body::Test { event } => (event == "s3:TestEvent").then(Vec::new),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Body {
    Direct {
        #[serde(rename = "Records")]
        records: Vec<Record>,
    },
    EventBridge {
        #[serde(rename = "detail-type")]
        kind: String,
        detail: Detail,
    },
    Wrapped {
        #[serde(rename = "Message")]
        message: String,
    },
    Test {
        #[serde(rename = "Event")]
        event: String,
    },
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventName")]
    name: String,
    s3: Detail,
}

#[derive(Deserialize)]
struct Detail {
    bucket: Bucket,
    object: Key,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

impl Record {
    /// Its key is encoded as in a form.
    fn created(self) -> Option<(String, String)> {
        let key = self.s3.object.key.replace('+', " ");
        let key = percent_decode_str(&key).decode_utf8().ok()?.into_owned();
        self.name
            .trim_start_matches("s3:")
            .starts_with("ObjectCreated:")
            .then_some((self.s3.bucket.name, key))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_of_every_kind_are_read() {
        let record = |event: &str, key: &str| {
            json!({"eventName": event, "eventTime": "2026-11-25T10:00:00.000Z",
                   "s3": {"bucket": {"name": "b"}, "object": {"key": key, "size": 3, "eTag": "e", "sequencer": "1"}}})
        };
        let direct = json!({"Records": [
            record("ObjectCreated:Put", "raw/a+b%2B.gz"),
            record("ObjectRemoved:Delete", "raw/c.gz"),
            record("ObjectCreated:CompleteMultipartUpload", "raw/d.gz"),
        ]});
        let bridge = json!({"version": "0", "detail-type": "Object Created", "source": "aws.s3",
            "detail": {"bucket": {"name": "b"}, "object": {"key": "raw/a+b.gz", "size": 3, "etag": "e"}}});
        let removed = json!({"detail-type": "Object Deleted",
            "detail": {"bucket": {"name": "b"}, "object": {"key": "raw/a"}}});
        let sns =
            |message: &serde_json::Value| json!({"Type": "Notification", "Message": message.to_string()});
        for (body, expect) in [
            (direct.clone(), Some("b/raw/a b+.gz b/raw/d.gz")),
            (sns(&direct), Some("b/raw/a b+.gz b/raw/d.gz")),
            (bridge.clone(), Some("b/raw/a+b.gz")),
            (sns(&bridge), Some("b/raw/a+b.gz")),
            (removed, Some("")),
            (
                json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}),
                Some(""),
            ),
            (json!({"Records": [{"kinesis": {}}]}), None),
            (json!({"hello": "world"}), None),
            (json!("text"), None),
        ] {
            let got = named(&body.to_string()).map(|named| {
                let named: Vec<String> = named.iter().map(|(b, k)| format!("{b}/{k}")).collect();
                named.join(" ")
            });
            assert_eq!(got.as_deref(), expect, "{body}");
        }
        assert!(named("no JSON").is_none());
    }
}
