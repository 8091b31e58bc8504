//! Numbers from the digits they are written with. None goes through binary, so none loses a digit.

use std::cmp::Ordering;

/// A number times ten to the power of `scale`, rounded half away from zero; nothing if it is no number of JSON, or has
/// more digits than 128 bits hold.
pub(super) fn decimal(text: &str, scale: u32) -> Option<i128> {
    scaled(text, scale).map(|(value, _)| value)
}

/// A whole number; `5.0` and `5e0` are five, `5.5` is none.
pub(super) fn integer(text: &str) -> Option<i128> {
    match text.parse::<i64>() {
        Ok(value) if !text.starts_with('+') => Some(i128::from(value)),
        _ => scaled(text, 0)
            .filter(|(_, exact)| *exact)
            .map(|(value, _)| value),
    }
}

/// The number, and whether nothing was cut from it.
fn scaled(text: &str, scale: u32) -> Option<(i128, bool)> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if whole.is_empty() || mantissa.ends_with('.') || !digits().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Where the point is, counted in digits from the left, once all is moved by the scale.
    let point = (whole.len() as i64)
        .checked_add(exponent)?
        .checked_add(i64::from(scale))?;
    let (mut value, mut exact) = (0_i128, true);
    for (at, digit) in digits().enumerate() {
        let digit = i128::from(digit - b'0');
        match (at as i64).cmp(&point) {
            Ordering::Less => value = value.checked_mul(10)?.checked_add(digit)?,
            Ordering::Equal => value += i128::from(digit >= 5),
            Ordering::Greater => {}
        }
        exact &= (at as i64) < point || digit == 0;
    }
    let missing = point - (whole.len() + fraction.len()) as i64;
    if missing > 0 && value != 0 {
        let factor = 10_i128.checked_pow(u32::try_from(missing).ok()?)?;
        value = value.checked_mul(factor)?;
    }
    Some((if negative { -value } else { value }, exact))
}

/// A finite number of 64 bits, the nearest to what is written.
pub(super) fn float(text: &str) -> Option<f64> {
    let starts = text
        .trim_start_matches('-')
        .starts_with(|c: char| c.is_ascii_digit());
    let value: f64 = text.parse().ok().filter(|_| starts)?;
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_kept() {
        for (text, scale, expect) in [
            ("0", 0, Some(0)),
            ("-12", 2, Some(-1_200)),
            ("1.005", 2, Some(101)),
            ("-1.005", 2, Some(-101)),
            ("1.0049", 2, Some(100)),
            ("0.3", 18, Some(300_000_000_000_000_000)),
            (
                "123456789012345678901234567890.12345678",
                8,
                Some(12345678901234567890123456789012345678),
            ),
            ("1.5e3", 0, Some(1_500)),
            ("15E-1", 0, Some(2)),
            ("0.5", 0, Some(1)),
            ("0.05", 0, Some(0)),
            ("5e-3", 0, Some(0)),
            ("1e40", 0, None),
            ("0e400", 0, Some(0)),
            ("1e-400", 0, Some(0)),
            ("", 0, None),
            (".5", 0, None),
            ("5.", 0, None),
            ("1x", 0, None),
            ("0x10", 0, None),
        ] {
            assert_eq!(decimal(text, scale), expect, "{text} at {scale}");
        }
        for (text, expect) in [
            ("5", Some(5)),
            ("5.0", Some(5)),
            ("5e2", Some(500)),
            ("5.5", None),
            ("5.00000000001", None),
            ("9223372036854775808", Some(9_223_372_036_854_775_808)),
            ("+5", None),
            ("five", None),
        ] {
            assert_eq!(integer(text), expect, "{text}");
        }
        for text in ["nan", "inf", "-inf", "1e999", "infinity", ""] {
            assert_eq!(float(text), None, "{text}");
        }
        assert_eq!(float("0.1234567890123456789"), Some(0.123_456_789_012_345_68));
    }
}
