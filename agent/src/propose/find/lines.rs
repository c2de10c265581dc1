//! The kernel's command lines, of this boot and of the next one, as far as files say.

use super::choice::What;
use super::{MAX_ENTRY, Source, System, grub};
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
        self.built_lines().into_iter().chain(configured).collect()
    }

    /// Those that an image which is built now may be started with. Words of this boot may have been typed at its boot loader: they count
    /// where no file says what the next one has.
    pub fn lines_of_an_image(&self) -> Vec<String> {
        let next = self.next_lines();
        let this = (!next.iter().any(|line| line.built)).then(|| self.command_line.clone());
        next.into_iter().map(|next| next.line).chain(this).collect()
    }

    /// Of each that fits and could be started; GRUB's configuration speaks for a kernel without an entry.
    fn built_lines(&self) -> Vec<NextLine> {
        let roots = self.roots();
        let found = self.candidates(&roots, &self.release).unwrap_or_default();
        let fitting = self.as_this_boot(found).into_iter().filter(|one| one.what != What::Plain);
        let lines = fitting.filter_map(|one| {
            let line = match &one.source.ok()? {
                Source::Uki(uki) => uki.command_line()?,
                Source::Kernel { .. } => one.options?,
            };
            Some(NextLine { file: one.file.path().to_owned(), line, built: true })
        });
        let lines: Vec<_> = lines.collect();
        if !lines.is_empty() || !self.by_grub() {
            return lines;
        }
        let line = grub::line_of(&roots, &self.release);
        line.map(|(file, line)| NextLine { file, line, built: true }).into_iter().collect()
    }
}
