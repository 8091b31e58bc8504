//! Numbers out of the bytes of JSON.
//!
//! Digits are read eight at a time. A decimal fraction is divided out where that is exact, and left to the standard
//! library otherwise, so that every value is the one nearest to what is written, as simd-json's is.

use super::scan::Text;

/// Digits that surely fit an integer of 64 bits without a sign.
const DIGITS: usize = 19;

/// The largest integer up to which floats have all of them.
const EXACT: u64 = 1 << 53;

/// Powers of ten that floats have exactly.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// The whole number at `at` and its end. Nothing if it has a fraction, an exponent, or does not fit.
pub(super) fn integer(text: Text<'_>, at: usize) -> Option<(i64, usize)> {
    let negative = text.get(at)? == b'-';
    let (magnitude, end) = natural(text, at + usize::from(negative))?;
    if matches!(text.get(end), Some(b'.' | b'e' | b'E')) {
        return None;
    }
    let value = match negative {
        true => 0i64.checked_sub_unsigned(magnitude)?,
        false => i64::try_from(magnitude).ok()?,
    };
    Some((value, end))
}

/// The number at `at` and its end. An integer is a float as simd-json makes one of it: `-0` is not negative.
pub(super) fn float(text: Text<'_>, at: usize) -> Option<(f64, usize)> {
    let negative = text.get(at)? == b'-';
    let (whole, point) = natural(text, at + usize::from(negative))?;
    let (digits, places, end) = match text.get(point) {
        Some(b'.') => {
            let (digits, end) = digits(text, point + 1, whole)?;
            (digits, end - point - 1, end)
        }
        Some(b'e' | b'E') => return parsed(text, at, point),
        _ => return integer(text, at).map(|(value, end)| (value as f64, end)),
    };
    let read = end - at - 1 - usize::from(negative);
    if places == 0 {
        return None;
    }
    if matches!(text.get(end), Some(b'e' | b'E')) || read > DIGITS || digits > EXACT || places >= TENS.len() {
        return parsed(text, at, end);
    }
    let value = digits as f64 / TENS[places];
    Some((if negative { -value } else { value }, end))
}

/// Behind a number of which only the form counts. Nothing if it might be too large for a float.
pub(super) fn skip(text: Text<'_>, at: usize) -> Option<usize> {
    /// Whole digits of a number that is surely below the largest float, with an exponent of two digits or without.
    const SAFE: usize = 200;
    let start = at + usize::from(text.get(at)? == b'-');
    let whole = some_digits(text, start)?;
    if whole - start > SAFE || text.get(start)? == b'0' && whole - start > 1 {
        return None;
    }
    let fraction = match text.get(whole) {
        Some(b'.') => some_digits(text, whole + 1)?,
        _ => whole,
    };
    match text.get(fraction) {
        Some(b'e' | b'E') => {
            let signed = usize::from(matches!(text.get(fraction + 1), Some(b'+' | b'-')));
            let end = some_digits(text, fraction + 1 + signed)?;
            (end - fraction - 1 - signed <= 2).then_some(end)
        }
        _ => Some(fraction),
    }
}

/// What the standard library makes of the number at `at`, whose digits are read up to `end`; an exponent may follow.
fn parsed(text: Text<'_>, at: usize, end: usize) -> Option<(f64, usize)> {
    let end = match text.get(end) {
        Some(b'e' | b'E') => {
            let signed = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
            some_digits(text, end + 1 + signed)?
        }
        _ => end,
    };
    let value: f64 = std::str::from_utf8(&text.bytes[at..end]).ok()?.parse().ok()?;
    value.is_finite().then_some((value, end))
}

/// The number without sign, fraction and exponent at `at`, and its end. Only zero starts with a zero.
fn natural(text: Text<'_>, at: usize) -> Option<(u64, usize)> {
    let (value, end) = digits(text, at, 0)?;
    let length = end - at;
    let valid = length == 1 || (2..=DIGITS).contains(&length) && text.bytes[at] != b'0';
    valid.then_some((value, end))
}

/// `before` with the digits at `at` behind it, and their end. More than [`DIGITS`] together may overflow, and more than
/// [`DIGITS`] here are left to others.
fn digits(text: Text<'_>, mut at: usize, before: u64) -> Option<(u64, usize)> {
    let (start, mut value) = (at, before);
    while let Some(word) = text.word_at(at) {
        let digits = word ^ u64::from_le_bytes(*b"00000000");
        let others = (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080;
        let count = others.trailing_zeros() / 8;
        if count == 0 {
            return Some((value, at));
        }
        value = value
            .wrapping_mul(10u64.pow(count))
            .wrapping_add(eight(digits << (64 - 8 * count)));
        at += count as usize;
        if count < 8 {
            return Some((value, at));
        }
        if at - start > DIGITS {
            return None;
        }
    }
    while let Some(digit) = text.get(at).map(|byte| byte.wrapping_sub(b'0'))
        && digit <= 9
    {
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    Some((value, at))
}

/// The number of eight digits, the first of them in the lowest byte (Daniel Lemire, "Quickly parsing eight digits",
/// 2018).
fn eight(digits: u64) -> u64 {
    let pairs = (digits.wrapping_mul(10) + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff
}

/// The end of the digits at `at`, of which there must be one.
fn some_digits(text: Text<'_>, at: usize) -> Option<usize> {
    let digits = text.bytes.get(at..)?.iter();
    let count = digits.take_while(|byte| byte.is_ascii_digit()).count();
    (count > 0).then_some(at + count)
}
