//! Rows as the outside world makes them, and the request bodies they travel in.
//!
//! Every field has a fixed width (a UUID is 36 characters, a time 23), so a body is a template that is
//! rendered once and afterwards patched in place: loadgen must not be what a benchmark measures.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use rand::RngCore;
use serde::{Deserialize, Serialize};

/// One of the two streams of the advertising API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// An ad was shown.
    Impressions,
    /// A shown ad was clicked.
    Clicks,
}

impl Stream {
    /// Both, in the order they are reported.
    pub const ALL: [Stream; 2] = [Stream::Impressions, Stream::Clicks];

    /// The path segment, the batch key and the folder of the lake: all three are this word.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Impressions => "impressions",
            Stream::Clicks => "clicks",
        }
    }

    /// The column that identifies a row.
    pub fn id_column(self) -> &'static str {
        match self {
            Stream::Impressions => "impression_id",
            Stream::Clicks => "click_id",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A UUID, kept as a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub u128);

impl Uuid {
    /// Width of the text form.
    pub const WIDTH: usize = 36;

    /// A version 4 UUID from `rng`, so that a seed repeats the ids too.
    pub fn random(rng: &mut impl RngCore) -> Uuid {
        Uuid::from_halves(rng.next_u64(), rng.next_u64())
    }

    /// The id of ad number `index`: the same in every run, so that an ad keeps its history.
    pub fn of_ad(index: u64) -> Uuid {
        Uuid::from_halves(
            mix(index.wrapping_mul(2)),
            mix(index.wrapping_mul(2).wrapping_add(1)),
        )
    }

    fn from_halves(high: u64, low: u64) -> Uuid {
        let high = (high & !0xf000) | 0x4000; // version 4
        let low = (low & !(3 << 62)) | (2 << 62); // variant 1
        Uuid(u128::from(high) << 64 | u128::from(low))
    }

    /// Writes the text form into `out`, which is exactly [`Uuid::WIDTH`] long.
    pub fn write(self, out: &mut [u8]) {
        let digits = |shift: u32| hex((self.0 >> shift) as u32);
        let (a, b, c, d) = (digits(96), digits(64), digits(32), digits(0));
        out[..8].copy_from_slice(&a);
        out[8] = b'-';
        out[9..13].copy_from_slice(&b[..4]);
        out[13] = b'-';
        out[14..18].copy_from_slice(&b[4..]);
        out[18] = b'-';
        out[19..23].copy_from_slice(&c[..4]);
        out[23] = b'-';
        out[24..28].copy_from_slice(&c[4..]);
        out[28..36].copy_from_slice(&d);
    }

    /// Reads the text form; `None` when `text` is not a UUID of 32 hex digits with dashes.
    pub fn parse(text: &str) -> Option<Uuid> {
        let bytes = text.as_bytes();
        if bytes.len() != Uuid::WIDTH {
            return None;
        }
        let mut value: u128 = 0;
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 8 | 13 | 18 | 23) {
                if *byte != b'-' {
                    return None;
                }
                continue;
            }
            value = value << 4 | u128::from((*byte as char).to_digit(16)?);
        }
        Some(Uuid(value))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; Uuid::WIDTH];
        self.write(&mut text);
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Uuid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Uuid::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a uuid")))
    }
}

/// Eight hex digits at once: the nibbles are spread over the bytes of a word, and those above 9 moved on to the letters.
#[inline]
fn hex(number: u32) -> [u8; 8] {
    let mut word = u64::from(number);
    word = (word | word << 16) & 0x0000_ffff_0000_ffff;
    word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    word = (word | word << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((word + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (word + 0x3030_3030_3030_3030 + letters * 0x27).to_be_bytes()
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014): spreads a counter over all 64 bits.
fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One impression or click. An impression's `id` is its `impression`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// `impression_id` or `click_id`.
    pub id: Uuid,
    /// The impression this row is or belongs to.
    pub impression: Uuid,
    /// `ad_id`.
    pub ad: Uuid,
    /// `occurred_at` in microseconds since the epoch, whole milliseconds.
    pub occurred_at: i64,
}

/// The rows of one request.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where they go.
    pub stream: Stream,
    /// At least one.
    pub rows: Vec<Row>,
}

/// The wall clock in microseconds since the epoch, cut to the milliseconds that travel.
pub fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64 * 1000)
}

const TIME_WIDTH: usize = 23;

