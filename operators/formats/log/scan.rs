//! One pass over a line of JSON, which is checked as a whole and of which only what is wanted is noted: where it is and
//! what it is. Nothing is converted here, so a number keeps the digits it was written with, and what no column wants
//! costs no more than to pass over it.
//!
//! The grammar is RFC 8259, and nothing else. A key that is there twice counts as its last, as in Python.

use super::errors::Bad;
use super::paths::{NodeId, Paths};

/// Arrays and objects in each other, at most: deeper is an attack on the stack.
const MAX_DEPTH: usize = 128;

/// What a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Missing,
    Null,
    True,
    False,
    Number,
    /// The quotes are not in its place.
    String,
    Object,
    Array,
}

/// A value and its place in the line, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Raw {
    pub kind: Kind,
    /// Whether a string has escapes.
    pub escaped: bool,
    pub start: u32,
    pub end: u32,
}

impl Raw {
    /// What is there.
    pub fn text(self, of: &str) -> &str {
        &of[self.start as usize..self.end as usize]
    }
}

/// Where a line stops being JSON, and what was expected.
type Wrong = (usize, &'static str);

/// Notes what is wanted of a line, and checks all of it.
pub(super) fn line(text: &str, paths: &mut Paths, slots: &mut [Raw]) -> Result<Raw, Bad> {
    slots.fill(Raw::default());
    let mut scan = Scan::new(text, 0);
    let scanned = scan.value(Some(0), paths, slots, 0).and_then(|root| {
        scan.blanks();
        match scan.at == text.len() {
            true => Ok(root),
            false => Err((scan.at, "the end of the line")),
        }
    });
    scanned.map_err(|(at, expected)| {
        let column = text[..text.floor_char_boundary(at)].chars().count() + 1;
        let found = match text[text.floor_char_boundary(at)..].chars().next() {
            Some(c) => format!("{c:?}"),
            None => "the end of the line".into(),
        };
        Bad::new(
            "invalid_json",
            format!("character {column}: expected {expected}, found {found}"),
        )
    })
}

/// The members of a list or an object, which was scanned before, one by one.
pub(super) struct Members<'t> {
    scan: Scan<'t>,
    keyed: bool,
}

impl<'t> Members<'t> {
    pub fn new(text: &'t str, of: Raw) -> Members<'t> {
        Members {
            scan: Scan::new(text, of.start as usize + 1),
            keyed: of.kind == Kind::Object,
        }
    }

    /// The key, of an object's, and the value of the next; notes what is wanted of it.
    pub fn next(&mut self, paths: &mut Paths, slots: &mut [Raw]) -> Option<(Raw, Raw)> {
        slots.fill(Raw::default());
        self.scan.blanks();
        let mut key = Raw::default();
        match self.scan.peek() {
            None | Some(b']' | b'}') => return None,
            Some(b',') => self.scan.at += 1,
            Some(_) => {}
        }
        if self.keyed {
            self.scan.blanks();
            key = self.scan.string().ok()?;
            self.scan.blanks();
            self.scan.at += 1;
        }
        let value = self.scan.value(Some(0), paths, slots, 0).ok()?;
        Some((key, value))
    }
}

struct Scan<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
}

