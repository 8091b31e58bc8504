//! The values of one column before they are an array: plain vectors, from whose end rows can be taken back.
//!
//! Arrow's builders cannot forget what was appended, and want something for every row; here a row that gives a column
//! nothing costs that column nothing: the gap is filled when the next value comes.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, Date32Array, Float64Array, Int32Array, Int64Array,
    StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, TimeUnit};
use millstream_engine::{Error, Result};

/// By the type of the column. A value stands where a null is too.
pub(super) enum Values {
    Text(Texts),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float64(Vec<f64>),
    Boolean(BooleanBufferBuilder),
    /// Microseconds since the epoch.
    Timestamp(Vec<i64>),
    /// Days since the epoch.
    Date(Vec<i32>),
}

impl Values {
    /// Of a type that can be read from JSON.
    pub fn new(of: &DataType) -> Option<Values> {
        Some(match of {
            DataType::Utf8 => Values::Text(Texts::new(0)),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Timestamp(TimeUnit::Microsecond, None) => Values::Timestamp(Vec::new()),
            DataType::Date32 => Values::Date(Vec::new()),
            _ => return None,
        })
    }

    /// Appends what stands where nulls are, up to `length` values.
    pub fn extend_to(&mut self, length: usize) {
        match self {
            Values::Text(texts) => texts.extend_to(length),
            Values::Int32(values) | Values::Date(values) => values.resize(length, 0),
            Values::Int64(values) | Values::Timestamp(values) => values.resize(length, 0),
            Values::Float64(values) => values.resize(length, 0.0),
            Values::Boolean(values) => values.resize(length),
        }
    }

    /// Forgets those behind the first `length`.
    pub fn truncate(&mut self, length: usize) {
        match self {
            Values::Text(texts) => texts.truncate(length),
            Values::Int32(values) | Values::Date(values) => values.truncate(length),
            Values::Int64(values) | Values::Timestamp(values) => values.truncate(length),
            Values::Float64(values) => values.truncate(length),
            Values::Boolean(values) => values.truncate(length),
        }
    }

    /// About how many bytes `length` values take.
    pub fn bytes(&self, length: usize) -> usize {
        match self {
            Values::Text(texts) => texts.bytes.len() + length * size_of::<i32>(),
            _ => length * size_of::<i64>(),
        }
    }

    /// Makes room for `more` values, and for as much text as the last array had: growing costs a copy each time.
    pub fn reserve(&mut self, more: usize) {
        match self {
            Values::Text(texts) => texts.reserve(more),
            Values::Int32(values) | Values::Date(values) => values.reserve(more),
            Values::Int64(values) | Values::Timestamp(values) => values.reserve(more),
            Values::Float64(values) => values.reserve(more),
            Values::Boolean(values) => values.reserve(more),
        }
    }

    /// Takes them as an array.
    pub fn finish(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        Ok(match self {
            Values::Text(texts) => Arc::new(texts.finish(nulls)?),
            Values::Int32(values) => Arc::new(Int32Array::new(taken(values), nulls)),
            Values::Int64(values) => Arc::new(Int64Array::new(taken(values), nulls)),
            Values::Float64(values) => Arc::new(Float64Array::new(taken(values), nulls)),
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Timestamp(values) => Arc::new(TimestampMicrosecondArray::new(taken(values), nulls)),
            Values::Date(values) => Arc::new(Date32Array::new(taken(values), nulls)),
        })
    }
}

/// Takes what is in `values`, as an array has it.
fn taken<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    ScalarBuffer::from(std::mem::take(values))
}

/// Texts, one behind the other.
pub(super) struct Texts {
    bytes: Vec<u8>,
    /// Where each starts, and the end of the last.
    offsets: Vec<i32>,
    /// Bytes of the last array.
    last: usize,
}

impl Texts {
    fn new(last: usize) -> Texts {
        Texts {
            bytes: Vec::new(),
            offsets: vec![0],
            last,
        }
    }

    fn reserve(&mut self, more: usize) {
        // A little more, as texts vary.
        self.bytes.reserve(self.last + self.last / 8);
        self.offsets.reserve(more);
    }

    /// Appends a text, which is UTF-8.
    #[inline]
    pub fn push(&mut self, text: &[u8]) {
        self.extend(text);
        self.end();
    }

    /// Appends a part of the last text.
    #[inline]
    pub fn extend(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
    }

    /// Ends the last text.
    #[inline]
    pub fn end(&mut self) {
        let end = i32::try_from(self.bytes.len()).expect("a batch ends long before 2 GiB of text");
        self.offsets.push(end);
    }

    fn extend_to(&mut self, length: usize) {
        let end = self.offsets[self.offsets.len() - 1];
        self.offsets.resize(length + 1, end);
    }

    fn truncate(&mut self, length: usize) {
        if self.offsets.len() <= length {
            return;
        }
        self.offsets.truncate(length + 1);
        self.bytes.truncate(self.offsets[self.offsets.len() - 1] as usize);
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> Result<StringArray> {
        let Texts { bytes, offsets, .. } = std::mem::replace(self, Texts::new(self.bytes.len()));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        StringArray::try_new(offsets, Buffer::from_vec(bytes), nulls)
            .map_err(|e| Error::bug(format!("texts are checked before they are appended: {e}")))
    }
}

/// The rows of a column that have no value.
#[derive(Default)]
pub(super) struct Gaps(Vec<Range<usize>>);

impl Gaps {
    /// There are no values in `rows`, which follow those before.
    pub fn append(&mut self, rows: Range<usize>) {
        self.0.push(rows);
    }

    /// Forgets those behind the first `rows` rows.
    pub fn truncate(&mut self, rows: usize) {
        while let Some(last) = self.0.last_mut()
            && last.end > rows
        {
            last.end = rows.max(last.start);
            if last.start == last.end {
                self.0.pop();
            }
        }
    }

    /// Takes them as the nulls of `rows` rows; nothing if there are none.
    pub fn finish(&mut self, rows: usize) -> Option<NullBuffer> {
        if self.0.is_empty() {
            return None;
        }
        let mut bits = BooleanBufferBuilder::new(rows);
        for gap in self.0.drain(..) {
            bits.append_n(gap.start - bits.len(), true);
            bits.append_n(gap.len(), false);
        }
        bits.append_n(rows - bits.len(), true);
        Some(NullBuffer::new(bits.finish()))
    }
}
