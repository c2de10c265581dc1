//! Which paths a rule is about.

use std::fmt;

/// Longest pattern, in bytes.
pub const MAX_PATTERN: usize = 512;
/// Most stars of one.
const MAX_STARS: usize = 8;

/// A path; `*` stands for any number of characters within one folder, and a `/` at the end for all that is below.
///
/// The kernel writes `_` for each blank of a path: so it stands here, too, and `/opt/my app/` is also `/opt/my_app/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    written: String,
    pattern: Vec<u8>,
}

impl PathPattern {
    /// From its text.
    ///
    /// # Errors
    /// What is wrong: it does not begin with `/`, names everything, is too long, has a NUL, `//`, or more than eight stars.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = |what: &str| Err(format!("expected {what}, found {text:?}"));
        if text.len() > MAX_PATTERN {
            return Err(format!("expected at most {MAX_PATTERN} bytes, found {}", text.len()));
        }
        if !text.starts_with('/') {
            return expected("a path that begins with /");
        }
        if text.contains('\0') || text.contains("//") {
            return expected("no nul and no //");
        }
        if text.bytes().filter(|byte| *byte == b'*').count() > MAX_STARS {
            return expected("at most 8 stars");
        }
        if text.trim_matches(['/', '*']).is_empty() {
            return expected("the name of a folder or file");
        }
        Ok(Self { written: text.to_owned(), pattern: text.replace(' ', "_").into_bytes() })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether it stands for this path, as the kernel writes it.
    pub fn matches(&self, path: &[u8]) -> bool {
        // Up to the first star both are the same, and most paths are told apart by that.
        let star = self.pattern.iter().position(|byte| *byte == b'*');
        let (start, rest) = self.pattern.split_at(star.unwrap_or(self.pattern.len()));
        let Some(path) = path.strip_prefix(start) else { return false };
        match rest {
            [] => path.is_empty() || start.ends_with(b"/"),
            rest => glob(rest, path),
        }
    }
}

/// Two pointers and one place to go back to: the last star, which takes one character more each time.
fn glob(pattern: &[u8], path: &[u8]) -> bool {
    let below = pattern.ends_with(b"/");
    let (mut at, mut in_path) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if at == pattern.len() && (below || in_path == path.len()) {
            return true;
        }
        match (pattern.get(at), path.get(in_path)) {
            (Some(b'*'), _) => {
                star = Some((at + 1, in_path));
                at += 1;
            }
            (Some(wanted), Some(found)) if wanted == found => {
                at += 1;
                in_path += 1;
            }
            _ => match star {
                Some((after, taken)) if path.get(taken).is_some_and(|byte| *byte != b'/') => {
                    star = Some((after, taken + 1));
                    (at, in_path) = (after, taken + 1);
                }
                _ => return false,
            },
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, path: &str) -> bool {
        PathPattern::parse(pattern).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn folders_files_and_stars() {
        for (pattern, yes, no) in [
            (
                "/var/log/",
                &["/var/log/syslog", "/var/log/a/b"][..],
                &["/var/log", "/var/logs/x", "/usr/var/log/x"][..],
            ),
            ("/usr/bin/ls", &["/usr/bin/ls"], &["/usr/bin/lsx", "/usr/bin/l", "/usr/bin/ls/x"]),
            (
                "/tmp/*.log",
                &["/tmp/.log", "/tmp/a.log", "/tmp/a.log.log"],
                &["/tmp/a/b.log", "/tmp/a.logs", "/tmp/a.lo"],
            ),
            (
                "/home/*/.cache/",
                &["/home/me/.cache/x", "/home/a/.cache/b/c"],
                &["/home/.cache/x", "/home/a/b/.cache/x"],
            ),
            ("/opt/my app/", &["/opt/my_app/x"], &["/opt/my app/x", "/opt/myxapp/x"]),
            ("/a/*b*c", &["/a/bc", "/a/xbxbxc"], &["/a/cb", "/a/b/c"]),
        ] {
            yes.iter().for_each(|path| assert!(matches(pattern, path), "{pattern} {path}"));
            no.iter().for_each(|path| assert!(!matches(pattern, path), "{pattern} {path}"));
        }
    }

    #[test]
    fn what_stands_for_everything_or_nothing_is_refused() {
        for text in ["", "usr", "/", "/*", "/*/*", "*", "/a//b", "/a\0", "/a*********", &"/a".repeat(257)] {
            assert!(PathPattern::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_without_stars_is_its_path(path in "/[a-z]{1,8}(/[a-z_]{1,8}){0,3}", other in "[a-z/*]{0,20}") {
            let pattern = PathPattern::parse(&path).unwrap();
            prop_assert!(pattern.matches(path.as_bytes()));
            prop_assert_eq!(pattern.matches(other.as_bytes()), path == other);
        }

        #[test]
        fn a_star_is_any_characters_of_a_folder(a in "[ab]{0,6}", b in "[ab]{0,6}", taken in "[ab/]{0,6}") {
            let pattern = PathPattern::parse(&format!("/d/x{a}*{b}")).unwrap();
            let path = format!("/d/x{a}{taken}{b}");
            prop_assert_eq!(pattern.matches(path.as_bytes()), !taken.contains('/'));
        }
    }
}
