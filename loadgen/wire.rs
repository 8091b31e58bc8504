//! The little of HTTP/1.1 that a measuring instrument needs: a request head, and replies cut out of a stream
//! of bytes without allocating. The kept client (hyper) serves the simulated users; here every
//! instruction of ours is taken from the server under test, which runs beside us.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A reply's head beyond this is not from an HTTP server.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// 500 rows are answered in 9 kB; this leaves room for error messages in every row of large batches.
const MAX_BODY_BYTES: usize = 16 << 20;

/// Room asked for in one read: a reply to 500 rows, or hundreds of replies to one row each.
const READ_BYTES: usize = 64 << 10;

/// Appends the head of a POST of `body_bytes` bytes.
pub fn push_head(out: &mut Vec<u8>, authority: &str, path: &str, body_bytes: usize) {
    for part in ["POST ", path, " HTTP/1.1\r\nhost: ", authority] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"\r\ncontent-type: application/json\r\ncontent-length: ");
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = body_bytes;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n\r\n");
}

/// The replies of one connection, in order.
pub struct Replies<R> {
    from: R,
    buffer: BytesMut,
    taken: usize,
}

/// One reply, valid until the next is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The header `Retry-After`, if it is text.
    pub retry_after: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
}

impl<R: AsyncRead + Unpin> Replies<R> {
    /// Reads from `from`.
    pub fn new(from: R) -> Replies<R> {
        Replies {
            from,
            buffer: BytesMut::with_capacity(READ_BYTES),
            taken: 0,
        }
    }

    /// The next reply. Dropping the future loses nothing: bytes stay in the buffer.
    ///
    /// # Errors
    /// `UnexpectedEof` when the server closes, `InvalidData` when it does not speak HTTP/1.1 with a content length.
    pub async fn next(&mut self) -> io::Result<Reply<'_>> {
        self.buffer.advance(std::mem::take(&mut self.taken));
        let head = loop {
            if let Some(head) = Head::parse(&self.buffer)?
                && self.buffer.len() >= head.end + head.content_length
            {
                break head;
            }
            self.buffer.reserve(READ_BYTES);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the server closed the connection",
                ));
            }
        };
        self.taken = head.end + head.content_length;
        Ok(Reply {
            status: head.status,
            retry_after: head
                .retry_after
                .and_then(|(from, to)| std::str::from_utf8(&self.buffer[from..to]).ok()),
            body: &self.buffer[head.end..self.taken],
        })
    }
}

/// What the head of a reply says; positions are offsets into the buffer.
struct Head {
    status: u16,
    end: usize,
    content_length: usize,
    retry_after: Option<(usize, usize)>,
}

impl Head {
    /// `None` while the head is incomplete.
    fn parse(bytes: &[u8]) -> io::Result<Option<Head>> {
        let Some(length) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            if bytes.len() > MAX_HEAD_BYTES {
                return Err(invalid("a reply's head has no end"));
            }
            return Ok(None);
        };
        let mut head = Head {
            status: status(bytes)?,
            end: length + 4,
            content_length: 0,
            retry_after: None,
        };
        let mut has_length = head.status == 204 || head.status == 304;
        let mut at = line_end(bytes, 0, length) + 2;
        while at < length {
            let end = line_end(bytes, at, length);
            if let Some(value) = value_of(bytes, at, end, b"content-length") {
                head.content_length = number(&bytes[value.0..value.1])?;
                has_length = true;
            } else if let Some(value) = value_of(bytes, at, end, b"retry-after") {
                head.retry_after = Some(value);
            }
            at = end + 2;
        }
        if !has_length {
            return Err(invalid("a reply has no content-length"));
        }
        if head.content_length > MAX_BODY_BYTES {
            return Err(invalid("a reply is too large"));
        }
        Ok(Some(head))
    }
}

fn status(bytes: &[u8]) -> io::Result<u16> {
    let digits = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let number = digits.map(number).transpose()?;
    number
        .map(|status| status as u16)
        .ok_or_else(|| invalid("a reply does not start with HTTP/1.1"))
}

fn line_end(bytes: &[u8], from: usize, to: usize) -> usize {
    bytes[from..to]
        .windows(2)
        .position(|two| two == b"\r\n")
        .map_or(to, |at| from + at)
}

/// Where the trimmed value stands, if the line `from..to` is the header `name`.
fn value_of(bytes: &[u8], from: usize, to: usize, name: &[u8]) -> Option<(usize, usize)> {
    let line = &bytes[from..to];
    if line.len() <= name.len() || line[name.len()] != b':' || !line[..name.len()].eq_ignore_ascii_case(name)
    {
        return None;
    }
    let value = &line[name.len() + 1..];
    let start = from + name.len() + 1 + (value.len() - value.trim_ascii_start().len());
    Some((start, start + value.trim_ascii().len()))
}

fn number(digits: &[u8]) -> io::Result<usize> {
    let text = std::str::from_utf8(digits).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| invalid("a number in a reply's head does not parse"))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// All replies in `bytes`, fed in pieces of `piece` bytes, until the error that ends the stream.
    async fn read_all(bytes: &[u8], piece: usize) -> (Vec<(u16, Option<String>, String)>, io::Error) {
        let (mut writer, reader) = tokio::io::duplex(piece);
        let bytes = bytes.to_vec();
        let feed = tokio::spawn(async move {
            let _ = writer.write_all(&bytes).await;
        });
        let mut replies = Replies::new(reader);
        let mut got = Vec::new();
        let error = loop {
            match replies.next().await {
                Ok(reply) => {
                    let body = String::from_utf8_lossy(reply.body).into_owned();
                    got.push((reply.status, reply.retry_after.map(str::to_owned), body));
                }
                Err(error) => break error,
            }
        };
        feed.abort();
        (got, error)
    }

    #[tokio::test]
    async fn pipelined_replies_are_cut_at_any_boundary() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
            HTTP/1.1 503 Service Unavailable\r\nretry-after:  7 \r\nCONTENT-LENGTH:2\r\n\r\nno\
            HTTP/1.1 204 No Content\r\n\r\n";
        for piece in [1, 2, 7, 64, 4096] {
            let (got, error) = read_all(bytes, piece).await;
            let want = [
                (200, None, "hello".to_owned()),
                (503, Some("7".to_owned()), "no".to_owned()),
                (204, None, String::new()),
            ];
            assert_eq!(got, want, "pieces of {piece}");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test]
    async fn what_is_not_http_is_an_error_and_never_a_hang() {
        let endless = vec![b'x'; MAX_HEAD_BYTES + 10];
        let cases: [&[u8]; 5] = [
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            &endless,
        ];
        for bytes in cases {
            let (got, error) = read_all(bytes, 4096).await;
            assert!(got.is_empty());
            assert_eq!(
                error.kind(),
                io::ErrorKind::InvalidData,
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn the_head_is_what_servers_expect() {
        let mut out = Vec::new();
        push_head(&mut out, "h:1", "/a/clicks", 1203);
        let want = "POST /a/clicks HTTP/1.1\r\nhost: h:1\r\ncontent-type: application/json\r\ncontent-length: 1203\r\n\r\n";
        assert_eq!(String::from_utf8(out).expect("text"), want);
    }
}
