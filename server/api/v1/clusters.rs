//! Clusters: the warehouses that loads go to.
//!
//! A password never comes here: the cluster names the environment variable that holds it.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::v1::body::Body;
use crate::api::v1::fields::Fields;
use crate::catalog::model::{Cluster, ipv6};

/// Mycroft's limit, and Redshift's for its own identifiers.
const NAME_LENGTH: usize = 63;
/// Mycroft's: ports below belong to other services.
const LOWEST_PORT: u16 = 1000;
/// How variables with passwords begin. Whoever may register a cluster says where a password is sent, and must not be able
/// to send another secret of the process there.
const PASSWORDS: &str = "WAREHOUSE_";
const DIALECTS: [&str; 2] = ["redshift", "postgres"];

/// All clusters.
pub async fn list(State(state): State<Shared>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "clusters": state.catalog().clusters().await? })))
}

/// One.
pub async fn one(State(state): State<Shared>, Path(name): Path<String>) -> Result<Json<Cluster>, ApiError> {
    Ok(Json(state.catalog().cluster(&name).await?))
}

/// Registers one.
pub async fn post(State(state): State<Shared>, Body(body): Body<Value>) -> Result<Json<Value>, ApiError> {
    let cluster = read(body, None)?;
    state.catalog().post_cluster(cluster).await?;
    Ok(Json(json!({ "post_accepted": true })))
}

/// Changes one, as a whole.
pub async fn put(
    State(state): State<Shared>,
    Path(name): Path<String>,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let cluster = read(body, Some(&name))?;
    state.catalog().put_cluster(cluster).await?;
    Ok(Json(json!({ "put_accepted": true })))
}

/// Forgets one that no job loads into.
pub async fn delete(State(state): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    state.catalog().delete_cluster(&name).await?;
    Ok(Json(json!({ "delete_accepted": true })))
}

/// Reads a cluster. `named`: what the address says, which need not be said again.
fn read(body: Value, named: Option<&str>) -> Result<Cluster, ApiError> {
    let mut fields = Fields::new(body)?;
    let redshift_id = match named {
        None => fields.text("redshift_id"),
        Some(named) => {
            if fields
                .optional_text("redshift_id")
                .is_some_and(|other| other != named)
            {
                fields.wrong("redshift_id", "cannot be changed");
            }
            named.to_owned()
        }
    };
    if !redshift_id.is_empty() && !is_name(&redshift_id) {
        fields.wrong(
            "redshift_id",
            "must be letters and digits, with single - between them, a letter first, 2 to 63",
        );
    }
    let dialect = fields
        .optional_text("dialect")
        .unwrap_or_else(|| DIALECTS[0].into());
    if !DIALECTS.contains(&dialect.as_str()) {
        fields.wrong("dialect", "must be redshift or postgres");
    }
    let host = fields.text("host");
    if host.contains(['/', '@', ':', '?', ' ', '%', ',', '[', ']']) && ipv6(&host).is_none() {
        fields.wrong(
            "host",
            "must be a host's name or address alone; port, user and database have members of their own",
        );
    }
    let cluster = Cluster {
        port: port(&mut fields, &dialect),
        database: fields.text("database"),
        user: fields.text("user"),
        password_env: password_env(&mut fields),
        namespace: fields
            .optional_text("namespace")
            .unwrap_or_else(|| "public".into()),
        staging: staging(&mut fields, &dialect),
        iam_role: iam_role(&mut fields),
        tls: tls(&mut fields),
        redshift_id,
        dialect,
        host,
    };
    fields.end()?;
    Ok(cluster)
}

fn port(fields: &mut Fields, dialect: &str) -> u16 {
    let Some(given) = fields.take("port") else {
        return if dialect == "postgres" { 5432 } else { 5439 };
    };
    let number = given.as_u64().or_else(|| given.as_str()?.parse().ok());
    let port = number.and_then(|port| u16::try_from(port).ok());
    match port.filter(|port| *port >= LOWEST_PORT) {
        Some(port) => port,
        None => {
            fields.wrong("port", "must be a number from 1000 to 65535");
            0
        }
    }
}

fn password_env(fields: &mut Fields) -> Option<String> {
    if fields.forbidden("password") {
        fields.wrong(
            "password",
            "is not taken; set an environment variable for the process and name it in password_env",
        );
    }
    let name = fields.optional_text("password_env")?;
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.starts_with(PASSWORDS) || !name.chars().all(good) {
        fields.wrong(
            "password_env",
            "must be the name of an environment variable that begins with WAREHOUSE_, such as WAREHOUSE_PASSWORD",
        );
    }
    Some(name)
}

fn staging(fields: &mut Fields, dialect: &str) -> Option<String> {
    let staging = fields.optional_text("staging");
    match &staging {
        Some(url) if !url.starts_with("s3://") => fields.wrong("staging", "must be s3://bucket/prefix"),
        None if dialect == "redshift" => {
            fields.wrong(
                "staging",
                "is missing; Redshift reads rows from s3://bucket/prefix",
            );
        }
        _ => {}
    }
    staging
}

fn iam_role(fields: &mut Fields) -> Option<String> {
    let role = fields.optional_text("iam_role")?;
    if role != "default" && !role.starts_with("arn:") {
        fields.wrong("iam_role", "must be a role's ARN, or default");
    }
    Some(role)
}

fn tls(fields: &mut Fields) -> Option<bool> {
    let given = fields.take("tls")?;
    if given.as_bool().is_none() {
        fields.wrong("tls", "must be true or false");
    }
    given.as_bool()
}

/// `^[a-zA-Z](-?[a-zA-Z0-9])+$`.
fn is_name(text: &str) -> bool {
    let mut parts = text.split('-');
    let first = parts.next().unwrap_or_default();
    let alphanumeric = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric());
    first.starts_with(|c: char| c.is_ascii_alphabetic())
        && alphanumeric(first)
        && parts.all(alphanumeric)
        && (2..=NAME_LENGTH).contains(&text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_pattern() {
        let long = format!("a{}", "b".repeat(NAME_LENGTH));
        for good in ["ab", "a-1", "Main", "a-b-c9", &long[..NAME_LENGTH]] {
            assert!(is_name(good), "{good}");
        }
        for wrong in ["", "a", "1a", "-a", "a-", "a--b", "a_b", "a.b", "ä1", &long] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
