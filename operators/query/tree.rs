//! A table's directory as DataFusion is shown it: paths below it, with the partitions in one form, and the bytes unpacked.
//!
//! Partitions come as `month=01` (what our sinks write), and as `01` (raw trees, `YYYY/MM/DD/HH`). Both are shown as
//! `month=1`, as integers are written: it is by such names that DataFusion leaves out directories. The way back is
//! unambiguous: a month, day or hour is padded to two digits unless a directory was seen that is not.

use std::fmt;
use std::io::Write;

use async_trait::async_trait;
use datafusion::object_store::path::{Path, PathPart};
use datafusion::object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use super::lines::{LeftOut, good_lines};
use super::place::Place;
use super::s3::only_reads;

/// The levels of a raw tree.
pub(super) const TIMES: [&str; 4] = ["year", "month", "day", "hour"];

/// How Hive names the partition of rows that have no value; for a time, which is a number, it is shown as [`NO_TIME`].
pub(super) const NO_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";
const NO_TIME: &str = "-1";

/// How a table's directories name its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `month=01`, or `month=1`.
    Hive { padded: bool },
    /// `2026/01/31/23`.
    Times,
}

impl Layout {
    /// A part of a path below the table, `level` directories down, as it is shown.
    fn shown(self, level: usize, part: &str) -> String {
        match self {
            Layout::Hive { .. } => match part.split_once('=') {
                Some((name, NO_VALUE)) if TIMES.contains(&name) => format!("{name}={NO_TIME}"),
                Some((name, value)) if is_padded(name) => format!("{name}={}", plain(value)),
                _ => part.into(),
            },
            Layout::Times => match TIMES.get(level) {
                Some(name) if is_number(part) => format!("{name}={}", plain(part)),
                _ => part.into(),
            },
        }
    }

    /// What [`Layout::shown`] was made of.
    fn real(self, part: &str) -> String {
        let Some((name, value)) = part.split_once('=') else {
            return part.into();
        };
        let pad = |value: &str| match is_padded(name) && value.len() == 1 {
            true => format!("0{value}"),
            false => value.into(),
        };
        if value == NO_TIME && TIMES.contains(&name) {
            return format!("{name}={NO_VALUE}");
        }
        match self {
            Layout::Hive { padded: true } => format!("{name}={}", pad(value)),
            Layout::Hive { padded: false } => part.into(),
            Layout::Times if TIMES.contains(&name) => pad(value),
            Layout::Times => part.into(),
        }
    }
}

fn is_padded(name: &str) -> bool {
    TIMES[1..].contains(&name)
}

pub(super) fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())
}

/// Without the zero in front of a digit.
fn plain(value: &str) -> &str {
    match value.strip_prefix('0') {
        Some(rest) if rest.len() == 1 && is_number(rest) => rest,
        _ => value,
    }
}

/// The directory of one table.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub place: Place,
    /// Where the table is in the store.
    pub root: Path,
    pub layout: Layout,
    /// Of lines of JSON: where those are counted that are none.
    pub lines: Option<LeftOut>,
}

impl Tree {
    fn real(&self, shown: &Path) -> Path {
        let parts = shown.parts().map(|part| self.layout.real(part.as_ref()));
        parts.fold(self.root.clone(), |path, part| path.join(as_is(&part)))
    }

    /// A path of the store as it is shown; none for what is hidden.
    pub fn shown(&self, real: &Path) -> Option<Path> {
        let mut shown = Path::default();
        for (level, part) in real.prefix_match(&self.root)?.enumerate() {
            if part.as_ref().starts_with(['.', '_']) {
                return None;
            }
            shown = shown.join(as_is(&self.layout.shown(level, part.as_ref())));
        }
        Some(shown)
    }

    fn show(&self, mut of: ObjectMeta) -> Option<ObjectMeta> {
        of.location = self.shown(&of.location)?;
        Some(of)
    }
}

/// A part that may have signs that [`PathPart`] would encode once more.
fn as_is(part: &str) -> PathPart<'_> {
    PathPart::parse(part).unwrap_or_else(|_| PathPart::from(part))
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place.url(&self.root))
    }
}

#[async_trait]
impl ObjectStore for Tree {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let real = self.real(location);
        let mut got = self.place.store.get_opts(&real, options).await?;
        got.meta.location = location.clone();
        let Some(lines) = &self.lines else {
            return Ok(got);
        };
        let unpack = Unpack::of(&real).transpose()?;
        let (meta, range, attributes) = (got.meta.clone(), got.range.clone(), got.attributes.clone());
        let bytes = match unpack {
            Some(unpack) => unpacked(got.into_stream(), unpack),
            None => got.into_stream(),
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(good_lines(bytes, self.place.url(&real), lines.clone())),
            meta,
            range,
            attributes,
        })
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let real = self.real(prefix.unwrap_or(&Path::default()));
        let this = self.clone();
        let show = move |of| futures::future::ready(Ok(this.show(of)));
        self.place.store.list(Some(&real)).try_filter_map(show).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let real = self.real(prefix.unwrap_or(&Path::default()));
        let mut found = self.place.store.list_with_delimiter(Some(&real)).await?;
        found.objects = found.objects.into_iter().filter_map(|of| self.show(of)).collect();
        found.common_prefixes = found
            .common_prefixes
            .iter()
            .filter_map(|of| self.shown(of))
            .collect();
        Ok(found)
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

