//! The guided way against the parser, on the same bytes: rows, nulls, errors, places and raw text must be the same.
//!
//! Random bodies come from a printed seed. `ROUNDS=100 cargo test --workspace --lib guided` tries a hundred times as many.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use millstream_engine::source::RECEIVED_AT;
use millstream_engine::time::{Timestamp, timestamp_type};

use super::super::tests::SplitMix;
use super::super::{BodyError, Decoded, Decoder, is_lines, spans};

const NOW: Timestamp = Timestamp(1_000_000);
const MAX_ROWS: usize = 40;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("n", DataType::Int64, true),
        Field::new("small", DataType::Int32, true),
        Field::new("x", DataType::Float64, true),
        Field::new("yes", DataType::Boolean, true),
        Field::new("at", timestamp_type(), true),
        Field::new("day", DataType::Date32, true),
        Field::new("größe \\ of \"it\"", DataType::Utf8, true),
        Field::new(RECEIVED_AT, timestamp_type(), false),
    ]))
}

/// Two decoders of the same rows: one as it is, the other without the guided way.
struct Both {
    guided: Decoder,
    parsed: Decoder,
}

impl Both {
    fn new(key: Option<&str>, arrival: u64) -> Both {
        let decoder = || {
            let decoder = match arrival % 3 {
                0 => Decoder::new(schema()),
                1 => Decoder::stamping_arrival(schema()),
                _ => Decoder::filling_arrival(schema()),
            };
            let decoder = decoder.expect("all types can be read");
            decoder.enveloped(key.map(str::to_owned)).max_rows(MAX_ROWS)
        };
        let (guided, parsed) = (decoder(), decoder());
        Both { guided, parsed }
    }

    /// Decodes with both; gives how many rows were good.
    fn decode(&mut self, body: &[u8], what: &str) -> usize {
        let guided = self.guided.decode(body, NOW);
        let parsed = parse(&mut self.parsed, body);
        let shown = || format!("{what}: {}", body.escape_ascii());
        assert_eq!(guided, parsed, "{}", shown());
        assert_eq!(self.guided.len(), self.parsed.len(), "{}", shown());
        let (guided, parsed) = (self.guided.finish(), self.parsed.finish());
        let (guided, parsed) = (guided.expect("aligned"), parsed.expect("aligned"));
        assert_eq!(guided, parsed, "{}", shown());
        assert_eq!(bits(&guided), bits(&parsed), "{}", shown());
        guided.num_rows()
    }
}

/// Floats as they are in memory: zero has a sign.
fn bits(rows: &RecordBatch) -> Vec<Option<u64>> {
    let floats = rows.column(3).as_primitive::<Float64Type>();
    floats.iter().map(|x| x.map(f64::to_bits)).collect()
}

fn parse(decoder: &mut Decoder, body: &[u8]) -> Result<Decoded, BodyError> {
    if decoder.records.is_some() || !is_lines(body) {
        return decoder.decode_document(body, NOW);
    }
    let lines: Vec<_> = spans::of_lines(body).collect();
    if lines.len() > MAX_ROWS {
        let (given, limit) = (lines.len(), MAX_ROWS);
        return Err(BodyError::TooManyRows { given, limit });
    }
    let mut decoded = decoder.parse_lines(body, &lines, NOW);
    for failed in &mut decoded.failed {
        failed.span = lines[failed.index].clone();
    }
    Ok(decoded)
}

fn rounds() -> u64 {
    let asked = std::env::var("ROUNDS").ok();
    asked.map_or(1, |rounds| rounds.parse().expect("ROUNDS is a number"))
}

#[test]
fn random_bodies() {
    let (mut good, mut bodies) = (0, 0);
    for seed in 0..400 * rounds() {
        let mut random = Writer::new(seed);
        let form = Form::of(&mut random.dice);
        let mut both = Both::new(form.key(), seed);
        for _ in 0..6 {
            // Documents and lines in turn: what was learned from one must not be believed of the other.
            let form = match form {
                Form::Envelope => form,
                _ => random.of(&[Form::Array, Form::Lines, Form::Single]),
            };
            let mut body = random.body(form);
            if random.one_in(3) {
                random.damage(&mut body);
            }
            good += both.decode(&body, &format!("seed {seed}"));
            bodies += 1;
        }
    }
    // Otherwise errors would be compared with errors.
    assert!(good > bodies, "{good} good rows in {bodies} bodies");
}

