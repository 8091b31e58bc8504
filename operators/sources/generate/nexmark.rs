//! The generator of the Nexmark benchmark: an auction site where people register, auctions open and bids are made.
//!
//! After Tucker, Tufte, Papadimos and Maier, "NEXMark: a benchmark for queries over data streams" (2008), with the
//! proportions and skews that Apache Beam's and Flink's suites settled on: of every 50 events 1 is a person, 3 are
//! auctions, 46 are bids; half of the bids go to the newest hundredth auction, three quarters come from a hot bidder,
//! three quarters of auctions are of a hot seller; half of the bids come over one of four channels.
//!
//! The three streams share one numbering of events, so a bid's `auction` and `bidder`, and an auction's `seller`, are
//! ids that the other streams have (or, as published, will have within the next ten). Only the columns that a
//! pipeline declares are made.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, SchemaRef};
use millstream_engine::source::SourceContext;
use millstream_engine::time::timestamp_type;
use millstream_engine::{Error, Result};

use super::options::{GenerateOptions, NexmarkStream, Schedule};
use super::random::Random;

const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
const BIDS: u64 = 46;
/// Events of one round: persons, then auctions, then bids.
pub(super) const PROPORTIONS: u64 = PERSONS + AUCTIONS + BIDS;

const FIRST_PERSON: u64 = 1_000;
const FIRST_AUCTION: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// Bids go to the last so many auctions.
const IN_FLIGHT_AUCTIONS: u64 = 100;
/// Bidders and sellers are among the last so many persons.
const ACTIVE_PERSONS: u64 = 1_000;
/// Ids run ahead of what is there by so many.
const LEAD: u64 = 10;
/// One in so many bids goes to an auction that is not hot.
const HOT_AUCTION: u64 = 2;
const HOT_BIDDER: u64 = 4;
const HOT_SELLER: u64 = 4;
/// Every so many ids one is hot.
const HOT_EVERY: u64 = 100;
const HOT_CHANNEL: u64 = 2;
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const CHANNELS: u64 = 10_000;

const FIRST_NAMES: [&str; 11] = [
    "Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter",
];
const LAST_NAMES: [&str; 9] = [
    "Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris",
];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

/// Padding that brings events to the published average sizes of 200, 500 and 100 bytes.
const PERSON_EXTRA: u64 = 130;
const AUCTION_EXTRA: u64 = 390;
const BID_EXTRA: u64 = 68;

/// Event time of every stream.
const EVENT_TIME: &str = "date_time";

/// The generator of one stream.
pub(super) struct Nexmark {
    schema: SchemaRef,
    stream: NexmarkStream,
    seed: u64,
    schedule: Schedule,
    columns: Vec<Column>,
}

