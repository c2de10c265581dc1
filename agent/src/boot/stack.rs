//! What stands on LUKS mappings, by sysfs: their holders, and the holders of those.

use super::dm::Number;
use crate::bounded;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

/// More devices than that are not looked at: it is an error.
const DEVICES: usize = 4096;

/// What must be done to take a device away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A mapping of device-mapper.
    Mapping,
    /// An array of MD.
    Array,
    /// A part of another device: it goes with it.
    Partition,
    /// Nothing here can.
    Other,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name in sysfs, which is that of its node as well.
    pub name: String,
    /// Major and minor number, by which the kernel knows it.
    pub number: Number,
    /// Which driver it is of, and with that how it is closed.
    pub kind: Kind,
}

/// All LUKS mappings that there are and all that stands on them: whatever stands on a device comes before it.
///
/// # Errors
/// When sysfs can't be read, which is no reason to assume that there is nothing.
pub fn above_luks(sys: &Path) -> io::Result<Vec<Device>> {
    let mut found = Found { sys, seen: HashSet::new(), devices: Vec::new() };
    for entry in std::fs::read_dir(sys.join("class/block"))? {
        let entry = entry?;
        let uuid = match bounded::read_text(entry.path().join("dm/uuid"), 256) {
            Ok(uuid) => uuid,
            // No mapping, or one that went away meanwhile.
            Err(error) if gone(&error) => continue,
            Err(error) => return Err(error),
        };
        if uuid.starts_with("CRYPT-") {
            found.visit(&entry.file_name().to_string_lossy())?;
        }
    }
    Ok(found.devices)
}

