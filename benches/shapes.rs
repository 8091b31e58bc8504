//! Bodies of other shapes than the advertising pipeline's, for the decoder.

use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_engine::time::timestamp_type;

/// What rows look like.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// The keys of every row in another order: what speculating on it must not lose by.
    Shuffled,
    /// A hundred columns, of which every row gives a third.
    Sparse,
    /// Numbers, flags and null, and as many fields that are not asked for, one of them nested.
    Mixed,
    /// Texts with escapes, and blanks between everything, as Python writes them.
    Escaped,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 4] = [Shape::Shuffled, Shape::Sparse, Shape::Mixed, Shape::Escaped];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Shuffled => "shuffled",
            Shape::Sparse => "sparse",
            Shape::Mixed => "mixed",
            Shape::Escaped => "escaped",
        }
    }

    /// Columns of such rows.
    pub fn schema(self) -> SchemaRef {
        let field = |name: &str, of| Field::new(name, of, true);
        let fields = match self {
            Shape::Shuffled => return crate::schema(),
            Shape::Sparse => {
                let types = [DataType::Int64, DataType::Utf8, DataType::Float64];
                let one = |n: usize| field(&format!("column_{n}"), types[n % 3].clone());
                (0..100).map(one).collect()
            }
            Shape::Mixed => vec![
                field("user", DataType::Int64),
                field("price", DataType::Float64),
                field("paid", DataType::Boolean),
                field("coupon", DataType::Utf8),
                field("at", timestamp_type()),
            ],
            Shape::Escaped => vec![field("title", DataType::Utf8), field("url", DataType::Utf8)],
        };
        Arc::new(Schema::new(fields))
    }
}

/// `rows` rows, one per line.
pub fn shaped(shape: Shape, rows: usize) -> Vec<u8> {
    let mut body = String::new();
    for row in 0..rows {
        // A multiplicative hash of the row (Knuth): enough disorder, and the same every time.
        let dice = (row as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8;
        if row > 0 {
            body.push('\n');
        }
        write_row(&mut body, shape, row, dice).expect("writing to a String");
    }
    body.into_bytes()
}

fn write_row(to: &mut String, shape: Shape, row: usize, dice: u64) -> std::fmt::Result {
    match shape {
        Shape::Shuffled => {
            let mut fields = [
                format!(r#""impression_id":"{}""#, crate::impression_id(row)),
                format!(r#""ad_id":"{}""#, crate::ad_id(row, 1_000)),
                format!(r#""occurred_at":"2026-11-23 12:00:00.{:03}""#, row % 1_000),
            ];
            fields.rotate_left(dice as usize % 3);
            fields.swap(0, dice as usize / 3 % 3);
            write!(to, "{{{}}}", fields.join(","))
        }
        Shape::Sparse => {
            let given = (0..100usize).filter(|n| dice.rotate_left(*n as u32 * 7).is_multiple_of(3));
            let fields = given.map(|n| match n % 3 {
                0 => format!(r#""column_{n}":{}"#, dice % 1_000_000),
                1 => format!(r#""column_{n}":"value {}""#, dice % 1_000),
                _ => format!(r#""column_{n}":{}.{}"#, dice % 100, dice % 97),
            });
            write!(to, "{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Shape::Mixed => write!(
            to,
            r#"{{"user":{},"session":"{dice:016x}","price":{}.{:02},"currency":"EUR","paid":{},"coupon":null,"items":[{{"sku":"{:05}","n":1}},{{"sku":"x","n":{}}}],"at":"2026-11-23T12:00:00.{:03}Z","version":3}}"#,
            dice % 10_000_000,
            dice % 300,
            dice % 100,
            dice.is_multiple_of(2),
            dice % 100_000,
            dice % 7,
            row % 1_000
        ),
        Shape::Escaped => write!(
            to,
            r#"{{"title": "caf\u00e9 \"{}\" \ud83d\ude00", "url": "https:\/\/example.com\/{dice:x}?q=a\\b"}}"#,
            dice % 1_000
        ),
    }
}
