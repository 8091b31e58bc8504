//! A put into a Kinesis or Firehose stream of which some records are refused: they never reach the service, and its
//! answer is made to say so.

use std::io::{Error, Result};

use serde_json::{Value, json};

/// Every record with this remainder by three is refused, so that the first of a put can be, and rows in its middle.
const REFUSED: usize = 0;

/// What a service answers a request with that goes over the throughput of a stream.
pub fn throttled() -> String {
    refused("ProvisionedThroughputExceededException")
}

/// The answer to what is refused with an error by this name.
pub fn refused(error: &str) -> String {
    let body = json!({"__type": error, "message": "slow down"}).to_string();
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/x-amz-json-1.1\r\nconnection: close";
    format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Has `forward` make the part of a put that is let through; gives the answer to the whole. What is no put of records
/// passes as it is.
pub fn put(request: &[u8], forward: impl Fn(&[u8]) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let (head, mut body) = split(request)?;
    let all = body["Records"].as_array().cloned().unwrap_or_default();
    let passing: Vec<Value> = all
        .iter()
        .enumerate()
        .filter(|(number, _)| number % 3 != REFUSED)
        .map(|(_, record)| record.clone())
        .collect();
    if all.is_empty() {
        return forward(request);
    }
    let (kind, mut answered) = match passing.is_empty() {
        true => (
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\nconnection: close".into(),
            Vec::new(),
        ),
        false => {
            body["Records"] = passing.into();
            let answer = forward(&join(&head, &body))?;
            let (head, answer) = split(&answer)?;
            let results = answer["Records"]
                .as_array()
                .or(answer["RequestResponses"].as_array());
            // Not a put that went well: that is then the answer.
            let Some(results) = results.cloned() else {
                return Ok(join(&head, &answer));
            };
            (head, results)
        }
    };
    answered.reverse();
    let results: Vec<Value> = (0..all.len())
        .filter_map(|number| match number % 3 != REFUSED {
            true => answered.pop(),
            false => Some(
                json!({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"}),
            ),
        })
        .collect();
    let failed = results.iter().filter(|r| r["ErrorCode"].is_string()).count();
    let answer = match head.contains("Firehose") {
        true => json!({"FailedPutCount": failed, "RequestResponses": results}),
        false => json!({"FailedRecordCount": failed, "Records": results}),
    };
    Ok(join(&kind, &answer))
}

/// Head, and body as JSON; null where it is none.
fn split(message: &[u8]) -> Result<(String, Value)> {
    let at = message.windows(4).position(|four| four == b"\r\n\r\n");
    let at = at.ok_or_else(|| Error::other("a message without an end to its head"))?;
    let head = String::from_utf8_lossy(&message[..at]).into_owned();
    Ok((
        head,
        serde_json::from_slice(&message[at + 4..]).unwrap_or_default(),
    ))
}

fn join(head: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let kept = head.split("\r\n").filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !["content-length", "transfer-encoding"].contains(&name.to_ascii_lowercase().as_str())
    });
    let head: Vec<&str> = kept.collect();
    format!(
        "{}\r\ncontent-length: {}\r\n\r\n{body}",
        head.join("\r\n"),
        body.len()
    )
    .into_bytes()
}