/// `YYYY-MM-DD HH:MM:SS.mmm` in UTC, as the advertising API takes it.
pub fn format_time(micros: i64) -> String {
    let time = DateTime::from_timestamp_micros(micros).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// A time and its text, which is made anew only when the time is another.
#[derive(Clone, Copy)]
pub struct Moment {
    micros: i64,
    text: [u8; TIME_WIDTH],
}

impl Moment {
    /// Moves on to `micros` since the epoch.
    pub fn set(&mut self, micros: i64) {
        if self.micros != micros {
            self.text.copy_from_slice(format_time(micros).as_bytes());
            self.micros = micros;
        }
    }
}

impl Default for Moment {
    fn default() -> Moment {
        Moment {
            micros: i64::MIN,
            text: [b'0'; TIME_WIDTH],
        }
    }
}

/// A body of up to `capacity` rows of one stream, with room for a request's head before it.
pub struct Body {
    bytes: Vec<u8>,
    room: usize,
    prefix: usize,
    stride: usize,
    columns: Columns,
    closed_after: usize,
    /// What stands in the row that was written last.
    moment: Moment,
}

/// Where the values of a row stand, counted from the start of the row.
#[derive(Clone, Copy)]
struct Columns {
    impression: usize,
    click: Option<usize>,
    ad: usize,
    occurred_at: usize,
}

/// Where in a UUID's text the eight digits stand that [`Body::stamp`] replaces.
const STAMP_AT: usize = Uuid::WIDTH - 8;

impl Body {
    /// A template for `capacity` rows (at least one).
    pub fn new(stream: Stream, capacity: usize) -> Body {
        Body::after(0, stream, capacity)
    }

    /// The same, with `room` bytes before it, see [`Body::with_head`].
    pub fn after(room: usize, stream: Stream, capacity: usize) -> Body {
        let mut row = Vec::new();
        let impression = push_member(&mut row, b"{\"impression_id\":\"", Uuid::WIDTH);
        let click = match stream {
            Stream::Impressions => None,
            Stream::Clicks => Some(push_member(&mut row, b"\",\"click_id\":\"", Uuid::WIDTH)),
        };
        let ad = push_member(&mut row, b"\",\"ad_id\":\"", Uuid::WIDTH);
        let occurred_at = push_member(&mut row, b"\",\"occurred_at\":\"", TIME_WIDTH);
        row.extend_from_slice(b"\"},");
        let mut bytes = vec![0; room];
        bytes.extend_from_slice(format!("{{\"{stream}\":[").as_bytes());
        let prefix = bytes.len();
        for _ in 0..capacity.max(1) {
            bytes.extend_from_slice(&row);
        }
        bytes.push(b'{'); // keeps the end of the last row like every other
        Body {
            bytes,
            room,
            prefix,
            stride: row.len(),
            columns: Columns {
                impression,
                click,
                ad,
                occurred_at,
            },
            closed_after: 0,
            moment: Moment::default(),
        }
    }

    /// The body for `rows`, which are at least one and at most the capacity.
    pub fn render(&mut self, rows: &[Row]) -> &[u8] {
        assert!(!rows.is_empty(), "a body has at least one row");
        if self.closed_after > 0 {
            self.put_end(self.closed_after, *b",{");
        }
        for (index, row) in rows.iter().enumerate() {
            self.patch(index, row);
        }
        self.closed_after = rows.len();
        let end = self.put_end(rows.len(), *b"]}");
        &self.bytes[self.room..end]
    }

    /// Puts `head` right before the body that was rendered last: both in one piece. It must fit into the room.
    pub fn with_head(&mut self, head: &[u8]) -> &[u8] {
        let from = self.room - head.len();
        self.bytes[from..self.room].copy_from_slice(head);
        &self.bytes[from..self.end(self.closed_after)]
    }

    /// Keeps the first `rows` of the rows that were rendered last; the body's bytes.
    pub fn cut(&mut self, rows: usize) -> usize {
        assert!(
            (1..=self.closed_after).contains(&rows),
            "a cut body is a part of one"
        );
        self.put_end(self.closed_after, *b",{");
        self.closed_after = rows;
        self.put_end(rows, *b"]}") - self.room
    }

    /// Gives all rows that were rendered last other ids, whose last eight digits are `number`, and another time.
    /// An impression and the click on it stay together if both are given the same number.
    pub fn stamp(&mut self, number: u32, now: &Moment) {
        let same_time = self.moment.micros == now.micros;
        self.moment = *now;
        let (digits, columns) = (hex(number), self.columns);
        let rows = self.bytes[self.prefix..].chunks_exact_mut(self.stride);
        for row in rows.take(self.closed_after) {
            row[columns.impression + STAMP_AT..][..8].copy_from_slice(&digits);
            if let Some(click) = columns.click {
                row[click + STAMP_AT..][..8].copy_from_slice(&digits);
            }
            if !same_time {
                row[columns.occurred_at..][..TIME_WIDTH].copy_from_slice(&now.text);
            }
        }
    }

    fn patch(&mut self, index: usize, row: &Row) {
        self.moment.set(row.occurred_at);
        let start = self.prefix + index * self.stride;
        let bytes = &mut self.bytes[start..start + self.stride];
        row.impression
            .write(&mut bytes[self.columns.impression..][..Uuid::WIDTH]);
        if let Some(click) = self.columns.click {
            row.id.write(&mut bytes[click..][..Uuid::WIDTH]);
        }
        row.ad.write(&mut bytes[self.columns.ad..][..Uuid::WIDTH]);
        bytes[self.columns.occurred_at..][..TIME_WIDTH].copy_from_slice(&self.moment.text);
    }

    /// The two bytes after a row are `,{` between rows and `]}` at the end.
    fn put_end(&mut self, rows: usize, what: [u8; 2]) -> usize {
        let end = self.end(rows);
        self.bytes[end - 2..end].copy_from_slice(&what);
        end
    }

    fn end(&self, rows: usize) -> usize {
        self.prefix + rows * self.stride + 1
    }
}

fn push_member(row: &mut Vec<u8>, before: &[u8], width: usize) -> usize {
    row.extend_from_slice(before);
    let at = row.len();
    row.resize(at + width, b'0');
    at
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use serde_json::json;

    use super::*;

    fn rows(count: usize, seed: u64) -> Vec<Row> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut row = |index: usize| {
            let id = Uuid::random(&mut rng);
            let occurred_at = 1_700_000_000_123_000 + index as i64 * 1000;
            Row {
                id,
                impression: Uuid::random(&mut rng),
                ad: Uuid::of_ad(index as u64),
                occurred_at,
            }
        };
        (0..count).map(&mut row).collect()
    }

    /// Sizes go up and down, because the end of a shorter body overwrites part of the template.
    #[test]
    fn a_body_is_the_json_of_its_rows_at_every_size() {
        for stream in Stream::ALL {
            let mut body = Body::new(stream, 5);
            for (seed, count) in [5, 1, 5, 2, 4, 1].into_iter().enumerate() {
                let rows = rows(count, seed as u64);
                let got: serde_json::Value = serde_json::from_slice(body.render(&rows)).expect("valid JSON");
                let want: Vec<_> = rows.iter().map(|row| as_json(stream, row)).collect();
                assert_eq!(got, json!({ stream.name(): want }), "{stream} with {count} rows");
            }
        }
    }

    #[test]
    fn a_stamp_changes_ids_and_time_and_nothing_else() {
        for stream in Stream::ALL {
            let mut body = Body::after(9, stream, 5);
            let mut rows = rows(3, 8);
            body.render(&rows);
            let now = 1_700_000_000_777_000;
            let mut moment = Moment::default();
            moment.set(now);
            body.stamp(0xdead_0041, &moment);
            body.stamp(0xdead_0042, &moment);
            for row in &mut rows {
                let stamped = |id: Uuid| Uuid(id.0 & !0xffff_ffff | 0xdead_0042);
                (row.id, row.impression, row.occurred_at) = (stamped(row.id), stamped(row.impression), now);
            }
            let whole = body.with_head(b"the head");
            let got: serde_json::Value =
                serde_json::from_slice(whole.strip_prefix(b"the head").expect("the head")).expect("JSON");
            let want: Vec<_> = rows.iter().map(|row| as_json(stream, row)).collect();
            assert_eq!(got, json!({ stream.name(): want }), "{stream}");
        }
    }

    fn as_json(stream: Stream, row: &Row) -> serde_json::Value {
        let mut want = json!({
            "impression_id": row.impression.to_string(),
            "ad_id": row.ad.to_string(),
            "occurred_at": format_time(row.occurred_at),
        });
        if stream == Stream::Clicks {
            want["click_id"] = json!(row.id.to_string());
        }
        want
    }

    #[test]
    fn uuids_are_version_4_and_survive_text() {
        let mut rng = SmallRng::seed_from_u64(1);
        for uuid in [Uuid::random(&mut rng), Uuid::of_ad(0), Uuid::of_ad(999_999)] {
            let text = uuid.to_string();
            assert_eq!(text.as_bytes()[14], b'4', "{text}");
            assert!(b"89ab".contains(&text.as_bytes()[19]), "{text}");
            assert_eq!(Uuid::parse(&text), Some(uuid));
        }
        assert_eq!(
            Uuid(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210).to_string(),
            "01234567-89ab-cdef-fedc-ba9876543210"
        );
        assert_ne!(Uuid::of_ad(1), Uuid::of_ad(2));
        assert_eq!(Uuid::parse("123e4567-e89b-42d3-a456-42661417400g"), None);
        assert_eq!(Uuid::parse("short"), None);
    }

    #[test]
    fn times_are_the_form_of_the_api() {
        assert_eq!(format_time(1_700_000_000_123_000), "2023-11-14 22:13:20.123");
        assert_eq!(format_time(0), "1970-01-01 00:00:00.000");
    }
}
