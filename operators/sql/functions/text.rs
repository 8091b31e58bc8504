//! Texts: pieces, places, kinds and encodings.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::rows::Kind::{Integer, Text};
use super::rows::{Definition, Gives, Make, Row, Value};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition {
        name: "split_index",
        takes: &[&[Text, Text, Integer]],
        gives: Gives::Text,
        make: |_| Ok(Box::new(split_index)),
    },
    Definition {
        name: "locate",
        takes: &[&[Text, Text], &[Text, Text, Integer]],
        gives: Gives::Integer,
        make: |_| Ok(Box::new(locate)),
    },
    is("is_uuid", |_| {
        Ok(Box::new(|row| Some(Value::Boolean(is_uuid(row.text(0))))))
    }),
    is("is_digit", |_| {
        Ok(Box::new(|row| {
            Some(Value::Boolean(all(row.text(0), |c| c.is_ascii_digit())))
        }))
    }),
    is("is_alpha", |_| {
        Ok(Box::new(|row| {
            Some(Value::Boolean(all(row.text(0), char::is_alphabetic)))
        }))
    }),
    is("is_decimal", |_| {
        Ok(Box::new(|row| Some(Value::Boolean(is_decimal(row.text(0))))))
    }),
    Definition {
        name: "to_base64",
        takes: &[&[Text]],
        gives: Gives::Text,
        make: |_| Ok(Box::new(|row| Some(Value::text(STANDARD.encode(row.text(0)))))),
    },
    Definition {
        name: "from_base64",
        takes: &[&[Text]],
        gives: Gives::Text,
        make: |_| {
            Ok(Box::new(|row| {
                let bytes = STANDARD.decode(row.text(0)).ok()?;
                String::from_utf8(bytes).ok().map(Value::text)
            }))
        },
    },
];

const fn is(name: &'static str, make: Make) -> Definition {
    Definition {
        name,
        takes: &[&[Text]],
        gives: Gives::Boolean,
        make,
    }
}

/// The piece at an index, counted from 0.
fn split_index<'a>(row: &Row<'a>) -> Option<Value<'a>> {
    let index = usize::try_from(row.integer(2)?).ok()?;
    let between = row.text(1);
    if between.is_empty() {
        return None;
    }
    let text = row.text(0);
    let piece = match between.as_bytes() {
        [byte] => piece(text, *byte, index),
        _ => text.split(between).nth(index),
    };
    piece.map(Value::text)
}

/// The piece at an index between bytes that are ASCII, as a text of one byte is.
fn piece(text: &str, between: u8, index: usize) -> Option<&str> {
    let mut start = 0;
    let mut left = index;
    for (at, byte) in text.bytes().enumerate() {
        if byte != between {
            continue;
        }
        if left == 0 {
            return Some(&text[start..at]);
        }
        left -= 1;
        start = at + 1;
    }
    (left == 0).then(|| &text[start..])
}

/// Where the first text begins in the second, counted in characters from 1; 0 when it is not there.
fn locate<'a>(row: &Row<'a>) -> Option<Value<'a>> {
    let (what, text) = (row.text(0), row.text(1));
    let from = usize::try_from(row.integer(2).unwrap_or(1))
        .ok()?
        .checked_sub(1)?;
    let Some((start, _)) = text.char_indices().chain([(text.len(), ' ')]).nth(from) else {
        return Some(Value::Integer(0));
    };
    let found = text[start..]
        .find(what)
        .map(|at| text[..start + at].chars().count() + 1);
    Some(Value::Integer(found.unwrap_or(0) as i64))
}

fn all(text: &str, fits: fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(fits)
}

/// 8-4-4-4-12 hexadecimal digits, of any version.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Digits with an optional sign, fraction and exponent; not the names that floating point has for numbers.
fn is_decimal(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) && text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_between_bytes_are_those_of_split() {
        for text in [
            "",
            "/",
            "a",
            "/a",
            "a/",
            "a//b",
            "https://x.y/ü/c/",
            "no",
            "é/€/𝄞",
        ] {
            for index in 0..8 {
                assert_eq!(
                    piece(text, b'/', index),
                    text.split("/").nth(index),
                    "{text:?} {index}"
                );
            }
        }
    }
}
