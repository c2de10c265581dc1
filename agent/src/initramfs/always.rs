//! dracut.conf.d(5): from the enrollment on, every initramfs that this machine builds has the module. Before it none has: a machine that
//! has the package and is not enrolled boots as it did.

use crate::bounded;
use crate::console;
use crate::durable;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

const FILE: &str = "etc/dracut.conf.d/50-halfkey.conf";
const TEXT: &str = include_str!("../../../packaging/agent/dracut.conf");

/// Adds the module to every image of this host, where it has dracut and the module; `true` if no file had said so. Where /etc can't be
/// written, a warning: its images may come from elsewhere, or have it by another file.
pub fn add() -> bool {
    add_to(Path::new("/")).unwrap_or_else(|e| {
        console::say(&format!("warning: can't write /{FILE}: {e}"));
        console::say(&format!("hint: {NEEDED}"));
        false
    })
}

/// What a system needs whose volumes are enrolled from another one.
pub const NEEDED: &str = "each initramfs that is built for these volumes needs the module: add_dracutmodules+=\" halfkey \" in /etc/dracut.conf.d";

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
        // An owner's own words stay, whatever they are. None are what a power cut left.
        Ok(text) if !text.is_empty() => return Ok(false),
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    // dracut reads *.conf only, so not what is written first.
    durable::replace(&file, TEXT.as_bytes(), 0o644)?;
    Ok(true)
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
        fs::write(&file, "").unwrap();
        assert!(add_to(root.path()).unwrap(), "a power cut");
        assert_eq!(fs::read_to_string(&file).unwrap(), TEXT);
        fs::write(&file, "# not here\n").unwrap();
        assert!(!add_to(root.path()).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "# not here\n");
    }
}
