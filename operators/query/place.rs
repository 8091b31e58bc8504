//! Where tables are: a directory, or a prefix of a bucket.

use std::path::Path as FilePath;
use std::sync::Arc;

use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::path::Path;
use datafusion::object_store::{ListResult, ObjectStore};
use millstream_engine::{Error, Result};

use super::s3::Bucket;
use crate::aws::{self, AwsOptions};

/// A directory of a disk or a bucket.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// As it was given.
    pub name: String,
    pub store: Arc<dyn ObjectStore>,
    /// Where it is in the store.
    pub root: Path,
}

impl Place {
    pub async fn open(url: &str) -> Result<Place> {
        match url.split_once("://") {
            Some(("s3", rest)) => Place::bucket(url, rest).await,
            Some((scheme, _)) => Err(Error::config(format!(
                "{url:?} begins with {scheme}://, which is not known; write a directory or s3://bucket/prefix"
            ))),
            None => Place::directory(url),
        }
    }

    async fn bucket(url: &str, rest: &str) -> Result<Place> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err(Error::config(format!(
                "{url:?} names no bucket; write s3://bucket/prefix"
            )));
        }
        let options = AwsOptions::from_query(query)?;
        options.check()?;
        let root = Path::parse(prefix.trim_matches('/'));
        Ok(Place {
            name: format!("s3://{place}"),
            store: Arc::new(Bucket::new(aws::s3(&options).await?, bucket)),
            root: root.map_err(|e| Error::config(format!("{url:?}: {e}")))?,
        })
    }

    fn directory(path: &str) -> Result<Place> {
        if !FilePath::new(path).is_dir() {
            return Err(Error::config(format!(
                "there is no directory {path:?}; name the one that a pipeline's parquet sinks write to"
            )));
        }
        let store = LocalFileSystem::new_with_prefix(path);
        Ok(Place {
            name: path.into(),
            store: Arc::new(store.map_err(|e| Error::config(format!("cannot read {path:?}: {e}")))?),
            root: Path::default(),
        })
    }

    /// What is in a directory: its own directories, and its files. Hidden ones are not for readers.
    pub async fn list(&self, at: &Path) -> Result<ListResult> {
        let listed = self.store.list_with_delimiter(Some(at)).await;
        let mut found = listed.map_err(|e| failed(&format!("listing {}", self.url(at)), e))?;
        let shown = |path: &Path| !path.filename().unwrap_or_default().starts_with(['.', '_']);
        found.common_prefixes.retain(shown);
        found
            .objects
            .retain(|object| shown(&object.location) && object.size > 0);
        found.common_prefixes.sort();
        found.objects.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    /// What people call a path of the store.
    pub fn url(&self, at: &Path) -> String {
        let rest = at.as_ref().strip_prefix(self.root.as_ref()).unwrap_or_default();
        format!(
            "{}/{}",
            self.name.trim_end_matches('/'),
            rest.trim_start_matches('/')
        )
    }
}

/// An error of a store: ours where it comes from S3, else the disk's.
pub(super) fn failed(doing: &str, e: datafusion::object_store::Error) -> Error {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(&e);
    while let Some(cause) = at {
        if let Some(ours) = cause.downcast_ref::<Error>() {
            let message = format!("{doing}: {ours}");
            return match ours {
                Error::Retry { .. } => Error::retry(message),
                _ => Error::config(message),
            };
        }
        at = cause.source();
    }
    Error::config(format!("{doing}: {e}"))
}
