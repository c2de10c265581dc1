//! What is in an initramfs that is not compressed: archives (cpio, newc), one behind the other, as the kernel unpacks them. cpio itself
//! stops behind the first.

use crate::error::{Context, Result};
use std::collections::HashSet;

/// Before the name of an entry.
const HEADER: usize = 110;
const REGULAR: u32 = 0o100_000;

/// How many regular files there are. One of several names is one: dracut links files of the same content to each other.
///
/// # Errors
/// If something else than an archive comes where one must begin.
pub fn regular_files(image: &[u8]) -> Result<usize> {
    let (mut count, mut linked) = (0, HashSet::new());
    let (mut at, mut archive) = (0, 0);
    while let Some(ahead) = image.get(at..).and_then(|rest| rest.iter().position(|byte| *byte != 0)) {
        at += ahead;
        let header = image.get(at..at + HEADER).filter(|header| header.starts_with(b"070701"));
        let header = header.context(format_args!("expected the header of an archive's entry at {at}"))?;
        let field = |index: usize| {
            let digits = std::str::from_utf8(&header[6 + 8 * index..][..8]).unwrap_or_default();
            u32::from_str_radix(digits, 16).context(format_args!("a field of the entry at {at}"))
        };
        let (inode, mode, links) = (field(0)?, field(1)?, field(4)?);
        let (size, name_size) = (field(6)? as usize, field(11)? as usize);
        let name = image.get(at + HEADER..at + HEADER + name_size).context("a name is cut off")?;
        if mode & 0o170_000 == REGULAR && (links < 2 || linked.insert((archive, inode))) {
            count += 1;
        }
        archive += usize::from(name == b"TRAILER!!!\0");
        at = (at + HEADER + name_size).next_multiple_of(4) + size;
        at = at.next_multiple_of(4);
    }
    Ok(count)
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
        assert_eq!(regular_files(&image).unwrap(), 4);
        image.extend(b"\x28\xb5\x2f\xfd");
        assert!(regular_files(&image).is_err());
        for end in 0..image.len() {
            // No panic.
            let _ = regular_files(&image[..end]);
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
        assert_eq!(regular_files(&fs::read(image.path()).unwrap()).unwrap(), 2);
    }
}
