//! Error cases as a table, and good rows against arrow-json.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
use arrow::json::ReaderBuilder;
use millstream_engine::source::RECEIVED_AT;
use millstream_engine::time::timestamp_type;

use super::*;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("n", DataType::Int64, true),
        Field::new("small", DataType::Int32, true),
        Field::new("x", DataType::Float64, true),
        Field::new("yes", DataType::Boolean, true),
        Field::new("at", timestamp_type(), true),
        Field::new("day", DataType::Date32, true),
    ]))
}

fn decoder(key: Option<&str>) -> Decoder {
    let decoder = Decoder::new(schema()).expect("all types can be read");
    decoder.enveloped(key.map(str::to_owned)).max_rows(4)
}

const NOW: Timestamp = Timestamp(1_000_000);

/// One bad row between two good ones: code and message of the bad one, or `ok`.
#[test]
fn rows_fail_alone() {
    let cases: &[(&str, &str)] = &[
        (r#"{"id":"a"}"#, "ok"),
        (
            r#"{"id":"","n":null,"x":null,"yes":null,"at":null,"day":null}"#,
            "ok",
        ),
        (r#"{"id":"a","other":{"id":[1,{"n":"x"}]},"n":1}"#, "ok"),
        (r#"{"\u0069d":"esc\"aped\n","n":-5}"#, "ok"),
        (r#"{"id":"a","n":9223372036854775807,"small":-2147483648}"#, "ok"),
        (r#"{"id":"a","n":5.0,"x":3}"#, "ok"),
        (r#"{"id":"a","at":"2026-03-01 00:00:00.5"}"#, "ok"),
        (r#"{"id":"a","at":1772368245123}"#, "ok"),
        (r#"{"id":"a","other":123456789012345678901234567890}"#, "ok"),
        ("{}", r#"missing_field: "id" is missing but declared not null"#),
        (
            r#"{"id":null}"#,
            r#"missing_field: "id" is null but declared not null"#,
        ),
        (r#"{"id":1}"#, r#"wrong_type: "id": expected a string, got 1"#),
        (
            r#"{"id":["a"]}"#,
            r#"wrong_type: "id": expected a string, got an array"#,
        ),
        (
            r#"{"id":{}}"#,
            r#"wrong_type: "id": expected a string, got an object"#,
        ),
        (
            r#"{"id":"a","n":"1"}"#,
            r#"wrong_type: "n": expected an integer of 64 bits, got "1""#,
        ),
        (
            r#"{"id":"a","n":1.5}"#,
            r#"wrong_type: "n": expected an integer of 64 bits, got 1.5"#,
        ),
        (
            r#"{"id":"a","n":true}"#,
            r#"wrong_type: "n": expected an integer of 64 bits, got true"#,
        ),
        (
            r#"{"id":"a","n":9223372036854775808}"#,
            r#"out_of_range: "n": 9223372036854775808 does not fit an integer of 64 bits"#,
        ),
        (
            r#"{"id":"a","small":2147483648}"#,
            r#"out_of_range: "small": 2147483648 does not fit an integer of 32 bits"#,
        ),
        (
            r#"{"id":"a","x":"1.5"}"#,
            r#"wrong_type: "x": expected a number, got "1.5""#,
        ),
        (
            r#"{"id":"a","yes":1}"#,
            r#"wrong_type: "yes": expected true or false, got 1"#,
        ),
        (
            r#"{"id":"a","at":"2026-02-30 00:00:00"}"#,
            r#"bad_timestamp: "at": "2026-02-30 00:00:00" is not YYYY-MM-DD HH:MM:SS[.mmm] in UTC, or RFC 3339"#,
        ),
        (
            r#"{"id":"a","at":1.5}"#,
            r#"wrong_type: "at": expected a timestamp, got 1.5"#,
        ),
        (
            r#"{"id":"a","at":9223372036854775807}"#,
            r#"out_of_range: "at": 9223372036854775807 does not fit a timestamp"#,
        ),
        (
            r#"{"id":"a","day":"2026-3-1"}"#,
            r#"bad_date: "day": "2026-3-1" is not YYYY-MM-DD"#,
        ),
        (
            r#"{"id":"a","id":"b"}"#,
            r#"duplicate_field: "id" is given more than once"#,
        ),
        (
            r#"{"id":"a","n":null,"n":1}"#,
            r#"duplicate_field: "n" is given more than once"#,
        ),
        ("[]", "not_an_object: a row must be a JSON object"),
        ("\"]\"", "not_an_object: a row must be a JSON object"),
        ("null", "not_an_object: a row must be a JSON object"),
    ];
    for (row, expect) in cases {
        let body = format!(r#" {{"rows": [ {{"id":"[first,"}} ,{row}, {{"id":"last","n":3}} ] }} "#);
        let mut decoder = decoder(Some("rows"));
        let decoded = decoder.decode(body.as_bytes(), NOW).expect(row);
        let got = match &decoded.failed[..] {
            [] => "ok".to_owned(),
            [failed] => {
                assert_eq!((failed.index, &body[failed.span.clone()]), (1, *row));
                format!("{}: {}", failed.error.code, failed.error.message)
            }
            more => panic!("{row}: {more:?}"),
        };
        assert_eq!(got, *expect, "{row}");
        let good = 3 - decoded.failed.len();
        let rows = decoder.finish().expect("columns stay aligned");
        let ids = rows.column(0).as_string::<i32>();
        assert_eq!((decoded.rows, rows.num_rows()), (3, good), "{row}");
        assert_eq!((ids.value(0), ids.value(good - 1)), ("[first,", "last"), "{row}");
        assert_eq!(
            rows.column(1).as_primitive::<Int64Type>().value(good - 1),
            3,
            "{row}"
        );
    }
}

/// What a body as a whole comes to: `rows/failed`, or the error.
#[test]
fn bodies() {
    let deep = format!(r#"{{"id":"a","o":{}{}}}"#, "[".repeat(2000), "]".repeat(2000));
    let cases: &[(Option<&str>, &str, &str)] = &[
        (Some("rows"), r#"{"rows":[{"id":"a"}]}"#, "1/0"),
        (Some("rows"), r#"{"rows":[]}"#, "no rows given"),
        (Some("rows"), "{}", r#"batch key "rows" not given"#),
        (Some("rows"), r#"{"row":[]}"#, r#"batch key "rows" not given"#),
        (Some("rows"), r#"{"rows":[],"x":1}"#, "too many keys: 2"),
        (Some("rows"), r#"{"rows":[],"rows":[]}"#, "too many keys: 2"),
        (
            Some("rows"),
            r#"{"rows":{"id":"a"}}"#,
            r#"batch key "rows" must hold an array of rows"#,
        ),
        (
            Some("rows"),
            r#"[{"id":"a"}]"#,
            r#"the body must be an object with the batch key "rows""#,
        ),
        (
            Some("rows"),
            "{\"rows\":[{\"id\":\"a\"}]}\n{\"rows\":[]}",
            "invalid JSON",
        ),
        (
            Some("rows"),
            r#"{"rows":[1,2,3,4,5]}"#,
            "too many rows: 5, at most 4 in one request",
        ),
        (None, r#"{"id":"a"}"#, "1/0"),
        (None, r#"{"id":1}"#, "1/1"),
        (
            None,
            "{\n  \"id\":\n \"a\",\n\"o\": {\n}\n,\n\"n\":1 \n }\n",
            "1/0",
        ),
        (None, r#" [{"id":"a"},{"id":1}] "#, "2/1"),
        (None, "[\n{\"id\":\"a\"}\n,\n{\"id\":\"b\"}\n]", "2/0"),
        (None, "[]", "no rows given"),
        (None, "{\"id\":\"a\"}\n\n{\"id\":\"b\"}\r\n", "2/0"),
        (None, "{\"id\":\"a\"}\n{\"id\":\n{\"id\":\"b\"}\n[]", "4/2"),
        (
            None,
            "{\"id\":\"a\"}\n{}\n{}\n{}\n{}",
            "too many rows: 5, at most 4 in one request",
        ),
        (None, "", "invalid JSON"),
        (None, " ", "invalid JSON"),
        (None, "{\"id\":\"a\"} x", "invalid JSON"),
        (None, "{\"id\":\"a\"", "invalid JSON"),
        (None, "{\"id\":\"a\",}", "invalid JSON"),
        (None, "{\"id\":\"a\u{1}\"}", "invalid JSON"),
        (None, "{\"id\":\"\\ud800\"}", "invalid JSON"),
        (None, "{\"id\":01}", "invalid JSON"),
        (
            None,
            "7",
            "the body must be a row, an array of rows, or one row per line",
        ),
        (None, &deep, "invalid JSON"),
    ];
    for (key, body, expect) in cases {
        let mut decoder = decoder(*key);
        let got = match decoder.decode(body.as_bytes(), NOW) {
            Ok(decoded) => format!("{}/{}", decoded.rows, decoded.failed.len()),
            Err(e) => e.to_string(),
        };
        assert!(
            got == *expect || *expect == "invalid JSON" && got.starts_with(expect),
            "{body}: {got}"
        );
    }
    let error = decoder(None)
        .decode(b"{\"id\":\"\xff\"}", NOW)
        .expect_err("not UTF-8");
    assert!(error.to_string().starts_with("invalid JSON"), "{error}");
}

#[test]
fn the_time_of_arrival_is_not_the_inputs_to_say() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new(RECEIVED_AT, timestamp_type(), false),
    ]));
    let body = br#"{"n":1,"received_at":"2026-03-01 00:00:00"}"#;
    let mut stamping = Decoder::stamping_arrival(schema.clone()).expect("readable");
    stamping.decode(body, NOW).expect("one row");
    stamping
        .decode_pairs(&[("received_at".into(), "0".into())], NOW)
        .expect("one row");
    let rows = stamping.finish().expect("aligned");
    let received = rows.column(1).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(received.values(), &[NOW.0, NOW.0]);

    let row = serde_json::json!({"n": 1, "received_at": 5});
    let rows = decode_rows(schema, &[row]).expect("an ordinary column");
    assert_eq!(
        rows.column(1).as_primitive::<TimestampMicrosecondType>().value(0),
        5_000
    );
}

#[test]
fn pairs() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (
            &[
                ("id", "a"),
                ("n", "-7"),
                ("x", "1e3"),
                ("yes", "true"),
                ("other", "z"),
            ],
            "ok",
        ),
        (
            &[("id", "a"), ("at", "2026-03-01 00:00:00"), ("day", "2026-03-01")],
            "ok",
        ),
        (&[("id", "a"), ("at", "1772368245123")], "ok"),
        (&[("n", "1")], "missing_field"),
        (&[("id", "a"), ("n", "1x")], "wrong_type"),
        (&[("id", "a"), ("small", "3000000000")], "out_of_range"),
        (&[("id", "a"), ("x", "inf")], "wrong_type"),
        (&[("id", "a"), ("yes", "maybe")], "wrong_type"),
        (&[("id", "a"), ("at", "noon")], "bad_timestamp"),
        (&[("id", "a"), ("id", "b")], "duplicate_field"),
    ];
    let mut decoder = decoder(None);
    for (given, expect) in cases {
        let pairs: Vec<_> = given
            .iter()
            .map(|(k, v)| (Cow::from(*k), Cow::from(*v)))
            .collect();
        let got = decoder
            .decode_pairs(&pairs, NOW)
            .map_or_else(|e| e.code, |()| "ok");
        assert_eq!(got, *expect, "{given:?}");
    }
    let rows = decoder.finish().expect("aligned");
    assert_eq!(rows.num_rows(), 3);
    assert_eq!(rows.column(1).as_primitive::<Int64Type>().value(0), -7);
}

#[test]
fn types_that_json_cannot_give_are_refused() {
    let field = Field::new("b", DataType::Binary, true);
    let error = Decoder::new(Arc::new(Schema::new(vec![field])))
        .err()
        .expect("refused");
    assert_eq!(
        error.to_string(),
        "column \"b\" has type Binary, which cannot be read from JSON"
    );
}

/// Good rows of every shape come out as arrow-json reads them.
#[test]
fn agrees_with_arrow_json() {
    for seed in 0..200 {
        let lines = random_rows(seed);
        let body = match seed % 3 {
            0 => format!("{{\"rows\":[{}]}}", lines.join(",")),
            1 => format!("[{}]", lines.join(" ,\n ")),
            _ => lines.join("\n"),
        };
        let key = (seed % 3 == 0).then(|| "rows".to_owned());
        let mut ours = Decoder::new(schema()).expect("readable").enveloped(key);
        // A decoder is used again and again: the second batch must not remember the first.
        ours.decode(body.as_bytes(), NOW).expect("good rows");
        ours.finish().expect("aligned");
        let decoded = ours.decode(body.as_bytes(), NOW).expect("good rows");
        assert_eq!(decoded.failed, [], "seed {seed}");
        let mut theirs = ReaderBuilder::new(schema()).build_decoder().expect("a decoder");
        theirs.decode(lines.join("\n").as_bytes()).expect("good rows");
        let theirs = theirs.flush().expect("good rows").expect("rows");
        assert_eq!(ours.finish().expect("aligned"), theirs, "seed {seed}");
    }
}

/// Rows with fields in changing order, left out, null, escaped, or unknown.
fn random_rows(seed: u64) -> Vec<String> {
    let mut random = SplitMix(seed);
    let rows = 1 + random.below(20);
    (0..rows)
        .map(|_| {
            let mut fields = vec![format!("\"id\":{}", random.text())];
            let year = 1900 + random.below(200);
            let optional = [
                format!("\"n\":{}", random.next() as i64),
                format!("\"small\":{}", random.next() as i32),
                format!("\"x\":{}", random.next() as i64 as f64 / 1024.0),
                format!("\"yes\":{}", random.below(2) == 1),
                format!("\"at\":\"{year}-02-28T23:59:59.{:06}Z\"", random.below(1_000_000)),
                format!(
                    "\"day\":\"{year}-0{}-1{}\"",
                    1 + random.below(9),
                    random.below(10)
                ),
                "\"n\":null".to_owned(),
                format!("\"unknown\":[{},{{\"id\":1}}]", random.text()),
            ];
            for field in optional {
                if random.below(3) > 0 && !(field.starts_with("\"n\"") && fields.join("").contains("\"n\"")) {
                    fields.insert(random.below(fields.len() as u64 + 1) as usize, field);
                }
            }
            format!("{{{}}}", fields.join([",", " , "][random.below(2) as usize]))
        })
        .collect()
}

/// A small generator with a printed seed (Steele, Lea and Flood 2014).
pub(super) struct SplitMix(pub u64);

impl SplitMix {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A JSON string.
    fn text(&mut self) -> String {
        let pieces = [
            "a", "Zürich", "\\\"", "\\n", "\\u20ac", "]},[{", "日本", "\\\\", " ", "0",
        ];
        let length = self.below(12);
        let text: String = (0..length).map(|_| pieces[self.below(10) as usize]).collect();
        format!("\"{text}\"")
    }
}