/// A column: its name, and how an event's value is made.
type Column = (&'static str, Values);

#[derive(Clone, Copy)]
enum Values {
    Integer(fn(&Event) -> u64),
    Text(fn(&Event) -> String),
    Time(fn(&Event) -> i64),
}

const PERSON_COLUMNS: &[Column] = &[
    ("id", Values::Integer(|e| FIRST_PERSON + last_person(e.number))),
    (
        "name",
        Values::Text(|e| {
            let mut random = e.random(1);
            format!(
                "{} {}",
                one_of(&mut random, &FIRST_NAMES),
                one_of(&mut random, &LAST_NAMES)
            )
        }),
    ),
    (
        "email_address",
        Values::Text(|e| {
            let mut random = e.random(2);
            format!("{}@{}.com", word(&mut random, 7, '_'), word(&mut random, 5, '_'))
        }),
    ),
    (
        "credit_card",
        Values::Text(|e| {
            let mut random = e.random(3);
            let groups = [(); 4].map(|()| format!("{:04}", random.below(10_000)));
            groups.join(" ")
        }),
    ),
    (
        "city",
        Values::Text(|e| one_of(&mut e.random(4), &CITIES).to_owned()),
    ),
    (
        "state",
        Values::Text(|e| one_of(&mut e.random(5), &STATES).to_owned()),
    ),
    (EVENT_TIME, Values::Time(|e| e.schedule.at(e.number))),
    ("extra", Values::Text(|e| extra(&mut e.random(6), PERSON_EXTRA))),
];

const AUCTION_COLUMNS: &[Column] = &[
    ("id", Values::Integer(|e| FIRST_AUCTION + last_auction(e.number))),
    ("item_name", Values::Text(|e| word(&mut e.random(1), 20, ' '))),
    ("description", Values::Text(|e| word(&mut e.random(2), 100, ' '))),
    ("initial_bid", Values::Integer(|e| price(&mut e.random(3)))),
    (
        "reserve",
        Values::Integer(|e| price(&mut e.random(3)) + price(&mut e.random(4))),
    ),
    (EVENT_TIME, Values::Time(|e| e.schedule.at(e.number))),
    ("expires", Values::Time(expires)),
    (
        "seller",
        Values::Integer(|e| {
            let mut random = e.random(6);
            FIRST_PERSON
                + match random.below(HOT_SELLER) {
                    0 => person(&mut random, e.number),
                    _ => last_person(e.number) / HOT_EVERY * HOT_EVERY,
                }
        }),
    ),
    (
        "category",
        Values::Integer(|e| FIRST_CATEGORY + e.random(7).below(CATEGORIES)),
    ),
    ("extra", Values::Text(|e| extra(&mut e.random(8), AUCTION_EXTRA))),
];

const BID_COLUMNS: &[Column] = &[
    (
        "auction",
        Values::Integer(|e| {
            let mut random = e.random(1);
            FIRST_AUCTION
                + match random.below(HOT_AUCTION) {
                    0 => auction(&mut random, e.number),
                    _ => last_auction(e.number) / HOT_EVERY * HOT_EVERY,
                }
        }),
    ),
    (
        "bidder",
        Values::Integer(|e| {
            let mut random = e.random(2);
            FIRST_PERSON
                + match random.below(HOT_BIDDER) {
                    0 => person(&mut random, e.number),
                    _ => last_person(e.number) / HOT_EVERY * HOT_EVERY + 1,
                }
        }),
    ),
    ("price", Values::Integer(|e| price(&mut e.random(3)))),
    (
        "channel",
        Values::Text(|e| match channel(e) {
            Channel::Hot(index) => HOT_CHANNELS[index].to_owned(),
            Channel::Other(number) => format!("channel-{number}"),
        }),
    ),
    ("url", Values::Text(|e| channel(e).url(e.seed))),
    (EVENT_TIME, Values::Time(|e| e.schedule.at(e.number))),
    ("extra", Values::Text(|e| extra(&mut e.random(5), BID_EXTRA))),
];

impl Nexmark {
    pub fn new(options: &GenerateOptions, cx: &SourceContext, schedule: Schedule) -> Result<Nexmark> {
        let Some(stream) = options.stream else {
            return Err(Error::config(
                "generator = \"nexmark\" needs stream = \"person\", \"auction\" or \"bid\"",
            ));
        };
        if !options.values.is_empty() {
            return Err(Error::config("values goes with generator = \"columns\""));
        }
        let event_time = cx.schema.field(cx.event_time).name();
        if event_time != EVENT_TIME {
            return Err(Error::config(format!(
                "event_time {event_time:?}: the events of Nexmark happen at {EVENT_TIME:?}"
            )));
        }
        let fields = cx.schema.fields().iter();
        let columns = fields.map(|field| column(stream, field.name(), field.data_type()));
        Ok(Nexmark {
            schema: cx.schema.clone(),
            stream,
            seed: options.seed,
            schedule,
            columns: columns.collect::<Result<_>>()?,
        })
    }

    /// The events of this stream among some numbers.
    pub fn rows(&self, numbers: &[u64]) -> Result<RecordBatch> {
        let mine = numbers.iter().filter(|number| stream_of(**number) == self.stream);
        let events = mine.map(|number| Event {
            number: *number,
            seed: self.seed,
            schedule: self.schedule,
        });
        let events: Vec<Event> = events.collect();
        let columns = self.columns.iter().map(|(_, values)| values.column(&events));
        Ok(RecordBatch::try_new(self.schema.clone(), columns.collect())?)
    }
}

fn column(stream: NexmarkStream, name: &str, declared: &DataType) -> Result<Column> {
    let all = match stream {
        NexmarkStream::Person => PERSON_COLUMNS,
        NexmarkStream::Auction => AUCTION_COLUMNS,
        NexmarkStream::Bid => BID_COLUMNS,
    };
    let Some(column) = all.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = all.iter().map(|(known, _)| *known).collect();
        let known = known.join(", ");
        return Err(Error::config(format!(
            "the stream has no column {name:?}; it has {known}"
        )));
    };
    let (made, word) = match column.1 {
        Values::Integer(_) => (DataType::Int64, "bigint"),
        Values::Text(_) => (DataType::Utf8, "string"),
        Values::Time(_) => (timestamp_type(), "timestamp"),
    };
    match made == *declared {
        true => Ok(*column),
        false => Err(Error::config(format!("column {name:?} is a {word}"))),
    }
}

impl Values {
    fn column(self, events: &[Event]) -> ArrayRef {
        let events = events.iter();
        match self {
            Values::Integer(of) => Arc::new(Int64Array::from_iter_values(events.map(|e| of(e) as i64))),
            Values::Text(of) => Arc::new(StringArray::from_iter_values(events.map(of))),
            Values::Time(of) => Arc::new(TimestampMicrosecondArray::from_iter_values(events.map(of))),
        }
    }
}

