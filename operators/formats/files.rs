//! Files that may be compressed: what a name's ending says about its bytes, and their first ones about themselves.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

/// Endings of compressed files.
const COMPRESSED: [&str; 2] = ["gz", "zst"];

/// The ending of a name that says what is in it: `csv` of `ads.csv`, of `ads.csv.gz` and of `ADS.CSV`.
pub fn format_of(name: &str) -> Option<String> {
    let mut endings = name.rsplit('/').next()?.rsplit('.').map(str::to_ascii_lowercase);
    let last = endings.next()?;
    let last = match COMPRESSED.contains(&last.as_str()) {
        true => endings.next()?,
        false => last,
    };
    // What is left must have a name besides its ending.
    endings.next().map(|_| last)
}

/// Bytes that are unpacked together.
const READ_BYTES: usize = 64 << 10;

/// Opens a file for reading what is in it, unpacked by the ending of its name: `.gz`, `.zst`.
pub fn open(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    unpack(&path.to_string_lossy(), file)
}

/// Bytes unpacked by the ending of the name they come under.
pub fn unpack(name: &str, bytes: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    match Packing::of_name(name) {
        Some(packing) => packing.unpack(bytes),
        None => Ok(Box::new(bytes)),
    }
}

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// RFC 1952, of one member or several.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Packing {
    /// What the ending of a name says.
    pub fn of_name(name: &str) -> Option<Packing> {
        let ending = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "gz" => Some(Packing::Gzip),
            "zst" => Some(Packing::Zstd),
            _ => None,
        }
    }

    /// What the first bytes say; no text begins so.
    pub fn of_bytes(first: &[u8]) -> Option<Packing> {
        match first {
            [0x1f, 0x8b, ..] => Some(Packing::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstd),
            _ => None,
        }
    }

    /// What is in the bytes.
    pub fn unpack(self, bytes: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Packing::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, bytes))),
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named_by_the_ending() {
        for (name, format) in [
            ("ads.csv", Some("csv")),
            ("s3://bucket/a.b/ads.Parquet", Some("parquet")),
            ("rows.jsonl.gz", Some("jsonl")),
            ("rows.ndjson.zst", Some("ndjson")),
            ("folder.csv/ads", None),
            ("ads", None),
            (".csv", Some("csv")),
            ("rows.gz", None),
        ] {
            assert_eq!(format_of(name).as_deref(), format, "{name}");
        }
    }
}
