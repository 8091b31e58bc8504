//! Answers as they go over an HTTP/1.1 connection, for the connections that are not hyper's.

use std::cell::Cell;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use futures::FutureExt;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http_body_util::BodyExt;
use httpdate::fmt_http_date;
use millstream_engine::time::Timestamp;

use super::answer::Answer;

/// Bytes of a date as HTTP writes it (RFC 9110, section 5.6.7).
const DATE: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();

/// The date of answers, written once a second.
pub(super) struct Date(Cell<(i64, [u8; DATE])>);

impl Date {
    pub fn new() -> Date {
        Date(Cell::new((i64::MIN, [0; DATE])))
    }

    fn at(&self, now: Timestamp) -> [u8; DATE] {
        let second = now.0.div_euclid(1_000_000);
        let (written, mut date) = self.0.get();
        if written != second {
            let at = Duration::from_secs(u64::try_from(second).unwrap_or(0));
            date.copy_from_slice(fmt_http_date(UNIX_EPOCH + at).as_bytes());
            self.0.set((second, date));
        }
        date
    }

    /// Writes a reply with 200 and nothing else to say but to the page of an origin, which may read it or not: what
    /// [`super::answer::allow_origin`] says.
    pub fn write_reply(
        &self,
        body: &[u8],
        page: Option<(&HeaderValue, bool)>,
        now: Timestamp,
        to: &mut Vec<u8>,
    ) {
        to.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n");
        if let Some((origin, allowed)) = page {
            to.extend_from_slice(b"vary: Origin\r\n");
            if allowed {
                to.extend_from_slice(b"access-control-allow-origin: ");
                to.extend_from_slice(origin.as_bytes());
                to.extend_from_slice(b"\r\naccess-control-allow-credentials: true\r\n");
            }
        }
        self.write_rest(Some(body.len()), body, now, to);
    }

    /// Writes any answer.
    pub fn write(&self, answer: Answer, now: Timestamp, to: &mut Vec<u8>) {
        let (head, body) = answer.into_parts();
        let reason = head.status.canonical_reason().unwrap_or_default();
        push(to, format_args!("HTTP/1.1 {} {reason}\r\n", head.status.as_u16()));
        for (name, value) in &head.headers {
            to.extend_from_slice(name.as_str().as_bytes());
            to.extend_from_slice(b": ");
            to.extend_from_slice(value.as_bytes());
            to.extend_from_slice(b"\r\n");
        }
        let body = body.collect().now_or_never();
        let body = body.map(|body| body.unwrap_or_default().to_bytes());
        let body = body.expect("the body of an answer is there when it is made");
        let length = (!head.headers.contains_key(CONTENT_LENGTH)).then_some(body.len());
        self.write_rest(length, &body, now, to);
    }

    fn write_rest(&self, length: Option<usize>, body: &[u8], now: Timestamp, to: &mut Vec<u8>) {
        if let Some(length) = length {
            push(to, format_args!("content-length: {length}\r\n"));
        }
        to.extend_from_slice(b"date: ");
        to.extend_from_slice(&self.at(now));
        to.extend_from_slice(b"\r\n\r\n");
        to.extend_from_slice(body);
    }
}

fn push(to: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    to.write_fmt(text).expect("memory takes all bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_its_second() {
        let date = Date::new();
        for (at, expect) in [
            (784_111_777_000_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777_999_999, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778_000_000, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (784_111_777_000_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&date.at(Timestamp(at))), Ok(expect));
        }
    }
}
