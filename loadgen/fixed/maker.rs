//! Makes the requests of one thread: impressions, and clicks on them once there are enough for a batch.
//!
//! A request is one piece of memory, head and body, in which only what differs from the last is written. *Fresh* rows
//! are random in every field. *Prebuilt* bodies (`--prebuilt`) are written before the run and sent again and again;
//! eight digits of every id, and the time, are new each time, so that no id is sent twice, but the ads repeat. Fresh
//! rows of a large request take longer than a bare server needs for it: there loadgen would be the limit.

use std::collections::VecDeque;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::ledger::Ticket;
use crate::rows::{Batch, Body, Moment, Row, Stream, Uuid, now_micros};
use crate::run::Run;
use crate::wire;

/// Rows of impressions that are built before the run: few, because they and the clicks on them stay in a core's cache.
const PREBUILT_ROWS: usize = 500;

/// The head of a request without its host and path: 80 bytes and the digits of the length.
const HEAD_BYTES: usize = 128;

/// Makes requests.
pub struct Maker {
    rows: Rows,
    requests: [Request; 2],
    batch: Batch,
    prebuilt: Prebuilt,
}

/// A request that may go out: it stands in the ledger.
pub struct Made<'a> {
    pub rows: usize,
    pub body_bytes: usize,
    pub ticket: Option<Ticket>,
    /// Head and body.
    pub bytes: &'a [u8],
}

impl Maker {
    /// Of thread number `index`.
    pub fn new(run: &Run, index: usize) -> Maker {
        let mut maker = Maker {
            rows: Rows::new(run, index),
            requests: Stream::ALL.map(|stream| Request::new(run, stream)),
            batch: Batch {
                stream: Stream::Impressions,
                rows: Vec::new(),
            },
            prebuilt: Prebuilt::default(),
        };
        if run.plan.prebuilt {
            maker.prebuild(run);
        }
        maker
    }

    fn prebuild(&mut self, run: &Run) {
        let batch = run.plan.batch;
        self.rows.clickthrough = 1.0;
        for _ in 0..(PREBUILT_ROWS / batch).max(1) {
            self.prebuilt.pairs.push(Stream::ALL.map(|stream| {
                self.rows.fill(&mut self.batch, stream, batch);
                let mut request = Request::new(run, stream);
                request.render(&self.batch.rows);
                request
            }));
        }
        self.prebuilt.clickthrough = run.plan.config.users.clickthrough_probability;
    }

    /// The next request; `None` when the run has no more rows or must not send.
    pub fn next(&mut self, run: &Run) -> Option<Made<'_>> {
        let limit = run.claim(run.plan.batch);
        if limit == 0 {
            return None;
        }
        if run.plan.prebuilt {
            return Some(self.prebuilt.next(limit));
        }
        self.fresh(run, limit)
    }

    fn fresh(&mut self, run: &Run, limit: usize) -> Option<Made<'_>> {
        let stream = self.rows.next_stream(run.plan.batch);
        self.rows.fill(&mut self.batch, stream, limit);
        let ticket = run.about_to_send(&self.batch).ok()?;
        let request = &mut self.requests[stream as usize];
        request.render(&self.batch.rows);
        Some(Made {
            rows: limit,
            body_bytes: request.body_bytes,
            ticket,
            bytes: request.bytes(),
        })
    }
}

/// Pairs of requests: impressions, and the clicks on all of them. The impressions of all pairs go out in turn, and the
/// clicks on them whenever there have been so few that it is time for some.
#[derive(Default)]
struct Prebuilt {
    pairs: Vec<[Request; 2]>,
    /// Requests with impressions that were sent.
    sent: usize,
    clickthrough: f64,
    /// Requests with clicks that are to be sent, as a fraction that has accrued.
    clicks_due: f64,
    now: Moment,
}

impl Prebuilt {
    fn next(&mut self, limit: usize) -> Made<'_> {
        let stream = if self.clicks_due >= 1.0 {
            self.clicks_due -= 1.0;
            Stream::Clicks
        } else {
            self.clicks_due += self.clickthrough;
            self.sent += 1;
            Stream::Impressions
        };
        // A pair's turn makes the digits: clicks have those of the impressions that went out last.
        let (turn, pair) = (
            (self.sent - 1) / self.pairs.len(),
            (self.sent - 1) % self.pairs.len(),
        );
        let request = &mut self.pairs[pair][stream as usize];
        self.now.set(now_micros());
        request.body.stamp(turn as u32, &self.now);
        if limit < request.rows {
            request.cut(limit);
        }
        Made {
            rows: request.rows,
            body_bytes: request.body_bytes,
            ticket: None,
            bytes: request.bytes(),
        }
    }
}

/// Rows as the run's seed has them.
struct Rows {
    rng: SmallRng,
    ads: u64,
    clickthrough: f64,
    clicks: VecDeque<Row>,
}

impl Rows {
    fn new(run: &Run, index: usize) -> Rows {
        Rows {
            // An odd multiplier keeps the threads' seeds apart for every seed.
            rng: SmallRng::seed_from_u64(
                run.plan.seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ),
            ads: run.plan.config.ads.count,
            clickthrough: run.plan.config.users.clickthrough_probability,
            clicks: VecDeque::new(),
        }
    }

