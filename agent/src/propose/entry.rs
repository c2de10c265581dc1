//! Entries of type 1 of the Boot Loader Specification, as systemd-boot and GRUB read them.

use std::path::Path;

/// An entry of type 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Of the kernel; empty if it says none.
    pub version: String,
    /// Its kernel.
    pub linux: Option<String>,
    /// Or its unified kernel image.
    pub uki: Option<String>,
    /// In the order of loading.
    pub initrds: Vec<String>,
    /// What it passes, variables and all.
    pub options: String,
}

impl Entry {
    /// What it starts.
    pub fn image(&self) -> Option<&str> {
        self.linux.as_deref().or(self.uki.as_deref())
    }

    /// By its version; one without by the name of its file (`TOKEN-VERSION.conf`), or of its kernel's.
    pub fn is_of(&self, path: &Path, version: &str) -> bool {
        let ends = |name: &str| {
            name.strip_suffix(version).is_some_and(|before| before.is_empty() || before.ends_with('-'))
        };
        match self.version.as_str() {
            "" => {
                path.file_stem().is_some_and(|name| ends(&name.to_string_lossy()))
                    || self.image().is_some_and(|linux| ends(linux.trim_end_matches(".efi")))
            }
            own => own == version,
        }
    }
}

/// A variable of GRUB's, alone in a word.
pub fn is_variable(word: &str) -> bool {
    word.starts_with('$')
}

/// Reads one: what is not known is passed over.
pub fn entry(text: &str) -> Entry {
    let mut entry = Entry::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let Some((key, value)) = line.split_once(|c: char| c.is_ascii_whitespace()) else { continue };
        let value = value.trim().to_owned();
        match key {
            "version" => entry.version = value,
            "linux" => entry.linux = Some(value),
            "efi" | "uki" => entry.uki = Some(value),
            // Several in one line, and variables, are of GRUB's entries.
            "initrd" => entry
                .initrds
                .extend(value.split_ascii_whitespace().filter(|word| !is_variable(word)).map(str::to_owned)),
            "options" if entry.options.is_empty() => entry.options = value,
            "options" => entry.options = format!("{} {value}", entry.options),
            _ => {}
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_entry_is_read(text in "((version|linux|initrd|options|uki)?[ \t]?.{0,20}\n){0,8}") {
            entry(&text);
        }
    }
}
