//! The order in which a producer writes the fields of its rows, learned from the rows before.
//!
//! Producers repeat the order of their keys, and the bytes around them. So what stands between two values is compared
//! as a whole with what stood there last time, eight bytes at once, instead of being read. Where that fails, the name
//! is read and looked up. Fields that are not always there are steps all the same, and stepped over.

use std::collections::HashMap;

use super::scan::Text;

/// Fields that are remembered; those beyond are looked up each time. Wide rows have some hundred.
const MAX_STEPS: usize = 256;

/// Bytes of a field's name and the blanks around it that are remembered: an unknown name is the client's text.
const LONGEST_KEY: usize = 128;

/// Other steps that are tried before a name is read: fields are not always there, or not always in one order.
const LOOK_AROUND: usize = 8;

/// Rows with fields in another order, after which the order is learned anew; four times as many after each time that
/// did not help, at most the second number.
const PATIENCE: (usize, usize) = (16, 1_024);

/// The fields of the rows so far, in their order.
pub(super) struct Order {
    steps: Vec<Step>,
    places: HashMap<Vec<u8>, usize>,
    /// The step that should come next in this row.
    next: usize,
    /// Whether a field of this row stood in front of one that it used to follow.
    disordered: bool,
    disordered_rows: usize,
    patience: usize,
}

/// A field.
struct Step {
    key: Key,
    column: Option<usize>,
}

/// The bytes from the comma to the value, blanks included: `"name":`.
struct Key {
    bytes: Vec<u8>,
    /// The same as words, and which of their bits count.
    words: Vec<(u64, u64)>,
    /// Whether there is a line break among them, which only a document may have there.
    breaks: bool,
}

/// A field of the row that is read.
pub(super) struct Found {
    /// Where it goes, if anywhere.
    pub column: Option<usize>,
    /// Where its value is.
    pub value: usize,
}

impl Default for Order {
    fn default() -> Order {
        Order {
            steps: Vec::new(),
            places: HashMap::new(),
            next: 0,
            disordered: false,
            disordered_rows: 0,
            patience: PATIENCE.0,
        }
    }
}

impl Order {
    /// A row begins.
    pub fn begin(&mut self) {
        self.next = 0;
        if std::mem::take(&mut self.disordered) {
            self.disordered_rows += 1;
            // Of few fields each is found without reading its name, whatever their order.
            if self.disordered_rows >= self.patience && self.steps.len() > LOOK_AROUND {
                *self = Order {
                    patience: (self.patience * 4).min(PATIENCE.1),
                    ..Order::default()
                };
            }
        }
    }

    /// The field at `at`, behind a bracket or a comma. `columns` says where the names go.
    #[inline]
    pub fn field(&mut self, text: Text<'_>, at: usize, columns: &HashMap<Vec<u8>, usize>) -> Option<Found> {
        if let Some(step) = self.steps.get(self.next)
            && let Some(value) = step.key.behind(text, at)
        {
            self.next += 1;
            let column = step.column;
            return Some(Found { column, value });
        }
        self.elsewhere(text, at).or_else(|| self.read(text, at, columns))
    }

    /// The same, if some fields are left out or stand elsewhere.
    fn elsewhere(&mut self, text: Text<'_>, at: usize) -> Option<Found> {
        let before = self.next.min(self.steps.len());
        let ahead = (self.next + 1..self.steps.len()).chain(0..before);
        let behind = |place: usize| Some((place, self.steps[place].key.behind(text, at)?));
        let (place, value) = ahead.take(LOOK_AROUND).find_map(behind)?;
        self.go_to(place);
        let column = self.steps[place].column;
        Some(Found { column, value })
    }

    fn go_to(&mut self, place: usize) {
        self.disordered |= place < self.next;
        self.next = place + 1;
    }

    /// Reads the name.
    fn read(&mut self, text: Text<'_>, at: usize, columns: &HashMap<Vec<u8>, usize>) -> Option<Found> {
        let start = text.expect(text.blanks(at), b'"')?;
        let plain = text.plain(start)?;
        let colon = text.blanks(text.expect(plain.end, b'"')?);
        let value = text.blanks(text.expect(colon, b':')?);
        let name = &text.bytes[start..plain.end];
        if !plain.ascii {
            std::str::from_utf8(name).ok()?;
        }
        let key = &text.bytes[at..value];
        if let Some(&place) = self.places.get(name) {
            let step = &mut self.steps[place];
            if step.key.bytes != key && key.len() <= LONGEST_KEY {
                step.key = Key::new(key);
            }
            let column = step.column;
            self.go_to(place);
            return Some(Found { column, value });
        }
        let column = columns.get(name).copied();
        self.learn(key, name, column);
        Some(Found { column, value })
    }

    fn learn(&mut self, key: &[u8], name: &[u8], column: Option<usize>) {
        if key.len() > LONGEST_KEY {
            return;
        }
        if self.steps.len() == MAX_STEPS {
            // Names that will not come again may have taken all the room.
            self.disordered = true;
            return;
        }
        for place in self.places.values_mut().filter(|place| **place >= self.next) {
            *place += 1;
        }
        self.places.insert(name.to_vec(), self.next);
        let key = Key::new(key);
        self.steps.insert(self.next, Step { key, column });
        self.next += 1;
    }
}

impl Key {
    fn new(bytes: &[u8]) -> Key {
        let words = bytes.chunks(8).map(|chunk| {
            let (mut word, mut mask) = ([0; 8], [0; 8]);
            word[..chunk.len()].copy_from_slice(chunk);
            mask[..chunk.len()].fill(0xff);
            (u64::from_le_bytes(word), u64::from_le_bytes(mask))
        });
        Key {
            words: words.collect(),
            breaks: bytes.contains(&b'\n'),
            bytes: bytes.to_vec(),
        }
    }

    /// `at` behind this, if it stands there.
    #[inline]
    fn behind(&self, text: Text<'_>, at: usize) -> Option<usize> {
        let end = at + self.bytes.len();
        let Some(bytes) = text.bytes.get(at..at + 8 * self.words.len()) else {
            return text
                .word(at, &self.bytes)
                .filter(|_| !(self.breaks && text.lines));
        };
        let (chunks, _) = bytes.as_chunks::<8>();
        let pairs = chunks.iter().zip(&self.words);
        let differ = pairs.fold(0, |differ, (chunk, (word, mask))| {
            differ | (u64::from_le_bytes(*chunk) ^ word) & mask
        });
        (differ == 0 && !(self.breaks && text.lines)).then_some(end)
    }
}
