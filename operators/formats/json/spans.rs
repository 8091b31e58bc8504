//! Where the rows of a body are, in its own text.
//!
//! The parser unescapes strings in place in a copy and keeps no positions, which is right as long as
//! rows are good. Only when one is not are its bytes wanted, and then the body is scanned again.
//! The scan assumes valid JSON: it only has to skip strings and count brackets.

use std::ops::Range;

use memchr::{memchr, memchr2};

/// The elements of the outermost array of `body`, which is valid JSON.
pub(super) fn of_array(body: &[u8]) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut at = array_start(body);
    let (mut start, mut depth) = (at, 0usize);
    while at < body.len() {
        match body[at] {
            b'"' => at = string_end(body, at),
            b'{' | b'[' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b']' if depth > 0 => depth -= 1,
            b',' if depth == 0 => {
                spans.push(trim(body, start..at));
                start = at + 1;
            }
            b']' => {
                spans.push(trim(body, start..at));
                break;
            }
            _ => {}
        }
        at += 1;
    }
    spans
}

/// The lines of `body` that are not blank.
pub(super) fn of_lines(body: &[u8]) -> impl Iterator<Item = Range<usize>> {
    of_lines_from(body, 0)
}

/// The lines of `body` from `at` on that are not blank.
pub(super) fn of_lines_from(body: &[u8], mut at: usize) -> impl Iterator<Item = Range<usize>> {
    std::iter::from_fn(move || {
        let start = line_start(body, at)?;
        let end = memchr(b'\n', &body[start..]).map_or(body.len(), |length| start + length);
        at = end;
        Some(trim(body, start..end))
    })
}

/// The first byte from `at` on that is no blank.
pub(super) fn line_start(body: &[u8], at: usize) -> Option<usize> {
    let blanks = body[at..].iter().take_while(|byte| byte.is_ascii_whitespace());
    let start = at + blanks.count();
    (start < body.len()).then_some(start)
}

/// Behind the line break at `at`, if there is nothing but blanks in between.
pub(super) fn line_end(body: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match body.get(at) {
            None => return Some(at),
            Some(b'\n') => return Some(at + 1),
            Some(byte) if byte.is_ascii_whitespace() => at += 1,
            Some(_) => return None,
        }
    }
}

/// The comma or bracket behind the element at `at` of an array.
pub(super) fn element_end(body: &[u8], at: usize) -> Option<usize> {
    outside(body, at).ok()
}

/// Whether all brackets of `text` are closed within, and no comma stands outside of them.
pub(super) fn is_one(text: &[u8]) -> bool {
    outside(text, 0) == Err(0)
}

/// The first comma or closing bracket that is in no brackets; or how many brackets are open at the end.
fn outside(body: &[u8], mut at: usize) -> Result<usize, usize> {
    let mut depth = 0;
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => at = string_end(body, at),
            b'{' | b'[' => depth += 1,
            b',' | b'}' | b']' if depth == 0 => return Ok(at),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    Err(depth)
}

/// `span` without the blanks around it.
pub(super) fn trim(body: &[u8], span: Range<usize>) -> Range<usize> {
    let text = body[span.clone()].trim_ascii_start();
    let start = span.end - text.len();
    start..start + text.trim_ascii_end().len()
}

fn array_start(body: &[u8]) -> usize {
    let mut at = 0;
    while at < body.len() {
        match body[at] {
            b'"' => at = string_end(body, at),
            b'[' => return at + 1,
            _ => {}
        }
        at += 1;
    }
    body.len()
}

/// The closing quote of the string that opens at `at`.
fn string_end(body: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(length) = body.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += length;
        if body[at] == b'"' {
            return at;
        }
        at += 2;
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str, spans: impl IntoIterator<Item = Range<usize>>) -> Vec<&str> {
        spans.into_iter().map(|span| &body[span]).collect()
    }

    #[test]
    fn elements_of_an_envelope() {
        let body = r#" { "a[\"]" : [ {"x":"],[\\"} , [1,[2]],
            "\\\"," ,3 ] }"#;
        let expect = [r#"{"x":"],[\\"}"#, "[1,[2]]", r#""\\\",""#, "3"];
        assert_eq!(texts(body, of_array(body.as_bytes())), expect);
    }

    #[test]
    fn lines() {
        let body = "{\"a\":1}\r\n\n  \n {\"b\":2} \n{";
        let expect = ["{\"a\":1}", "{\"b\":2}", "{"];
        assert_eq!(texts(body, of_lines(body.as_bytes())), expect);
    }
}
