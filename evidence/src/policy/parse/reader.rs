//! TOML tables whose every key must be asked for, and a list of what is wrong.

use super::problem::Problem;
use crate::policy::rules::Digest;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// More are not listed: the first of them say enough.
const MAX_PROBLEMS: usize = 64;

/// What is wrong so far.
pub(super) struct Problems<'t> {
    text: &'t str,
    /// Byte in the text, what is said, floor.
    found: Vec<(usize, Words, bool)>,
}

/// What is said of a problem, and what to do about it.
pub(super) struct Words {
    message: String,
    hint: Option<String>,
}

impl From<&str> for Words {
    fn from(message: &str) -> Self {
        Self { message: message.to_owned(), hint: None }
    }
}

impl From<String> for Words {
    fn from(message: String) -> Self {
        Self { message, hint: None }
    }
}

impl<M: Into<String>, H: Into<String>> From<(M, H)> for Words {
    fn from((message, hint): (M, H)) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

impl<'t> Problems<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, found: Vec::new() }
    }

    /// Something is wrong at a byte of the text.
    pub fn push(&mut self, at: usize, words: impl Into<Words>) {
        self.add(at, words.into(), false);
    }

    /// The document is below the floor, at a byte of the text.
    pub fn floor(&mut self, at: usize, words: impl Into<Words>) {
        self.add(at, words.into(), true);
    }

    fn add(&mut self, at: usize, words: Words, floor: bool) {
        if self.found.len() < MAX_PROBLEMS {
            self.found.push((at, words, floor));
        }
    }

    /// The value, if nothing is wrong; else the problems in the order of the text.
    pub fn into_result<T>(mut self, value: Option<T>) -> Result<T, Vec<Problem>> {
        if let (Some(value), true) = (value, self.found.is_empty()) {
            return Ok(value);
        }
        self.found.sort_by_key(|(at, ..)| *at);
        let text = self.text;
        let place = |at: usize| {
            let before = &text[..text.floor_char_boundary(at)];
            let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
            let start = before.rfind('\n').map_or(0, |newline| newline + 1);
            (line, before[start..].chars().count() + 1)
        };
        let problems = self.found.into_iter().map(|(at, Words { message, hint }, floor)| {
            let (line, column) = place(at);
            Problem { line, column, message, hint, floor }
        });
        Err(problems.collect())
    }
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub value: T,
    /// Byte in the text.
    pub at: usize,
}

/// A table that remembers which of its keys were asked for.
pub(super) struct Table<'d> {
    entries: &'d DeTable<'d>,
    /// Where it begins.
    pub at: usize,
    /// `boot.image`; empty for the whole document.
    path: String,
    asked: Vec<&'static str>,
}

impl<'d> Table<'d> {
    pub fn new(entries: &'d DeTable<'d>, at: usize, path: String) -> Self {
        Self { entries, at, path, asked: Vec::new() }
    }

    /// The value of a key.
    pub fn value(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        // The map's keys carry their places, which are not part of their order.
        self.entries.get(key)
    }