/// Every body cut at every byte, and with every byte replaced by each that means something.
#[test]
fn cut_and_changed_at_every_byte() {
    const MEANING: &[u8] = b"{}[]:,\"\\ \n\t\r\x0c\x00\x1f\x7f\x80\xff0-+.eEtfnu/";
    for seed in 0..12 * rounds() {
        let mut random = Writer::new(seed);
        let form = Form::of(&mut random.dice);
        let mut both = Both::new(form.key(), seed);
        let rows: Vec<String> = (0..2).map(|_| random.row()).collect();
        let body = form.body(&rows, ",", "").into_bytes();
        for at in 0..body.len() {
            both.decode(&body[..at], "cut");
            let mut changed = body.clone();
            let every = if body.len() > 300 { 5 } else { 1 };
            for byte in MEANING.iter().skip(at % every).step_by(every) {
                changed[at] = *byte;
                both.decode(&changed, "changed");
            }
        }
    }
}

#[test]
fn numbers() {
    let fixed = "0 -0 00 -00 01 +1 1. .5 -.5 -1 0.0 -0.0 1e0 1e 1e+ 1E-7 0e400 -0e400 1e400 -1e400 1e-400 1e308 1.8e308 \
        5e-324 2e-324 2.2250738585072011e-308 9007199254740992 9007199254740993 9007199254740992.5 0.1 0.30000000000000004 \
        123456789012345678 1234567890123456789 12345678901234567890 123456789012345678901 9223372036854775807 \
        9223372036854775808 -9223372036854775808 -9223372036854775809 18446744073709551615 18446744073709551616 \
        2147483647 2147483648 -2147483648 -2147483649 5.0 5.5 1e2 1.00000000000000000000000 0.00000000000000000000001 \
        0.000000000000000000000000000000000000000001234567890123456789 1772368245123 253402300799999 253402300800000 \
        -62135596800000 -62135596800001 1_000 0x10 1a 1\u{0} Infinity NaN null true";
    let mut both = Both::new(None, 0);
    for number in fixed.split_whitespace() {
        number_in_every_column(&mut both, number);
    }
    for seed in 0..300 * rounds() {
        let mut random = Writer::new(seed);
        let numbers: Vec<String> = (0..MAX_ROWS).map(|_| random.number()).collect();
        let rows = numbers
            .iter()
            .map(|x| format!("{{\"id\":\"\",\"x\":{x},\"u\":{x},\"received_at\":0}}"));
        let body = rows.collect::<Vec<_>>().join("\n");
        both.decode(body.as_bytes(), &format!("seed {seed}"));
        number_in_every_column(&mut both, &numbers[0]);
    }
}

/// At the end of the row and not, at the end of the body and not.
fn number_in_every_column(both: &mut Both, number: &str) {
    for column in ["id", "n", "small", "x", "yes", "at", "day", "unknown"] {
        let id = if column == "id" { "_" } else { "id" };
        for body in [
            format!("{{\"{id}\":\"a\",\"received_at\":0,\"{column}\":{number}}}"),
            format!(
                "[{{\"{column}\":{number},\"{id}\":\"a\",\"received_at\":0}} , {{\"{column}\" : {number} }}]"
            ),
            format!("{{\"{column}\":[{number}]}}"),
        ] {
            both.decode(body.as_bytes(), "number");
        }
    }
}

/// A line that lends its bracket to the next fails alone, even if the brackets even out.
#[test]
fn lines_do_not_share_brackets() {
    let body = "{\"id\":[{}\n{}]}\n{},{}\n{\"id\":\"a\",\"received_at\":0}";
    let decoded = Both::new(None, 0).guided.decode(body.as_bytes(), NOW);
    let decoded = decoded.expect("lines fail alone");
    let failed: Vec<_> = decoded.failed.iter().map(|f| f.error.code).collect();
    assert_eq!((decoded.rows, failed), (4, vec!["invalid_json"; 3]));
}

/// How rows are put into a body.
#[derive(Clone, Copy)]
enum Form {
    Envelope,
    Array,
    Lines,
    Single,
}

impl Form {
    fn of(dice: &mut SplitMix) -> Form {
        [Form::Envelope, Form::Array, Form::Lines, Form::Single][dice.below(4) as usize]
    }

    fn key(self) -> Option<&'static str> {
        matches!(self, Form::Envelope).then_some("rows")
    }

    fn body(self, rows: &[String], comma: &str, blank: &str) -> String {
        let joined = rows.join(comma);
        match self {
            Form::Envelope => {
                format!("{blank}{{{blank}\"rows\"{blank}:{blank}[{blank}{joined}{blank}]{blank}}}{blank}")
            }
            Form::Array => format!("{blank}[{blank}{joined}{blank}]{blank}"),
            Form::Lines => rows.join("\n"),
            Form::Single => rows.first().cloned().unwrap_or_default(),
        }
    }
}

/// Writes JSON, right and wrong.
struct Writer {
    dice: SplitMix,
    /// One value in so many is odd, and one row in so many has its fields in another order.
    odd: u64,
    disorder: u64,
    blanks: &'static [&'static str],
}