impl<'t> Scan<'t> {
    fn new(text: &'t str, at: usize) -> Scan<'t> {
        let bytes = text.as_bytes();
        Scan { text, bytes, at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    /// A value; `node` is where in the tree of what is wanted it stands, if anywhere.
    fn value(
        &mut self,
        node: Option<NodeId>,
        paths: &mut Paths,
        slots: &mut [Raw],
        depth: usize,
    ) -> Result<Raw, Wrong> {
        self.blanks();
        let start = self.at;
        let raw = match self.peek() {
            Some(b'"') => self.string()?,
            Some(b'{' | b'[') if depth == MAX_DEPTH => return Err((start, "less depth")),
            Some(b'{') => {
                let below = node.filter(|node| paths.has_children(*node));
                self.object(below, paths, slots, depth)?;
                self.raw(Kind::Object, start)
            }
            Some(b'[') => {
                self.array(paths, slots, depth)?;
                self.raw(Kind::Array, start)
            }
            Some(b't') => self.word("true", Kind::True)?,
            Some(b'f') => self.word("false", Kind::False)?,
            Some(b'n') => self.word("null", Kind::Null)?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => return Err((start, "a value")),
        };
        if let Some(slot) = node.and_then(|node| paths.slot_of(node)) {
            slots[slot] = raw;
        }
        Ok(raw)
    }

    fn raw(&self, kind: Kind, start: usize) -> Raw {
        Raw {
            kind,
            escaped: false,
            start: start as u32,
            end: self.at as u32,
        }
    }

    fn object(
        &mut self,
        node: Option<NodeId>,
        paths: &mut Paths,
        slots: &mut [Raw],
        depth: usize,
    ) -> Result<(), Wrong> {
        self.at += 1;
        self.blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut position = 0;
        loop {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err((self.at, "a key in quotes"));
            }
            let key = self.string()?;
            self.blanks();
            if self.peek() != Some(b':') {
                return Err((self.at, "a colon"));
            }
            self.at += 1;
            let child = node.and_then(|node| self.child(node, position, key, paths));
            if let Some(child) = child.filter(|child| paths.has_children(*child)) {
                forget(child, paths, slots);
            }
            self.value(child, paths, slots, depth + 1)?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err((self.at, "a comma or }")),
            }
            position += 1;
        }
        self.at += 1;
        Ok(())
    }

    fn child(&self, node: NodeId, position: usize, key: Raw, paths: &mut Paths) -> Option<NodeId> {
        if !key.escaped {
            return paths.child(node, position, key.text(self.text));
        }
        let mut name = String::new();
        unescape(key.text(self.text), &mut name).ok()?;
        paths.child(node, position, &name)
    }

    fn array(&mut self, paths: &mut Paths, slots: &mut [Raw], depth: usize) -> Result<(), Wrong> {
        self.at += 1;
        self.blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(None, paths, slots, depth + 1)?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err((self.at, "a comma or ]")),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &'static str, kind: Kind) -> Result<Raw, Wrong> {
        let start = self.at;
        if !self.bytes[start..].starts_with(word.as_bytes()) {
            return Err((start, "a value"));
        }
        self.at += word.len();
        Ok(self.raw(kind, start))
    }

    fn number(&mut self) -> Result<Raw, Wrong> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.raw(Kind::Number, start))
    }

    fn digits(&mut self) -> Result<(), Wrong> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        match self.at == start {
            true => Err((start, "a digit")),
            false => Ok(()),
        }
    }

    /// A string, from its opening quote.
    fn string(&mut self) -> Result<Raw, Wrong> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += ordinary(&self.bytes[self.at..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err((self.at, "no control character in a string")),
                None => return Err((self.at, "a closing quote")),
            }
        }
        let raw = Raw {
            escaped,
            ..self.raw(Kind::String, start)
        };
        self.at += 1;
        Ok(raw)
    }

    fn escape(&mut self) -> Result<(), Wrong> {
        let start = self.at;
        match self.bytes.get(start + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = self.bytes.get(start + 2..start + 6);
                if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
                    return Err((start, "four hexadecimal digits behind \\u"));
                }
                self.at += 6;
            }
            _ => return Err((start, "an escape of JSON")),
        }
        Ok(())
    }
}

/// Takes back what was noted below a node, as its key is there again.
fn forget(node: NodeId, paths: &Paths, slots: &mut [Raw]) {
    // Most lines have each key once: then there is nothing to take back, and nothing is looked at twice.
    let mut below = Vec::new();
    paths.slots_below(node, &mut below);
    for slot in below {
        slots[slot] = Raw::default();
    }
}

/// Bytes of a string up to the first quote, backslash or control character, eight at a time.
fn ordinary(bytes: &[u8]) -> usize {
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

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn scan(text: &str) -> Result<Raw, Bad> {
        let mut paths = Paths::new();
        let slots = (0..2).map(|n| paths.slot(&[format!("k{n}")])).count();
        line(text, &mut paths, &mut vec![Raw::default(); slots])
    }

    /// Bytes that JSON is made of, and some that it is not.
    const PARTS: [&str; 32] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u0041",
        "\\n",
        "\\ud83d\\ude00",
        "\\x",
        "true",
        "false",
        "null",
        "0",
        "-",
        "1",
        "12",
        ".",
        "e",
        "E+",
        "k0",
        "\"k1\"",
        " ",
        "\t",
        "\u{1}",
        "é",
        "😀",
        "\"a\":",
        "1.5",
        "abcdefgh",
    ];

    #[test]
    fn takes_what_serde_json_takes_and_nothing_else() {
        let mut random = StdRng::seed_from_u64(6);
        let mut taken = 0;
        for _ in 0..200_000 {
            let parts = random.random_range(1..9);
            let text: String = (0..parts)
                .map(|_| PARTS[random.random_range(0..PARTS.len())])
                .collect();
            let expect = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            let got = scan(&text);
            assert_eq!(got.is_ok(), expect, "{text:?}: {got:?}");
            taken += usize::from(expect);
        }
        assert!(taken > 1_000, "{taken}");
    }

    #[test]
    fn strings_are_those_of_serde_json() {
        let mut random = StdRng::seed_from_u64(7);
        let mut taken = 0;
        for _ in 0..50_000 {
            let parts = random.random_range(0..12);
            let inner: String = (0..parts)
                .map(|_| PARTS[random.random_range(7..PARTS.len())])
                .collect();
            let text = format!("\"{inner}\"");
            let expect = serde_json::from_str::<String>(&text).ok();
            let got = scan(&text).and_then(|raw| {
                let mut out = String::new();
                unescape(raw.text(&text), &mut out).map(|()| out)
            });
            assert_eq!(got.clone().ok(), expect, "{text:?}: {got:?}");
            taken += usize::from(expect.is_some());
        }
        assert!(taken > 1_000, "{taken}");
    }

    #[test]
    fn depth_is_bounded_and_blanks_go() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(scan(&deep(MAX_DEPTH)).is_ok());
        assert!(scan(&deep(MAX_DEPTH + 1)).is_err());
        let mut out = String::new();
        compact("{ \"a b\" : [ 1 ,\t\"\\\" \\\\\" ] , \"c\":1.50 }", &mut out);
        assert_eq!(out, "{\"a b\":[1,\"\\\" \\\\\"],\"c\":1.50}");
    }
}