    pub fn string(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Option<At<String>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(At { value: text.to_string(), at: value.span().start }),
            other => self.wrong(key, "a string", other, value.span(), problems),
        }
    }

    pub fn boolean(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Option<At<bool>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(At { value: *flag, at: value.span().start }),
            other => self.wrong(key, "true or false", other, value.span(), problems),
        }
    }

    pub fn integer(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Option<At<u64>> {
        let value = self.value(key)?;
        match integer(value.get_ref()) {
            Some(number) => Some(At { value: number, at: value.span().start }),
            None => self.wrong(key, "a number", value.get_ref(), value.span(), problems),
        }
    }

    /// An array of what `read` makes of each element.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        what: &'static str,
        max: usize,
        problems: &mut Problems<'_>,
        mut read: impl FnMut(&'d DeValue<'d>) -> Option<T>,
    ) -> Option<At<Vec<At<T>>>> {
        let value = self.value(key)?;
        let DeValue::Array(elements) = value.get_ref() else {
            let expected = format!("a list of {what}");
            return self.wrong(key, &expected, value.get_ref(), value.span(), problems);
        };
        if elements.len() > max {
            problems.push(
                value.span().start,
                format!("{}: expected at most {max} {what}, found {}", self.name(key), elements.len()),
            );
            return None;
        }
        let mut list = Vec::with_capacity(elements.len());
        for element in elements.iter() {
            let at = element.span().start;
            match read(element.get_ref()) {
                Some(value) => list.push(At { value, at }),
                None => {
                    problems.push(
                        at,
                        format!("{}: expected {what}, found {}", self.name(key), show(element.get_ref())),
                    );
                }
            }
        }
        Some(At { value: list, at: value.span().start })
    }

    pub fn digests(
        &mut self,
        key: &'static str,
        max: usize,
        problems: &mut Problems<'_>,
    ) -> Option<At<Vec<At<Digest>>>> {
        self.list(key, "digests (sha256: or sha384: and lower-case hex)", max, problems, digest)
    }

    pub fn strings(
        &mut self,
        key: &'static str,
        what: &'static str,
        max: usize,
        problems: &mut Problems<'_>,
    ) -> Option<At<Vec<At<String>>>> {
        self.list(key, what, max, problems, |value| value.as_str().map(str::to_owned))
    }

    /// `[key]`
    pub fn table(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Option<Table<'d>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(entries) => Some(Table::new(entries, value.span().start, self.name(key))),
            other => self.wrong(key, "a table", other, value.span(), problems),
        }
    }

    /// `[[key]]`
    pub fn tables(&mut self, key: &'static str, max: usize, problems: &mut Problems<'_>) -> Vec<Table<'d>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let name = self.name(key);
        let DeValue::Array(elements) = value.get_ref() else {
            problems.push(
                value.span().start,
                format!("expected [[{name}]] with two brackets, found {}", show(value.get_ref())),
            );
            return Vec::new();
        };
        if elements.len() > max {
            problems.push(
                value.span().start,
                format!("expected at most {max} times [[{name}]], found {}", elements.len()),
            );
            return Vec::new();
        }
        let mut tables = Vec::new();
        for element in elements.iter() {
            match element.get_ref() {
                DeValue::Table(entries) => {
                    tables.push(Table::new(entries, element.span().start, name.clone()))
                }
                other => problems
                    .push(element.span().start, format!("expected a table {name}, found {}", show(other))),
            }
        }
        tables
    }

    /// Keys with their places and values, in the order of the text, for a table whose keys are data.
    pub fn entries(&self) -> Vec<(At<&'d str>, &'d Spanned<DeValue<'d>>)> {
        let mut entries: Vec<_> = self
            .entries
            .iter()
            .map(|(key, value)| (At { value: key.get_ref().as_ref(), at: key.span().start }, value))
            .collect();
        entries.sort_by_key(|(key, _)| key.at);
        entries
    }

    /// A key that must be there is not.
    pub fn missing(&self, key: &str, problems: &mut Problems<'_>) {
        problems.push(self.at, format!("expected {}, found none", self.name(key)));
    }

    /// What has not been asked for is unknown.
    pub fn finish(&self, problems: &mut Problems<'_>) {
        for (key, _) in self.entries() {
            if !self.asked.contains(&key.value) {
                let name = self.name(&clip(key.value));
                let known = format!("known here: {}", self.asked.join(", "));
                problems.push(key.at, (format!("unknown key {name}"), known));
            }
        }
    }

    /// Its dotted name in the document: `boot.image`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The key with its table's name.
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn wrong<T>(
        &self,
        key: &str,
        expected: &str,
        found: &DeValue<'_>,
        span: Range<usize>,
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        problems.push(span.start, format!("{}: expected {expected}, found {}", self.name(key), show(found)));
        None
    }
}

pub(super) fn digest(value: &DeValue<'_>) -> Option<Digest> {
    Digest::parse(value.as_str()?)
}

pub(super) fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A value in a message: not more than a line of it.
fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{:?}", clip(text)),
        DeValue::Integer(number) => clip(number.as_str()),
        DeValue::Float(number) => clip(number.as_str()),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(elements) => format!("a list of {}", elements.len()),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// So much of a text as a message has room for.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
