//! The parts of JSON, one after the other, checked as they are passed: strings, numbers, words, what stands between them,
//! and whole values that nobody wants.
//!
//! The grammar is RFC 8259, and nothing else.

use super::strings::ordinary;

/// Arrays and objects in each other, at most: deeper is an attack on the stack.
pub(super) const MAX_DEPTH: usize = 128;

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
pub(super) type Wrong = (usize, &'static str);

/// Goes through a text.
pub(super) struct Lexer<'t> {
    pub text: &'t str,
    bytes: &'t [u8],
    /// The byte that comes next.
    pub at: usize,
}

impl<'t> Lexer<'t> {
    /// From the byte `at` on.
    pub fn new(text: &'t str, at: usize) -> Lexer<'t> {
        let bytes = text.as_bytes();
        Lexer { text, bytes, at }
    }

    /// What is left.
    #[inline]
    pub fn rest(&self) -> &'t [u8] {
        &self.bytes[self.at..]
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that is no blank, which is not passed.
    #[inline]
    pub fn next(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.at += 1,
                other => return other,
            }
        }
    }

    /// What was passed since `start`.
    #[inline]
    pub fn raw(&self, kind: Kind, start: usize) -> Raw {
        Raw {
            kind,
            escaped: false,
            start: start as u32,
            end: self.at as u32,
        }
    }

    /// The bracket of an object or of a list, and the bracket that closes it if nothing is between them.
    #[inline]
    pub fn opens(&mut self, close: u8) -> bool {
        self.at += 1;
        let empty = self.next() == Some(close);
        self.at += usize::from(empty);
        !empty
    }

    /// The comma behind a member, or the bracket behind the last, which ends it.
    #[inline]
    pub fn ends(&mut self, close: u8) -> Result<bool, Wrong> {
        match self.next() {
            Some(b',') => {
                self.at += 1;
                Ok(false)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(true)
            }
            _ if close == b'}' => Err((self.at, "a comma or }")),
            _ => Err((self.at, "a comma or ]")),
        }
    }

    /// A key, at its opening quote, and its colon.
    #[inline]
    pub fn key(&mut self) -> Result<Raw, Wrong> {
        let key = self.string()?;
        if self.next() != Some(b':') {
            return Err((self.at, "a colon"));
        }
        self.at += 1;
        Ok(key)
    }

    /// The quote that a key begins with, which is not passed.
    #[inline]
    pub fn quote(&mut self) -> Result<(), Wrong> {
        match self.next() {
            Some(b'"') => Ok(()),
            _ => Err((self.at, "a key in quotes")),
        }
    }

    /// A value, at its first byte, that has no others in it.
    #[inline]
    pub fn scalar(&mut self) -> Result<Raw, Wrong> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Kind::True),
            Some(b'f') => self.word("false", Kind::False),
            Some(b'n') => self.word("null", Kind::Null),
            _ => Err((self.at, "a value")),
        }
    }

    /// A value that nobody wants.
    pub fn skip(&mut self, depth: usize) -> Result<(), Wrong> {
        let close = match self.next() {
            Some(b'{' | b'[') if depth == MAX_DEPTH => return Err((self.at, "less depth")),
            Some(b'{') => b'}',
            Some(b'[') => b']',
            _ => return self.scalar().map(drop),
        };
        let mut more = self.opens(close);
        while more {
            if close == b'}' {
                self.quote()?;
                self.key()?;
            }
            self.skip(depth + 1)?;
            more = !self.ends(close)?;
        }
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