/// The names of the mappings that cryptsetup made of LUKS volumes, however they were opened.
///
/// # Errors
/// As [`above_luks`].
pub fn luks_mappings(sys: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(sys.join("class/block"))? {
        let folder = entry?.path().join("dm");
        let read = |file| bounded::read_text(folder.join(file), 256);
        match read("uuid").and_then(|uuid| Ok(uuid.starts_with("CRYPT-LUKS").then_some(read("name")?))) {
            Ok(name) => names.extend(name),
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

fn gone(error: &io::Error) -> bool {
    use nix::libc::{ENODEV, ENOENT, ENOTDIR, ENXIO};
    error.raw_os_error().is_some_and(|code| [ENODEV, ENOENT, ENOTDIR, ENXIO].contains(&code))
}

struct Found<'a> {
    sys: &'a Path,
    seen: HashSet<String>,
    devices: Vec<Device>,
}

impl Found<'_> {
    /// Holders first. Loops of holders do not exist; one would end at `seen`.
    fn visit(&mut self, name: &str) -> io::Result<()> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        if self.seen.len() > DEVICES {
            return Err(io::Error::other("more block devices than are looked at"));
        }
        let folder = self.sys.join("class/block").join(name);
        for above in names(&folder.join("holders"))? {
            self.visit(&above)?;
        }
        for part in names(&folder)?.into_iter().filter(|part| folder.join(part).join("partition").exists()) {
            self.visit(&part)?;
        }
        let number = match bounded::read_text(folder.join("dev"), 32) {
            Ok(text) => number(&text).ok_or_else(|| io::Error::other(format!("{name} has no number")))?,
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.devices.push(Device { name: name.to_owned(), number, kind: kind(&folder) });
        Ok(())
    }
}

fn kind(folder: &Path) -> Kind {
    let has = |what: &str| folder.join(what).exists();
    match () {
        () if has("dm") => Kind::Mapping,
        () if has("partition") => Kind::Partition,
        () if has("md") => Kind::Array,
        () => Kind::Other,
    }
}

fn names(folder: &PathBuf) -> io::Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
        }
        Err(error) if gone(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn number(text: &str) -> Option<Number> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    /// Devices as sysfs has them: name, number, what makes it what it is, and who holds it.
    fn sysfs(devices: &[(&str, &str, &str, &[&str])]) -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        let class = top.path().join("class/block");
        create_dir_all(&class).unwrap();
        for (name, number, what, holders) in devices {
            let folder = class.join(name);
            create_dir_all(folder.join("holders")).unwrap();
            write(folder.join("dev"), format!("{number}\n")).unwrap();
            match what.split_once('=') {
                Some(("dm", uuid)) => {
                    create_dir_all(folder.join("dm")).unwrap();
                    write(folder.join("dm/uuid"), format!("{uuid}\n")).unwrap();
                    write(folder.join("dm/name"), format!("name-of-{name}\n")).unwrap();
                }
                Some(("part", disk)) => {
                    write(folder.join("partition"), "1\n").unwrap();
                    create_dir_all(class.join(disk).join(name)).unwrap();
                    write(class.join(disk).join(name).join("partition"), "1\n").unwrap();
                }
                _ if *what == "md" => create_dir_all(folder.join("md")).unwrap(),
                _ => {}
            }
            for holder in *holders {
                create_dir_all(folder.join("holders").join(holder)).unwrap();
            }
        }
        top
    }

    fn names_of(top: &tempfile::TempDir) -> Vec<String> {
        above_luks(top.path()).unwrap().into_iter().map(|device| device.name).collect()
    }

    #[test]
    fn mappings_of_luks_are_known_by_their_names() {
        let top = sysfs(&[
            ("vda2", "254:2", "disk", &["dm-0"]),
            ("dm-0", "253:0", "dm=CRYPT-LUKS2-aa-root", &[]),
            ("dm-1", "253:1", "dm=CRYPT-LUKS1-bb-old", &[]),
            ("dm-2", "253:2", "dm=CRYPT-VERITY-cc-usr", &[]),
            ("dm-3", "253:3", "dm=CRYPT-PLAIN-swap", &[]),
            ("dm-4", "253:4", "dm=LVM-dd", &[]),
        ]);
        let mut names = luks_mappings(top.path()).unwrap();
        names.sort();
        assert_eq!(names, ["name-of-dm-0", "name-of-dm-1"]);
        assert!(luks_mappings(&top.path().join("nowhere")).is_err(), "what can't be seen is not nothing");
    }

    #[test]
    fn what_stands_on_a_mapping_comes_before_it() {
        // Two LUKS volumes on partitions, an array of both, a partition of that, LVM on it; LVM below LUKS stays.
        let top = sysfs(&[
            ("vda", "254:0", "", &[]),
            ("vda2", "254:2", "part=vda", &["dm-0"]),
            ("dm-0", "253:0", "dm=CRYPT-LUKS2-aa-one", &["md127"]),
            ("dm-1", "253:1", "dm=CRYPT-LUKS2-bb-two", &["md127"]),
            ("md127", "9:127", "md", &[]),
            ("md127p1", "259:0", "part=md127", &["dm-2", "dm-3"]),
            ("dm-2", "253:2", "dm=LVM-root", &[]),
            ("dm-3", "253:3", "dm=LVM-swap", &[]),
            ("dm-4", "253:4", "dm=LVM-below", &["dm-5"]),
            ("dm-5", "253:5", "dm=CRYPT-LUKS2-cc-three", &[]),
        ]);
        let devices = above_luks(top.path()).unwrap();
        let at = |name: &str| devices.iter().position(|device| device.name == name).unwrap();
        for (above, below) in
            [("dm-2", "md127p1"), ("dm-3", "md127p1"), ("md127p1", "md127"), ("md127", "dm-0")]
        {
            assert!(at(above) < at(below), "{above} stands on {below}");
        }
        assert!(at("md127") < at("dm-1"));
        assert_eq!(devices.len(), 7, "{devices:?}");
        assert!(!names_of(&top).contains(&"dm-4".to_owned()));
        let kinds = |name: &str| devices[at(name)].kind;
        assert_eq!(
            [kinds("dm-5"), kinds("md127"), kinds("md127p1")],
            [Kind::Mapping, Kind::Array, Kind::Partition]
        );
        assert_eq!(devices[at("md127")].number, (9, 127));
    }

    #[test]
    fn no_sysfs_is_not_no_mapping() {
        assert!(above_luks(Path::new("/nowhere")).is_err());
        let top = sysfs(&[("vda", "254:0", "", &[]), ("dm-0", "253:0", "dm=LVM-root", &[])]);
        assert!(names_of(&top).is_empty());
    }

    #[test]
    fn a_loop_of_holders_ends() {
        let top = sysfs(&[
            ("dm-0", "253:0", "dm=CRYPT-LUKS2-aa-one", &["dm-1"]),
            ("dm-1", "253:1", "dm=LVM-x", &["dm-0", "bcache0"]),
            ("bcache0", "252:0", "", &[]),
        ]);
        let devices = above_luks(top.path()).unwrap();
        assert_eq!(devices.len(), 3);
        assert_eq!(devices[0].kind, Kind::Other);
    }
}
