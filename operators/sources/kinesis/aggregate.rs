//! Records that hold many: the aggregates of the Kinesis Producer Library.
//!
//! ```text
//! F3 89 9A C2 | protobuf AggregatedRecord | MD5 of the protobuf
//! ```
//!
//! The format is described in the library's repository, `aggregation-format.md`. Its partition and hash keys
//! say to which shard a record goes; who reads whole shards has no use for them, so they are passed over.

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message;

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const DIGEST: usize = 16;

/// The part of the library's message that is of use here; fields that are not named are passed over.
#[derive(Clone, PartialEq, Message)]
struct AggregatedRecord {
    #[prost(message, repeated, tag = "3")]
    records: Vec<Record>,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "bytes", required, tag = "3")]
    data: Bytes,
}

/// The records inside of `data`, in order, if it is an aggregate; if it says that it is one but is broken, why.
pub(super) fn unpack(data: &Bytes) -> Option<Result<Vec<Bytes>, String>> {
    let rest = data.strip_prefix(&MAGIC)?;
    let Some(length) = rest.len().checked_sub(DIGEST) else {
        return Some(Err("an aggregate of the producer library that is cut off".into()));
    };
    let message = data.slice(MAGIC.len()..MAGIC.len() + length);
    if Md5::digest(&message)[..] != rest[length..] {
        return Some(Err(
            "an aggregate of the producer library whose checksum does not match".into(),
        ));
    }
    let records =
        AggregatedRecord::decode(message).map(|all| all.records.into_iter().map(|r| r.data).collect());
    Some(records.map_err(|e| format!("an aggregate of the producer library that cannot be read: {e}")))
}

/// Packs records as the producer library does.
#[cfg(test)]
pub(super) fn pack(records: &[&[u8]]) -> Vec<u8> {
    let records = records.iter().map(|data| Record {
        data: Bytes::copy_from_slice(data),
    });
    let message = AggregatedRecord {
        records: records.collect(),
    };
    sealed(&message.encode_to_vec())
}

#[cfg(test)]
fn sealed(message: &[u8]) -> Vec<u8> {
    [&MAGIC, message, &Md5::digest(message)[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An aggregate of two records as the producer library writes it, with a table of partition keys, an explicit
    /// hash key and a tag: the bytes by hand from `aggregation-format.md`.
    fn by_the_book() -> Vec<u8> {
        let mut message = vec![0x0A, 2, b'k', b'1', 0x0A, 2, b'k', b'2'];
        message.extend([0x12, 1, b'9']);
        // partition_key_index 0, explicit_hash_key_index 0, data "one", a tag { key "t", value "v" }.
        message.extend([0x1A, 17, 0x08, 0, 0x10, 0, 0x1A, 3, b'o', b'n', b'e']);
        message.extend([0x22, 6, 0x0A, 1, b't', 0x12, 1, b'v']);
        message.extend([0x1A, 7, 0x08, 1, 0x1A, 3, b't', b'w', b'o']);
        sealed(&message)
    }

    fn texts(data: Vec<u8>) -> Option<Result<Vec<String>, String>> {
        let text = |record: Bytes| String::from_utf8_lossy(&record).into_owned();
        unpack(&data.into()).map(|all| all.map(|all| all.into_iter().map(text).collect()))
    }

    #[test]
    fn what_the_producer_library_packs_is_unpacked() {
        let two = Some(Ok(vec!["one".to_owned(), "two".to_owned()]));
        assert_eq!(texts(by_the_book()), two);
        assert_eq!(texts(pack(&[b"one", b"two"])), two);
        assert_eq!(texts(pack(&[])), Some(Ok(vec![])));
        assert_eq!(texts(b"{\"n\":1}".to_vec()), None);
        assert_eq!(texts(vec![]), None);
        assert_eq!(texts(MAGIC[..3].to_vec()), None);
    }

    #[test]
    fn a_broken_aggregate_is_named_as_one() {
        let whole = by_the_book();
        for cut in 4..whole.len() {
            assert!(
                texts(whole[..cut].to_vec()).is_some_and(|r| r.is_err()),
                "cut at {cut}"
            );
        }
        for at in 4..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            assert!(texts(flipped).is_some_and(|r| r.is_err()), "flipped at {at}");
        }
        // Sealed well, but no message: a length beyond the end, a record without data.
        for message in [&[0x1A, 9, 1][..], &[0xFF; 12], &[0x1A, 2, 0x18, 1]] {
            assert!(texts(sealed(message)).is_some_and(|r| r.is_err()), "{message:?}");
        }
    }
}
