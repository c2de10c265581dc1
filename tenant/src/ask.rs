//! Questions on the terminal.

use crate::error::{Error, Result};
use std::io::{self, BufRead, IsTerminal, Read, Write};

/// Asks on the terminal. Anything but `y` and `yes` is no, an end of input too.
///
/// # Errors
/// When the answer is no, or standard input is no terminal.
pub fn confirm(question: &str) -> Result<()> {
    match answer(question, "[y/N]")?.as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(no()),
    }
}

/// Asks which of these, each known by its first letter. Anything else is none.
///
/// # Errors
/// When the answer is none, or standard input is no terminal.
pub fn choose<'a>(question: &str, choices: &[&'a str]) -> Result<&'a str> {
    let shown: Vec<_> = choices.iter().map(|choice| format!("[{}]{}", &choice[..1], &choice[1..])).collect();
    let typed = answer(question, &format!("{}, [N]o:", shown.join(", ")))?;
    let fits = |choice: &&&str| typed == **choice || typed == choice[..1];
    choices.iter().find(fits).copied().ok_or_else(no)
}

fn no() -> Error {
    Error::failed("answered with no; nothing was changed")
}

/// What was typed, in lower case and without blanks around it.
fn answer(question: &str, choices: &str) -> Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::usage(format!("there is no terminal to ask: {question}"))
            .hint("run it on a terminal, or give --yes after you have compared for yourself"));
    }
    let unreadable = |e| Error::failed(format!("can't ask on the terminal: {e}"));
    let mut stderr = io::stderr();
    write!(stderr, "{question} {choices} ").and_then(|()| stderr.flush()).map_err(unreadable)?;
    let mut answer = String::new();
    stdin.lock().take(1024).read_line(&mut answer).map_err(unreadable)?;
    Ok(answer.trim().to_ascii_lowercase())
}
