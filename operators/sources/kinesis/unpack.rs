//! Records that are packed: what their first bytes say.
//!
//! A record carries no word about its encoding, and producers pack to save on shards. No JSON starts with these
//! bytes, so they are enough.

use std::borrow::Cow;
use std::io::{self, Read};

const GZIP: [u8; 2] = [0x1F, 0x8B];
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// Memory a zstd frame may ask for as its window: 8 MiB, which every encoder's default stays within.
const ZSTD_WINDOW_LOG: u32 = 23;

/// A record of 10 MiB, the largest there is, unpacks to about as much in practice. What unpacks to more is an
/// attack on memory.
const UNPACKED_BYTES: usize = 64 << 20;

/// The bytes without their packing; why not, where they are packed and damaged, or far too large.
pub(super) fn unpacked(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let (name, read) = if bytes.starts_with(&GZIP) {
        ("gzip", inflate(flate2::bufread::MultiGzDecoder::new(bytes)))
    } else if bytes.starts_with(&ZSTD) {
        ("zstd", zstd(bytes).and_then(inflate))
    } else {
        return Ok(Cow::Borrowed(bytes));
    };
    match read {
        Ok(plain) if plain.len() > UNPACKED_BYTES => {
            Err(format!("it unpacks to more than {UNPACKED_BYTES} bytes"))
        }
        Ok(plain) => Ok(Cow::Owned(plain)),
        Err(e) => Err(format!("it starts as {name} but is not valid: {e}")),
    }
}

fn zstd(bytes: &[u8]) -> io::Result<impl Read + '_> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

/// Reads one byte more than the limit at most.
fn inflate(decoder: impl Read) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    decoder.take(UNPACKED_BYTES as u64 + 1).read_to_end(&mut plain)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_first_bytes_say_how_it_is_packed() {
        let row = b"{\"n\":1}";
        let twice = [gzip(b"{\"n\":"), gzip(b"1}")].concat();
        for packed in [
            row.to_vec(),
            gzip(row),
            twice,
            zstd::encode_all(&row[..], 3).unwrap(),
        ] {
            assert_eq!(unpacked(&packed).unwrap(), &row[..], "{packed:?}");
        }
        assert_eq!(unpacked(b"").unwrap(), &b""[..]);
    }

    #[test]
    fn what_cannot_be_unpacked_is_refused() {
        let packed = gzip(b"{\"n\":1}");
        let whole = zstd::encode_all(&b"{\"n\":1}"[..], 3).unwrap();
        for (bytes, says) in [
            (packed[..packed.len() - 4].to_vec(), "it starts as gzip"),
            (GZIP.to_vec(), "it starts as gzip"),
            (whole[..whole.len() - 2].to_vec(), "it starts as zstd"),
            (gzip(&vec![b' '; UNPACKED_BYTES + 1]), "it unpacks to more"),
        ] {
            let said = unpacked(&bytes).unwrap_err();
            assert!(said.starts_with(says), "{said}");
        }
    }
}
