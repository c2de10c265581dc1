//! dracut.conf(5): what this host puts into its images.
//!
//! The files are for a shell. Assignments are read as it reads them, quotes, `+=`, comments and all; what it would have to compute
//! (`$(..)`, `$name`) stays as it is written, and a condition counts as met.

use crate::bounded;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Of one file, in bytes.
const MAX_FILE: usize = 1 << 20;
/// Names looked at in one folder.
const MAX_FILES: usize = 4096;
/// What may stand before an assignment.
const BEFORE: [&str; 7] = ["export", "then", "else", "do", "{", "(", "!"];

/// dracut's configuration.
#[derive(Clone, Debug, Default)]
pub struct DracutConf {
    /// Of its files, in order.
    texts: Vec<String>,
}

impl DracutConf {
    /// That of this root.
    pub fn of(root: &Path) -> Self {
        let read = |file| bounded::read(file, MAX_FILE).unwrap_or_default();
        Self { texts: files(root).map(|file| String::from_utf8_lossy(&read(file)).into_owned()).collect() }
    }

    /// What a variable comes to; empty if it is not set.
    pub fn value(&self, variable: &str) -> String {
        let mut value = String::new();
        self.texts.iter().for_each(|text| assign(variable, text, &mut value));
        value
    }

    /// Whether one of these lists has this word.
    pub fn lists(&self, variables: &[&str], word: &str) -> bool {
        variables
            .iter()
            .any(|variable| self.value(variable).split_ascii_whitespace().any(|found| found == word))
    }

    /// One file, for tests.
    #[cfg(test)]
    pub fn with(text: &str) -> Self {
        Self { texts: vec![text.to_owned()] }
    }
}

/// In dracut's order: its file, then those of both folders by their names; one in /etc takes the place of one with its name.
fn files(root: &Path) -> impl Iterator<Item = PathBuf> {
    let mut found = BTreeMap::new();
    for folder in ["usr/lib/dracut/dracut.conf.d", "etc/dracut.conf.d"].map(|folder| root.join(folder)) {
        let entries = folder.read_dir().into_iter().flatten().flatten().take(MAX_FILES);
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let names = names.filter(|name| name.ends_with(".conf") && !name.starts_with('.'));
        found.extend(names.map(|name| (name.clone(), folder.join(name))));
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by(|(one, _), (other, _)| by_version(one, other));
    [root.join("etc/dracut.conf")].into_iter().chain(found.into_iter().map(|(_, path)| path))
}

/// As `sort -V`, for names like these: a number by its value.
fn by_version(one: &str, other: &str) -> Ordering {
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    match (digits(one), digits(other)) {
        (0, _) | (_, 0) => match (one.chars().next(), other.chars().next()) {
            (Some(a), Some(b)) if a == b => by_version(&one[a.len_utf8()..], &other[b.len_utf8()..]),
            (a, b) => a.cmp(&b),
        },
        (m, n) => {
            let (a, b) = (one[..m].trim_start_matches('0'), other[..n].trim_start_matches('0'));
            let order = a.len().cmp(&b.len()).then_with(|| a.cmp(b));
            order.then_with(|| by_version(&one[m..], &other[n..]))
        }
    }
}

/// What a variable comes to after a text, if it has this value before.
fn assign(variable: &str, text: &str, value: &mut String) {
    for command in commands(text) {
        let mut words = command.iter().skip_while(|word| BEFORE.contains(&word.text.as_str())).peekable();
        // Before a command they are for that command alone.
        if words.clone().any(|word| !word.is_assignment()) {
            continue;
        }
        for (name, adds, new) in words.by_ref().filter_map(Word::assignment) {
            if name == variable {
                if !adds {
                    value.clear();
                }
                value.push_str(new);
            }
        }
    }
}

/// A word without its quotes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Word {
    text: String,
    /// So many bytes at its beginning were not quoted.
    plain: usize,
    is_quoted: bool,
}

impl Word {
    /// Name, whether it is added to, and what.
    fn assignment(&self) -> Option<(&str, bool, &str)> {
        let (name, value) = self.text.split_once('=')?;
        if name.len() >= self.plain {
            return None;
        }
        let (name, adds) = name.strip_suffix('+').map_or((name, false), |name| (name, true));
        let fits = |c: char| c == '_' || c.is_ascii_alphanumeric();
        (!name.is_empty() && name.chars().all(fits)).then_some((name, adds, value))
    }

    fn is_assignment(&self) -> bool {
        self.assignment().is_some()
    }

    fn push(&mut self, c: char) {
        self.text.push(c);
        if !self.is_quoted {
            self.plain = self.text.len();
        }
    }
}

