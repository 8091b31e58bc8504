//! The members of a JSON object, read one by one, so that everything that is wrong is said at once.

use chrono::NaiveDate;
use serde_json::{Map, Value};

use crate::api::error::ApiError;
use crate::catalog::text;

/// An object whose members are being read.
pub struct Fields {
    members: Map<String, Value>,
    problems: Vec<String>,
    known: Vec<&'static str>,
}

impl Fields {
    /// Begins.
    ///
    /// # Errors
    /// 422: it is no object.
    pub fn new(body: Value) -> Result<Fields, ApiError> {
        match body {
            Value::Object(members) => Ok(Fields {
                members,
                problems: Vec::new(),
                known: Vec::new(),
            }),
            _ => Err(ApiError::invalid("the body must be a JSON object")),
        }
    }

    /// Takes a member; null is as good as none.
    pub fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.members.remove(name).filter(|value| !value.is_null())
    }

    /// Whether a member is there that must not be; it is not told of as one there is.
    pub fn forbidden(&mut self, name: &str) -> bool {
        self.members.remove(name).is_some()
    }

    /// Text that must be there. What is wrong with it is empty.
    pub fn text(&mut self, name: &'static str) -> String {
        match self.take(name) {
            None => self.wrong(name, "is missing"),
            Some(Value::String(text)) if text.trim().is_empty() => self.wrong(name, "is empty"),
            Some(Value::String(text)) => return text.trim().to_owned(),
            Some(_) => self.wrong(name, "must be text"),
        }
        String::new()
    }

    /// Text that may be missing.
    pub fn optional_text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            _ => {
                self.wrong(name, "must be text");
                None
            }
        }
    }

    /// True or false, or missing.
    pub fn truth(&mut self, name: &'static str) -> Option<bool> {
        let given = self.take(name)?;
        if !given.is_boolean() {
            self.wrong(name, "must be true or false");
        }
        given.as_bool()
    }

    /// A date that may be missing; "" is none, as forms send it.
    pub fn date(&mut self, name: &'static str) -> Option<NaiveDate> {
        let text = self.optional_text(name)?;
        self.checked(name, text::read_date(&text))
    }

    /// Whether something is wrong with a member already.
    pub fn is_wrong(&self, name: &str) -> bool {
        let is_about = |problem: &String| {
            problem
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(':'))
        };
        self.problems.iter().any(is_about)
    }

    /// Makes text of a member that is a number.
    pub fn number_as_text(&mut self, name: &str) {
        if let Some(value) = self.members.get_mut(name).filter(|value| value.is_number()) {
            *value = Value::String(value.to_string());
        }
    }

    /// What has been read, or a problem.
    pub fn checked<T>(&mut self, name: &str, read: Result<T, String>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(why) => {
                self.wrong(name, &why);
                None
            }
        }
    }

    /// Something is wrong with a member.
    pub fn wrong(&mut self, name: &str, why: &str) {
        self.problems.push(format!("{name}: {why}"));
    }

    /// Ends.
    ///
    /// # Errors
    /// 422: everything that is wrong, members nobody asked for among it.
    pub fn end(mut self) -> Result<(), ApiError> {
        for unknown in self.members.keys() {
            let known = self.known.join(", ");
            self.problems
                .push(format!("{unknown}: there is no such member; there are {known}"));
        }
        match self.problems.is_empty() {
            true => Ok(()),
            false => Err(ApiError::problems(self.problems)),
        }
    }
}

/// Checks a name that becomes part of paths and messages.
pub fn name(text: &str, longest: usize) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    match first && text.len() <= longest && text.chars().all(good) {
        true => Ok(()),
        false => Err(format!(
            "{text:?} is not a name; write letters, digits, _, - and ., at most {longest}, a letter or digit first"
        )),
    }
}
