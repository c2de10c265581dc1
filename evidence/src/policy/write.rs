//! Rules to text.

use super::rules::{Allowed, Boot, EventIs, EventRule, Image, Initrd, Sections};
use std::fmt::{Display, Write};

/// A document in the making.
#[derive(Debug, Default)]
pub(super) struct Text(pub String);

/// What the parts of a boot are, for people.
#[derive(Debug, Default)]
pub(super) struct Comments {
    pub initrd: String,
    pub images: Vec<String>,
    pub events: Vec<String>,
}

impl Text {
    /// A line that is written as it is.
    pub fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// Comment lines.
    pub fn comment(&mut self, text: &str) {
        for line in text.lines() {
            self.line(&format!("# {}", one_line(line)));
        }
    }

    /// `key = value`, and what it is.
    pub fn value(&mut self, key: &str, value: impl std::fmt::Display, what: &str) {
        self.line(&format!("{key} = {value}{}", after(what)));
    }

    /// `key = [..]`, one digest or entry a line.
    pub fn digests(&mut self, key: &str, digests: &[(impl Display, String)]) {
        if digests.is_empty() {
            return self.line(&format!("{key} = []"));
        }
        self.line(&format!("{key} = ["));
        digests.iter().for_each(|(digest, what)| self.entry(digest, what));
        self.line("]");
    }

    /// A line of such a list.
    pub fn entry(&mut self, entry: impl Display, what: &str) {
        self.line(&format!("  \"{entry}\",{}", after(what)));
    }

    /// `[[boot]]` with what belongs to it.
    pub fn boot(&mut self, boot: &Boot, comments: &Comments) {
        self.line("[[boot]]");
        self.value("name", quoted(&boot.name), "");
        if let Some(line) = &boot.command_line {
            self.value("command_line", quoted(line), "");
        }
        match &boot.initrd {
            Initrd::Digest(digest) => self.value("initrd", quoted(&digest.to_string()), &comments.initrd),
            Initrd::Signed => self.value("initrd", "\"signed\"", &comments.initrd),
            Initrd::InUki => self.value("initrd", "\"in-uki\"", &comments.initrd),
        }
        if boot.kernel_measures_initrd {
            self.value("kernel_measures_initrd", true, "the owner's word: nothing in a log proves it");
        }
        match &boot.sections {
            None => {}
            Some(Sections::Signed) => self.value("sections", "\"signed\"", ""),
            Some(Sections::Digests(sections)) => {
                self.line("sections = [");
                for (name, digest) in sections {
                    self.line(&format!("  {{ name = {}, digest = \"{digest}\" }},", quoted(name)));
                }
                self.line("]");
            }
        }
        for (index, image) in boot.images.iter().enumerate() {
            self.image(image, comments.images.get(index).map_or("", String::as_str));
        }
        for (index, event) in boot.events.iter().enumerate() {
            self.event("boot.event", event, comments.events.get(index).map_or("", String::as_str));
        }
    }

    fn image(&mut self, image: &Image, what: &str) {
        self.line("\n[[boot.image]]");
        if !what.is_empty() {
            self.comment(what);
        }
        self.value("role", quoted(image.role.name()), "");
        let (key, digests) = match &image.allowed {
            Allowed::Authenticode(digests) => ("authenticode", digests),
            Allowed::Signer(signers) => ("signer", signers),
        };
        let list: Vec<_> = digests.iter().map(|digest| format!("\"{digest}\"")).collect();
        self.line(&format!("{key} = [{}]", list.join(", ")));
        if !image.signer_also_signs.is_empty() {
            let list: Vec<_> = image.signer_also_signs.iter().map(|role| quoted(role.name())).collect();
            self.line(&format!("signer_also_signs = [{}]", list.join(", ")));
        }
    }

    /// `[[event]]` or `[[boot.event]]`
    pub fn event(&mut self, table: &str, event: &EventRule, what: &str) {
        self.line(&format!("\n[[{table}]]"));
        self.value("pcr", event.pcr, "");
        match &event.is {
            EventIs::Digest(digest) => self.value("digest", quoted(&digest.to_string()), what),
            EventIs::Text(text) => self.value("text", quoted(text), ""),
        }
        if let Some(because) = &event.because {
            self.value("because", quoted(because), "");
        }
    }
}

fn after(what: &str) -> String {
    if what.is_empty() { String::new() } else { format!(" # {}", one_line(what)) }
}

/// TOML allows no control characters in comments, and a comment ends with its line.
fn one_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// A basic string (TOML 1.0, "String").
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            char if char.is_control() => {
                // Writing to a string can't fail.
                let _ = write!(out, "\\u{:04X}", u32::from(char));
            }
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_quoted_is_read_back(text: String, comment: String) {
            let mut out = Text::default();
            out.comment(&comment);
            out.value("key", quoted(&text), &comment);
            let table: toml::Table = out.0.parse().expect("toml");
            prop_assert_eq!(table["key"].as_str(), Some(text.as_str()));
        }
    }
}
