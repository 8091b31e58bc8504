//! Through the values of a line: which key each stands under. The rules are the predecessor's.

use millstream_engine::{Error, Result};

use super::super::scan::{self, Kind, Raw};
use super::super::schema::SourceType;
use super::Options;

/// The key of what rows are made of, where that is no object.
const VALUE: &str = "value";

/// Takes note of what is found.
pub(super) trait Notes {
    /// A value under a key: a path with dots.
    fn value(&mut self, key: &str, value: &Found<'_>, is_foreign: bool) -> Result<()>;

    /// An object under a key that is walked through.
    fn object(&mut self, _key: &str, _line: u64) {}

    /// A member of an object whose name no path can have.
    fn nameless(&mut self, _name: &str, _line: u64) {}
}

/// A value.
pub(super) struct Found<'t> {
    pub kind: Kind,
    /// Its text in the line, of a string without quotes and escapes.
    pub text: std::borrow::Cow<'t, str>,
    /// The line it is in, from 1.
    pub line: u64,
}

/// What a line is walked with.
pub(super) struct Walk<'t> {
    text: &'t str,
    options: &'t Options,
    line: u64,
}

impl<'t> Walk<'t> {
    pub fn new(text: &'t str, options: &'t Options, line: u64) -> Walk<'t> {
        Walk { text, options, line }
    }

    /// Takes note of all of it.
    pub fn line(&self, root: Raw, notes: &mut impl Notes) -> Result<()> {
        for key in &self.options.foreign {
            if let Some(value) = self.at(root, key)? {
                notes.value(key, &self.found(value)?, true)?;
            }
        }
        let Some(source) = self.at(root, &self.options.source)? else {
            return Ok(());
        };
        let depth = self.options.depth;
        match (self.options.source_type, source.kind) {
            (SourceType::Dict, _) => self.row(source, depth, notes),
            (SourceType::List, Kind::Array) | (SourceType::SparseList, Kind::Object) => {
                let members = self.members(source)?;
                members
                    .into_iter()
                    .try_for_each(|(_, value)| self.row(value, depth, notes))
            }
            (SourceType::List, _) => Err(self.wrong_source("a list")),
            (SourceType::SparseList, _) => Err(self.wrong_source("an object")),
        }
    }

    fn wrong_source(&self, expected: &str) -> Error {
        Error::data(format!("source {:?} is not {expected}", self.options.source))
    }

    /// What is at a path; nothing, if it is null or not there.
    fn at(&self, root: Raw, path: &str) -> Result<Option<Raw>> {
        let mut value = root;
        for key in path.split('.').filter(|_| !path.is_empty()) {
            if value.kind != Kind::Object {
                return Ok(None);
            }
            let members = self.members(value)?;
            match members.into_iter().find(|(name, _)| name == key) {
                Some((_, member)) => value = member,
                None => return Ok(None),
            }
        }
        Ok((value.kind != Kind::Null).then_some(value))
    }

    fn row(&self, value: Raw, depth: i64, notes: &mut impl Notes) -> Result<()> {
        match value.kind {
            Kind::Null => Ok(()),
            Kind::Object if depth != 0 => self.key("", value, depth, notes),
            _ => notes.value(VALUE, &self.found(value)?, false),
        }
    }

    fn key(&self, key: &str, value: Raw, depth: i64, notes: &mut impl Notes) -> Result<()> {
        let among = |keys: &[String]| keys.iter().any(|k| k == key);
        if among(&self.options.exclude) {
            return Ok(());
        }
        let walked = value.kind == Kind::Object && depth != 0 && !among(&self.options.prune);
        if !walked {
            return notes.value(key, &self.found(value)?, false);
        }
        if !key.is_empty() {
            notes.object(key, self.line);
        }
        for (name, member) in self.members(value)? {
            if name.is_empty() || name.contains('.') {
                notes.nameless(&name, self.line);
            }
            let path = format!("{key}.{name}");
            self.key(path.trim_start_matches('.'), member, depth - 1, notes)?;
        }
        Ok(())
    }

    /// The members of a list, without names, or of an object; of a name that is there twice the last counts.
    fn members(&self, of: Raw) -> Result<Vec<(String, Raw)>> {
        let mut all: Vec<(String, Raw)> = Vec::new();
        for (key, value) in scan::members(self.text, of) {
            let name = self.found(key)?.text.into_owned();
            match all
                .iter_mut()
                .find(|(n, _)| of.kind == Kind::Object && *n == name)
            {
                Some(before) => before.1 = value,
                None => all.push((name, value)),
            }
        }
        Ok(all)
    }

    fn found(&self, raw: Raw) -> Result<Found<'t>> {
        let text = raw.text(self.text);
        let text = match raw.escaped {
            true => {
                let mut plain = String::new();
                scan::unescape(text, &mut plain).map_err(|bad| Error::data(bad.detail))?;
                plain.into()
            }
            false => text.into(),
        };
        Ok(Found {
            kind: raw.kind,
            text,
            line: self.line,
        })
    }
}
