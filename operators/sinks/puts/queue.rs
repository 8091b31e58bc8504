//! Rows that wait for their stream, and the puts they leave in. No I/O.
//!
//! Rows with a key leave in order: while one of a key is on its way, no other of that key leaves, so there is nothing
//! that could overtake a row which is refused. A put therefore has at most one record of a key, and what a stream with
//! few keys takes is bounded by how long a put takes; `rows_per_record` sends more rows of a key at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

/// What a service takes at a time.
#[derive(Clone, Copy, Debug)]
pub(in crate::sinks) struct Limits {
    /// Records of a put.
    pub records: usize,
    /// Bytes of a put's records, keys included.
    pub put_bytes: usize,
    /// Bytes of a record, its key included.
    pub record_bytes: usize,
    /// Bytes of the key that a record gets whose rows have none.
    pub made_key_bytes: usize,
    /// Whether a record ends with a line feed; between its rows there is always one.
    pub ends_lines: bool,
}

/// How rows are sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::sinks) struct Queueing {
    /// Rows of a record at most, all of one key.
    pub rows_per_record: usize,
    /// Whether the rows of a key keep their order.
    pub ordered: bool,
}

/// Rows that are taken or refused together, one JSON object each.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::sinks) struct Record {
    /// What the stream spreads its records by; none: anything does.
    pub key: Option<Arc<str>>,
    rows: Vec<Bytes>,
}

impl Record {
    /// Its payload.
    pub fn data(&self, limits: &Limits) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.rows.iter().map(|row| row.len() + 1).sum());
        for row in &self.rows {
            data.extend_from_slice(row);
            data.push(b'\n');
        }
        if !limits.ends_lines {
            data.pop();
        }
        data
    }
}

/// One request.
pub(in crate::sinks) type Put = Vec<Record>;

/// What waits.
pub(super) struct Queue {
    limits: Limits,
    how: Queueing,
    /// Rows whose order is free, as runs of one key.
    free: VecDeque<(Option<Arc<str>>, Bytes)>,
    /// Rows whose order is not, by key. A key without rows is on its way.
    keyed: HashMap<Arc<str>, VecDeque<Bytes>>,
    /// The keys with rows, none of which is on its way.
    ready: VecDeque<Arc<str>>,
    rows: usize,
    bytes: usize,
}