impl Writer {
    fn new(seed: u64) -> Writer {
        let mut dice = SplitMix(seed);
        let blanks: [&[&str]; 4] = [
            &[""],
            &["", " "],
            &[" "],
            &["", " ", "\t", "\r", "\n", " \u{c}", "\n\n"],
        ];
        Writer {
            odd: [4, 100, 3_000][dice.below(3) as usize],
            disorder: [1, 10, 1_000][dice.below(3) as usize],
            blanks: blanks[[0, 0, 1, 2, 3][dice.below(5) as usize]],
            dice,
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.dice.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.dice.below(all.len() as u64) as usize]
    }

    fn body(&mut self, form: Form) -> Vec<u8> {
        let rows = match self.dice.below(20) {
            0 => 0,
            1 => MAX_ROWS as u64 + self.dice.below(3),
            _ => self.dice.below(12),
        };
        let rows: Vec<String> = (0..rows).map(|_| self.row_or_not()).collect();
        let (comma, blank) = (format!("{0},{0}", self.blank()), self.blank());
        form.body(&rows, &comma, blank).into_bytes()
    }

    fn blank(&mut self) -> &'static str {
        self.of(self.blanks)
    }

    fn row_or_not(&mut self) -> String {
        match self.one_in(self.odd * 5) {
            true => self
                .of(&[
                    "",
                    "[]",
                    "7",
                    "null",
                    "\"}\"",
                    "{",
                    "}",
                    "{}",
                    "{ }",
                    "{},{}",
                    "\u{feff}{}",
                ])
                .into(),
            false => self.row(),
        }
    }

    fn row(&mut self) -> String {
        let mut fields = Vec::new();
        for name in [
            "id",
            "n",
            "small",
            "x",
            "yes",
            "at",
            "day",
            "größe \\\\ of \\\"it\\\"",
            "u",
            "received_at",
        ] {
            let present = !self.one_in(if matches!(name, "id" | "received_at") {
                30
            } else {
                5
            });
            let times = u64::from(present) + u64::from(self.one_in(self.odd * 8));
            for _ in 0..times {
                let name = match self.one_in(self.odd * 8) {
                    true => self.of(&["\\u0069d", "ID", "", "é", "a\\/b", "\u{1}", "\\ud800"]),
                    false => name,
                };
                let value = self.value(name);
                let blanks = [self.blank(), self.blank(), self.blank(), self.blank()];
                fields.push(format!(
                    "{}\"{name}\"{}:{}{value}{}",
                    blanks[0], blanks[1], blanks[2], blanks[3]
                ));
            }
        }
        if self.one_in(self.disorder) {
            for at in (1..fields.len()).rev() {
                fields.swap(at, self.dice.below(at as u64 + 1) as usize);
            }
        }
        format!("{{{}}}", fields.join(","))
    }

    fn value(&mut self, name: &str) -> String {
        if self.one_in(if matches!(name, "id" | "received_at") {
            self.odd * 4
        } else {
            12
        }) {
            return "null".into();
        }
        let name = match self.one_in(self.odd) {
            true => self.of(&["id", "n", "small", "x", "yes", "at", "day", "u", "wrong"]),
            false => name,
        };
        match name {
            "n" => (self.dice.next() as i64 >> self.dice.below(64)).to_string(),
            "small" => (self.dice.next() as i32 >> self.dice.below(32)).to_string(),
            "x" => self.number(),
            "yes" => self.of(&["true", "false"]).into(),
            "at" | "received_at" => self.timestamp(),
            "day" => format!("\"{}\"", self.date()),
            "u" => self.unknown(3),
            "wrong" => self
                .of(&[
                    "tru", "nul", "truex", "nullx", "'a'", "", "{", "]", "-", "\"", "1 2", "NaN",
                ])
                .into(),
            _ => self.text(),
        }
    }

    fn text(&mut self) -> String {
        let length = self.dice.below(20);
        let mut text = String::from("\"");
        for _ in 0..length {
            text += match self.one_in(self.odd * 10) {
                true => self.of(&[
                    "\\x",
                    "\\",
                    "\n",
                    "\u{0}",
                    "\u{1f}",
                    "\\ud83d",
                    "\\udc00",
                    "\\ud83d\\u0041",
                    "\\u12g4",
                    "\\u12",
                ]),
                false => self.of(&[
                    "a",
                    "0123456789",
                    "Zürich",
                    "\\\"",
                    "\\n",
                    "\\u20ac",
                    "]},[{",
                    "日本",
                    "\\\\",
                    " ",
                    "\\/",
                    "\u{7f}",
                    "🦀",
                    "\\ud83e\\udd80",
                    "\\u00E9",
                    "\\b\\f\\r\\t",
                    "\u{10ffff}",
                    "\\uD83E\\uDD80",
                    "plain",
                    "\\u0000",
                ]),
            };
        }
        text + "\""
    }

    fn timestamp(&mut self) -> String {
        let time = format!(
            "{:02}:{:02}:{:02}",
            self.dice.below(25),
            self.dice.below(61),
            self.dice.below(61)
        );
        let odd = self.one_in(self.odd);
        let between = self.of(if odd { &["t", "_"] } else { &[" ", "T"] });
        let fraction = self.of(match odd {
            true => &[".", ".12x", ".1234567890", ".1\\u0032"],
            false => &["", ".1", ".123", ".123", ".123456", ".123456789"],
        });
        let zone = self.of(match odd {
            true => &["+1", " UTC", "\\u005a", "Z "],
            false => &["", "", "Z", "z", "+01:00", "-0530"],
        });
        match self.dice.below(8) {
            0 if odd => (self.dice.next() as i64 >> self.dice.below(40)).to_string(),
            0 | 1 => self.dice.below(2_000_000_000_000).to_string(),
            _ => format!("\"{}{between}{time}{fraction}{zone}\"", self.date()),
        }
    }

    fn date(&mut self) -> String {
        if self.one_in(2) {
            return "2026-11-23".into();
        }
        if self.one_in(self.odd) {
            return format!(
                "{:04}-{:02}-{:02}",
                self.dice.below(10_000),
                self.dice.below(14),
                self.dice.below(33)
            );
        }
        let year = 1 + self.dice.below(9_998);
        format!(
            "{year:04}-{:02}-{:02}",
            1 + self.dice.below(12),
            1 + self.dice.below(28)
        )
    }

    fn number(&mut self) -> String {
        let digits = |dice: &mut SplitMix, most: u64| -> String {
            let length = 1 + dice.below(most);
            (0..length)
                .map(|_| char::from(b'0' + dice.below(10) as u8))
                .collect()
        };
        match self.dice.below(7) {
            0 => format!("{:?}", f64::from_bits(self.dice.next()))
                .replace("inf", "0")
                .replace("NaN", "0"),
            1 => format!("{:?}", self.dice.next() as i64 as f64 / 1024.0),
            2 => format!("{}", self.dice.next() as i64 >> self.dice.below(64)),
            3 => format!("{}.{}", self.dice.below(1_000), digits(&mut self.dice, 6)),
            4 => format!("-{}.{}", self.dice.below(10), digits(&mut self.dice, 30)),
            // Too large for a float, one in a while: such a body is no JSON.
            5 if self.one_in(self.odd) => format!("1e{}", 250 + self.dice.below(100)),
            5 => format!("{}e{}", self.dice.below(1_000), self.dice.below(600) as i64 - 350),
            _ => {
                let odd = self.one_in(self.odd);
                let exponent = self.of(if odd {
                    &["", "-"]
                } else {
                    &["5", "-3", "+12", "005"]
                });
                let whole = self.dice.next() >> self.dice.below(64);
                format!("{whole}.{}E{exponent}", digits(&mut self.dice, 22))
            }
        }
    }

    fn unknown(&mut self, depth: u64) -> String {
        let (a, b) = (self.blank(), self.blank());
        match self.dice.below(if depth == 0 { 4 } else { 8 }) {
            0 => self.text(),
            1 => self.number(),
            2 => self.of(&["true", "false", "null"]).into(),
            3 => self.of(&["[]", "{}", "[ ]", "{ }"]).into(),
            4 | 5 => format!("[{a}{}{b},{}]", self.unknown(depth - 1), self.unknown(depth - 1)),
            6 if self.one_in(self.odd) => {
                let depth = self.of(&[30, 31, 32, 33, 60, 61, 62, 63, 64, 65]);
                format!("{}{}", "[".repeat(depth), "]".repeat(depth))
            }
            _ => format!("{{{}{a}:{}{b}}}", self.text(), self.unknown(depth - 1)),
        }
    }

    /// Changes, takes out, or puts in some bytes, or cuts.
    fn damage(&mut self, body: &mut Vec<u8>) {
        for _ in 0..1 + self.dice.below(3) {
            if body.is_empty() {
                return;
            }
            let at = self.dice.below(body.len() as u64) as usize;
            let byte = match self.one_in(2) {
                true => self.dice.next() as u8,
                false => self.of(b"{}[]:,\"\\ \n0-.e"),
            };
            match self.dice.below(5) {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                2 => drop(body.remove(at)),
                3 => body.truncate(at),
                _ => {
                    let from = self.dice.below(at as u64 + 1) as usize;
                    body.extend_from_within(from..at);
                }
            }
        }
    }
}
