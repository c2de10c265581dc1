//! dracut.conf.d(5): from the enrollment on, every initramfs that this machine builds has the module. Before it none has: a machine that
//! has the package and is not enrolled boots as it did.

use crate::bounded;
use crate::error::{Error, Result};
use std::io::ErrorKind;
use std::path::Path;
use std::{fs, io};

const FILE: &str = "etc/dracut.conf.d/50-halfkey.conf";
const TEXT: &str = include_str!("../../../packaging/agent/dracut.conf");

/// Adds the module to every image of this host, where it has dracut and the module; `true` if none had it by this file before.
///
/// # Errors
/// If the file can't be written.
pub fn add() -> Result<bool> {
    add_to(Path::new("/")).map_err(|e| Error::system(format_args!("/{FILE}"), e))
}

/// Takes that back. It is not an error if it can't be: the image then has a module that does nothing.
pub fn remove() {
    let _ = fs::remove_file(Path::new("/").join(FILE));
}

fn add_to(root: &Path) -> io::Result<bool> {
    let modules = root.join("usr/lib/dracut/modules.d");
    let is_ours = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with("halfkey"))
    };
    if !modules.read_dir().is_ok_and(|mut entries| entries.any(is_ours)) {
        return Ok(false);
    }
    let file = root.join(FILE);
    match bounded::read_text(&file, 4 << 10) {
        // An owner's own words stay, whatever they are.
        Ok(_) => return Ok(false),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    fs::create_dir_all(file.parent().unwrap_or(root))?;
    fs::write(&file, TEXT).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_added_once_and_only_where_it_is() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(FILE);
        assert!(!add_to(root.path()).unwrap(), "no dracut");
        fs::create_dir_all(root.path().join("usr/lib/dracut/modules.d/50crypt")).unwrap();
        assert!(!add_to(root.path()).unwrap() && !file.exists(), "no module");
        fs::create_dir_all(root.path().join("usr/lib/dracut/modules.d/55halfkey")).unwrap();
        assert!(add_to(root.path()).unwrap());
        assert!(fs::read_to_string(&file).unwrap().contains("add_dracutmodules+=\" halfkey \""));
        fs::write(&file, "# not here\n").unwrap();
        assert!(!add_to(root.path()).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "# not here\n");
    }
}
