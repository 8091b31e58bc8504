//! An object in S3 as the Parquet reader wants it: its footer, then the columns of one row group after the other.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_engine::{Error, Result};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::progress::Object;
use super::store::{Failure, Store};

/// What is fetched of the end of a Parquet object at first; few have a longer footer.
const FOOTER_BYTES: usize = 64 << 10;

/// Another request costs more time than so many bytes that nobody wants.
const GAP_BYTES: u64 = 1 << 20;

/// An object, fetched range by range.
pub(super) struct Ranges {
    store: Arc<Store>,
    object: Object,
    failure: Failure,
}

impl Ranges {
    /// An object; what goes wrong with its transport goes to `failure`.
    pub fn new(store: &Arc<Store>, object: &Object, failure: &Failure) -> Ranges {
        Ranges {
            store: Arc::clone(store),
            object: object.clone(),
            failure: failure.clone(),
        }
    }

    async fn fetch(&self, range: Range<u64>) -> parquet::errors::Result<Bytes> {
        let got = async {
            let last = range.end.saturating_sub(1);
            let body = self
                .store
                .get(&self.object, format!("bytes={}-{last}", range.start));
            let body = body.await?.collect().await;
            let url = self.store.url(&self.object.key);
            let bytes = body.map_err(|e| Error::retry(format!("reading {url}: {e}")))?;
            Ok(bytes.into_bytes())
        };
        let got: Result<Bytes> = got.await;
        got.map_err(|e| {
            let text = e.to_string();
            self.failure.set(e);
            ParquetError::General(text)
        })
    }
}

impl AsyncFileReader for Ranges {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.fetch(range).boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            let mut fetched = Vec::new();
            for whole in joined(&ranges) {
                fetched.push((whole.start, self.fetch(whole).await?));
            }
            let part = |range: &Range<u64>| {
                let (start, bytes) = fetched.iter().rfind(|(start, _)| *start <= range.start)?;
                let from = (range.start - start) as usize;
                let to = (range.end - start) as usize;
                (to <= bytes.len()).then(|| bytes.slice(from..to))
            };
            let short = || ParquetError::EOF("the object is shorter than it says".into());
            ranges.iter().map(|r| part(r).ok_or_else(short)).collect()
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.object.size;
            let reader = ParquetMetaDataReader::new()
                .with_arrow_reader_options(options)
                .with_prefetch_hint(Some(FOOTER_BYTES.min(size as usize)));
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

/// The ranges in order, those with little between them as one.
fn joined(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.start <= last.end + GAP_BYTES => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_with_little_between_them_are_one_request() {
        const MIB: u64 = 1 << 20;
        for (ranges, expect) in [
            (vec![], "[]"),
            (vec![0..10, 10..20, 30..40], "[0..40]"),
            (vec![30..40, 0..10], "[0..40]"),
            (vec![0..10, MIB + 11..MIB + 12], "[0..10, 1048587..1048588]"),
            (vec![0..100, 20..30], "[0..100]"),
        ] {
            assert_eq!(format!("{:?}", joined(&ranges)), expect, "{ranges:?}");
        }
    }
}
