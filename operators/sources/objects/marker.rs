//! The object or file that says that a date is complete.

use millstream_engine::source::options;
use millstream_engine::{Error, Result};
use serde_json::Value;

use super::store::Store;
use crate::aws::AwsOptions;

/// What a date waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    url: String,
    aws: AwsOptions,
}

impl Marker {
    /// Of a pipeline with these `sources`, each its type and its options. An object is asked for where, and in whose name,
    /// its rows are read: as the `s3` source of its bucket says, else the first one, else as the environment does.
    ///
    /// # Errors
    /// The options are not those of a source that was checked.
    pub fn new<'a>(url: &str, sources: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Result<Marker> {
        let sources = sources.into_iter().filter(|(kind, _)| *kind == "s3");
        let all: Vec<&Value> = sources.map(|(_, options)| options).collect();
        let bucket = bucket_of(url);
        let reads_it = |of: &&&Value| bucket.is_some() && paths(of).any(|path| bucket_of(path) == bucket);
        let found = all.iter().find(reads_it).or(all.first());
        Ok(Marker {
            url: url.into(),
            aws: match found {
                Some(of) => options(of)?,
                None => AwsOptions::default(),
            },
        })
    }

    /// Whether it is there.
    ///
    /// # Errors
    /// It cannot be asked for.
    pub async fn exists(&self) -> Result<bool> {
        let Some(rest) = self.url.strip_prefix("s3://") else {
            let path = self.url.strip_prefix("file://").unwrap_or(&self.url);
            let there = tokio::fs::try_exists(path).await;
            return there.map_err(|e| Error::retry(format!("cannot look for {path}: {e}")));
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        // A folder that is written with a slash too many is the same folder.
        let key: Vec<&str> = key.split('/').filter(|part| !part.is_empty()).collect();
        let store = Store::s3(bucket.into(), self.aws.clone());
        Ok(store.head(&key.join("/")).await?.is_some())
    }
}

fn bucket_of(url: &str) -> Option<&str> {
    url.strip_prefix("s3://")?.split('/').next()
}

/// The paths of an `s3` source: one, or a list.
fn paths(of: &Value) -> impl Iterator<Item = &str> {
    let path = &of["path"];
    let many = path.as_array().into_iter().flatten();
    many.chain([path]).filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_asked_for_as_its_rows_are() {
        let role = "arn:aws:iam::123456789012:role/reader";
        let sources = [
            ("file", json!({ "path": "in" })),
            ("s3", json!({ "path": "s3://clicks/raw", "region": "eu-west-1" })),
            (
                "s3",
                json!({ "path": ["s3://logs/a", "s3://logs/b"], "assume_role": { "role_arn": role } }),
            ),
        ];
        let of = |url: &str, sources: &[(&str, Value)]| {
            let sources = sources.iter().map(|(kind, options)| (*kind, options));
            let aws = Marker::new(url, sources).expect("checked options").aws;
            (aws.region, aws.assume_role.map(|role| role.role_arn))
        };
        let (region, none) = (Some("eu-west-1".to_string()), (None, None));
        assert_eq!(of("s3://logs/a/COMPLETE", &sources), (None, Some(role.into())));
        assert_eq!(of("s3://clicks/raw/COMPLETE", &sources), (region.clone(), None));
        assert_eq!(of("s3://elsewhere/COMPLETE", &sources), (region, None));
        assert_eq!(of("s3://logs/a/COMPLETE", &sources[..1]), none);
    }
}