impl Queue {
    pub fn new(limits: Limits, how: Queueing) -> Queue {
        Queue {
            limits,
            how,
            free: VecDeque::new(),
            keyed: HashMap::new(),
            ready: VecDeque::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// Adds a row; false if no record could hold it.
    #[must_use]
    pub fn push(&mut self, key: Option<&str>, row: Bytes) -> bool {
        if row.len() > self.room(key) {
            return false;
        }
        self.rows += 1;
        self.bytes += row.len();
        let Some(key) = key.filter(|_| self.how.ordered) else {
            self.free.push_back((key.map(Arc::from), row));
            return true;
        };
        match self.keyed.get_mut(key) {
            Some(waiting) => waiting.push_back(row),
            None => {
                let key: Arc<str> = key.into();
                self.keyed.insert(key.clone(), VecDeque::from([row]));
                self.ready.push_back(key);
            }
        }
        true
    }

    /// Rows that wait, without those on their way.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the rows that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether what may leave fills a put.
    pub fn fills_put(&self) -> bool {
        let records = self.ready.len() + self.free.len() / self.how.rows_per_record;
        records >= self.limits.records || self.bytes >= self.limits.put_bytes
    }

    /// The next put; none if nothing may leave.
    pub fn next_put(&mut self) -> Option<Put> {
        let mut put = Put::new();
        let mut room = self.limits.put_bytes;
        while put.len() < self.limits.records {
            let Some(record) = self.next_record(room) else {
                break;
            };
            room -= self.size(&record);
            put.push(record);
        }
        (!put.is_empty()).then_some(put)
    }

    /// A put is over: what was `refused` of it waits again, before everything else of its key.
    pub fn settle(&mut self, put: Put, refused: impl Fn(usize) -> bool) {
        // Backwards, as each goes to the front.
        for (index, record) in put.into_iter().enumerate().rev() {
            let Record { key, rows } = record;
            let again = if refused(index) { rows } else { Vec::new() };
            self.rows += again.len();
            self.bytes += again.iter().map(Bytes::len).sum::<usize>();
            match key {
                Some(key) if self.how.ordered => self.settle_key(key, again),
                key => again
                    .into_iter()
                    .rev()
                    .for_each(|row| self.free.push_front((key.clone(), row))),
            }
        }
    }

    fn settle_key(&mut self, key: Arc<str>, again: Vec<Bytes>) {
        let waiting = self.keyed.entry(key.clone()).or_default();
        let held_up = !again.is_empty();
        again.into_iter().rev().for_each(|row| waiting.push_front(row));
        match (waiting.is_empty(), held_up) {
            (true, _) => drop(self.keyed.remove(&key)),
            (false, true) => self.ready.push_front(key),
            (false, false) => self.ready.push_back(key),
        }
    }

    /// The next record, if there is one that fits into `room`.
    fn next_record(&mut self, room: usize) -> Option<Record> {
        let record = match self.ready.front().cloned() {
            Some(key) => {
                let waiting = self.keyed.get_mut(&key)?;
                let room = self.limits.payload(Some(&key), room);
                let count = self.how.fitting(waiting.iter(), room);
                let rows = waiting.drain(..count).collect();
                Record { key: Some(key), rows }
            }
            None => {
                let key = self.free.front()?.0.clone();
                let room = self.limits.payload(key.as_deref(), room);
                let run = self.free.iter().take_while(|(of, _)| *of == key);
                let count = self.how.fitting(run.map(|(_, row)| row), room);
                let rows = self.free.drain(..count).map(|(_, row)| row).collect();
                Record { key, rows }
            }
        };
        if record.rows.is_empty() {
            return None;
        }
        if self.how.ordered && record.key.is_some() {
            self.ready.pop_front();
        }
        self.rows -= record.rows.len();
        self.bytes -= record.rows.iter().map(Bytes::len).sum::<usize>();
        Some(record)
    }

    /// What a record of this key has room for.
    fn room(&self, key: Option<&str>) -> usize {
        self.limits.payload(key, self.limits.put_bytes)
    }

    fn size(&self, record: &Record) -> usize {
        let data: usize = record.rows.iter().map(|row| row.len() + 1).sum();
        data - 1 + usize::from(self.limits.ends_lines) + self.limits.key_bytes(record.key.as_deref())
    }
}

impl Queueing {
    /// How many of the rows make a record with `room` for them and the line feeds between them.
    fn fitting<'a>(&self, rows: impl Iterator<Item = &'a Bytes>, room: usize) -> usize {
        let mut bytes = 0;
        let fitting = rows.take(self.rows_per_record).take_while(|row| {
            bytes += row.len() + 1;
            bytes <= room + 1
        });
        fitting.count()
    }
}

impl Limits {
    /// Bytes of rows, and line feeds between them, that a record holds where a put has `room` left.
    fn payload(&self, key: Option<&str>, room: usize) -> usize {
        let taken = self.key_bytes(key) + usize::from(self.ends_lines);
        self.record_bytes.min(room).saturating_sub(taken)
    }

