//! `halfkey ima`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

const LIST_HELP: &str = "\
SOURCE is a folder with a root file system (mounted, or `/`), a package (.deb; .rpm, of which the header
is read), or a list that was made before; several make one list. What is written is sorted, and named by the SHA-256 of its lines:
the block for the policy is printed. A machine calls a file by where it is once all links are followed,
so the files of packages below /bin, /sbin and /lib are listed below /usr.";

/// What can be done with lists of digests.
#[derive(Subcommand)]
pub enum ImaCommand {
    /// Make a list of the digests that files have, for [ima] of a policy
    #[command(after_help = LIST_HELP)]
    List(ListArgs),
    /// What one list has and another does not
    Diff {
        /// A list
        before: PathBuf,
        /// Another
        after: PathBuf,
    },
}

/// `halfkey ima list`.
#[derive(Args)]
pub struct ListArgs {
    /// Folder, package or list
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<PathBuf>,
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// What the policy calls it; otherwise the name of FILE
    #[arg(long)]
    pub name: Option<String>,
    /// Leave out files of these paths of a folder or package: `/home/` is all below it, `*` anything within a folder
    #[arg(long, value_name = "PATH")]
    pub without: Vec<String>,
    /// The digests count at any path
    #[arg(long)]
    pub any_path: bool,
}
