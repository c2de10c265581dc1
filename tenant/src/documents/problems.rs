//! What is wrong with a document, line and column first, as compilers say it.

use crate::error::Error;
use crate::render::text::clean_lines;
use halfkey_evidence::policy::Problem;
use std::fmt::Write;

/// Every problem, one line each: `web.toml:3:1: message`.
pub fn lines(name: &str, problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |mut text, problem| {
        let floor = if problem.floor { "below the floor: " } else { "" };
        let hint = problem.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        let message = clean_lines(&format!("{}{hint}", problem.message)).replace('\n', "\n  ");
        writeln!(text, "{}:{}:{}: {floor}{message}", name, problem.line, problem.column)
            .expect("a String takes everything");
        text
    })
}

/// The same as an error.
pub fn refuse(name: &str, problems: &[Problem]) -> Error {
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    let text = lines(name, problems);
    Error::failed(format!("{} has {count}\n{}", name, text.trim_end()))
}