type ZstdWriter = zstd::stream::zio::Writer<Vec<u8>, zstd::stream::raw::Decoder<'static>>;

/// Unpacks what is pushed into it.
enum Unpack {
    Gzip(Box<flate2::write::MultiGzDecoder<Vec<u8>>>),
    Zstd(ZstdWriter),
}

impl Unpack {
    /// By the ending of the name; none where nothing is packed.
    fn of(path: &Path) -> Option<Result<Unpack>> {
        match path.extension()? {
            "gz" => Some(Ok(Unpack::Gzip(Box::new(flate2::write::MultiGzDecoder::new(
                Vec::new(),
            ))))),
            "zst" => Some(
                zstd::stream::raw::Decoder::new()
                    .map(|decoder| Unpack::Zstd(ZstdWriter::new(Vec::new(), decoder)))
                    .map_err(|e| broken(&e)),
            ),
            _ => None,
        }
    }

    fn push(&mut self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Unpack::Gzip(to) => to.write_all(bytes).and_then(|()| to.flush())?,
            Unpack::Zstd(to) => to.write_all(bytes).and_then(|()| to.flush())?,
        }
        Ok(std::mem::take(match self {
            Unpack::Gzip(to) => to.get_mut(),
            Unpack::Zstd(to) => to.writer_mut(),
        }))
    }

    /// What comes out at the end; an error where the file ends too early.
    fn end(self) -> std::io::Result<Vec<u8>> {
        match self {
            Unpack::Gzip(to) => to.finish(),
            Unpack::Zstd(mut to) => {
                to.finish()?;
                Ok(to.into_inner().0)
            }
        }
    }
}

fn unpacked(
    from: BoxStream<'static, Result<bytes::Bytes>>,
    with: Unpack,
) -> BoxStream<'static, Result<bytes::Bytes>> {
    stream::try_unfold(Some((from, with)), |state| async move {
        let Some((mut from, mut with)) = state else {
            return Ok(None);
        };
        match from.try_next().await? {
            Some(packed) => {
                let bytes = with.push(&packed).map_err(|e| broken(&e))?;
                Ok(Some((bytes.into(), Some((from, with)))))
            }
            None => Ok(Some((with.end().map_err(|e| broken(&e))?.into(), None))),
        }
    })
    .try_filter(|bytes: &bytes::Bytes| futures::future::ready(!bytes.is_empty()))
    .boxed()
}

fn broken(e: &std::io::Error) -> Error {
    Error::Generic {
        store: "unpacking",
        source: Box::new(millstream_engine::Error::data(format!(
            "a packed file cannot be read: {e}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn partitions_are_shown_in_one_form_and_found_again() {
        let padded = Layout::Hive { padded: true };
        let plain = Layout::Hive { padded: false };
        let cases = [
            (
                padded,
                "year=2026/month=01/day=09/a.parquet",
                "year=2026/month=1/day=9/a.parquet",
            ),
            (
                padded,
                "year=2026/month=11/day=10/a.parquet",
                "year=2026/month=11/day=10/a.parquet",
            ),
            (
                plain,
                "year=2026/month=1/a.parquet",
                "year=2026/month=1/a.parquet",
            ),
            (padded, "kind=07/a.parquet", "kind=07/a.parquet"),
            (
                padded,
                "month=__HIVE_DEFAULT_PARTITION__/a.parquet",
                "month=-1/a.parquet",
            ),
            (
                Layout::Times,
                "2026/01/09/00/a.gz",
                "year=2026/month=1/day=9/hour=0/a.gz",
            ),
            (
                Layout::Times,
                "2026/11/10/23/12.json",
                "year=2026/month=11/day=10/hour=23/12.json",
            ),
        ];
        for (layout, real, shown) in cases {
            let tree = Tree {
                place: Place {
                    name: "lake".into(),
                    store: Arc::new(datafusion::object_store::memory::InMemory::new()),
                    root: Path::default(),
                },
                root: Path::from("lake/t"),
                layout,
                lines: None,
            };
            let path = Path::from(format!("lake/t/{real}"));
            assert_eq!(tree.shown(&path), Some(Path::from(shown)));
            assert_eq!(tree.real(&Path::from(shown)), path);
        }
    }

    #[test]
    fn packed_bytes_come_out_as_they_went_in_or_not_at_all() {
        let text = "{\"a\":1}\n".repeat(100_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(text.as_bytes()).unwrap();
        let packed = [
            ("x.gz", gzip.finish().unwrap()),
            ("x.zst", zstd::encode_all(text.as_bytes(), 3).unwrap()),
        ];
        for (name, packed) in packed {
            let unpack = |bytes: &[u8]| {
                let mut with = Unpack::of(&Path::from(name)).unwrap().unwrap();
                let mut out = Vec::new();
                for part in bytes.chunks(100) {
                    out.extend(with.push(part)?);
                }
                out.extend(with.end()?);
                std::io::Result::Ok(out)
            };
            assert_eq!(unpack(&packed).unwrap(), text.as_bytes());
            let damaged = unpack(&packed[..packed.len() / 2]);
            assert!(damaged.is_err(), "{name}: half a file is an error");
        }
    }
}