    fn next_stream(&self, batch: usize) -> Stream {
        if self.clicks.len() >= batch {
            Stream::Clicks
        } else {
            Stream::Impressions
        }
    }

    /// Fills `into` with `count` rows; there must be as many clicks.
    fn fill(&mut self, into: &mut Batch, stream: Stream, count: usize) {
        let occurred_at = now_micros();
        into.stream = stream;
        into.rows.clear();
        if stream == Stream::Clicks {
            let clicks = self.clicks.drain(..count);
            into.rows.extend(clicks.map(|click| Row { occurred_at, ..click }));
            return;
        }
        for _ in 0..count {
            let id = Uuid::random(&mut self.rng);
            let row = Row {
                id,
                impression: id,
                ad: Uuid::of_ad(self.rng.random_range(0..self.ads)),
                occurred_at,
            };
            if self.rng.random_bool(self.clickthrough) {
                let id = Uuid::random(&mut self.rng);
                self.clicks.push_back(Row { id, ..row });
            }
            into.rows.push(row);
        }
    }
}

/// A request of one stream. Its head is written anew only when the length of the body changes.
struct Request {
    body: Body,
    authority: String,
    path: String,
    head: String,
    rows: usize,
    body_bytes: usize,
}

impl Request {
    fn new(run: &Run, stream: Stream) -> Request {
        let (authority, path) = (run.endpoint.authority.clone(), run.endpoint.path(stream));
        let room = HEAD_BYTES + authority.len() + path.len();
        Request {
            body: Body::after(room, stream, run.plan.batch),
            authority,
            path,
            head: String::new(),
            rows: 0,
            body_bytes: 0,
        }
    }

    fn render(&mut self, rows: &[Row]) {
        let bytes = self.body.render(rows).len();
        self.now_has(rows.len(), bytes);
    }

    /// Keeps the first `rows` rows.
    fn cut(&mut self, rows: usize) {
        let bytes = self.body.cut(rows);
        self.now_has(rows, bytes);
    }

    fn now_has(&mut self, rows: usize, bytes: usize) {
        if bytes != self.body_bytes {
            self.head = wire::head(&self.authority, &self.path, bytes);
        }
        (self.rows, self.body_bytes) = (rows, bytes);
    }

    /// Head and body.
    fn bytes(&mut self) -> &[u8] {
        self.body.with_head(self.head.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use clap::Parser;
    use serde_json::Value;

    use super::*;

    fn run(flags: &str) -> Run {
        let words = ["loadgen", "--seed", "3"]
            .into_iter()
            .chain(flags.split_whitespace());
        Run::new(crate::args::Cli::parse_from(words).run.plan().expect("valid")).expect("starts")
    }

    /// The rows of `requests` requests, by stream.
    fn made(run: &Run, requests: usize) -> [Vec<Value>; 2] {
        let mut maker = Maker::new(run, 0);
        let mut rows = [Vec::new(), Vec::new()];
        for _ in 0..requests {
            let Some(made) = maker.next(run) else { break };
            let text = std::str::from_utf8(made.bytes).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert_eq!(body.len(), made.body_bytes);
            assert!(
                head.ends_with(&format!("content-length: {}", body.len())),
                "{head}"
            );
            let body: Value = serde_json::from_str(body).expect("JSON");
            for stream in Stream::ALL {
                let of = body[stream.name()].as_array();
                assert!(of.is_none_or(|of| of.len() == made.rows && head.contains(stream.name())));
                rows[stream as usize].extend(of.into_iter().flatten().cloned());
            }
        }
        rows
    }

    fn ids<'a>(rows: &'a [Value], column: &str) -> HashSet<&'a str> {
        let ids: HashSet<_> = rows.iter().filter_map(|row| row[column].as_str()).collect();
        assert_eq!(ids.len(), rows.len(), "every {column} is there and unique");
        ids
    }

    #[test]
    fn ids_are_unique_and_clicks_are_on_impressions_prebuilt_or_not() {
        for flags in [
            "--closed-loop --batch 7",
            "--closed-loop --batch 7 --prebuilt",
            "--closed-loop --batch 1 --prebuilt",
        ] {
            let [impressions, clicks] = made(&run(flags), 500);
            let shown = ids(&impressions, "impression_id");
            ids(&clicks, "click_id");
            assert!(ids(&clicks, "impression_id").is_subset(&shown), "{flags}");
            let share = clicks.len() as f64 / impressions.len() as f64;
            assert!((0.2..0.4).contains(&share), "{flags}: {share}");
        }
    }

    #[test]
    fn the_last_request_of_a_run_by_rows_is_short() {
        for flags in [
            "--closed-loop --batch 7 --rows 100",
            "--closed-loop --batch 7 --rows 100 --prebuilt",
        ] {
            let [impressions, clicks] = made(&run(flags), 500);
            assert_eq!(impressions.len() + clicks.len(), 100, "{flags}");
        }
    }
}