/// An event of one of the three streams.
struct Event {
    number: u64,
    seed: u64,
    schedule: Schedule,
}

impl Event {
    fn random(&self, column: u64) -> Random {
        Random::of(self.seed, self.number, column)
    }
}

fn stream_of(number: u64) -> NexmarkStream {
    match number % PROPORTIONS {
        place if place < PERSONS => NexmarkStream::Person,
        place if place < PERSONS + AUCTIONS => NexmarkStream::Auction,
        _ => NexmarkStream::Bid,
    }
}

/// The newest person when event `number` happens, counted from 0: each round begins with the one it has.
fn last_person(number: u64) -> u64 {
    number / PROPORTIONS
}

/// The newest auction when event `number` happens, counted from 0; the first one before there is any.
fn last_auction(number: u64) -> u64 {
    let (round, place) = (number / PROPORTIONS, number % PROPORTIONS);
    match place.checked_sub(PERSONS) {
        None => (round * AUCTIONS).saturating_sub(1),
        Some(place) => round * AUCTIONS + place.min(AUCTIONS - 1),
    }
}

/// One of the active persons, or of those who come next.
fn person(random: &mut Random, number: u64) -> u64 {
    let persons = last_person(number) + 1;
    let active = persons.min(ACTIVE_PERSONS);
    persons - active + random.below(active + LEAD)
}

/// One of the auctions in flight, or of those that come next.
fn auction(random: &mut Random, number: u64) -> u64 {
    let newest = last_auction(number);
    let oldest = newest.saturating_sub(IN_FLIGHT_AUCTIONS);
    oldest + random.below(newest - oldest + 1 + LEAD)
}

/// Between 1 and 1,000,000 dollars in cents, each order of magnitude as likely as the others.
fn price(random: &mut Random) -> u64 {
    (10f64.powf(random.unit() * 6.0) * 100.0).round() as u64
}

/// An auction is open for as long as it takes for the auctions in flight to be replaced, on average.
fn expires(event: &Event) -> i64 {
    const MILLISECOND: i64 = 1_000;
    let opened = event.schedule.at(event.number);
    let replaced = event
        .number
        .saturating_add(IN_FLIGHT_AUCTIONS * PROPORTIONS / AUCTIONS);
    let horizon = event.schedule.at(replaced).saturating_sub(opened) / MILLISECOND;
    let open = event.random(5).below(2 * horizon.max(1) as u64) as i64;
    opened.saturating_add((1 + open) * MILLISECOND)
}

enum Channel {
    Hot(usize),
    Other(u64),
}

fn channel(event: &Event) -> Channel {
    let mut random = event.random(4);
    match random.below(HOT_CHANNEL) {
        0 => Channel::Other(random.below(CHANNELS)),
        _ => Channel::Hot(random.below(HOT_CHANNELS.len() as u64) as usize),
    }
}

impl Channel {
    /// A channel has one address; nine of ten of the others name their channel in it, in a number of its own.
    fn url(&self, seed: u64) -> String {
        let (mut random, id) = match self {
            Channel::Hot(index) => (Random::of(seed, *index as u64, u64::MAX), None),
            Channel::Other(number) => (Random::of(seed, *number, u64::MAX - 1), Some(*number as i32)),
        };
        let folders = [(); 3].map(|()| word(&mut random, 5, '_'));
        let base = format!("https://www.nexmark.com/{}/item.htm?query=1", folders.join("/"));
        match id.filter(|_| random.below(10) > 0) {
            Some(id) => format!("{base}&channel_id={}", id.reverse_bits().unsigned_abs()),
            None => base,
        }
    }
}

fn one_of<'a>(random: &mut Random, all: &[&'a str]) -> &'a str {
    all[random.below(all.len() as u64) as usize]
}

/// 3 to `longest` letters, one in thirteen of them `special`.
fn word(random: &mut Random, longest: u64, special: char) -> String {
    let length = 3 + random.below(longest - 3);
    let word: String = (0..length).map(|_| letter(random, special)).collect();
    word.trim().to_owned()
}

fn letter(random: &mut Random, special: char) -> char {
    match random.below(13) {
        0 => special,
        _ => char::from(b'a' + random.below(26) as u8),
    }
}

/// Letters, `average` give or take a fifth.
fn extra(random: &mut Random, average: u64) -> String {
    let length = average - average / 5 + random.below(2 * average / 5);
    (0..length)
        .map(|_| char::from(b'a' + random.below(26) as u8))
        .collect()
}
