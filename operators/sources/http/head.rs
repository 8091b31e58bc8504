//! Telling a plain beacon from anything else by its head (RFC 9112).
//!
//! A beacon is plain if there is one way to read it: HTTP/1.1, `POST` with one `Content-Length` or `GET` without a
//! body, and no header that asks for more (an encoding, a close, an upgrade, `Expect`). Whatever is not, or is wrong,
//! is left to hyper, which knows the rest of HTTP: nothing here refuses.

use std::mem::MaybeUninit;

use http::HeaderValue;
use httparse::{Header, ParserConfig, Request, Status};

/// Headers of a plain beacon, at most. Browsers send about twenty.
const HEADERS: usize = 48;

/// What the first bytes are.
#[derive(Debug, PartialEq)]
pub(super) enum Head<'a> {
    Plain(Plain<'a>),
    /// The begin of a head.
    Partial,
    /// Not for us.
    Other,
}

/// A plain beacon.
#[derive(Debug, PartialEq)]
pub(super) struct Plain<'a> {
    /// `GET`, not `POST`.
    pub get: bool,
    pub path: &'a str,
    pub query: &'a str,
    pub origin: Option<HeaderValue>,
    /// Bytes of the head.
    pub head: usize,
    /// Bytes of the body behind it.
    pub body: usize,
}

/// Reads the head that `bytes` begin with.
pub(super) fn read(bytes: &[u8]) -> Head<'_> {
    let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS];
    let mut request = Request::new(&mut []);
    match ParserConfig::default().parse_request_with_uninit_headers(&mut request, bytes, &mut headers) {
        Ok(Status::Complete(head)) => plain(&request, head).map_or(Head::Other, Head::Plain),
        Ok(Status::Partial) => Head::Partial,
        Err(_) => Head::Other,
    }
}

fn plain<'a>(request: &Request<'_, 'a>, head: usize) -> Option<Plain<'a>> {
    let get = match (request.version?, request.method?) {
        (1, "POST") => false,
        (1, "GET") => true,
        _ => return None,
    };
    let target = request.path.filter(|target| is_ordinary(target))?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (mut length, mut origin) = (None, None);
    for Header { name, value } in request.headers.iter() {
        // By length first: most headers are none of these.
        match name.len() {
            6 if is(name, "origin") && origin.is_none() => {
                origin = Some(HeaderValue::from_bytes(value).ok()?)
            }
            10 if is(name, "connection") && !value.eq_ignore_ascii_case(b"keep-alive") => return None,
            14 if is(name, "content-length") => {
                let earlier = length.replace(digits(value)?);
                if earlier.is_some() {
                    return None;
                }
            }
            6 if is(name, "expect") => return None,
            7 if is(name, "upgrade") => return None,
            16 if is(name, "content-encoding") => return None,
            17 if is(name, "transfer-encoding") => return None,
            _ => {}
        }
    }
    // A POST without a length has no body, which is for hyper to say.
    let body = if get { length.unwrap_or(0) } else { length? };
    (!get || body == 0).then_some(Plain {
        get,
        path,
        query,
        origin,
        head,
        body,
    })
}

fn is(name: &str, known: &str) -> bool {
    name.eq_ignore_ascii_case(known)
}

/// Whether a target is a path, and a query of characters that may stand in one as they are (RFC 3986, section 3.4).
fn is_ordinary(target: &str) -> bool {
    let may = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&b);
    target.starts_with('/') && target.bytes().all(may)
}

/// A length of at most nine digits: no limit is larger.
fn digits(value: &[u8]) -> Option<usize> {
    let plain = !value.is_empty() && value.len() <= 9 && value.iter().all(u8::is_ascii_digit);
    plain.then(|| {
        value
            .iter()
            .fold(0, |n, digit| n * 10 + usize::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_one_way_is_plain() {
        let post = "POST /a?b=c HTTP/1.1\r\nHost: x\r\n";
        for (head, expect) in [
            (format!("{post}content-length: 12\r\n\r\n"), Some(12)),
            (
                format!("{post}Content-Length: 0\r\nCONNECTION: Keep-Alive\r\n\r\n{{}}"),
                Some(0),
            ),
            ("GET /a.gif?b=c HTTP/1.1\r\nhost: x\r\n\r\n".into(), Some(0)),
            (
                "GET /a.gif?b=c HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n".into(),
                None,
            ),
            (format!("{post}\r\n"), None),
            ("POST /a HTTP/1.0\r\ncontent-length: 1\r\n\r\n".into(), None),
            ("PUT /a HTTP/1.1\r\ncontent-length: 1\r\n\r\n".into(), None),
            (
                "POST http://x/a HTTP/1.1\r\ncontent-length: 1\r\n\r\n".into(),
                None,
            ),
            ("POST /a#b HTTP/1.1\r\ncontent-length: 1\r\n\r\n".into(), None),
            (
                format!("{post}content-length: 1\r\ncontent-length: 1\r\n\r\n"),
                None,
            ),
            (
                format!("{post}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
                None,
            ),
            (
                format!("{post}content-length: 1\r\nContent-Encoding: gzip\r\n\r\n"),
                None,
            ),
            (
                format!("{post}content-length: 1\r\nexpect: 100-continue\r\n\r\n"),
                None,
            ),
            (
                format!("{post}content-length: 1\r\nconnection: close\r\n\r\n"),
                None,
            ),
            (format!("{post}content-length: +1\r\n\r\n"), None),
            (format!("{post}content-length: 1, 1\r\n\r\n"), None),
            (format!("{post}content-length: 9999999999\r\n\r\n"), None),
            (format!("{post}content-length : 1\r\n\r\n"), None),
            (format!("{post}content-length: 1\r\n x: y\r\n\r\n"), None),
            ("PRI * HTTP/2.0\r\n\r\n".into(), None),
        ] {
            let got = match read(head.as_bytes()) {
                Head::Plain(plain) => {
                    assert_eq!(plain.query, "b=c", "{head:?}");
                    assert!(head.as_bytes()[..plain.head].ends_with(b"\r\n\r\n"), "{head:?}");
                    Some(plain.body)
                }
                other => {
                    assert_eq!(other, Head::Other, "{head:?}");
                    None
                }
            };
            assert_eq!(got, expect, "{head:?}");
        }
        for end in 0..post.len() {
            assert_eq!(read(&post.as_bytes()[..end]), Head::Partial, "{end} bytes");
        }
    }
}
