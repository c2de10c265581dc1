//! Yes or no.

use crate::error::{Error, Result};
use std::io::{self, BufRead, IsTerminal, Read, Write};

/// Asks on the terminal. Anything but `y` and `yes` is no, an end of input too.
///
/// # Errors
/// When the answer is no, or standard input is no terminal.
pub fn confirm(question: &str) -> Result<()> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::usage(format!("there is no terminal to ask: {question}"))
            .hint("run it on a terminal, or give --yes after you have compared for yourself"));
    }
    let unreadable = |e| Error::failed(format!("can't ask on the terminal: {e}"));
    let mut stderr = io::stderr();
    write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()).map_err(unreadable)?;
    let mut answer = String::new();
    stdin.lock().take(1024).read_line(&mut answer).map_err(unreadable)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::failed("answered with no; nothing was changed")),
    }
}
