//! A bucket as DataFusion reads it, over our own client. It is never written to.

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use chrono::Utc;
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use crate::aws;

const STORE: &str = "S3";

/// One bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    client: Client,
    name: String,
}

impl Bucket {
    pub fn new(client: Client, name: &str) -> Bucket {
        Bucket {
            client,
            name: name.into(),
        }
    }

    fn url(&self, of: &Path) -> String {
        format!("s3://{}/{of}", self.name)
    }

    async fn head(&self, of: &Path) -> Result<GetResult> {
        let asked = self
            .client
            .head_object()
            .bucket(&self.name)
            .key(of.as_ref())
            .send()
            .await;
        let found = asked.map_err(|e| self.failed(of, e))?;
        let meta = ObjectMeta {
            location: of.clone(),
            last_modified: time(found.last_modified()),
            size: found.content_length().unwrap_or_default().max(0) as u64,
            e_tag: found.e_tag,
            version: None,
        };
        Ok(result(meta, 0..0, stream::empty().boxed()))
    }

    async fn get(&self, of: &Path, request: GetObjectFluentBuilder) -> Result<GetResult> {
        let found = request.send().await.map_err(|e| self.failed(of, e))?;
        let length = found.content_length().unwrap_or_default().max(0) as u64;
        // `bytes 0-9/100`, where a range was asked for.
        let (start, size) = match found.content_range().and_then(parse_range) {
            Some(range) => range,
            None => (0, length),
        };
        let meta = ObjectMeta {
            location: of.clone(),
            last_modified: time(found.last_modified()),
            size,
            e_tag: found.e_tag,
            version: None,
        };
        Ok(result(
            meta,
            start..start + length,
            bytes(found.body, self.url(of)),
        ))
    }

    fn failed<E>(
        &self,
        of: &Path,
        e: aws_sdk_s3::error::SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>,
    ) -> Error
    where
        E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let missing = e
            .raw_response()
            .is_some_and(|answer| answer.status().as_u16() == 404);
        let ours = Box::new(aws::classify(e, format_args!("reading {}", self.url(of))));
        match missing {
            true => Error::NotFound {
                path: of.to_string(),
                source: ours,
            },
            false => Error::Generic {
                store: STORE,
                source: ours,
            },
        }
    }

    /// The pages of a listing.
    fn pages(
        &self,
        prefix: Option<&Path>,
        delimiter: Option<&str>,
    ) -> BoxStream<'static, Result<ListObjectsV2Output>> {
        let prefix = match prefix.map(Path::as_ref) {
            None | Some("") => String::new(),
            Some(prefix) => format!("{prefix}/"),
        };
        let doing = format!("listing s3://{}/{prefix}", self.name);
        let request = self.client.list_objects_v2().bucket(&self.name).prefix(prefix);
        let pages = request
            .set_delimiter(delimiter.map(Into::into))
            .into_paginator()
            .send();
        stream::unfold((pages, doing), |(mut pages, doing)| async move {
            let page = pages.next().await?;
            let page = page.map_err(|e| generic(aws::classify(e, &doing)));
            Some((page, (pages, doing)))
        })
        .boxed()
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.name)
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head {
            return self.head(location).await;
        }
        let request = self.client.get_object().bucket(&self.name).key(location.as_ref());
        let range = options.range.map(|range| match range {
            GetRange::Bounded(range) => format!("bytes={}-{}", range.start, range.end.saturating_sub(1)),
            GetRange::Offset(from) => format!("bytes={from}-"),
            GetRange::Suffix(bytes) => format!("bytes=-{bytes}"),
        });
        self.get(location, request.set_range(range)).await
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let pages = self.pages(prefix, None);
        let objects = |page: ListObjectsV2Output| stream::iter(objects(&page));
        pages.map_ok(objects).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut all = ListResult {
            common_prefixes: Vec::new(),
            objects: Vec::new(),
        };
        let mut pages = self.pages(prefix, Some("/"));
        while let Some(page) = pages.try_next().await? {
            for found in objects(&page) {
                all.objects.push(found?);
            }
            for directory in page.common_prefixes() {
                all.common_prefixes
                    .push(Path::parse(directory.prefix().unwrap_or_default())?);
            }
        }
        Ok(all)
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(only_reads())
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(only_reads())
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { Err(only_reads()) }).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(only_reads())
    }
}

pub(super) fn only_reads() -> Error {
    Error::NotSupported {
        source: "queries only read".into(),
    }
}

fn generic(e: millstream_engine::Error) -> Error {
    Error::Generic {
        store: STORE,
        source: Box::new(e),
    }
}

fn result(meta: ObjectMeta, range: Range<u64>, bytes: BoxStream<'static, Result<bytes::Bytes>>) -> GetResult {
    GetResult {
        payload: GetResultPayload::Stream(bytes),
        meta,
        range,
        attributes: Default::default(),
    }
}

fn bytes(body: ByteStream, url: String) -> BoxStream<'static, Result<bytes::Bytes>> {
    stream::try_unfold((body, url), |(mut body, url)| async move {
        let more = body.try_next().await;
        let more =
            more.map_err(|e| generic(millstream_engine::Error::retry(format!("reading {url}: {e}"))))?;
        Ok(more.map(|bytes| (bytes, (body, url))))
    })
    .boxed()
}

fn objects(page: &ListObjectsV2Output) -> Vec<Result<ObjectMeta>> {
    let all = page.contents().iter().map(|object| {
        Ok(ObjectMeta {
            location: Path::parse(object.key().unwrap_or_default())?,
            last_modified: time(object.last_modified()),
            size: object.size().unwrap_or_default().max(0) as u64,
            e_tag: object.e_tag().map(Into::into),
            version: None,
        })
    });
    all.collect()
}

/// First byte and size of the object of `bytes 0-9/100`.
fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, size.parse().ok()?))
}

fn time(at: Option<&DateTime>) -> chrono::DateTime<Utc> {
    at.and_then(|at| chrono::DateTime::from_timestamp(at.secs(), at.subsec_nanos()))
        .unwrap_or_default()
}
