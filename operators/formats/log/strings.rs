//! Strings of JSON, eight bytes at a time: where they end, what their escapes stand for, and what is between them.

use super::errors::Bad;

/// Bytes of a string up to the first quote, backslash or control character, eight at a time.
pub(super) fn ordinary(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    // The lowest byte that is found is right; those above it may be wrong through borrowing.
    let zero = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let x = u64::from_le_bytes(*chunk);
        let control = x.wrapping_sub(ONES * 0x20) & !x & HIGHS;
        let found = zero(x ^ (ONES * u64::from(b'"'))) | zero(x ^ (ONES * u64::from(b'\\'))) | control;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let special = |b: &u8| matches!(b, b'"' | b'\\' | 0..=0x1f);
    at + bytes[at..].iter().position(special).unwrap_or(bytes.len() - at)
}

/// Appends a string whose escapes were checked, without them.
///
/// # Errors
/// It has half of a pair of surrogates, which is no character.
pub(super) fn unescape(text: &str, to: &mut String) -> Result<(), Bad> {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        to.push_str(&rest[..at]);
        let escape = rest.as_bytes()[at + 1];
        rest = &rest[at + 2..];
        to.push(match escape {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let (c, after) = unit(rest).ok_or_else(surrogate)?;
                rest = after;
                c
            }
            other => char::from(other),
        });
    }
    to.push_str(rest);
    Ok(())
}

/// The character behind `\u`, and what follows.
fn unit(text: &str) -> Option<(char, &str)> {
    let code = |text: &str| u32::from_str_radix(text.get(..4)?, 16).ok();
    let high = code(text)?;
    if !(0xd800..0xdc00).contains(&high) {
        return Some((char::from_u32(high)?, &text[4..]));
    }
    let low = code(text[4..].strip_prefix("\\u")?)?;
    let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    let c = char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + low)?;
    Some((c, &text[10..]))
}

fn surrogate() -> Bad {
    Bad::new("bad_text", "half of a pair of surrogates is no character")
}

/// Appends JSON without the blanks between its parts.
pub(super) fn compact(json: &str, to: &mut String) {
    let (mut start, mut at) = (0, 0);
    let bytes = json.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = string_end(bytes, at),
            b' ' | b'\t' | b'\r' | b'\n' => {
                to.push_str(&json[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    to.push_str(&json[start..]);
}

/// The closing quote of the string that opens at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        at += ordinary(&bytes[at..]);
        match bytes.get(at) {
            Some(b'\\') => at += 2,
            _ => return at,
        }
    }
}
