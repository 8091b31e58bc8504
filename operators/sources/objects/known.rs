//! Which objects are new, and which may be forgotten.
//!
//! Every object that was opened is in the checkpoint with its version and its last-modified time. In S3 that time is set
//! by the service when an object appears, so an object which appears now is about as new as the newest one known: what is
//! older than that by a settling time has appeared long ago, and whether it was read need not be remembered. Objects are
//! opened in order of that time, so nothing is passed over on the way.
//!
//! A file keeps its time when it is moved, so a file that appears now may be old. Of files all are remembered as long as
//! they are there, and forgotten when they are gone.

use std::collections::HashSet;
use std::time::Duration;

use millstream_engine::Result;
use millstream_engine::source::{Offset, Offsets, PartitionId};
use millstream_engine::time::Timestamp;

use super::progress::{Object, Progress, has_ended};

/// What a checkpoint knows of objects.
pub(super) struct Known<'r> {
    read: &'r Offsets,
    newest: Option<Timestamp>,
    settle: Option<Duration>,
}

impl Known<'_> {
    /// The objects of `read`; `settle` is the settling time, where there is one.
    pub fn new(read: &Offsets, settle: Option<Duration>) -> Result<Known<'_>> {
        let mut newest = None;
        for offset in read.values() {
            newest = newest.max(Some(offset.0.parse::<Progress>()?.modified));
        }
        Ok(Known { read, newest, settle })
    }

    /// Whether the checkpoint holds a partition.
    pub fn holds(&self, id: &PartitionId) -> bool {
        self.read.contains_key(id)
    }

    /// Whether an object is to be read.
    pub fn is_new(&self, object: &Object) -> bool {
        !self.has_settled(object.modified) && !self.holds(&object.id())
    }

    /// The objects that were not read to their end, and how far.
    pub fn unfinished(&self) -> Vec<(PartitionId, Option<Offset>)> {
        let unfinished = self.read.iter().filter(|(_, offset)| !has_ended(offset));
        unfinished
            .map(|(id, offset)| (id.clone(), Some(offset.clone())))
            .collect()
    }

    /// The ended objects that are too old to be taken for new ones.
    pub fn settled(&self) -> Result<Vec<PartitionId>> {
        let mut settled = Vec::new();
        for (id, offset) in self.read.iter().filter(|(_, offset)| has_ended(offset)) {
            if self.has_settled(offset.0.parse::<Progress>()?.modified) {
                settled.push(id.clone());
            }
        }
        Ok(settled)
    }

    /// The ended objects that are not among `there`. None where nothing known is: a disk that is not mounted looks
    /// like this, and it will come back.
    pub fn gone(&self, there: &HashSet<PartitionId>) -> Vec<PartitionId> {
        if !self.read.keys().any(|id| there.contains(id)) {
            return Vec::new();
        }
        let ended = self.read.iter().filter(|(_, offset)| has_ended(offset));
        ended
            .map(|(id, _)| id)
            .filter(|id| !there.contains(id))
            .cloned()
            .collect()
    }

    fn has_settled(&self, modified: Timestamp) -> bool {
        match (self.newest, self.settle) {
            (Some(newest), Some(settle)) => modified < newest.minus(settle),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// `a@1 30m` is version 1 of a, modified at 30 minutes.
    fn object(text: &str) -> Object {
        let (id, minutes) = text.split_once(' ').unwrap();
        let (key, version) = id.split_once('@').unwrap();
        let minutes: i64 = minutes.trim_end_matches('m').parse().unwrap();
        Object {
            modified: Timestamp(minutes * 60_000_000),
            key: key.into(),
            version: version.into(),
            size: 1,
        }
    }

    /// Known objects, those being read marked with a star.
    fn read(text: &str) -> Offsets {
        let mut read = Offsets::new();
        for one in text.split(", ").filter(|one| !one.is_empty()) {
            let at = match one.strip_prefix('*') {
                Some(_) => super::super::progress::At::Row(1),
                None => super::super::progress::At::End,
            };
            let object = object(one.trim_start_matches('*'));
            read.insert(object.id(), object.offset(at));
        }
        read
    }

    fn ids(mut of: Vec<PartitionId>) -> String {
        of.sort();
        let ids: Vec<String> = of.into_iter().map(|id| id.0).collect();
        ids.join(", ")
    }

    /// A settling time of an hour.
    #[test]
    fn new_objects_and_those_to_forget() {
        for (known, listed, new, forgotten) in [
            // Nothing is known: everything is new.
            ("", "a@1 0m, b@1 500m", "a@1, b@1", ""),
            // Another version is another object; a copy under an older time is, too, as long as it is not settled.
            ("a@1 100m", "a@1 100m, a@2 101m, b@1 40m", "a@2, b@1", ""),
            ("a@1 100m", "b@1 39m, c@1 160m", "c@1", ""),
            // The newest stays known for ever, however old.
            ("a@1 100m", "a@1 100m", "", ""),
            (
                "a@1 39m, b@1 40m, c@1 100m",
                "a@1 39m, b@1 40m, c@1 100m",
                "",
                "a@1",
            ),
            // What is being read is never forgotten.
            ("*a@1 0m, c@1 100m", "a@1 0m, c@1 100m", "", ""),
            // What is known but not ended counts as the newest.
            ("a@1 0m, *c@1 100m", "a@1 0m, b@1 30m, d@1 50m", "d@1", "a@1"),
        ] {
            let read = read(known);
            let it = Known::new(&read, Some(HOUR)).unwrap();
            let listed = listed.split(", ").map(object);
            let found = listed.filter(|o| it.is_new(o)).map(|o| o.id()).collect();
            assert_eq!(ids(found), new, "{known}");
            assert_eq!(ids(it.settled().unwrap()), forgotten, "{known}");
        }
    }

    #[test]
    fn what_was_forgotten_is_not_new() {
        // Whatever appears with time at random within the settling time is read once.
        let mut read = Offsets::new();
        let mut opened = Vec::new();
        for step in 0..500_i64 {
            let late = step * 7919 % 59;
            let listed: Vec<Object> = (0..=step)
                .map(|n| object(&format!("k{n}@1 {}m", n * 10 - n * 7919 % 59)))
                .collect();
            let it = Known::new(&read, Some(HOUR)).unwrap();
            let mut new: Vec<Object> = listed.into_iter().filter(|o| it.is_new(o)).collect();
            new.sort();
            for id in it.settled().unwrap() {
                read.remove(&id);
            }
            for one in new {
                read.insert(one.id(), one.offset(super::super::progress::At::End));
                opened.push(one.id());
            }
            assert!(read.len() <= 20, "{late}");
        }
        let distinct: HashSet<_> = opened.iter().collect();
        assert_eq!((opened.len(), distinct.len()), (500, 500));
    }

    #[test]
    fn files_are_known_as_long_as_they_are_there() {
        let read = read("a@1 0m, b@1 500m, *c@1 600m");
        let it = Known::new(&read, None).unwrap();
        assert!(it.is_new(&object("old@1 1m")), "a file that was moved in");
        for (there, gone) in [("b@1, new@1", "a@1"), ("a@1, b@1", ""), ("", ""), ("new@1", "")] {
            let there = there.split(", ").map(|id| PartitionId(id.into())).collect();
            assert_eq!(ids(it.gone(&there)), gone);
        }
    }

    #[test]
    fn an_offset_of_something_else_is_refused() {
        let read = Offsets::from([(PartitionId("a@1".into()), Offset("17".into()))]);
        assert!(Known::new(&read, None).is_err());
    }
}
