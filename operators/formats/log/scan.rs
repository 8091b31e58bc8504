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

/// What is noted of a line.
#[derive(Default)]
pub(super) struct Notes {
    /// What is at each slot.
    pub slots: Vec<Raw>,
    /// What is in each list that rows are taken from.
    pub lists: Vec<List>,
}

/// The elements of a list, or the members of an object.
pub(super) struct List {
    /// What is wanted of each element.
    pub paths: Paths,
    /// For each element: its key, its whole, then its slots.
    found: Vec<Raw>,
}

impl List {
    pub fn new() -> List {
        let (paths, found) = (Paths::new(), Vec::new());
        List { paths, found }
    }

    /// The elements: key, whole and slots of each.
    pub fn elements(&self) -> impl Iterator<Item = (Raw, Raw, &[Raw])> {
        let each = self.found.chunks_exact(2 + self.paths.slots());
        each.map(|element| (element[0], element[1], &element[2..]))
    }
}

/// Notes what is wanted of a line, and checks all of it.
pub(super) fn line(text: &str, paths: &mut Paths, notes: &mut Notes) -> Result<Raw, Bad> {
    let mut scan = Scan::new(text, 0);
    notes.slots.fill(Raw::default());
    notes.lists.iter_mut().for_each(|list| list.found.clear());
    let scanned = scan.value(Some(0), paths, &mut notes.slots, &mut notes.lists, 0);
    let scanned = scanned.and_then(|root| match scan.next() {
        None => Ok(root),
        Some(_) => Err((scan.at, "the end of the line")),
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

/// The members of a list, without keys, or of an object, which was scanned before.
pub(super) fn members(text: &str, of: Raw) -> Vec<(Raw, Raw)> {
    let mut scan = Scan::new(text, of.start as usize);
    let mut list = List::new();
    let scanned = match of.kind {
        Kind::Object => scan.members(&mut list, 0),
        _ => scan.elements(&mut list, 0),
    };
    debug_assert!(scanned.is_ok(), "it was scanned before");
    list.elements().map(|(key, whole, _)| (key, whole)).collect()
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

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that is no blank, which is not passed.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.at += 1,
                other => return other,
            }
        }
    }

    /// A value; `node` is where in the tree of what is wanted it stands, if anywhere.
    fn value(
        &mut self,
        node: Option<NodeId>,
        paths: &mut Paths,
        slots: &mut [Raw],
        lists: &mut [List],
        depth: usize,
    ) -> Result<Raw, Wrong> {
        let first = self.next();
        let start = self.at;
        let raw = match first {
            Some(b'"') => self.string()?,
            Some(b'{' | b'[') if depth == MAX_DEPTH => return Err((start, "less depth")),
            Some(b'{') => {
                let list = node.and_then(|node| paths.list_of(node));
                let below = node.filter(|node| paths.has_children(*node));
                match (list, below) {
                    // Both are rare: the object is walked twice.
                    (Some(list), Some(below)) => {
                        self.object(Some(below), paths, slots, lists, depth)?;
                        self.at = start;
                        self.members(&mut lists[list], depth)?;
                    }
                    (Some(list), None) => self.members(&mut lists[list], depth)?,
                    (None, below) => self.object(below, paths, slots, lists, depth)?,
                }
                self.raw(Kind::Object, start)
            }
            Some(b'[') => {
                match node.and_then(|node| paths.list_of(node)) {
                    Some(list) => self.elements(&mut lists[list], depth)?,
                    None => self.array(paths, depth)?,
                }
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

    #[inline]
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
        lists: &mut [List],
        depth: usize,
    ) -> Result<(), Wrong> {
        self.at += 1;
        if self.next() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        for position in 0.. {
            let child = self.key(node, position, paths)?;
            if let Some(child) = child {
                forget(child, paths, slots, lists);
            }
            self.value(child, paths, slots, lists, depth + 1)?;
            if self.ends(b'}', "a comma or }")? {
                break;
            }
        }
        Ok(())
    }

    /// A key and its colon; the node it leads to.
    #[inline]
    fn key(
        &mut self,
        node: Option<NodeId>,
        position: usize,
        paths: &mut Paths,
    ) -> Result<Option<NodeId>, Wrong> {
        if self.next() != Some(b'"') {
            return Err((self.at, "a key in quotes"));
        }
        let start = self.at;
        let guess = node.and_then(|node| paths.guessed(node, position, &self.bytes[start..]));
        if let Some((bytes, child)) = guess {
            self.at += bytes;
            return Ok(child);
        }
        let key = self.string()?;
        if self.next() != Some(b':') {
            return Err((self.at, "a colon"));
        }
        self.at += 1;
        let Some(node) = node else {
            return Ok(None);
        };
        // With blanks in front of the colon, the next key may look the same and be another.
        let written = &self.bytes[start..self.at];
        if !key.escaped {
            let child = paths.child(node, position, key.text(self.text), Some(written));
            return Ok(child);
        }
        let mut name = String::new();
        let child = unescape(key.text(self.text), &mut name).ok();
        Ok(child.and_then(|()| paths.child(node, position, &name, None)))
    }

    /// Passes the comma behind a member, or the bracket behind the last.
    #[inline]
    fn ends(&mut self, bracket: u8, expected: &'static str) -> Result<bool, Wrong> {
        match self.next() {
            Some(b',') => {
                self.at += 1;
                Ok(false)
            }
            Some(byte) if byte == bracket => {
                self.at += 1;
                Ok(true)
            }
            _ => Err((self.at, expected)),
        }
    }

    fn array(&mut self, paths: &mut Paths, depth: usize) -> Result<(), Wrong> {
        self.at += 1;
        if self.next() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(None, paths, &mut [], &mut [], depth + 1)?;
            if self.ends(b']', "a comma or ]")? {
                return Ok(());
            }
        }
    }

    /// The elements of a list that rows are taken from.
    fn elements(&mut self, list: &mut List, depth: usize) -> Result<(), Wrong> {
        list.found.clear();
        self.at += 1;
        if self.next() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.element(list, Raw::default(), depth)?;
            if self.ends(b']', "a comma or ]")? {
                return Ok(());
            }
        }
    }

    /// The members of an object that rows are taken from: a row each, also where a key is there twice.
    fn members(&mut self, list: &mut List, depth: usize) -> Result<(), Wrong> {
        list.found.clear();
        self.at += 1;
        if self.next() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.next() != Some(b'"') {
                return Err((self.at, "a key in quotes"));
            }
            let key = self.string()?;
            if self.next() != Some(b':') {
                return Err((self.at, "a colon"));
            }
            self.at += 1;
            self.element(list, key, depth)?;
            if self.ends(b'}', "a comma or }")? {
                return Ok(());
            }
        }
    }

    fn element(&mut self, list: &mut List, key: Raw, depth: usize) -> Result<(), Wrong> {
        let at = list.found.len();
        let width = 2 + list.paths.slots();
        list.found.resize(at + width, Raw::default());
        let slots = &mut list.found[at + 2..];
        let whole = self.value(Some(0), &mut list.paths, slots, &mut [], depth + 1)?;
        list.found[at] = key;
        list.found[at + 1] = whole;
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

/// Takes back what was noted below a node, as its key may be there again.
#[inline]
fn forget(node: NodeId, paths: &Paths, slots: &mut [Raw], lists: &mut [List]) {
    let (slots_below, lists_below) = paths.below(node);
    for slot in slots_below {
        slots[*slot] = Raw::default();
    }
    for list in lists_below.iter().copied().chain(paths.list_of(node)) {
        lists[list].found.clear();
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
        let mut notes = Notes::default();
        for key in ["k0", "k1"] {
            let slot = paths.slot(&[key.to_owned(), "k1".to_owned()]);
            notes.slots.resize(slot + 1, Raw::default());
        }
        paths.list(&["a".to_owned()], 0);
        notes.lists.push(List::new());
        line(text, &mut paths, &mut notes)
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
