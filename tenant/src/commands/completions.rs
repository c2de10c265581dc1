//! `halfkey completions`.

use crate::cli::Cli;
use crate::error::{Error, Result};
use clap::CommandFactory;
use std::io::Write;

/// Prints the script for a shell.
///
/// # Errors
/// `Failed` when standard output can't be written.
pub fn run(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "halfkey", &mut script);
    match std::io::stdout().write_all(&script) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::failed(format!("can't write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}
