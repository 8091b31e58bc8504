//! What a server's answer means for the rows of a request.
//!
//! Three fates, because the proof of exactly-once needs them apart: *acked* rows must be in the lake once,
//! *refused* rows (4xx, 5xx, or failed one by one) must not be there, and *unknown* rows (no answer, or none
//! that can be read) may be there once.

use std::time::Duration;

use serde::Deserialize;

/// The fate of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 200: taken, except the rows at these indexes.
    Acked {
        /// Indexes of the rows the server failed one by one, ascending.
        refused: Vec<u32>,
    },
    /// 4xx or 5xx: nothing was taken.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The answer, shortened.
        reason: String,
        /// The server's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// Nobody can say from here.
    Unknown {
        /// What happened.
        reason: String,
    },
}

impl Outcome {
    /// An outcome of which nothing is known because of `reason`.
    pub fn unknown(reason: impl Into<String>) -> Outcome {
        Outcome::Unknown {
            reason: reason.into(),
        }
    }

    /// True when sending the same rows again could help: the server was busy or broken, or never answered.
    pub fn may_retry(&self) -> bool {
        match self {
            Outcome::Acked { .. } => false,
            Outcome::Refused { status, .. } => *status == 429 || *status >= 500,
            Outcome::Unknown { .. } => true,
        }
    }

    /// True for the answers that ask for less: 429 and 503.
    pub fn is_backpressure(&self) -> bool {
        matches!(
            self,
            Outcome::Refused {
                status: 429 | 503,
                ..
            }
        )
    }
}

/// Characters of an answer that are worth keeping as the reason.
const REASON_CHARS: usize = 160;

#[derive(Deserialize)]
struct Reply {
    failed_count: usize,
    #[serde(default)]
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    failed: bool,
}

/// Reads the answer to a request of `rows` rows. `retry_after` is the header's text.
pub fn read(status: u16, retry_after: Option<&str>, body: &[u8], rows: usize) -> Outcome {
    match status {
        200 if none_failed(body) => Outcome::Acked { refused: Vec::new() },
        200 => read_records(body, rows),
        400..=599 => Outcome::Refused {
            status,
            reason: format!("{status} {}", excerpt(body)),
            retry_after: retry_after
                .and_then(|text| text.trim().parse().ok())
                .map(Duration::from_secs),
        },
        _ => Outcome::unknown(format!("status {status}, which is neither 200 nor an error")),
    }
}

/// The answer of nearly every request, recognised without parsing it.
fn none_failed(body: &[u8]) -> bool {
    let rest = body.strip_prefix(b"{\"failed_count\":0");
    rest.is_some_and(|rest| matches!(rest.first(), Some(b',' | b'}')) && body.ends_with(b"}"))
}

fn read_records(body: &[u8], rows: usize) -> Outcome {
    let reply: Reply = match serde_json::from_slice(body) {
        Ok(reply) => reply,
        Err(error) => {
            return Outcome::unknown(format!(
                "200 with an unreadable body ({error}): {}",
                excerpt(body)
            ));
        }
    };
    let failed = reply
        .records
        .iter()
        .enumerate()
        .filter(|(_, record)| record.failed);
    let refused: Vec<u32> = failed.map(|(index, _)| index as u32).collect();
    let counted = reply.records.len();
    if reply.failed_count != refused.len() || (reply.failed_count > 0 && counted != rows) {
        let failed = reply.failed_count;
        let named = refused.len();
        return Outcome::unknown(format!(
            "200 that contradicts itself: failed_count {failed}, {named} failed of {counted} records for {rows} rows"
        ));
    }
    Outcome::Acked { refused }
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_what_they_mean() {
        let acked = |refused: &[u32]| {
            Some(Outcome::Acked {
                refused: refused.to_vec(),
            })
        };
        let cases = [
            (200, r#"{"failed_count":0}"#, acked(&[])),
            (
                200,
                r#"{"failed_count":0,"records":[{"failed":false},{"failed":false}]}"#,
                acked(&[]),
            ),
            (200, r#"{ "records": [], "failed_count": 0 }"#, acked(&[])),
            (
                200,
                r#"{"failed_count":1,"records":[{"failed":false},{"failed":true,"error_code":"x"}]}"#,
                acked(&[1]),
            ),
            (200, r#"{"failed_count":1,"records":[{"failed":true}]}"#, None),
            (
                200,
                r#"{"failed_count":2,"records":[{"failed":true},{"failed":false}]}"#,
                None,
            ),
            (200, r#"{"failed_count":0,"records":[{"fai"#, None),
            (200, r#"{"failed_count":01}"#, None),
            (200, "[]", None),
            (200, "", None),
            (204, "", None),
            (302, r#"{"failed_count":0}"#, None),
        ];
        for (status, body, want) in cases {
            let got = read(status, None, body.as_bytes(), 2);
            match want {
                Some(want) => assert_eq!(got, want, "{status} {body}"),
                None => assert!(matches!(got, Outcome::Unknown { .. }), "{status} {body}: {got:?}"),
            }
        }
    }

    #[test]
    fn errors_are_refusals_with_their_reason() {
        let got = read(503, Some("2"), br#"{"error":"busy"}"#, 1);
        let retry_after = Some(Duration::from_secs(2));
        let reason = r#"503 {"error":"busy"}"#.to_owned();
        assert_eq!(
            got,
            Outcome::Refused {
                status: 503,
                reason,
                retry_after
            }
        );
        assert!(got.may_retry() && got.is_backpressure());
        let bad = read(400, None, b"no", 1);
        assert!(!bad.may_retry() && !bad.is_backpressure());
    }
}
