//! Looking through the bytes of JSON: blanks, strings and numbers, eight bytes at a time.
//!
//! What is found here is JSON beyond doubt, as simd-json would have it. Where there is doubt (a wrong byte, an
//! unpaired surrogate, a number that may be too large) nothing is found, and the caller asks simd-json.

/// A text that is read from left to right, and what it is made of.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub bytes: &'a [u8],
    /// Whether it is one row per line: then a line break is no blank.
    pub lines: bool,
}

/// The part of a string in front of its end, or of what cannot be taken as it is.
pub(super) struct Plain {
    /// Where it ends: at a quote, a backslash or a control character.
    pub end: usize,
    /// Whether all of it is ASCII.
    pub ascii: bool,
}

impl<'a> Text<'a> {
    /// The byte at `at`, unless the text ends there.
    pub fn get(self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    /// The first position from `at` on that is no blank.
    pub fn blanks(self, mut at: usize) -> usize {
        while let Some(byte) = self.get(at)
            && (matches!(byte, b' ' | b'\t' | b'\r') || byte == b'\n' && !self.lines)
        {
            at += 1;
        }
        at
    }

    /// The same where there is mostly none; nothing at the end of the text.
    #[inline]
    pub fn past_blanks(self, at: usize) -> Option<usize> {
        match self.get(at)? {
            b' ' | b'\t' | b'\r' | b'\n' => Some(self.blanks(at)),
            _ => Some(at),
        }
    }

    /// `at` behind `byte`, if that stands there.
    pub fn expect(self, at: usize, byte: u8) -> Option<usize> {
        (self.get(at)? == byte).then_some(at + 1)
    }

    /// `at` behind `word`, if that stands there.
    pub fn word(self, at: usize, word: &[u8]) -> Option<usize> {
        self.bytes.get(at..)?.starts_with(word).then(|| at + word.len())
    }

    /// The bytes of a string from `at` on that mean themselves. Nothing if the text ends within.
    pub fn plain(self, mut at: usize) -> Option<Plain> {
        let mut high = 0;
        while let Some(word) = self.word_at(at) {
            let stop = stops(word);
            if stop != 0 {
                let length = stop.trailing_zeros() as usize / 8;
                high |= word & ((1 << (8 * length)) - 1);
                return Some(Plain::new(at + length, high));
            }
            high |= word;
            at += 8;
        }
        loop {
            let byte = self.get(at)?;
            if matches!(byte, b'"' | b'\\' | ..b' ') {
                return Some(Plain::new(at, high));
            }
            high |= u64::from(byte);
            at += 1;
        }
    }

    /// Eight bytes, the first of them lowest.
    pub fn word_at(self, at: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }

    /// Behind the string whose text starts at `at`.
    pub fn string(self, at: usize) -> Option<usize> {
        let plain = self.plain(at)?;
        if self.bytes[plain.end] == b'"' && plain.ascii {
            return Some(plain.end + 1);
        }
        self.unescape(at, &mut |_| {})
    }

    /// Behind the string whose text starts at `at`; what it means, piece by piece.
    pub fn unescape(self, mut at: usize, to: &mut impl FnMut(&[u8])) -> Option<usize> {
        loop {
            let plain = self.plain(at)?;
            let piece = &self.bytes[at..plain.end];
            if !plain.ascii {
                std::str::from_utf8(piece).ok()?;
            }
            if !piece.is_empty() {
                to(piece);
            }
            at = plain.end + 1;
            match self.bytes[plain.end] {
                b'"' => return Some(at),
                b'\\' => {
                    let (meant, end) = self.escape(at)?;
                    to(meant.encode_utf8(&mut [0; 4]).as_bytes());
                    at = end;
                }
                _ => return None,
            }
        }
    }

    /// What the escape means whose backslash is in front of `at`, and its end.
    fn escape(self, at: usize) -> Option<(char, usize)> {
        let meant = match self.get(at)? {
            byte @ (b'"' | b'\\' | b'/') => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.code_point(at + 1),
            _ => return None,
        };
        Some((meant, at + 1))
    }

    fn code_point(self, at: usize) -> Option<(char, usize)> {
        let first = self.hex(at)?;
        if !(0xd800..0xdc00).contains(&first) {
            return Some((char::from_u32(first)?, at + 4));
        }
        let second = self.hex(self.word(at + 4, b"\\u")?)?;
        let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
        Some((
            char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + low)?,
            at + 10,
        ))
    }

    fn hex(self, at: usize) -> Option<u32> {
        let digits = self.bytes.get(at..at + 4)?;
        digits
            .iter()
            .try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
    }
}

impl Plain {
    fn new(end: usize, high: u64) -> Plain {
        let ascii = high & TOPS == 0;
        Plain { end, ascii }
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = ONES << 7;

/// The top bit of each byte of `word` that is a quote, a backslash or a control character, as far as the lowest of
/// them: those above may be wrong (Mycroft's test for a zero byte, 1987).
fn stops(word: u64) -> u64 {
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let quotes = zeros(word ^ (ONES * b'"' as u64));
    let backslashes = zeros(word ^ (ONES * b'\\' as u64));
    let controls = word.wrapping_sub(ONES * b' ' as u64) & !word;
    (quotes | backslashes | controls) & TOPS
}