    fn key_bytes(&self, key: Option<&str>) -> usize {
        key.map_or(self.made_key_bytes, str::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3 records of 10 bytes, 20 bytes in all.
    const SMALL: Limits = Limits {
        records: 3,
        put_bytes: 20,
        record_bytes: 10,
        made_key_bytes: 0,
        ends_lines: false,
    };
    const LINES: Limits = Limits {
        ends_lines: true,
        ..SMALL
    };
    const KEYS_MADE: Limits = Limits {
        made_key_bytes: 4,
        ..SMALL
    };

    /// A put as `key:row,row key:row`.
    fn show(put: &Put) -> String {
        let record = |record: &Record| {
            let rows: Vec<_> = record
                .rows
                .iter()
                .map(|row| String::from_utf8_lossy(row))
                .collect();
            format!("{}:{}", record.key.as_deref().unwrap_or_default(), rows.join(","))
        };
        put.iter().map(record).collect::<Vec<_>>().join(" ")
    }

    /// `rows_per_record` of rows whose order is kept; below zero, of such whose order is not.
    fn fill(limits: Limits, rows_per_record: isize, rows: &str) -> Queue {
        let mut queue = Queue::new(
            limits,
            Queueing {
                rows_per_record: rows_per_record.unsigned_abs(),
                ordered: rows_per_record > 0,
            },
        );
        for row in rows.split_whitespace() {
            let (key, row) = row.split_once(':').expect("key:row");
            let key = (!key.is_empty()).then_some(key);
            // What does not fit is looked for in the puts.
            let _ = queue.push(key, Bytes::copy_from_slice(row.as_bytes()));
        }
        queue
    }

    /// Limits, rows per record, rows; the puts that all leave in, each taken whole.
    #[test]
    fn puts_keep_to_the_limits() {
        for (limits, rows_per_record, rows, expect) in [
            // By number, and by bytes.
            (SMALL, 1, ":a :b :c :d", ":a :b :c | :d"),
            (
                SMALL,
                1,
                ":aaaaaaaaaa :bbbbbbbbbb :c",
                ":aaaaaaaaaa :bbbbbbbbbb | :c",
            ),
            (SMALL, 1, ":aaaaaaaaaa :bbbbbbbbb :c", ":aaaaaaaaaa :bbbbbbbbb :c"),
            // What no record holds is not taken.
            (SMALL, 1, ":aaaaaaaaaaa :b", ":b"),
            (LINES, 1, ":aaaaaaaaaa :bbbbbbbbb", ":bbbbbbbbb"),
            (SMALL, 1, "kk:aaaaaaaaa kk:bbbbbbbb", "kk:bbbbbbbb"),
            (KEYS_MADE, 1, ":aaaaaaa :bbbbbb", ":bbbbbb"),
            // Keys count.
            (
                SMALL,
                1,
                "kkk:aaaaaaa lll:bbbbbbb m:c",
                "kkk:aaaaaaa lll:bbbbbbb | m:c",
            ),
            (KEYS_MADE, 1, ":aaaaaa :bbbbbb :c", ":aaaaaa :bbbbbb | :c"),
            // One record of a key in a put, in order.
            (SMALL, 1, "k:a k:b l:c k:d", "k:a l:c | k:b | k:d"),
            // Where there is no order, any number.
            (SMALL, -1, "k:a k:b l:c k:d", "k:a k:b l:c | k:d"),
            (SMALL, -9, "k:a k:b l:c k:d", "k:a,b l:c k:d"),
            // Several rows of a key in a record, with line feeds between them, and at the end.
            (SMALL, 2, ":a :b :c :d :e :f :g", ":a,b :c,d :e,f | :g"),
            (SMALL, 9, "k:a k:b l:c k:d", "k:a,b,d l:c"),
            (SMALL, 9, ":aaaa :bbbbb :c", ":aaaa,bbbbb :c"),
            (LINES, 9, ":aaaa :bbbbb :c", ":aaaa :bbbbb,c"),
            (SMALL, 9, ":aaaaa :bbbbb :c", ":aaaaa :bbbbb,c"),
            // No put is begun that holds nothing.
            (SMALL, 1, "", ""),
        ] {
            let mut queue = fill(limits, rows_per_record, rows);
            let mut puts = Vec::new();
            while let Some(put) = queue.next_put() {
                puts.push(show(&put));
                for record in &put {
                    let key = limits.key_bytes(record.key.as_deref());
                    assert!(record.data(&limits).len() + key <= limits.record_bytes, "{rows}");
                    assert_eq!(record.data(&limits).len() + key, queue.size(record), "{rows}");
                }
                queue.settle(put, |_| false);
            }
            assert_eq!(puts.join(" | "), expect, "{rows}");
            assert_eq!(
                (queue.rows(), queue.bytes(), queue.keyed.len()),
                (0, 0, 0),
                "{rows}"
            );
        }
    }

    /// Rows; the put that leaves, what is refused of it; what leaves while it is on its way, and after it.
    #[test]
    fn refused_rows_go_first_and_hold_back_their_key() {
        for (ordered, rows, first, refused, meanwhile, then) in [
            (
                true,
                "k:1 l:1 m:1 k:2 l:2",
                "k:1 l:1 m:1",
                &[1][..],
                "",
                "l:1 k:2",
            ),
            (
                true,
                "k:1 l:1 m:1 n:1 k:2",
                "k:1 l:1 m:1",
                &[0, 2],
                "n:1",
                "k:1 m:1",
            ),
            (true, ":1 :2 :3 :4", ":1 :2 :3", &[0, 2], ":4", ":1 :3"),
            (true, ":1 :2 :3 :4", ":1 :2 :3", &[0, 1, 2], ":4", ":1 :2 :3"),
            (false, "k:1 k:2 k:3 k:4", "k:1 k:2 k:3", &[1], "k:4", "k:2"),
        ] {
            let mut queue = fill(SMALL, if ordered { 1 } else { -1 }, rows);
            let put = queue.next_put().expect("a put");
            assert_eq!(show(&put), first, "{rows}");
            let other = queue.next_put();
            assert_eq!(other.as_ref().map(show).unwrap_or_default(), meanwhile, "{rows}");
            queue.settle(put, |index| refused.contains(&index));
            let put = queue.next_put().expect("what was refused");
            assert_eq!(show(&put), then, "{rows}");
        }
    }

    #[test]
    fn a_record_of_several_rows_is_refused_as_one() {
        let mut queue = fill(SMALL, 2, "k:1 k:2 k:3");
        let put = queue.next_put().expect("a put");
        assert_eq!(put[0].data(&SMALL), b"1\n2");
        assert_eq!(put[0].data(&LINES), b"1\n2\n");
        queue.settle(put, |_| true);
        assert_eq!((queue.rows(), queue.bytes()), (3, 3));
        assert_eq!(show(&queue.next_put().expect("the same again")), "k:1,2");
    }
}