/// The words of each command; not those of one with a quote that never ends.
fn commands(text: &str) -> Vec<Vec<Word>> {
    let (mut commands, mut command) = (Vec::new(), Vec::new());
    let mut word: Option<Word> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            ' ' | '\t' => command.extend(word.take()),
            '\n' | ';' | '&' | '|' => {
                command.extend(word.take());
                commands.push(std::mem::take(&mut command));
            }
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => {
                    let word = word.get_or_insert_default();
                    word.is_quoted = true;
                    word.push(c);
                }
            },
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                word.is_quoted = true;
                loop {
                    match chars.next() {
                        None => return commands,
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => match chars.next() {
                            Some('\n') => {}
                            Some(escaped @ ('$' | '`' | '"' | '\\')) => word.push(escaped),
                            Some(other) => {
                                word.push('\\');
                                word.push(other);
                            }
                            None => return commands,
                        },
                        Some(inside) => word.push(inside),
                    }
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    command.extend(word);
    commands.push(command);
    commands
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::{create_dir_all, write};

    fn after(text: &str) -> String {
        let mut value = "before".to_owned();
        assign("kernel_cmdline", text, &mut value);
        value
    }

    #[test]
    fn assignments_are_read_as_a_shell_reads_them() {
        for (text, expected) in [
            ("kernel_cmdline=\"rd.a rd.b\"\n", "rd.a rd.b"),
            ("kernel_cmdline+=\" rd.a \"", "before rd.a "),
            ("hostonly=yes kernel_cmdline+=' rd.a=\"x\" '", "before rd.a=\"x\" "),
            ("kernel_cmdline=rd.a # rd.b\n", "rd.a"),
            ("kernel_cmdline=rd.a#b", "rd.a#b"),
            ("kernel_cmdline=\" rd.a # b\"", " rd.a # b"),
            ("kernel_cmdline=\"rd.a \\\n  rd.\\\"b\\\"\"; x=1", "rd.a   rd.\"b\""),
            ("kernel_cmdline=\"rd.a\n rd.b\"", "rd.a\n rd.b"),
            ("kernel_cmdline=rd.a\\ rd.b' rd.c'", "rd.a rd.b rd.c"),
            ("  export kernel_cmdline=rd.a", "rd.a"),
            ("[ -e /x ] && kernel_cmdline=rd.a", "rd.a"),
            ("if true; then kernel_cmdline+=rd.a; fi", "beforerd.a"),
            ("kernel_cmdline=a\nkernel_cmdline=\nkernel_cmdline+=\"b\" kernel_cmdline+=\"c\"", "bc"),
            // None of the variable's.
            ("#kernel_cmdline=rd.a", "before"),
            ("  # kernel_cmdline=rd.a\n", "before"),
            ("kernel_cmdline=rd.a true", "before"),
            ("echo kernel_cmdline=rd.a", "before"),
            ("x=\"\nkernel_cmdline=rd.a\n\"", "before"),
            ("'kernel_cmdline=rd.a'", "before"),
            ("kernel_cmdline'=rd.a'", "before"),
            ("my_kernel_cmdline=rd.a kernel_cmdline_=rd.b", "before"),
            // A shell takes nothing of it.
            ("kernel_cmdline=\"rd.a", "before"),
        ] {
            assert_eq!(after(text), expected, "{text}");
        }
    }

    #[test]
    fn files_come_in_the_order_of_dracut() {
        let root = tempfile::tempdir().unwrap();
        for (path, word) in [
            ("etc/dracut.conf", "a"),
            ("usr/lib/dracut/dracut.conf.d/9-x.conf", "b"),
            ("etc/dracut.conf.d/10-x.conf", "c"),
            ("usr/lib/dracut/dracut.conf.d/10-x.conf", "no"),
            ("etc/dracut.conf.d/x.conf", "d"),
            ("etc/dracut.conf.d/x.conf.old", "no"),
            ("etc/dracut.conf.d/.x.conf", "no"),
            ("usr/lib/dracut/dracut.conf.d/fips/x.conf", "no"),
        ] {
            let path = root.path().join(path);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, format!("kernel_cmdline+=\" {word}\"\n")).unwrap();
        }
        assert_eq!(DracutConf::of(root.path()).value("kernel_cmdline"), " a b c d");
        write(root.path().join("etc/dracut.conf.d/11-x.conf"), "kernel_cmdline=only").unwrap();
        assert_eq!(DracutConf::of(root.path()).value("kernel_cmdline"), "only d");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "([ -~\n]|kernel_cmdline[+]?=|é){0,60}", other: String) {
            after(&text);
            prop_assert_eq!(by_version(&text, &other), by_version(&other, &text).reverse());
        }
    }
}
