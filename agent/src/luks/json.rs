//! Fields of JSON with words for what is wrong.

use miniserde::json::{Number, Object, Value};

/// What is wrong: where, what was expected, what was found.
pub type Wrong = String;

/// An object and where it stands, for messages.
#[derive(Clone)]
pub struct At<'a> {
    /// Such as `segments.0`.
    pub path: String,
    /// The object.
    pub object: &'a Object,
}

impl<'a> At<'a> {
    /// The outermost object.
    pub fn root(object: &'a Object) -> Self {
        Self { path: String::new(), object }
    }

    fn name(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    fn wrong(&self, field: &str, expected: &str) -> Wrong {
        let found = match self.object.get(field) {
            None => "nothing".to_owned(),
            Some(value) => printable(value),
        };
        format!("{}: expected {expected}, found {found}", self.name(field))
    }

    /// A field that is an object.
    pub fn object(&self, field: &str) -> Result<At<'a>, Wrong> {
        match self.object.get(field) {
            Some(Value::Object(object)) => Ok(At { path: self.name(field), object }),
            _ => Err(self.wrong(field, "an object")),
        }
    }

    /// A field that is a string.
    pub fn text(&self, field: &str) -> Result<&'a str, Wrong> {
        match self.object.get(field) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(self.wrong(field, "a string")),
        }
    }

    /// A string that is one of `allowed`; gives ours, not theirs.
    pub fn one_of(&self, field: &str, allowed: &[&'static str]) -> Result<&'static str, Wrong> {
        let text = self.text(field)?;
        let found = allowed.iter().find(|candidate| **candidate == text);
        found.copied().ok_or_else(|| self.wrong(field, &format!("one of {}", allowed.join(", "))))
    }

    /// A field that is a number from 0.
    pub fn number(&self, field: &str) -> Result<u64, Wrong> {
        match self.object.get(field) {
            Some(Value::Number(Number::U64(number))) => Ok(*number),
            _ => Err(self.wrong(field, "a number")),
        }
    }

    /// A number that LUKS2 writes as a string, because JSON has no 64 bits.
    pub fn wide(&self, field: &str) -> Result<u64, Wrong> {
        let text = self.text(field)?;
        let canonical = |number: &u64| number.to_string() == text;
        text.parse().ok().filter(canonical).ok_or_else(|| self.wrong(field, "a number as string"))
    }

    /// A string in base64 of exactly `bytes` bytes, or of any number from 8 to 128.
    pub fn base64(&self, field: &str) -> Result<&'a str, Wrong> {
        let text = self.text(field)?;
        let plain = text.trim_end_matches('=');
        let alphabet = plain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
        if alphabet
            && text.len() % 4 == 0
            && text.len() - plain.len() <= 2
            && (12..=172).contains(&text.len())
        {
            Ok(text)
        } else {
            Err(self.wrong(field, "base64 of 8 to 128 bytes"))
        }
    }

    /// A list of strings; a missing field is an empty list.
    pub fn texts(&self, field: &str) -> Result<Vec<&'a str>, Wrong> {
        let text = |value: &'a Value| match value {
            Value::String(text) => Ok(text.as_str()),
            _ => Err(self.wrong(field, "a list of strings")),
        };
        match self.object.get(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => values.iter().map(text).collect(),
            _ => Err(self.wrong(field, "a list of strings")),
        }
    }

    /// Only fields that are known: what is not understood must not be opened.
    pub fn only(&self, allowed: &[&str]) -> Result<(), Wrong> {
        match self.object.keys().find(|key| !allowed.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                Err(format!("{}: expected only {}, found '{}'", self.path, allowed.join(", "), shown(key)))
            }
        }
    }
}

fn printable(value: &Value) -> String {
    shown(&miniserde::json::to_string(value))
}

/// What comes from a disk is shown on a console: short and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(60).map(|c| if c.is_control() { '.' } else { c }).collect()
}
