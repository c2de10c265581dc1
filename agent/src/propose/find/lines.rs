//! The kernel's command lines, of this boot and of the next one, as far as files say.

use super::{Candidate, MAX_ENTRY, System, grub, resolved};
use crate::bounded;
use std::path::PathBuf;

/// A command line that a later boot will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextLine {
    /// The file that says so.
    pub file: PathBuf,
    /// Without what the boot loader adds.
    pub line: String,
    /// Whether that is what is booted, and not what the next image or entry is made of.
    pub built: bool,
}

impl System {
    /// The command line that the running kernel will have at its next boot, then the one that its next image is made of, as far as files
    /// say.
    pub fn next_lines(&self) -> Vec<NextLine> {
        let file = self.root.join("etc/kernel/cmdline");
        // GRUB has a configuration of its own.
        let configured = if self.by_grub() { None } else { bounded::read_text(&file, MAX_ENTRY).ok() };
        let configured = configured.map(|line| NextLine { file, line, built: false });
        self.built_line().into_iter().chain(configured).collect()
    }

    /// Those that an image which is built now may be started with. Words of this boot may have been typed at its boot loader: they count
    /// where no file says what the next one has.
    pub fn lines_of_an_image(&self) -> Vec<String> {
        let next = self.next_lines();
        let this = (!next.iter().any(|line| line.built)).then(|| self.command_line.clone());
        next.into_iter().map(|next| next.line).chain(this).collect()
    }

    fn built_line(&self) -> Option<NextLine> {
        let roots = self.roots();
        let (file, line) = match self.newest(&roots, &self.release) {
            Some(Candidate { file, entry: None }) => (file.path().to_owned(), file.command_line()?),
            Some(Candidate { file, entry: Some((root, entry)) }) => {
                let line = match &entry.uki {
                    Some(uki) => resolved(root, uki)?.command_line()?,
                    None => self.expanded(&entry.options),
                };
                (file.path().to_owned(), line)
            }
            None => grub::line_of(&roots, &self.release).filter(|_| self.by_grub())?,
        };
        Some(NextLine { file, line, built: true })
    }
}
