//! The little of HTTP/1.1 that a measuring instrument needs: a request head, and replies cut out of a stream
//! of bytes without allocating. The kept client (hyper) serves the simulated users; here every
//! instruction of ours may be what a benchmark measures.

use std::io;

/// A reply's head beyond this is not from an HTTP server.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// 500 rows are answered in 9 kB; this leaves room for error messages in every row of large batches.
const MAX_BODY_BYTES: usize = 16 << 20;

/// The head of a POST of `body_bytes` bytes.
pub fn head(authority: &str, path: &str, body_bytes: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\ncontent-length: {body_bytes}\r\n\r\n"
    )
}

/// Cuts replies out of bytes. A server's heads are the same for a second, until the date changes: the last one is
/// compared before one is read line by line.
#[derive(Default)]
pub struct Replies {
    last: Vec<u8>,
    head: Option<Head>,
}

/// One reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The header `Retry-After`, if it is text.
    pub retry_after: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
    /// Head and body.
    pub bytes: usize,
}

impl Replies {
    /// The reply at the start of `bytes`; `None` while it is incomplete.
    ///
    /// # Errors
    /// `InvalidData` when the server does not speak HTTP/1.1 with a content length.
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> io::Result<Option<Reply<'a>>> {
        let Some(head) = self.head(bytes)? else {
            return Ok(None);
        };
        let end = head.end + head.content_length;
        let retry_after = head.retry_after.map(|(from, to)| &bytes[from..to]);
        Ok(bytes.get(head.end..end).map(|body| Reply {
            status: head.status,
            retry_after: retry_after.and_then(|value| std::str::from_utf8(value).ok()),
            body,
            bytes: end,
        }))
    }

    fn head(&mut self, bytes: &[u8]) -> io::Result<Option<Head>> {
        if self.head.is_some() && bytes.starts_with(&self.last) {
            return Ok(self.head);
        }
        let head = Head::parse(bytes)?;
        if let Some(head) = &head {
            self.last.clear();
            self.last.extend_from_slice(&bytes[..head.end]);
            self.head = Some(*head);
        }
        Ok(head)
    }
}

/// What the head of a reply says; positions are offsets from the start of the reply.
#[derive(Clone, Copy)]
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
    use super::*;

    type Got = (u16, Option<String>, String);

    /// All replies in `bytes`, of which `piece` more are there each time, and what the rest is.
    fn read_all(bytes: &[u8], piece: usize) -> (Vec<Got>, io::Result<usize>) {
        let (mut replies, mut got, mut at) = (Replies::default(), Vec::new(), 0);
        for there in (0..bytes.len())
            .step_by(piece)
            .map(|from| (from + piece).min(bytes.len()))
        {
            loop {
                match replies.next(&bytes[at..there]) {
                    Ok(Some(reply)) => {
                        let body = String::from_utf8_lossy(reply.body).into_owned();
                        got.push((reply.status, reply.retry_after.map(str::to_owned), body));
                        at += reply.bytes;
                    }
                    Ok(None) => break,
                    Err(error) => return (got, Err(error)),
                }
            }
        }
        (got, Ok(bytes.len() - at))
    }

    #[test]
    fn pipelined_replies_are_cut_at_any_boundary() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
            HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain\
            HTTP/1.1 503 Service Unavailable\r\nretry-after:  7 \r\nCONTENT-LENGTH:2\r\n\r\nno\
            HTTP/1.1 503 Service Unavailable\r\nretry-after:  7 \r\nCONTENT-LENGTH:2\r\n\r\nNO\
            HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200";
        for piece in [1, 2, 7, 64, 4096] {
            let (got, rest) = read_all(bytes, piece);
            let seven = || Some("7".to_owned());
            let want = [
                (200, None, "hello".to_owned()),
                (200, None, "again".to_owned()),
                (503, seven(), "no".to_owned()),
                (503, seven(), "NO".to_owned()),
                (204, None, String::new()),
            ];
            assert_eq!(got, want, "pieces of {piece}");
            assert_eq!(rest.expect("no error"), "HTTP/1.1 200".len());
        }
    }

    #[test]
    fn what_is_not_http_is_an_error_and_never_a_hang() {
        let endless = vec![b'x'; MAX_HEAD_BYTES + 10];
        let cases: [&[u8]; 5] = [
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            &endless,
        ];
        for bytes in cases {
            let (got, rest) = read_all(bytes, 4096);
            assert!(got.is_empty());
            let kind = rest.expect_err("an error").kind();
            assert_eq!(
                kind,
                io::ErrorKind::InvalidData,
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn the_head_is_what_servers_expect() {
        let want = "POST /a/clicks HTTP/1.1\r\nhost: h:1\r\ncontent-type: application/json\r\ncontent-length: 1203\r\n\r\n";
        assert_eq!(head("h:1", "/a/clicks", 1203), want);
    }
}
