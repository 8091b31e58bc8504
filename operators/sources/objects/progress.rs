//! How objects and places in them are written down in a checkpoint.

use std::fmt;
use std::str::FromStr;

use millstream_engine::source::{Offset, PartitionId};
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use crate::formats::time::timestamp;

/// An object as it was found. In order of age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    /// When it was last modified.
    pub modified: Timestamp,
    /// Its whole name in its bucket, or its path.
    pub key: String,
    /// What another content under the same name would have another of.
    pub version: String,
    /// Its bytes.
    pub size: u64,
}

impl Object {
    /// The partition it is: a version of an object.
    pub fn id(&self) -> PartitionId {
        PartitionId(format!("{}@{}", self.key, self.version))
    }

    /// The object behind a partition, read up to `progress`.
    pub fn of(id: &PartitionId, progress: &Progress) -> Result<Object> {
        let (key, version) =
            id.0.rsplit_once('@')
                .ok_or_else(|| Error::config(format!("partition {id} is not one of an s3 or file source")))?;
        Ok(Object {
            modified: progress.modified,
            key: key.into(),
            version: version.into(),
            size: progress.size,
        })
    }

    /// The offset of a place in it.
    pub fn offset(&self, at: At) -> Offset {
        let progress = Progress {
            at,
            size: self.size,
            modified: self.modified,
        };
        Offset(progress.to_string())
    }
}

/// How far an object has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub at: At,
    /// Bytes of the object.
    pub size: u64,
    /// When it was last modified.
    pub modified: Timestamp,
}

/// A place in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// Before its first row.
    Start,
    /// So many lines and bytes in.
    Byte { line: u64, byte: u64 },
    /// So many lines and bytes into what it holds packed.
    Unpacked { line: u64, byte: u64 },
    /// So many rows into a file without lines.
    Row(u64),
    /// Behind its last row.
    End,
}

/// What the offset of an ended object starts with.
const END: &str = "end";

/// Whether an object has been read to its end.
pub(super) fn has_ended(offset: &Offset) -> bool {
    offset.0.starts_with(END)
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { at, size, modified } = self;
        match at {
            At::End => return write!(f, "{END} modified={modified}"),
            At::Start => f.write_str("start")?,
            At::Byte { line, byte } => write!(f, "line={line} byte={byte}")?,
            At::Unpacked { line, byte } => write!(f, "line={line} unpacked={byte}")?,
            At::Row(row) => write!(f, "row={row}")?,
        }
        write!(f, " size={size} modified={modified}")
    }
}

impl FromStr for Progress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Progress> {
        let parsed = || {
            let named = |name: &str| {
                text.split(' ')
                    .find_map(|w| w.strip_prefix(name)?.strip_prefix('='))
            };
            let number = |name: &str| named(name)?.parse::<u64>().ok();
            let at = match text.split_once(' ')?.0 {
                END => At::End,
                "start" => At::Start,
                _ => match (number("line"), number("byte"), number("unpacked"), number("row")) {
                    (Some(line), Some(byte), None, None) => At::Byte { line, byte },
                    (Some(line), None, Some(byte), None) => At::Unpacked { line, byte },
                    (None, None, None, Some(row)) => At::Row(row),
                    _ => return None,
                },
            };
            Some(Progress {
                at,
                size: number("size").or((at == At::End).then_some(0))?,
                modified: Timestamp(timestamp(named("modified")?)?),
            })
        };
        parsed().ok_or_else(|| Error::config(format!("offset {text:?} is not one of an s3 or file source")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_text_that_can_be_read_again() {
        let object = Object {
            modified: Timestamp(1_772_368_245_000_000),
            key: "data/a@b.gz".into(),
            version: "0f-2".into(),
            size: 99,
        };
        for (at, expect) in [
            (At::Start, "start size=99 modified=2026-03-01T12:30:45Z"),
            (
                At::Byte { line: 3, byte: 40 },
                "line=3 byte=40 size=99 modified=2026-03-01T12:30:45Z",
            ),
            (
                At::Unpacked { line: 3, byte: 40 },
                "line=3 unpacked=40 size=99 modified=2026-03-01T12:30:45Z",
            ),
            (At::Row(7), "row=7 size=99 modified=2026-03-01T12:30:45Z"),
            (At::End, "end modified=2026-03-01T12:30:45Z"),
        ] {
            let offset = object.offset(at);
            assert_eq!(offset.0, expect);
            let progress: Progress = offset.0.parse().unwrap();
            assert_eq!(progress.at, at);
            assert_eq!(has_ended(&offset), at == At::End);
            let again = Object::of(&object.id(), &progress).unwrap();
            assert_eq!(
                (again.key, again.version),
                (object.key.clone(), object.version.clone())
            );
        }
        for text in [
            "",
            "end",
            "17",
            "line=3 size=9 modified=2026-03-01T12:30:45Z",
            "row=7 size=99",
        ] {
            assert!(text.parse::<Progress>().is_err(), "{text:?}");
        }
    }
}
