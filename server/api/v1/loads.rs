//! New loads, and the loads of a log.

use axum::Json;
use axum::extract::{Path, State};
use millstream_engine::time::Timestamp;
use millstream_operators::sinks::redshift::Vacuum;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::v1::body::Body;
use crate::api::v1::fields::{Fields, name};
use crate::api::v1::mycroft;
use crate::catalog::model::{Job, JobKind, NewJob};
use crate::notify::settings::{contact, events};

/// The longest name of a log: with a version it still is a file's name.
pub const LOG_LENGTH: usize = 127;
/// The longest name of a version.
pub const VERSION_LENGTH: usize = 63;
/// Each contact is a mail per change.
const CONTACTS: usize = 20;
const FORMATS: [&str; 1] = ["json"];
/// The members of `additional_arguments`, and what each must be.
const ARGUMENTS: [(&str, &str); 8] = [
    ("available_after", "a time span such as \"48h\""),
    ("max_errors", "a number from 0"),
    ("force", "true or false"),
    ("parallelism", "a number from 1 to 64"),
    ("notify", "a list of events"),
    ("retention_days", "a number from 1 to 36500"),
    (
        "vacuum",
        "never, daily, or a day of the week such as \"saturday\"",
    ),
    ("analyze", "true or false"),
];

/// Makes a load.
pub async fn post(State(state): State<Shared>, Body(body): Body<Value>) -> Result<Json<Value>, ApiError> {
    let new = read(body)?;
    let catalog = state.catalog();
    catalog.cluster(&new.redshift_id).await?;
    catalog.schema(&new.log_name, &new.log_schema_version).await?;
    let uuid = catalog.post_job(new, Timestamp::now()).await?;
    let accepted = json!({ "post_accepted": { "result": true, "uuid": uuid } });
    Ok(Json(accepted))
}

/// The loads of a log.
pub async fn of_log(State(state): State<Shared>, Path(log): Path<String>) -> Result<Json<Value>, ApiError> {
    filtered(&state, |job| job.log_name == log).await
}

