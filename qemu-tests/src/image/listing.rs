//! What is in an initramfs as far as it is not compressed: archives (cpio, newc), one behind the other, as the kernel unpacks them. cpio
//! itself stops behind the first.

use crate::error::{Context, Result};
use std::collections::HashMap;

/// Before the name of an entry.
const HEADER: usize = 110;
const MAGIC: &[u8] = b"070701";
const REGULAR: u32 = 0o100_000;

/// An entry of an archive.
struct Entry<'a> {
    name: &'a [u8],
    inode: u32,
    mode: u32,
    links: u32,
    is_last: bool,
    /// Where the next one begins.
    end: usize,
}

fn entry(image: &[u8], at: usize) -> Result<Entry<'_>> {
    let header = image.get(at..at + HEADER).filter(|header| header.starts_with(MAGIC));
    let header = header.context(format_args!("expected the header of an archive's entry at {at}"))?;
    let field = |index: usize| {
        let digits = std::str::from_utf8(&header[6 + 8 * index..][..8]).unwrap_or_default();
        u32::from_str_radix(digits, 16).context(format_args!("a field of the entry at {at}"))
    };
    let (size, name_size) = (field(6)? as usize, field(11)? as usize);
    let name = image.get(at + HEADER..at + HEADER + name_size).context("a name is cut off")?;
    let end = ((at + HEADER + name_size).next_multiple_of(4) + size).next_multiple_of(4);
    let is_last = name == b"TRAILER!!!\0";
    Ok(Entry { name, inode: field(0)?, mode: field(1)?, links: field(4)?, is_last, end })
}

/// Behind what fills an archive up.
fn skip_zeros(image: &[u8], at: usize) -> Option<usize> {
    Some(at + image.get(at..)?.iter().position(|byte| *byte != 0)?)
}

/// Where the compressed part begins. What is compressed already, as many kernels' modules are, dracut puts in front of it from 108 on.
///
/// # Errors
/// If an archive before it is damaged, or there is nothing behind them.
pub fn compressed_at(image: &[u8]) -> Result<usize> {
    let mut at = 0;
    while image.get(at..).is_some_and(|rest| rest.starts_with(MAGIC)) {
        let found = entry(image, at)?;
        at = found.end;
        if found.is_last {
            at = skip_zeros(image, at).context("expected a compressed part, found none")?;
        }
    }
    Ok(at)
}

/// The regular files of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// All of them.
    pub all: usize,
    /// Those with a certain word in their path.
    pub named: usize,
}

/// How many regular files there are, and how many whose path has `word` in it. One of several names is one: dracut links files of the
/// same content to each other.
///
/// # Errors
/// If something else than an archive comes where one must begin.
pub fn regular_files(image: &[u8], word: &str) -> Result<Files> {
    let (mut alone, mut linked) = (Files { all: 0, named: 0 }, HashMap::new());
    let (mut at, mut archive) = (0, 0);
    while let Some(begin) = skip_zeros(image, at) {
        let Entry { name, inode, mode, links, is_last, end } = entry(image, begin)?;
        let is_named = name.windows(word.len().max(1)).any(|part| part == word.as_bytes());
        if mode & 0o170_000 == REGULAR {
            if links < 2 {
                alone.all += 1;
                alone.named += usize::from(is_named);
            } else {
                *linked.entry((archive, inode)).or_insert(false) |= is_named;
            }
        }
        archive += usize::from(is_last);
        at = end;
    }
    let named = linked.values().filter(|named| **named).count();
    Ok(Files { all: alone.all + linked.len(), named: alone.named + named })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::initrd::{ExtraFile, cpio, with_files};
    use crate::process::run;
    use std::fs;
    use std::process::Command;

    #[test]
    fn files_of_all_archives_are_counted() {
        let file = |path: &str| ExtraFile { path: path.into(), content: b"hello\n".to_vec() };
        let mut image = cpio(&[file("early/one")]);
        // As dracut fills up the first.
        image.resize(image.len().next_multiple_of(512), 0);
        image.extend(with_files(&cpio(&[file("etc/two"), file("etc/three")]), &[file("four")]));
        assert_eq!(regular_files(&image, "etc/").unwrap(), Files { all: 4, named: 2 });
        assert!(compressed_at(&image).is_err());
        let archives = image.len();
        image.extend(b"\x28\xb5\x2f\xfd");
        assert!(regular_files(&image, "").is_err());
        assert_eq!(compressed_at(&image).unwrap(), archives);
        assert_eq!(compressed_at(&image[archives..]).unwrap(), 0);
        for end in 0..image.len() {
            // No panic.
            let _ = (regular_files(&image[..end], "o"), compressed_at(&image[..end]));
        }
    }

    #[test]
    fn a_file_of_two_names_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("one"), "hello\n").unwrap();
        fs::hard_link(at("one"), at("two")).unwrap();
        fs::write(at("three"), "hello\n").unwrap();
        std::os::unix::fs::symlink("one", at("four")).unwrap();
        let image = tempfile::NamedTempFile::new().unwrap();
        let script = r#"find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -O "$0""#;
        run(Command::new("sh").args(["-c", script]).arg(image.path()).current_dir(dir.path())).unwrap();
        let image = fs::read(image.path()).unwrap();
        for (word, named) in [("one", 1), ("two", 1), ("e", 2), ("four", 0)] {
            assert_eq!(regular_files(&image, word).unwrap(), Files { all: 2, named }, "{word}");
        }
    }
}
