//! Bodies by way of simd-json, which turns them into a flat tape of nodes: what the guided way leaves over, and where it
//! is said what is wrong.

use millstream_engine::time::Timestamp;
use simd_json::{Buffers, INPUT_PADDING, Node, Tape};

use super::rows::Rows;
use super::{BodyError, Decoded, FailedRow};

/// Arrays and objects in each other, at most. Rows are flat; the rest is ignored fields, and anything
/// deeper is an attack on the parser's stack.
const MAX_DEPTH: usize = 64;

/// Scratch memory a decoder keeps from one body to the next. An ordinary body of 500 rows is 100 KiB; the
/// memory of a rare large one, of which every lane of every source could hold its own, is given back.
const KEPT_BYTES: usize = 1 << 20;

/// simd-json with memory that is used again.
#[derive(Default)]
pub(super) struct Parser {
    /// The body, which simd-json writes to, with the padding it reads beyond the end.
    text: Vec<u8>,
    buffers: Option<Buffers>,
    tape: Option<Tape<'static>>,
}

impl Parser {
    pub fn parse<R>(
        &mut self,
        body: &[u8],
        with: impl FnOnce(&[Node<'_>]) -> R,
    ) -> Result<R, simd_json::Error> {
        self.parse_from(|text| text.extend_from_slice(body), with)
    }

    /// Parses what `fill` writes.
    pub fn parse_from<R>(
        &mut self,
        fill: impl FnOnce(&mut Vec<u8>),
        with: impl FnOnce(&[Node<'_>]) -> R,
    ) -> Result<R, simd_json::Error> {
        self.text.clear();
        fill(&mut self.text);
        let length = self.text.len();
        self.text.resize(length + INPUT_PADDING, b' ');
        let buffers = self
            .buffers
            .get_or_insert_with(|| Buffers::with_max_depth(length, MAX_DEPTH));
        let mut tape = match self.tape.take() {
            Some(tape) => tape.reset(),
            None => Tape(Vec::new()),
        };
        let parsed =
            simd_json::fill_tape_padded(&mut self.text, length, buffers, &mut tape).map(|()| with(&tape.0));
        if length <= KEPT_BYTES {
            self.tape = Some(tape.reset());
        } else {
            drop(tape);
            *self = Parser::default();
        }
        parsed
    }
}

/// Where on the tape the rows are.
pub(super) struct Place {
    first: usize,
    pub rows: usize,
}

impl Place {
    pub fn of(tape: &[Node<'_>], key: Option<&str>) -> Result<Place, BodyError> {
        match (key, tape[0]) {
            (Some(key), Node::Object { len, .. }) => Place::of_envelope(tape, key, len),
            (Some(key), _) => Err(unreadable(format!(
                "the body must be an object with the batch key {key:?}"
            ))),
            (None, Node::Object { .. }) => Ok(Place { first: 0, rows: 1 }),
            (None, Node::Array { len, .. }) => Ok(Place { first: 1, rows: len }),
            (None, _) => Err(unreadable(
                "the body must be a row, an array of rows, or one row per line",
            )),
        }
    }

    /// In the array at `tape[at]`.
    pub fn of_array(tape: &[Node<'_>], at: usize) -> Option<Place> {
        match tape[at] {
            Node::Array { len, .. } => Some(Place {
                first: at + 1,
                rows: len,
            }),
            _ => None,
        }
    }

    fn of_envelope(tape: &[Node<'_>], key: &str, keys: usize) -> Result<Place, BodyError> {
        if keys > 1 {
            return Err(unreadable(format!("too many keys: {keys}")));
        }
        if keys == 0 || text(tape, 1) != key {
            return Err(unreadable(format!("batch key {key:?} not given")));
        }
        match tape[2] {
            Node::Array { len, .. } => Ok(Place { first: 3, rows: len }),
            _ => Err(unreadable(format!(
                "batch key {key:?} must hold an array of rows"
            ))),
        }
    }
}

fn unreadable(why: impl Into<String>) -> BodyError {
    BodyError::Unreadable(why.into())
}

/// Appends the good ones of the rows at `place`.
pub(super) fn push_all(rows: &mut Rows, tape: &[Node<'_>], place: &Place, arrived: Timestamp) -> Decoded {
    let mut decoded = Decoded {
        rows: place.rows,
        failed: Vec::new(),
    };
    let mut at = place.first;
    for index in 0..place.rows {
        if let Err(error) = rows.push(tape, at, arrived) {
            decoded.failed.push(FailedRow::new(index, error));
        }
        at += nodes(&tape[at]);
    }
    decoded
}

/// Nodes of the tape that a value takes, itself included.
pub(super) fn nodes(value: &Node<'_>) -> usize {
    match value {
        Node::Object { count, .. } | Node::Array { count, .. } => count + 1,
        _ => 1,
    }
}

/// The text at `tape[at]`, where the format of the tape says there is one.
pub(super) fn text<'a>(tape: &[Node<'a>], at: usize) -> &'a str {
    match tape[at] {
        Node::String(text) => text,
        _ => unreachable!("object keys and text cells are strings"),
    }
}
