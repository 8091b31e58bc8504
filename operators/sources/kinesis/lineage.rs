//! Which shards may be read: parents before their children.
//!
//! A shard that is split or merged is closed, and new shards take its place. A producer's earlier rows are in
//! the parent and its later ones in a child, so a child is read only when its parents have been read to their
//! ends. What is known comes from two sides: shards that the stream lists, with their parents, and the positions
//! of shards that were read. Both forget: a stream lists a closed shard until its retention is over (and some
//! stand-ins for Kinesis not even that long), and we need not remember the end of a shard that nobody lists.

use std::collections::{BTreeMap, BTreeSet};

use super::position::Position;

/// A shard as the stream lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    pub id: String,
    /// One if it came of a split, two if of a merge.
    pub parents: Vec<String>,
}

/// What to do about the shards of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lineage {
    /// Shards to read, and from where.
    pub open: Vec<(String, Position)>,
    /// Shards whose end need not be remembered.
    pub forget: Vec<String>,
}

impl Lineage {
    /// `read`: the shards that are or were read. `start`: where reading of the stream began.
    pub fn of(listed: &[Shard], read: &BTreeMap<String, Position>, start: &Position) -> Lineage {
        let ids: BTreeSet<&str> = listed.iter().map(|shard| shard.id.as_str()).collect();
        let past = past(listed, read);
        let ended = |shard: &str| past.contains(shard) || read.get(shard) == Some(&Position::End);
        // A parent that is neither listed nor known was never ours to read.
        let done =
            |parent: &String| ended(parent) || !(ids.contains(parent.as_str()) || read.contains_key(parent));
        let mut lineage = Lineage::default();
        for shard in listed.iter().filter(|shard| !ended(&shard.id)) {
            match read.get(&shard.id) {
                Some(position) => lineage.open.push((shard.id.clone(), position.clone())),
                None if shard.parents.iter().all(done) => {
                    lineage.open.push((shard.id.clone(), start.clone()));
                }
                None => {}
            }
        }
        for (shard, position) in read.iter().filter(|(shard, _)| !ids.contains(shard.as_str())) {
            match position {
                Position::End => lineage.forget.push(shard.clone()),
                // Its reader finds out what became of it.
                _ => lineage.open.push((shard.clone(), position.clone())),
            }
        }
        lineage
    }
}

/// Unknown shards of which a descendant is known: since children come last, they were read and forgotten, or
/// closed before reading began.
fn past<'a>(listed: &'a [Shard], read: &BTreeMap<String, Position>) -> BTreeSet<&'a str> {
    let parents: BTreeMap<&str, &[String]> = listed
        .iter()
        .map(|shard| (shard.id.as_str(), shard.parents.as_slice()))
        .collect();
    let mut past = BTreeSet::new();
    let mut known: Vec<&str> = read.keys().map(String::as_str).collect();
    while let Some(shard) = known.pop() {
        for parent in parents.get(shard).into_iter().copied().flatten() {
            if !read.contains_key(parent) && past.insert(parent.as_str()) {
                known.push(parent);
            }
        }
    }
    past
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Listed shards, `child<parent+parent`; what was read, `shard=offset`; then what is to be done.
    #[test]
    fn parents_go_first() {
        for (listed, read, expect) in [
            ("a b", "", "a=s b=s"),
            ("a b", "a=7", "a=7 b=s"),
            // A split.
            ("a b<a c<a", "", "a=s"),
            ("a b<a c<a", "a=7", "a=7"),
            ("a b<a c<a", "a=end", "b=s c=s"),
            ("a b<a c<a", "a=end b=9", "b=9 c=s"),
            // A merge waits for both.
            ("a b m<a+b", "", "a=s b=s"),
            ("a b m<a+b", "a=end b=7", "b=7"),
            ("a b m<a+b", "a=end b=end", "m=s"),
            ("a b m<a+b", "a=end b=end m=end", ""),
            // Generations.
            ("a b<a c<a m<b+c d<m", "a=end b=end", "c=s"),
            ("a b<a c<a m<b+c d<m", "a=end b=end c=end m=end", "d=s"),
            // Parents that are not listed any more, or never were.
            ("b<a c<a", "", "b=s c=s"),
            ("b<a c<a", "a=end", "b=s c=s forget a"),
            ("b<a c<a", "a=7", "a=7"),
            ("m<a+b", "a=end", "m=s forget a"),
            ("m<a+b", "a=end b=7", "b=7 forget a"),
            ("", "a=7 b=end", "a=7 forget b"),
            // Forgotten, or closed before reading began, but listed still.
            ("a b<a c<a", "b=9 c=8", "b=9 c=8"),
            ("a b<a c<a m<b+c", "m=3", "m=3"),
            ("a b<a c<a m<b+c", "m=end", ""),
            ("a b<a c<a", "b=9", "b=9 c=s"),
            // A parent that ends is remembered as long as it is listed.
            ("a b<a", "a=end b=end", ""),
        ] {
            assert_eq!(check(listed, read), expect, "listed {listed}; read {read}");
        }
    }

    fn check(listed: &str, read: &str) -> String {
        let shard = |text: &str| {
            let (id, parents) = text.split_once('<').unwrap_or((text, ""));
            let parents = parents.split('+').filter(|p| !p.is_empty());
            Shard {
                id: id.into(),
                parents: parents.map(str::to_owned).collect(),
            }
        };
        let position = |text: &str| match text {
            "end" => Position::End,
            sequence => Position::After(sequence.into()),
        };
        let listed: Vec<Shard> = listed.split_whitespace().map(shard).collect();
        let read = read.split_whitespace().filter_map(|one| one.split_once('='));
        let read = read.map(|(id, at)| (id.to_owned(), position(at))).collect();
        let lineage = Lineage::of(&listed, &read, &Position::After("s".into()));
        let mut open: Vec<String> = lineage
            .open
            .iter()
            .map(|(shard, at)| format!("{shard}={}", at.offset().0))
            .collect();
        open.sort();
        open.extend(lineage.forget.iter().map(|shard| format!("forget {shard}")));
        open.join(" ")
    }
}
