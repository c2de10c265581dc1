//! `halfkey man-pages`.

use crate::cli::Cli;
use crate::error::{Error, Result};
use clap::CommandFactory;
use std::path::Path;

/// Writes `halfkey.1`, and a page of each command, as `halfkey-policy-learn.1`.
///
/// # Errors
/// `Failed` when they can't be written.
pub fn run(folder: &Path) -> Result<()> {
    clap_mangen::generate_to(Cli::command(), folder)
        .map_err(|e| Error::failed(format!("can't write to {}: {e}", folder.display())))
}
