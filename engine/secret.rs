//! Secrets: the type of text that is never printed, and what of other texts is hidden where they are shown.
//!
//! Everything that is shown may end up on a screen or in a ticket. A secret is told by its type, by the name of the
//! option or variable that holds it, or as a part of a URL; a password that stands anywhere else is not seen.
//!
//! Code that handles a secret keeps it out of its messages itself. [`Secrets`] is for texts of others: the line of a file
//! that is quoted, and what a library logs.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What stands in place of a secret.
pub const MASK: &str = "***";

/// Parts of names whose values are secrets.
const NAMES: [&str; 14] = [
    "token",
    "password",
    "passwd",
    "passphrase",
    "pgpass",
    "secret",
    "authorization",
    "credential",
    "headers",
    "api_key",
    "access_key",
    "private_key",
    "signature",
    "external_id",
];

/// Options whose URL carries secrets in its path, too, as those of webhooks do.
const ADDRESSES: [&str; 2] = ["url", "webhook"];

/// Text that is never printed: it may hold a token.
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

impl Secret {
    /// A secret that says `text`.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// What it says, for those who must send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not printed)")
    }
}

/// Texts that are hidden wherever they stand in others.
#[derive(Clone, Default)]
pub struct Secrets(Vec<String>);

/// Shorter texts stand in others by chance, and are no secrets worth the name.
const SHORTEST: usize = 6;

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} not printed)", self.0.len())
    }
}

impl Secrets {
    /// The secrets in the environment, told by the names of the variables. What only names a file is none.
    pub fn of_environment() -> Secrets {
        let mut secrets = Secrets::default();
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if is_secret(&name) && !name.ends_with("_FILE") {
                secrets.add(&value.to_string_lossy());
            }
        }
        secrets
    }

    /// Adds what `text` says, as it is and as messages quote it.
    pub fn add(&mut self, text: &str) {
        for line in text.lines().map(str::trim) {
            self.put(line);
            self.put(&line.escape_debug().to_string());
            // Libraries take a URL to pieces.
            let Some((_, rest)) = line.split_once("://") else {
                continue;
            };
            let authority = authority(rest);
            self.put(&rest[authority.len()..]);
            if let Some((user, _)) = authority.rsplit_once('@') {
                self.put(user);
                self.put(user.split_once(':').map_or("", |(_, password)| password));
            }
        }
        // What contains another is hidden first.
        self.0.sort_by_key(|known| std::cmp::Reverse(known.len()));
    }

    fn put(&mut self, text: &str) {
        if text.len() >= SHORTEST && !self.0.iter().any(|known| known == text) {
            self.0.push(text.into());
        }
    }

    /// Takes those of others.
    pub fn extend(&mut self, others: &Secrets) {
        others.0.iter().for_each(|text| self.add(text));
    }

    /// `text` with `***` in place of secrets and of the users of URLs.
    pub fn hide(&self, text: &str) -> String {
        self.replace(text, |_| MASK.into())
    }

    /// As [`Secrets::hide`], and as wide as before.
    pub fn cover(&self, text: &str) -> String {
        self.replace(text, |secret| "*".repeat(secret.chars().count()))
    }

    fn replace(&self, text: &str, with: impl Fn(&str) -> String) -> String {
        let mut text = text.to_owned();
        for secret in self
            .0
            .iter()
            .filter(|s| text.contains(s.as_str()))
            .collect::<Vec<_>>()
        {
            text = text.replace(secret.as_str(), &with(secret));
        }
        let mut done = 0;
        while let Some(start) = text[done..].find("://").map(|at| done + at + 3) {
            let end = text[start..].find(['/', '?', '#', '"', '\'', '`', ' ', '\n', ',', ')']);
            let authority = &text[start..end.map_or(text.len(), |at| start + at)];
            done = start;
            if let Some(at) = authority.rfind('@') {
                let user = with(&authority[..at]);
                text.replace_range(start..start + at, &user);
                done = start + user.len();
            }
        }
        text
    }
}

