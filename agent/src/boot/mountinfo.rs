//! /proc/self/mountinfo (proc(5)): what is mounted where.

use std::path::Path;

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Device number of its files, `MAJOR:MINOR`.
    pub device: (u32, u32),
    /// Where it is mounted.
    pub point: String,
    /// Type of the file system.
    pub kind: String,
    /// What was mounted, as the kernel was told.
    pub source: String,
    /// What the kernel was told for this mount: `rw,nosuid`.
    pub options: String,
}

/// All mounts of this process.
pub fn now() -> Vec<Mount> {
    of(Path::new("/proc/self"))
}

/// All mounts that a process sees, by its folder in /proc; none if they can't be read.
pub fn of(process: &Path) -> Vec<Mount> {
    let text = crate::bounded::read(process.join("mountinfo"), 4 << 20).unwrap_or_default();
    parse(&String::from_utf8_lossy(&text))
}

/// All mounts, in order; lines that can't be read are skipped.
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS TAG... - TYPE SOURCE OPTIONS`
fn line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let (major, minor) = left.next()?.split_once(':')?;
    let (point, options) = (left.nth(1)?, left.next()?);
    let mut right = right.split(' ');
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        point: unescape(point),
        kind: right.next()?.to_owned(),
        source: unescape(right.next()?),
        options: options.to_owned(),
    })
}

/// The topmost mount at `point`: later mounts cover earlier ones.
pub fn at<'a>(mounts: &'a [Mount], point: &str) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

/// The kernel writes space, tab, line feed and backslash as three octal digits.
pub fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = |b: &u8| (b'0'..=b'7').contains(b);
        match tail {
            [a @ b'0'..=b'3', b, c, ..] if *first == b'\\' && octal(b) && octal(c) => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_kernel_writes() {
        let text = "28 1 253:0 / /sysroot rw,relatime shared:2 master:1 - ext4 /dev/mapper/root rw\n\
                    29 28 0:31 /@usr /sysroot/u\\040r ro - btrfs /dev/mapper/a\\134b rw\n";
        let mounts = parse(text);
        let first = at(&mounts, "/sysroot").unwrap();
        assert_eq!((first.device, first.options.as_str()), ((253, 0), "rw,relatime"));
        let second = at(&mounts, "/sysroot/u r").unwrap();
        assert_eq!((second.kind.as_str(), second.source.as_str()), ("btrfs", "/dev/mapper/a\\b"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,200}") {
            parse(&text);
            unescape(&text);
        }
    }
}
