//! One pass over a line of JSON, which is checked as a whole and of which only what is wanted is noted: where it is and
//! what it is. Nothing is converted here, so a number keeps the digits it was written with, and what no column wants
//! costs no more than to pass over it.
//!
//! A key that is there twice counts as its last, as in Python.

use super::errors::Bad;
pub(super) use super::lex::{Kind, Raw};
use super::lex::{Lexer, MAX_DEPTH, Wrong};
use super::paths::{NodeId, Paths};
use super::strings::unescape;

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

    /// Takes the elements of a list, or the members of an object, up to `close`: one each, also where a key is there
    /// twice.
    fn fill(&mut self, lexer: &mut Lexer<'_>, close: u8, depth: usize) -> Result<(), Wrong> {
        self.found.clear();
        let width = 2 + self.paths.slots();
        let mut more = lexer.opens(close);
        while more {
            let mut key = Raw::default();
            if close == b'}' {
                lexer.quote()?;
                key = lexer.key()?;
            }
            let at = self.found.len();
            self.found.resize(at + width, Raw::default());
            let mut noted = Noted {
                paths: &mut self.paths,
                slots: &mut self.found[at + 2..],
                lists: &mut [],
            };
            let whole = noted.value(lexer, 0, depth + 1)?;
            (self.found[at], self.found[at + 1]) = (key, whole);
            more = !lexer.ends(close)?;
        }
        Ok(())
    }
}

/// Notes what is wanted of a line, and checks all of it.
pub(super) fn line(text: &str, paths: &mut Paths, notes: &mut Notes) -> Result<Raw, Bad> {
    let mut lexer = Lexer::new(text, 0);
    notes.slots.fill(Raw::default());
    notes.lists.iter_mut().for_each(|list| list.found.clear());
    let mut noted = Noted {
        paths,
        slots: &mut notes.slots,
        lists: &mut notes.lists,
    };
    let scanned = noted.value(&mut lexer, 0, 0);
    let scanned = scanned.and_then(|root| match lexer.next() {
        None => Ok(root),
        Some(_) => Err((lexer.at, "the end of the line")),
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
    let mut list = List::new();
    let close = if of.kind == Kind::Object { b'}' } else { b']' };
    let scanned = list.fill(&mut Lexer::new(text, of.start as usize), close, 0);
    debug_assert!(scanned.is_ok(), "it was scanned before");
    list.elements().map(|(key, whole, _)| (key, whole)).collect()
}

/// What is wanted, and where it is noted.
struct Noted<'n> {
    paths: &'n mut Paths,
    slots: &'n mut [Raw],
    lists: &'n mut [List],
}

impl Noted<'_> {
    /// A value; `node` is where in the tree of what is wanted it stands.
    fn value(&mut self, lexer: &mut Lexer<'_>, node: NodeId, depth: usize) -> Result<Raw, Wrong> {
        let first = lexer.next();
        let start = lexer.at;
        let raw = match first {
            Some(b'{' | b'[') if depth == MAX_DEPTH => return Err((start, "less depth")),
            Some(b'{') => {
                // That both are wanted is rare: the object is walked twice.
                if self.paths.has_children(node) {
                    self.object(lexer, node, depth)?;
                } else if self.paths.list_of(node).is_none() {
                    lexer.skip(depth)?;
                }
                if let Some(list) = self.paths.list_of(node) {
                    lexer.at = start;
                    self.lists[list].fill(lexer, b'}', depth)?;
                }
                lexer.raw(Kind::Object, start)
            }
            Some(b'[') => {
                match self.paths.list_of(node) {
                    Some(list) => self.lists[list].fill(lexer, b']', depth)?,
                    None => lexer.skip(depth)?,
                }
                lexer.raw(Kind::Array, start)
            }
            _ => lexer.scalar()?,
        };
        if let Some(slot) = self.paths.slot_of(node) {
            self.slots[slot] = raw;
        }
        Ok(raw)
    }

    fn object(&mut self, lexer: &mut Lexer<'_>, node: NodeId, depth: usize) -> Result<(), Wrong> {
        let mut more = lexer.opens(b'}');
        let mut position = 0;
        while more {
            match self.key(lexer, node, position)? {
                Some(child) => {
                    self.forget(child);
                    self.value(lexer, child, depth + 1)?;
                }
                None => lexer.skip(depth + 1)?,
            }
            more = !lexer.ends(b'}')?;
            position += 1;
        }
        Ok(())
    }

    /// A key and its colon; the node it leads to.
    #[inline]
    fn key(&mut self, lexer: &mut Lexer<'_>, node: NodeId, position: usize) -> Result<Option<NodeId>, Wrong> {
        lexer.quote()?;
        let written = lexer.rest();
        if let Some((bytes, child)) = self.paths.guessed(node, position, written) {
            lexer.at += bytes;
            return Ok(child);
        }
        let start = lexer.at;
        let key = lexer.key()?;
        // With blanks in front of the colon, the next key may look the same and be another.
        let written = &written[..lexer.at - start];
        if !key.escaped {
            let child = self
                .paths
                .child(node, position, key.text(lexer.text), Some(written));
            return Ok(child);
        }
        let mut name = String::new();
        let child = unescape(key.text(lexer.text), &mut name).ok();
        Ok(child.and_then(|()| self.paths.child(node, position, &name, None)))
    }

    /// Takes back what was noted below a node, as its key may be there again.
    #[inline]
    fn forget(&mut self, node: NodeId) {
        let (slots_below, lists_below) = self.paths.below(node);
        for slot in slots_below {
            self.slots[*slot] = Raw::default();
        }
        for list in lists_below.iter().copied().chain(self.paths.list_of(node)) {
            self.lists[list].found.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::super::strings::compact;
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
