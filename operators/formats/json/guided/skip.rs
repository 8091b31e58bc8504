//! Values that go nowhere: they must be JSON all the same.

use super::number;
use super::scan::Text;

/// Arrays and objects in each other, of which the parser takes more: deeper ones are left to it.
const MAX_DEPTH: usize = 32;

/// Behind the value at `at`.
pub(super) fn value(text: Text<'_>, at: usize) -> Option<usize> {
    nested(text, at, MAX_DEPTH)
}

fn nested(text: Text<'_>, at: usize, depth: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => text.string(at + 1),
        b'-' | b'0'..=b'9' => number::skip(text, at),
        b't' => text.word(at, b"true"),
        b'f' => text.word(at, b"false"),
        b'n' => text.word(at, b"null"),
        b'{' if depth > 0 => all(text, at, b'}', |at| {
            let at = text.string(text.expect(at, b'"')?)?;
            let at = text.expect(text.blanks(at), b':')?;
            nested(text, text.blanks(at), depth - 1)
        }),
        b'[' if depth > 0 => all(text, at, b']', |at| nested(text, at, depth - 1)),
        _ => None,
    }
}

/// Behind the bracket `close` that belongs to the one at `at`, with `one` after the other in between.
fn all(text: Text<'_>, at: usize, close: u8, one: impl Fn(usize) -> Option<usize>) -> Option<usize> {
    let mut at = text.blanks(at + 1);
    if text.get(at)? == close {
        return Some(at + 1);
    }
    loop {
        at = text.blanks(one(at)?);
        match text.get(at)? {
            b',' => at = text.blanks(at + 1),
            byte if byte == close => return Some(at + 1),
            _ => return None,
        }
    }
}
