//! Whether the next boot could pass the gate: its root must be on a volume that is enrolled.
//!
//! The gate can't ask what was meant: whoever can exchange the disk would answer. So it is asked here.

use crate::boot::state::{Mapping, Mappings};
use crate::boot::{gate, mountinfo};
use crate::error::{Error, Result};
use crate::luks::Header;
use crate::luks::header::Found;
use crate::{bounded, console};
use halfkey_protocol::Role;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Checks that / and /usr of this system are on `devices`. Plain files, and a root without a block
/// device (containers, live systems), tell nothing about the next boot and pass.
///
/// # Errors
/// When the gate would refuse this root, unless `elsewhere`: another system boots from these volumes.
pub fn check(devices: &[PathBuf], elsewhere: bool) -> Result<()> {
    let block = |path: &&PathBuf| path.metadata().is_ok_and(|found| found.file_type().is_block_device());
    let uuids: Vec<_> = devices.iter().filter(block).filter_map(|path| uuid_of(path)).collect();
    if uuids.is_empty() || elsewhere {
        return Ok(());
    }
    let mounts = bounded::read("/proc/self/mountinfo", 4 << 20).unwrap_or_default();
    let mounts = mountinfo::parse(&String::from_utf8_lossy(&mounts));
    match would_pass(&mounts, Path::new("/sys"), Path::new("/dev"), &uuids) {
        Some(Err(why)) => Err(Error::volume(format!(
            "the next boot would be stopped before switch-root, for its root is not on an enrolled volume: {why}"
        ))
        .hint("name the root's volume too; if these volumes are of a system that is not running, add --root-elsewhere")),
        Some(Ok(())) => Ok(()),
        None => {
            console::say("warning: this root is on no block device; a boot with such a root is stopped before switch-root");
            Ok(())
        }
    }
}

/// What each of `devices` is to the system that boots: the root is on those without which it could not be followed
/// to its bottom. Where this system's root tells nothing (another system's volumes, plain files), each may be the root.
pub fn roles(devices: &[PathBuf], elsewhere: bool) -> Vec<Role> {
    let uuids: Vec<_> = devices.iter().map(|path| uuid_of(path).unwrap_or_default()).collect();
    let mounts = bounded::read("/proc/self/mountinfo", 4 << 20).unwrap_or_default();
    let mounts = mountinfo::parse(&String::from_utf8_lossy(&mounts));
    if elsewhere {
        return vec![Role::Root; devices.len()];
    }
    roles_of(&mounts, Path::new("/sys"), Path::new("/dev"), &uuids)
}

fn roles_of(mounts: &[mountinfo::Mount], sys: &Path, dev: &Path, uuids: &[String]) -> Vec<Role> {
    let root: Vec<_> = mountinfo::at(mounts, "/").into_iter().cloned().collect();
    if would_pass(&root, sys, dev, uuids) != Some(Ok(())) {
        return vec![Role::Root; uuids.len()];
    }
    let is_needed = |uuid: &String| {
        let others: Vec<_> = uuids.iter().filter(|other| *other != uuid).cloned().collect();
        would_pass(&root, sys, dev, &others) != Some(Ok(()))
    };
    uuids.iter().map(|uuid| if is_needed(uuid) { Role::Root } else { Role::Data }).collect()
}

fn uuid_of(path: &Path) -> Option<String> {
    match Header::read(&File::open(path).ok()?) {
        Ok(Found::Luks2(header)) => Some(header.uuid),
        _ => None,
    }
}

/// What the gate would say if this system's mounts were those of the next boot. `None` if the root
/// is on no block device.
fn would_pass(
    mounts: &[mountinfo::Mount],
    sys: &Path,
    dev: &Path,
    uuids: &[String],
) -> Option<Result<(), String>> {
    let root = mountinfo::at(mounts, "/")?;
    if root.device.0 == 0 && root.kind != "btrfs" {
        return None;
    }
    let moved = [("/", "/sysroot"), ("/usr", "/sysroot/usr")].into_iter().filter_map(|(here, there)| {
        let mount = mountinfo::at(mounts, here)?;
        Some(mountinfo::Mount { point: there.into(), ..mount.clone() })
    });
    let moved: Vec<_> = moved.collect();
    let root = mappings(sys, uuids);
    let checked = gate::check(&moved, sys, dev, &Mappings { all: root.clone(), root });
    Some(checked.map_err(|why| why.replace("/sysroot/", "/").replace("/sysroot", "/")))
}

