//! Which names are read: those below a path, or that fit a glob, and are neither hidden nor unfinished.

use glob::{MatchOptions, Pattern};
use millstream_engine::{Error, Result};

/// `*` stays within a folder; `**` does not.
const FOLDERS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// Endings of names that are still being written.
const UNFINISHED: [&str; 2] = [".tmp", ".part"];

/// The names that a source reads: those of any of its paths.
#[derive(Clone, Debug)]
pub(super) struct Selections(pub Vec<Selection>);

impl Selections {
    /// Whether a name is read.
    pub fn takes(&self, name: &str) -> bool {
        self.0.iter().any(|one| one.takes(name))
    }
}

/// The names of one path.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    /// What all of them start with, without `/` at its end: a folder, or one name.
    root: String,
    /// Whether the root is a folder for certain.
    folder: bool,
    /// What they look like below the root.
    pattern: Option<Pattern>,
    include: Option<Pattern>,
}

impl Selection {
    /// The names below `path`, which may be a glob, and that fit `include`.
    ///
    /// # Errors
    /// Of class config: a glob that is none.
    pub fn new(path: &str, include: Option<&str>) -> Result<Selection> {
        let is_glob = |segment: &str| segment.contains(['*', '?', '[']);
        let segments: Vec<&str> = path.split('/').collect();
        let literal = segments.iter().position(|s| is_glob(s)).unwrap_or(segments.len());
        let root = segments[..literal].join("/");
        let pattern = match literal < segments.len() {
            true => Some(glob("path", &segments[literal..].join("/"))?),
            false => None,
        };
        let folder = pattern.is_some() || root.ends_with('/');
        let trimmed = match root.trim_end_matches('/') {
            "" if root.starts_with('/') || (literal == 1 && path.starts_with('/')) => "/",
            trimmed => trimmed,
        };
        Ok(Selection {
            root: trimmed.into(),
            folder,
            pattern,
            include: include.map(|text| glob("include", text)).transpose()?,
        })
    }

    /// The folder, or the one name.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// What all keys of an object store start with.
    pub fn prefix(&self) -> String {
        match self.root.as_str() {
            "" | "/" => self.root.clone(),
            root if self.folder => format!("{root}/"),
            root => root.into(),
        }
    }

    /// Whether a name is read.
    pub fn takes(&self, name: &str) -> bool {
        let Some(below) = self.below(name) else {
            // One name, which somebody wrote down as it is.
            return !self.folder && name == self.root;
        };
        let fits = |pattern: &Pattern, text: &str| pattern.matches_with(text, FOLDERS);
        let file = below.rsplit('/').next().unwrap_or_default();
        below.split('/').all(is_visible)
            && !UNFINISHED.iter().any(|ending| file.ends_with(ending))
            && self.pattern.as_ref().is_none_or(|p| fits(p, below))
            && self
                .include
                .as_ref()
                .is_none_or(|p| match p.as_str().contains('/') {
                    true => fits(p, below),
                    false => fits(p, file),
                })
    }

    /// What follows the root.
    fn below<'n>(&self, name: &'n str) -> Option<&'n str> {
        match self.root.as_str() {
            "" => Some(name),
            "/" => name.strip_prefix('/'),
            root => name.strip_prefix(root)?.strip_prefix('/'),
        }
    }
}

/// Whether a file or folder is meant for readers: `_SUCCESS`, `_temporary` and `.inprogress` are not.
pub(super) fn is_visible(segment: &str) -> bool {
    !segment.is_empty() && !segment.starts_with(['.', '_'])
}

fn glob(key: &str, text: &str) -> Result<Pattern> {
    Pattern::new(text).map_err(|e| Error::config(format!("{key} {text:?} is not a glob: {}", e.msg)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_selected() {
        for (path, include, taken, not) in [
            (
                "data/raw",
                None,
                vec!["data/raw/a", "data/raw/2026/11/a.gz"],
                vec!["data/raw2/a", "data/ra", "data/raw/", "data/raw/2026/"],
            ),
            (
                "data/raw/",
                None,
                vec!["data/raw/a"],
                vec!["data/raw", "data/rawa"],
            ),
            ("", None, vec!["a", "b/a"], vec!["", "_a", "b/.a"]),
            (
                "in",
                None,
                vec!["in/year=2026/a.parquet", "in/a_b"],
                vec![
                    "in/.a",
                    "in/_SUCCESS",
                    "in/_temporary/0/a",
                    "in/.inprogress/a",
                    "in/a.tmp",
                    "in/a.csv.part",
                    "in//a",
                ],
            ),
            ("in/_a.csv", None, vec!["in/_a.csv"], vec!["in/_a.csv/.b"]),
            (
                "in",
                Some("*.gz"),
                vec!["in/a.gz", "in/b/a.gz"],
                vec!["in/a", "in/a.gz.tmp"],
            ),
            (
                "in",
                Some("2026/**/*.gz"),
                vec!["in/2026/11/a.gz", "in/2026/a.gz"],
                vec!["in/2025/a.gz", "in/a.gz"],
            ),
            (
                "in/*/clicks-?.csv",
                None,
                vec!["in/a/clicks-1.csv"],
                vec!["in/clicks-1.csv", "in/a/b/clicks-1.csv", "in/a/clicks-10.csv"],
            ),
            (
                "/in/*.csv",
                None,
                vec!["/in/a.csv"],
                vec!["/in/b/a.csv", "in/a.csv"],
            ),
            ("/*.csv", None, vec!["/a.csv"], vec!["a.csv"]),
            ("*.csv", None, vec!["a.csv"], vec!["b/a.csv"]),
        ] {
            let selection = Selection::new(path, include).unwrap();
            for name in taken {
                assert!(selection.takes(name), "{path} {include:?}: {name}");
                assert!(name.starts_with(&selection.prefix()), "{path}: {name}");
            }
            for name in not {
                assert!(!selection.takes(name), "{path} {include:?}: not {name}");
            }
        }
        let e = Selection::new("in/a[", None).unwrap_err();
        assert!(e.to_string().starts_with("path \"a[\" is not a glob: "), "{e}");
    }
}
