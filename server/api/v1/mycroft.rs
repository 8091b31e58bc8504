//! What Mycroft's clients call things: members of answers beside our own, and requests in their words.

use millstream_engine::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::catalog::model::{Job, Run};

/// A job, with the names that Mycroft has for what is in it.
pub fn job(job: &Job) -> Value {
    with(json!(job), json!({ "et_status": job.status }))
}

/// Jobs.
pub fn jobs(jobs: &[Job]) -> Value {
    json!({ "jobs": jobs.iter().map(job).collect::<Vec<_>>() })
}

/// A run of a job, with the names that Mycroft has for what is in it.
pub fn run(job: &Job, run: &Run) -> Value {
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let aliases = json!({
        "job_id": job.uuid,
        "redshift_id": job.redshift_id,
        "s3_path": job.s3_path,
        "data_date": run.date.to_string(),
        "etl_status": run.status,
        "etl_error": run.error,
        "et_starttime": time(run.et_started_at),
        "et_runtime": run.et_seconds,
        "load_starttime": time(run.load_started_at),
        "load_runtime": run.load_seconds,
        "run_by": run.worker,
    });
    with(json!(run), aliases)
}

fn with(mut of: Value, more: Value) -> Value {
    if let (Value::Object(members), Value::Object(more)) = (&mut of, more) {
        members.extend(more);
    }
    of
}

/// Arguments that came as text, as Mycroft's do: `{"et_step": ["--force-et"], "load_step": ["--ttl-days", "30"]}`.
///
/// # Errors
/// The text holds no object, or says what means nothing here.
pub fn arguments(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let read = serde_json::from_str(text).map_err(|error| format!("holds no JSON object: {error}"))?;
    let Value::Object(mut members) = read else {
        return Err("holds no JSON object".into());
    };
    for step in ["et_step", "load_step"] {
        let words = members.remove(step);
        let words = words.as_ref().and_then(Value::as_array);
        let mut words = words.into_iter().flatten().map(|word| match word {
            Value::String(word) => word.clone(),
            other => other.to_string(),
        });
        while let Some(word) = words.next() {
            let (name, value) = match (step, word.as_str()) {
                ("et_step", "--force-et") => ("force", json!(true)),
                ("load_step", "--ttl-days") => {
                    let days = words.next().unwrap_or_default();
                    let days = days.parse::<u32>();
                    let days = days.map_err(|_| "load_step: --ttl-days must be followed by a number")?;
                    ("retention_days", json!(days))
                }
                _ => {
                    return Err(format!(
                        "{step}: there is no {word:?} here; there are --force-et in et_step and --ttl-days in load_step"
                    ));
                }
            };
            members.insert(name.into(), value);
        }
    }
    Ok(members)
}