/// What is open of these volumes.
fn mappings(sys: &Path, uuids: &[String]) -> Vec<Mapping> {
    let prefixes: Vec<_> =
        uuids.iter().map(|uuid| format!("CRYPT-LUKS2-{}-", uuid.replace('-', ""))).collect();
    let entries = std::fs::read_dir(sys.join("class/block")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let read = |file: &str| bounded::read_text(entry.path().join(file), 256).ok();
            Some(Mapping { dm_uuid: read("dm/uuid")?, number: read("dev")? })
        })
        .filter(|mapping| prefixes.iter().any(|prefix| mapping.dm_uuid.starts_with(prefix)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;

    const ROOT: &str = "0afd6329-fe84-4fc3-be1c-f947e595762f";
    const DATA: &str = "1afd6329-fe84-4fc3-be1c-f947e595762f";

    /// Mappings of ROOT (253:0, on vda) and of DATA (253:1, on vdb), and a plain vdc (254:32).
    fn sysfs() -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        let block = top.path().join("devices/block");
        create_dir_all(top.path().join("dev/block")).unwrap();
        create_dir_all(top.path().join("class/block")).unwrap();
        for (name, number, uuid) in
            [("dm-0", "253:0", Some(ROOT)), ("dm-1", "253:1", Some(DATA)), ("vdc", "254:32", None)]
        {
            create_dir_all(block.join(name).join("dm")).unwrap();
            if let Some(uuid) = uuid {
                let text = format!("CRYPT-LUKS2-{}-{name}\n", uuid.replace('-', ""));
                write(block.join(name).join("dm/uuid"), text).unwrap();
            }
            write(block.join(name).join("dev"), format!("{number}\n")).unwrap();
            symlink(block.join(name), top.path().join("dev/block").join(number)).unwrap();
            symlink(block.join(name), top.path().join("class/block").join(name)).unwrap();
        }
        top
    }

    fn passes(lines: &str, uuids: &[&str]) -> Option<Result<(), String>> {
        let uuids: Vec<_> = uuids.iter().map(|uuid| (*uuid).to_owned()).collect();
        would_pass(&mountinfo::parse(lines), sysfs().path(), Path::new("/dev"), &uuids)
    }

    #[test]
    fn the_root_must_be_among_the_volumes() {
        let root = "28 1 253:0 / / rw - ext4 /dev/mapper/root rw";
        assert_eq!(passes(root, &[ROOT]), Some(Ok(())));
        assert_eq!(passes(root, &[DATA, ROOT]), Some(Ok(())));
        let why = passes(root, &[DATA]).unwrap().unwrap_err();
        assert!(why.starts_with("/: ") && why.contains("dm-0"), "{why}");
        let usr = format!("{root}\n29 28 254:32 / /usr ro - ext4 /dev/vdc ro");
        assert!(passes(&usr, &[ROOT]).unwrap().unwrap_err().starts_with("/usr: "));
        assert!(passes("28 1 254:32 / / rw - ext4 /dev/vdc rw", &[DATA]).unwrap().is_err());
        assert_eq!(passes("28 1 0:42 / / rw - overlay overlay rw", &[DATA]), None);
        assert_eq!(passes("", &[DATA]), None);
    }

    #[test]
    fn the_root_is_on_those_volumes_that_it_can_not_do_without() {
        let roles = |lines: &str| {
            let uuids = [ROOT.to_owned(), DATA.to_owned()];
            roles_of(&mountinfo::parse(lines), sysfs().path(), Path::new("/dev"), &uuids)
        };
        let root = "28 1 253:0 / / rw - ext4 /dev/mapper/root rw";
        assert_eq!(roles(root), [Role::Root, Role::Data]);
        let usr = format!("{root}\n29 28 253:1 / /usr ro - ext4 /dev/mapper/usr ro");
        assert_eq!(roles(&usr), [Role::Root, Role::Data]);
        // A root elsewhere, or on no block device, tells nothing of these volumes.
        assert_eq!(roles("28 1 254:32 / / rw - ext4 /dev/vdc rw"), [Role::Root, Role::Root]);
        assert_eq!(roles("28 1 0:42 / / rw - overlay overlay rw"), [Role::Root, Role::Root]);
    }

    #[test]
    fn plain_files_tell_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(check(&[file.path().to_owned()], false).is_ok());
    }
}
