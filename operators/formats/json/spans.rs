//! Where the rows of a body are, in its own text.
//!
//! The parser unescapes strings in place in a copy and keeps no positions, which is right as long as
//! rows are good. Only when one is not are its bytes wanted, and then the body is scanned again.
//! The scan assumes valid JSON: it only has to skip strings and count brackets.

use std::ops::Range;

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
    let mut start = 0;
    body.split(|byte| *byte == b'\n').filter_map(move |line| {
        let span = trim(body, start..start + line.len());
        start += line.len() + 1;
        (!span.is_empty()).then_some(span)
    })
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
    while at < body.len() && body[at] != b'"' {
        at += if body[at] == b'\\' { 2 } else { 1 };
    }
    at
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