/// Whether a name is that of a secret.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    NAMES.iter().any(|s| name.contains(s))
}

/// Options without what looks like a secret: by the name of the key, or as part of a URL.
pub fn mask(options: &Value) -> Value {
    match options {
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| (key.clone(), mask_option(key, value));
            Value::Object(members.iter().map(member).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(mask).collect()),
        Value::String(text) => Value::String(mask_url(text)),
        other => other.clone(),
    }
}

fn mask_option(key: &str, value: &Value) -> Value {
    match value {
        _ if is_secret(key) => json!(MASK),
        Value::String(text) if ADDRESSES.contains(&key) => json!(mask_path(text)),
        value => mask(value),
    }
}

/// `https://user:pass@host/?token=x&page=1` as `https://***@host/?token=***&page=1`.
pub fn mask_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let path = match authority(path).rfind('@') {
        Some(at) => format!("{MASK}{}", &path[at..]),
        None => path.to_owned(),
    };
    let parameter = |p: &str| match p.split_once('=') {
        Some((key, _)) if is_secret(key.trim_start_matches('?')) => format!("{key}={MASK}"),
        _ => p.to_owned(),
    };
    let query: Vec<String> = query.split('&').map(parameter).collect();
    format!("{scheme}://{path}{}", query.join("&"))
}

/// `https://user:pass@host/path?page=1` as `https://***@host/***`; text that is no URL is hidden whole.
fn mask_path(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return MASK.into();
    };
    let authority = authority(rest);
    let path = match rest[authority.len()..].trim_start_matches('/') {
        "" => "",
        _ => "/***",
    };
    mask_url(&format!("{scheme}://{authority}")) + path
}

/// The user, host and port of a URL whose scheme has been taken away.
fn authority(rest: &str) -> &str {
    &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        let options = json!({
            "path": "/clicks",
            "link": "https://user:p@ss@example.com/hook?token=1&page=2",
            "plain": "s3://bucket/a@b",
            "headers": { "Authorization": "Bearer x" },
            "auth": [{ "API-Key": "x", "partition_key": "ad_id" }],
            "bearer_token": "x",
            "assume_role": { "role_arn": "arn:aws:iam::123456789012:role/x", "external_id": "x" },
        });
        let expect = json!({
            "path": "/clicks",
            "link": "https://***@example.com/hook?token=***&page=2",
            "plain": "s3://bucket/a@b",
            "headers": "***",
            "auth": [{ "API-Key": "***", "partition_key": "ad_id" }],
            "bearer_token": "***",
            "assume_role": { "role_arn": "arn:aws:iam::123456789012:role/x", "external_id": "***" },
        });
        assert_eq!(mask(&options), expect);
    }

    #[test]
    fn secrets_are_hidden_in_texts_of_others() {
        let mut secrets = Secrets::default();
        secrets.add("hunter2-hunter2");
        secrets.add("a \"quoted\" one");
        secrets.add("short");
        let text = r#"x=hunter2-hunter2; "a \"quoted\" one" at http://u:p@h/a@b, http://h/ and short s3://b"#;
        let hidden = r#"x=***; "***" at http://***@h/a@b, http://h/ and short s3://b"#;
        assert_eq!(secrets.hide(text), hidden);
        assert_eq!(
            secrets.cover("k = \"hunter2-hunter2\" # é"),
            "k = \"***************\" # é"
        );
        assert_eq!(secrets.cover("http://us:pw@h"), "http://*****@h");
        assert_eq!(format!("{secrets:?}"), "(3 not printed)");
    }

    #[test]
    fn of_a_webhook_the_host_is_shown() {
        for (url, shown) in [
            (
                "https://hooks.example.com:8443/services/T0/x?y=1",
                "https://hooks.example.com:8443/***",
            ),
            ("https://user:p@ss@example.com?y=1", "https://***@example.com/***"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("hooks.example.com/services", "***"),
        ] {
            assert_eq!(mask(&json!({ "url": url })), json!({ "url": shown }));
        }
        assert_eq!(format!("{:?}", Secret::new("x")), "(not printed)");
    }
}
