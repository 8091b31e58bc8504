//! Reading a request's body: whole, in time, within its limits, decompressed.

use std::cell::Cell;
use std::io::Read;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap};
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::answer::{self, Answer};

/// Memory a zstd frame may ask for as its window: 8 MiB, which every encoder's default stays within.
const ZSTD_WINDOW_LOG: u32 = 23;

/// What a client is told to wait when too many bodies are on their way: about as long as one takes.
const CROWDED_RETRY: Duration = Duration::from_secs(1);

/// Why a body was not read.
pub(super) struct Refused {
    pub status: StatusCode,
    pub reason: String,
    /// What came of it and may be of use.
    pub bytes: Bytes,
}

impl Refused {
    pub fn answer(&self) -> Answer {
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => answer::busy(&self.reason, CROWDED_RETRY),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                let mut answer = answer::error(self.status, &self.reason);
                let accepted = HeaderValue::from_static("gzip, zstd");
                answer.headers_mut().insert(ACCEPT_ENCODING, accepted);
                answer
            }
            status => answer::error(status, &self.reason),
        }
    }
}

/// Bytes of unfinished bodies in one lane.
pub(super) struct Buffered {
    pub limit: usize,
    pub bytes: Cell<usize>,
}

/// What one connection has of them.
pub(super) struct Share<'a>(&'a Buffered, usize);

impl<'a> Share<'a> {
    pub fn of(buffered: &'a Buffered) -> Share<'a> {
        Share(buffered, 0)
    }

    /// Holds so many bytes from now on; refused if they are more than before and too much for the lane.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Refused> {
        let Share(buffered, held) = self;
        let grows = bytes > *held;
        let all = buffered.bytes.get() - *held + bytes;
        buffered.bytes.set(all);
        *held = bytes;
        if grows && all > buffered.limit {
            return Err(crowded());
        }
        Ok(())
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.0.bytes.set(self.0.bytes.get() - self.1);
    }
}

/// Reads `body`, of at most `limit` bytes, in at most `timeout`.
pub(super) async fn read(
    body: Incoming,
    limit: usize,
    timeout: Duration,
    buffered: &Buffered,
) -> Result<Bytes, Refused> {
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit, Bytes::new()));
    }
    let mut reading = std::pin::pin!(collect(body, limit, buffered));
    // Most bodies came with their head: a timer is only for those that did not.
    if let Some(read) = reading.as_mut().now_or_never() {
        return read;
    }
    let read = tokio::time::timeout(timeout, reading).await;
    read.unwrap_or_else(|_| Err(too_slow(timeout)))
}

async fn collect(mut body: Incoming, limit: usize, buffered: &Buffered) -> Result<Bytes, Refused> {
    let Some(first) = next(&mut body).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > limit {
        return Err(too_large(limit, first));
    }
    let Some(second) = next(&mut body).await? else {
        return Ok(first);
    };
    let mut share = Share::of(buffered);
    let first_bytes = first.len();
    let mut whole = BytesMut::from(&first[..]);
    let mut piece = Some(second);
    while let Some(bytes) = piece {
        if whole.len() + bytes.len() > limit {
            return Err(too_large(limit, whole.freeze()));
        }
        share.hold(whole.len() - first_bytes + bytes.len())?;
        whole.extend_from_slice(&bytes);
        piece = next(&mut body).await?;
    }
    Ok(whole.freeze())
}

/// The next piece with bytes in it.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Refused> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| {
            let reason = format!("the body could not be read to its end: {e}");
            refused(StatusCode::BAD_REQUEST, reason, Bytes::new())
        })?;
        // Trailers carry nothing we use.
        if let Ok(bytes) = frame.into_data()
            && !bytes.is_empty()
        {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// Undoes the body's Content-Encoding.
pub(super) fn decompress(headers: &HeaderMap, body: Bytes, limit: usize) -> Result<Bytes, Refused> {
    let encoding = headers
        .get(CONTENT_ENCODING)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let read = match encoding.trim_ascii().to_ascii_lowercase().as_slice() {
        b"" | b"identity" => return Ok(body),
        b"gzip" | b"x-gzip" => inflate(flate2::bufread::MultiGzDecoder::new(&body[..]), limit),
        b"zstd" => zstd::stream::read::Decoder::with_buffer(&body[..]).and_then(|mut decoder| {
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            inflate(decoder, limit)
        }),
        other => return Err(unsupported(other, body)),
    };
    match read {
        Ok(plain) if plain.len() > limit => Err(too_large(limit, body)),
        Ok(plain) => Ok(plain.into()),
        Err(e) => {
            let reason = format!("the body is not valid {}: {e}", String::from_utf8_lossy(encoding));
            Err(refused(StatusCode::BAD_REQUEST, reason, body))
        }
    }
}

/// Reads one byte more than the limit at most, so that a small body cannot unfold into all memory.
fn inflate(decoder: impl Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut plain)?;
    Ok(plain)
}

fn refused(status: StatusCode, reason: String, bytes: Bytes) -> Refused {
    Refused {
        status,
        reason,
        bytes,
    }
}

fn too_large(limit: usize, bytes: Bytes) -> Refused {
    let reason = format!("the body is larger than {limit} bytes; send fewer rows in one request");
    refused(StatusCode::PAYLOAD_TOO_LARGE, reason, bytes)
}

pub(super) fn too_slow(timeout: Duration) -> Refused {
    let reason = format!("the body did not arrive within {timeout:?}");
    refused(StatusCode::REQUEST_TIMEOUT, reason, Bytes::new())
}

fn crowded() -> Refused {
    let reason = "too many bodies are being received; send again later";
    refused(StatusCode::SERVICE_UNAVAILABLE, reason.into(), Bytes::new())
}

fn unsupported(encoding: &[u8], bytes: Bytes) -> Refused {
    let encoding = String::from_utf8_lossy(encoding);
    let reason = format!("content encoding {encoding:?} is not supported; use gzip, zstd or none");
    refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason, bytes)
}
