//! What a notice says: one subject and text for mails, one JSON object for webhooks. Pure.

use millstream_engine::secret;
use serde_json::{Value, json};

use crate::catalog::model::Notice;

/// By which a receiver can tell that it has seen a notice before: the same however often it is sent. The job stands in
/// it because a new catalog counts from 1 again.
pub fn key(notice: &Notice) -> String {
    format!(
        "{}.{}.{}",
        text(&notice.job, "uuid"),
        notice.event.name(),
        notice.id
    )
}

/// The subject of the mail.
pub fn subject(notice: &Notice) -> String {
    format!("Millstream job {} status changed", text(&notice.job, "uuid"))
}

/// The text of the mail: a line per fact.
pub fn body(notice: &Notice, public_url: &str) -> String {
    let job = &notice.job;
    let facts = [
        ("uuid", text(job, "uuid")),
        ("status", notice.event.name().into()),
        ("log", text(job, "log_name")),
        ("schema version", text(job, "log_schema_version")),
        ("s3 path", text(job, "s3_path")),
        ("cluster", text(job, "redshift_id")),
        ("dates", dates(job)),
        ("at", notice.at.to_string()),
        ("link", link(notice, public_url)),
        ("extra", extra(job)),
    ];
    // A pipeline's job has no schema, path and cluster.
    let said = facts.iter().filter(|(_, fact)| !fact.is_empty());
    said.map(|(name, fact)| format!("{name}: {fact}\n")).collect()
}

/// The body of the webhook's request.
pub fn json(notice: &Notice, public_url: &str) -> Value {
    json!({
        "id": key(notice),
        "event": notice.event.name(),
        "at": notice.at.to_string(),
        "subject": subject(notice),
        "link": link(notice, public_url),
        "extra": extra(&notice.job),
        "job": secret::mask(&notice.job),
    })
}

/// The job's page of the console.
fn link(notice: &Notice, public_url: &str) -> String {
    let uuid = text(&notice.job, "uuid");
    format!("{}/loads/{uuid}", public_url.trim_end_matches('/'))
}

fn dates(job: &Value) -> String {
    let start = text(job, "start_date");
    match text(job, "end_date") {
        end if end.is_empty() => format!("from {start}"),
        end => format!("{start} to {end}"),
    }
}

/// How many dates are where, and what is wrong.
fn extra(job: &Value) -> String {
    let counts = &job["dates"];
    let count = |(key, word): (&str, &str)| {
        let dates = counts[key].as_u64().filter(|dates| *dates > 0)?;
        Some(format!("{dates} {word}"))
    };
    let words = [
        ("success", "loaded"),
        ("error", "failed"),
        ("running", "running"),
        ("waiting", "waiting"),
    ];
    let mut said: Vec<String> = words.into_iter().filter_map(count).collect();
    let error = text(job, "error");
    if !error.is_empty() {
        said.push(error);
    }
    said.join("; ")
}

/// A text member in one line: what is empty or absent says nothing.
fn text(of: &Value, member: &str) -> String {
    let text = of[member].as_str().unwrap_or_default();
    let words = text
        .split(char::is_control)
        .map(str::trim)
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub mod tests {
    use millstream_engine::time::Timestamp;

    use super::*;
    use crate::catalog::model::Event;

    /// A notice about a load with a failed date.
    pub fn notice() -> Notice {
        Notice {
            id: 7,
            at: Timestamp(1_796_000_000_000_000),
            event: Event::Error,
            job: json!({
                "uuid": "0b7e", "kind": "load", "log_name": "people", "log_schema_version": "2",
                "s3_path": "s3://logs/people", "start_date": "2026-11-01", "end_date": null, "redshift_id": "main",
                "contact_emails": ["a@example.com", "b@example.com"],
                "additional_arguments": {"api_token": "hidden"},
                "status": "error", "error": "2026-11-04:\nno such column",
                "dates": {"success": 3, "error": 1, "running": 0, "waiting": 2},
            }),
            state: crate::catalog::model::NoticeState::Pending,
            attempts: 0,
            progress: String::new(),
            error: None,
            next_try_at: Timestamp(0),
            done_at: None,
        }
    }

    #[test]
    fn a_mail_says_everything_in_lines() {
        let notice = notice();
        assert_eq!(subject(&notice), "Millstream job 0b7e status changed");
        let expected = "uuid: 0b7e\nstatus: error\nlog: people\nschema version: 2\ns3 path: s3://logs/people\n\
                        cluster: main\ndates: from 2026-11-01\nat: 2026-11-30T00:53:20Z\n\
                        link: https://mill.example/loads/0b7e\n\
                        extra: 3 loaded; 1 failed; 2 waiting; 2026-11-04: no such column\n";
        assert_eq!(body(&notice, "https://mill.example/"), expected);
    }

    #[test]
    fn a_webhook_gets_the_job_without_its_secrets() {
        let body = json(&notice(), "https://mill.example");
        assert_eq!(body["id"], "0b7e.error.7");
        assert_eq!(body["job"]["log_name"], "people");
        assert!(!body.to_string().contains("hidden"), "{body}");
    }

    #[test]
    fn a_pipeline_has_no_empty_lines() {
        let mut notice = notice();
        notice.job = json!({"uuid": "1", "log_name": "ads", "redshift_id": "", "start_date": "2026-11-01",
                            "end_date": "2026-11-02", "dates": {}});
        let body = body(&notice, "http://x");
        assert!(!body.contains("cluster") && !body.contains("extra"), "{body}");
        assert!(body.contains("dates: 2026-11-01 to 2026-11-02\n"), "{body}");
    }
}
