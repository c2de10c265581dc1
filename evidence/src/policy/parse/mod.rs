//! Text to rules: all that is wrong, each with its place.
//!
//! | module | what |
//! | --- | --- |
//! | [`reader`] | TOML tables whose every key must be asked for |
//! | [`document`] | the schema |
//! | [`check`] | contradictions and the floor |
//! | [`mod@ima`], [`trust`] | these tables |

mod check;
mod ima;
mod problem;
mod reader;
mod schema;
mod trust;

pub use problem::Problem;

use super::ima::ImaPolicy;
use super::parsed::{Additions, Policy};
use super::rules::Document;
use halfkey_protocol::wire::policies::MAX_POLICY;
use reader::{Problems, Table};
use std::sync::Arc;
use toml::de::DeTable;

impl Policy {
    /// Parses a document of at most [`MAX_POLICY`] bytes.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the text: syntax, unknown keys, wrong types, contradictions, and
    /// what is missing to the floor.
    pub fn parse(toml: &str) -> Result<Self, Vec<Problem>> {
        policy(toml).map(|(document, ima)| Self::new(document, ima.map(Arc::new)))
    }
}

impl Additions {
    /// Parses a document of at most [`MAX_POLICY`] bytes.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn parse(toml: &str) -> Result<Self, Vec<Problem>> {
        additions(toml)
    }
}

fn policy(text: &str) -> Result<(Document, Option<ImaPolicy>), Vec<Problem>> {
    let mut problems = Problems::new(text);
    let document = with_table(text, &mut problems, |table, problems| {
        let parsed = schema::policy(table, problems);
        check::policy(&parsed, problems);
        (parsed.document, parsed.ima)
    });
    problems.into_result(document)
}

fn additions(text: &str) -> Result<Additions, Vec<Problem>> {
    let mut problems = Problems::new(text);
    let additions = with_table(text, &mut problems, |table, problems| {
        let (additions, places) = schema::additions(table, problems);
        check::additions(&additions, &places, problems);
        additions
    });
    problems.into_result(additions)
}

/// `None` after problems of the text itself: what stands in a damaged text means nothing.
fn with_table<T>(
    text: &str,
    problems: &mut Problems<'_>,
    read: impl FnOnce(&mut Table<'_>, &mut Problems<'_>) -> T,
) -> Option<T> {
    if text.len() > MAX_POLICY {
        problems.push(0, format!("expected a document of at most {MAX_POLICY} bytes, found {}", text.len()));
        return None;
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    // What follows the first is mostly its consequence.
    if let Some(error) = errors.first() {
        problems.push(error.span().map_or(0, |span| span.start), syntax(error.message()));
        return None;
    }
    let mut table = Table::new(root.get_ref(), 0, String::new());
    let value = read(&mut table, problems);
    table.finish(problems);
    Some(value)
}

/// The parser's words, as one line.
fn syntax(message: &str) -> String {
    format!("not toml: {}", message.replace('\n', " ").trim_end())
}

#[cfg(test)]
mod tests;
