//! Which files of a store nobody needs any more. First everything there is gets its class, then the store deletes, in
//! the given order; what has no class is never touched.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::store::{KEPT, MANIFEST, STATE};
use crate::message::Epoch;

/// What the names of manifests that are not whole yet end with.
pub const TEMPORARY: &str = ".manifest.tmp";

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Manifest,
    State,
    Temporary,
}

/// The epochs that have a manifest, in order.
pub fn epochs<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Epoch> {
    let classes = names.into_iter().filter_map(classify);
    let mut epochs: Vec<Epoch> = classes
        .filter(|(c, _)| *c == Class::Manifest)
        .map(|(_, e)| e)
        .collect();
    epochs.sort();
    epochs
}

/// The newest of the given epochs, which stay.
pub fn kept(epochs: &[Epoch]) -> &[Epoch] {
    &epochs[epochs.len().saturating_sub(KEPT)..]
}

/// What may go, in the order in which it must: manifests before the states they name. `kept` are the epochs that stay,
/// in order, and `named` the state files that their manifests name; none when one of them cannot be read, and then all
/// states stay.
///
/// A state file of the newest epoch or a later one may belong to a checkpoint that is being written, so it stays too.
pub fn garbage<'a>(
    names: impl IntoIterator<Item = &'a str>,
    kept: &[Epoch],
    named: Option<&BTreeSet<String>>,
) -> Vec<&'a str> {
    let (Some(&oldest), Some(&newest)) = (kept.first(), kept.last()) else {
        return Vec::new();
    };
    let goes = |name: &str, class: Class, epoch: Epoch| match class {
        Class::Manifest => epoch < oldest,
        Class::State => epoch < newest && named.is_some_and(|named| !named.contains(name)),
        Class::Temporary => epoch < newest,
    };
    let mut found: Vec<(Class, &str)> = names
        .into_iter()
        .filter_map(|name| classify(name).map(|(class, epoch)| (class, epoch, name)))
        .filter(|(class, epoch, name)| goes(name, *class, *epoch))
        .map(|(class, _, name)| (class, name))
        .collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

/// The state files that manifests name, as far as this process has read them.
#[derive(Debug, Default)]
pub struct Named(BTreeMap<Epoch, Vec<String>>);

impl Named {
    /// Remembers what a manifest names.
    pub fn learn(&mut self, manifest: &Manifest) {
        let files = manifest.files.iter().map(|file| file.name.clone());
        self.0.insert(manifest.epoch, files.collect());
    }

    /// Those of the given epochs whose manifests are still to be read.
    pub fn unread(&self, of: &[Epoch]) -> Vec<Epoch> {
        of.iter()
            .copied()
            .filter(|epoch| !self.0.contains_key(epoch))
            .collect()
    }

    /// All that the given epochs name, and forgets the others; none when one of them was not read.
    pub fn by(&mut self, kept: &[Epoch]) -> Option<BTreeSet<String>> {
        self.0.retain(|epoch, _| kept.contains(epoch));
        let files = kept.iter().map(|epoch| self.0.get(epoch));
        let files = files.collect::<Option<Vec<_>>>()?;
        Some(files.into_iter().flatten().cloned().collect())
    }
}

fn classify(name: &str) -> Option<(Class, Epoch)> {
    let of = [
        (MANIFEST, Class::Manifest),
        (STATE, Class::State),
        (TEMPORARY, Class::Temporary),
    ];
    let (rest, class) = of
        .iter()
        .find_map(|(suffix, class)| Some((name.strip_suffix(suffix)?, *class)))?;
    // A state file's name goes on after its epoch.
    let epoch = rest.split('-').next()?.parse().ok()?;
    Some((class, Epoch(epoch)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: [&str; 11] = [
        "1.manifest.json",
        "1-a-9.state",
        "2-b-9.state",
        "3.manifest.json",
        "3.state",
        "4.manifest.json",
        "5.manifest.json",
        "5.manifest.tmp",
        "4.manifest.tmp",
        "5-c-9.state",
        "notes.txt",
    ];

    #[test]
    fn only_what_no_kept_checkpoint_names_goes() {
        let epochs = epochs(THERE);
        assert_eq!(epochs, [1, 3, 4, 5].map(Epoch));
        let named = BTreeSet::from(["2-b-9.state".to_string(), "5-c-9.state".into()]);
        let cases = [
            (
                Some(&named),
                vec!["1.manifest.json", "1-a-9.state", "3.state", "4.manifest.tmp"],
            ),
            (None, vec!["1.manifest.json", "4.manifest.tmp"]),
        ];
        for (named, expect) in cases {
            assert_eq!(garbage(THERE, kept(&epochs), named), expect);
        }
    }

    /// Between a state file and its manifest there is nothing that names it.
    #[test]
    fn what_is_being_written_stays() {
        let there = ["7.manifest.json", "7-a-9.state", "8-a-9.state"];
        assert!(garbage(there, &[Epoch(7)], Some(&BTreeSet::new())).is_empty());
        assert!(garbage(["8-a-9.state"], &[], Some(&BTreeSet::new())).is_empty());
    }
}
