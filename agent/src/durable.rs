//! Files that are there as a whole or as they were, also after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Puts a file in the place of what is there, and its folder if there is none. A link in that place is replaced, not followed; so is one
/// where the new file is written first.
///
/// # Errors
/// When a part can't be written: the file is as it was.
pub fn replace(file: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let new = file.with_extension("new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut open = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    open.write_all(content)?;
    open.sync_all()?;
    fs::rename(&new, file)?;
    File::open(folder)?.sync_all()?;
    // The folder itself may be new.
    folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("other"), "its own").unwrap();
        symlink(at("other"), at("file.new")).unwrap();
        symlink(at("other"), at("file.json")).unwrap();
        for content in ["one", "two"] {
            replace(&at("file.json"), content.as_bytes(), 0o600).unwrap();
            assert_eq!(fs::read_to_string(at("file.json")).unwrap(), content);
        }
        assert_eq!(fs::read_to_string(at("other")).unwrap(), "its own");
        assert_eq!(fs::symlink_metadata(at("file.json")).unwrap().permissions().mode(), 0o100_600);
        replace(&at("new/folder/file"), b"", 0o600).unwrap();
    }
}