/// The loads of a log with a version of its schema.
pub async fn of_version(
    State(state): State<Shared>,
    Path((log, version)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    filtered(&state, |job| {
        job.log_name == log && job.log_schema_version == version
    })
    .await
}

async fn filtered(state: &Shared, wanted: impl Fn(&Job) -> bool) -> Result<Json<Value>, ApiError> {
    let mut jobs = state.catalog().jobs().await?;
    jobs.retain(wanted);
    Ok(Json(mycroft::jobs(&jobs)))
}

/// Reads a load.
fn read(body: Value) -> Result<NewJob, ApiError> {
    let mut fields = Fields::new(body)?;
    let log_name = fields.text("log_name");
    let log_schema_version = version(&mut fields);
    for (member, text, longest) in [
        ("log_name", &log_name, LOG_LENGTH),
        ("log_schema_version", &log_schema_version, VERSION_LENGTH),
    ] {
        if !text.is_empty() {
            let checked = name(text, longest);
            fields.checked(member, checked);
        }
    }
    let given = fields.text("s3_path");
    let s3_path = match given.is_empty() {
        true => given,
        false => fields.checked("s3_path", s3_path(&given)).unwrap_or_default(),
    };
    let start_date = fields.date("start_date");
    if start_date.is_none() && !fields.is_wrong("start_date") {
        fields.wrong("start_date", "is missing");
    }
    let end_date = fields.date("end_date");
    if let (Some(start), Some(end)) = (start_date, end_date)
        && end < start
    {
        fields.wrong("end_date", "is before start_date");
    }
    let log_format = fields
        .optional_text("log_format")
        .unwrap_or_else(|| FORMATS[0].into());
    if !FORMATS.contains(&log_format.as_str()) {
        fields.wrong("log_format", "must be json, one object per line");
    }
    let contact_emails = contacts(&mut fields);
    let redshift_id = fields.text("redshift_id");
    let additional_arguments = arguments(&mut fields);
    fields.end()?;
    Ok(NewJob {
        kind: JobKind::Load,
        log_name,
        log_schema_version,
        s3_path,
        // Without one there was a problem.
        start_date: start_date.unwrap_or_default(),
        end_date,
        contact_emails,
        log_format,
        redshift_id,
        additional_arguments,
    })
}

/// Versions are text; a number is taken for what it looks like.
fn version(fields: &mut Fields) -> String {
    fields.number_as_text("log_schema_version");
    fields.text("log_schema_version")
}

/// `s3://bucket/prefix` with single slashes and none at the end.
fn s3_path(given: &str) -> Result<String, String> {
    let wrong =
        || format!("{given:?} is no prefix; write s3://bucket/path, under which the folders of dates lie");
    let path = given.strip_prefix("s3://").ok_or_else(wrong)?;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() || path.starts_with('/') || path.contains(['?', '*', '$', '\\', '"']) {
        return Err(wrong());
    }
    Ok(format!("s3://{}", parts.join("/")))
}

/// A list, or text with commas as Mycroft's console sent it.
fn contacts(fields: &mut Fields) -> Vec<String> {
    let given = match fields.take("contact_emails") {
        None => Vec::new(),
        Some(Value::String(text)) => text.split(',').map(|one| json!(one)).collect(),
        Some(Value::Array(all)) => all,
        Some(_) => {
            fields.wrong("contact_emails", "must be a list of mail addresses");
            Vec::new()
        }
    };
    if given.len() > CONTACTS {
        fields.wrong("contact_emails", "holds more than 20 addresses; write to a list");
    }
    let mut addresses = Vec::new();
    for one in given {
        match one.as_str().map(str::trim) {
            None => fields.wrong("contact_emails", "must be a list of mail addresses"),
            Some("") => {}
            Some(text) => {
                let checked = contact(text);
                addresses.extend(fields.checked("contact_emails", checked).map(|a| a.to_string()));
            }
        }
    }
    addresses.dedup();
    addresses
}

fn arguments(fields: &mut Fields) -> Map<String, Value> {
    let mut arguments = match fields.take("additional_arguments") {
        None => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(Value::String(text)) => {
            let read = mycroft::arguments(&text);
            fields.checked("additional_arguments", read).unwrap_or_default()
        }
        Some(_) => {
            fields.wrong("additional_arguments", "must be an object");
            Map::new()
        }
    };
    // Mycroft's name.
    if let Some(days) = arguments.remove("ttl_days") {
        arguments.entry("retention_days").or_insert(days);
    }
    for (key, value) in &arguments {
        let at = format!("additional_arguments.{key}");
        let known = ARGUMENTS.iter().find(|(name, _)| name == key);
        match known {
            None => {
                let names = ARGUMENTS.map(|(name, _)| name).join(", ");
                fields.wrong(&at, &format!("there is no such argument; there are {names}"));
            }
            Some(_) if key == "notify" => {
                fields.checked(&at, events(value));
            }
            Some((_, must_be)) if !fits(key, value) => fields.wrong(&at, &format!("must be {must_be}")),
            Some(_) => {}
        }
    }
    arguments
}

fn fits(key: &str, value: &Value) -> bool {
    match key {
        "available_after" => value
            .as_str()
            .is_some_and(|text| humantime::parse_duration(text).is_ok()),
        "max_errors" => value.as_u64().is_some(),
        "retention_days" => value.as_u64().is_some_and(|n| (1..=36_500).contains(&n)),
        "vacuum" => Vacuum::deserialize(value).is_ok(),
        "parallelism" => value.as_u64().is_some_and(|n| (1..=64).contains(&n)),
        _ => value.is_boolean(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_are_normalised() {
        let cases = [
            ("s3://logs/app", Some("s3://logs/app")),
            ("s3://logs/app/", Some("s3://logs/app")),
            ("s3://logs//app///v1//", Some("s3://logs/app/v1")),
            ("s3://logs", Some("s3://logs")),
            ("s3:///app", None),
            ("s3://", None),
            ("logs/app", None),
            ("https://logs/app", None),
            ("s3://logs/${HOME}", None),
        ];
        for (given, meant) in cases {
            assert_eq!(s3_path(given).ok().as_deref(), meant, "{given}");
        }
    }
}
