//! `halfkey ima`: lists of digests, by which a policy knows what a machine may use while it runs.

pub mod diff;
pub mod list;

use crate::cli::ImaCommand;
use crate::context::Context;
use crate::documents::source;
use crate::error::{Error, Result};
use halfkey_evidence::ima::DigestList;
use halfkey_evidence::ima::digest_list::MAX_TEXT;
use std::path::Path;

/// Runs `halfkey ima`.
///
/// # Errors
/// With the exit code and the message for the operator.
pub fn run(context: &Context, command: &ImaCommand) -> Result<()> {
    match command {
        ImaCommand::List(args) => list::run(context, args),
        ImaCommand::Diff { before, after } => diff::run(context, before, after),
    }
}

/// Reads a list.
///
/// # Errors
/// `Usage` when it can't be read, or is none.
pub fn read(path: &Path) -> Result<DigestList> {
    DigestList::parse(&source::read(path, MAX_TEXT as u64)?)
        .map_err(|what| Error::usage(format!("{}: {what}", path.display())))
}
