//! What the token of each volume will say of it: name and role of its mapping, flags, the set of volumes.

use super::root;
use crate::boot::cmdline::is_mapping_name;
use crate::error::{Error, Result};
use crate::luks::Token;
use crate::{bounded, console};
use halfkey_protocol::{MAX_VOLUMES, Role};
use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What is known of one volume before anything is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// LUKS UUID.
    pub uuid: String,
    /// Name of its mapping.
    pub mapping: String,
    /// What it is to the system that boots.
    pub role: Role,
    /// Activation flags that it is opened with.
    pub flags: Vec<String>,
}

/// A plan for each of `devices`, in their order. The name is that of the active mapping, else that in crypttab, else
/// `luks-UUID`: what the running system will look for.
///
/// # Errors
/// When the volumes can't be told apart, there are too many, or a mapping has a name that can't be kept.
pub fn of(devices: &[PathBuf], elsewhere: bool) -> Result<Vec<Plan>> {
    if devices.len() > MAX_VOLUMES {
        return Err(Error::usage(format!("expected at most {MAX_VOLUMES} volumes, found {}", devices.len())));
    }
    let crypttab = bounded::read("/etc/crypttab", 64 << 10).unwrap_or_default();
    let crypttab = String::from_utf8_lossy(&crypttab).into_owned();
    let mut plans: Vec<Plan> = Vec::new();
    for (device, role) in devices.iter().zip(root::roles(devices, elsewhere)) {
        let open = super::bind::open(device)?;
        let (uuid, flags) = (open.header.uuid.clone(), open.header.flags());
        let here = |name: &str| same_device(&open.file, Path::new(name));
        let mapping = active_name(Path::new("/sys"), &uuid)
            .or_else(|| name_in_crypttab(&crypttab, &uuid, &here))
            .unwrap_or_else(|| format!("luks-{uuid}"));
        if !is_mapping_name(&mapping) {
            return Err(Error::volume(format!(
                "{}: expected a mapping of letters, digits and _-.+:@, found '{}'",
                device.display(),
                mapping.escape_debug()
            ))
            .hint("give it another name in /etc/crypttab, then reboot and enroll"));
        }
        if let Some(other) = plans.iter().find(|other| other.uuid == uuid || other.mapping == mapping) {
            return Err(Error::volume(format!(
                "{}: UUID {uuid} or mapping '{mapping}' is that of another volume too ('{}')",
                device.display(),
                other.mapping
            )));
        }
        for unknown in open.header.unknown_flags() {
            console::say(&format!(
                "warning: {}: flag '{}' of its header is not known and will not be used",
                device.display(),
                unknown.escape_debug()
            ));
        }
        plans.push(Plan { uuid, mapping, role, flags });
    }
    Ok(plans)
}

/// The token for a volume: `common` is the same for all of them.
pub fn token(common: &Token, plan: &Plan, all: &[Plan]) -> Token {
    let mut volumes: Vec<_> = all.iter().map(|plan| plan.uuid.clone()).collect();
    volumes.sort_unstable();
    Token {
        mapping: plan.mapping.clone(),
        role: plan.role,
        flags: plan.flags.clone(),
        volumes,
        ..common.clone()
    }
}

/// The name of the open mapping of this volume.
fn active_name(sys: &Path, uuid: &str) -> Option<String> {
    let prefix = format!("CRYPT-LUKS2-{}-", uuid.replace('-', ""));
    let entries = std::fs::read_dir(sys.join("class/block")).ok()?.flatten();
    entries.map(|entry| entry.path().join("dm")).find_map(|dm| {
        let found = bounded::read_text(dm.join("uuid"), 256).ok()?;
        if found.starts_with(&prefix) { bounded::read_text(dm.join("name"), 256).ok() } else { None }
    })
}

/// The name of the entry whose device is this volume: by its UUID, or as `here` says.
fn name_in_crypttab(crypttab: &str, uuid: &str, here: &dyn Fn(&str) -> bool) -> Option<String> {
    entries(crypttab)
        .find(|entry| names_uuid(entry.device, uuid) || here(&path_of(entry.device)))
        .map(|entry| entry.name.to_owned())
}

/// A line of crypttab(5).
pub(super) struct Entry<'a> {
    pub name: &'a str,
    pub device: &'a str,
    pub options: &'a str,
}

/// Lines that have at least a name and a device.
pub(super) fn entries(crypttab: &str) -> impl Iterator<Item = Entry<'_>> {
    crypttab.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().take_while(|field| !field.starts_with('#'));
        let (name, device) = (fields.next()?, fields.next()?);
        Some(Entry { name, device, options: fields.nth(1).unwrap_or_default() })
    })
}

/// Whether the device field of an entry says this LUKS UUID.
pub(super) fn names_uuid(device: &str, uuid: &str) -> bool {
    let found = device.strip_prefix("UUID=").or_else(|| device.strip_prefix("/dev/disk/by-uuid/"));
    found.is_some_and(|found| found.trim_matches('"').eq_ignore_ascii_case(uuid))
}

/// The path that systemd makes of a device field.
pub(super) fn path_of(device: &str) -> String {
    for (tag, folder) in [
        ("UUID=", "by-uuid"),
        ("LABEL=", "by-label"),
        ("PARTUUID=", "by-partuuid"),
        ("PARTLABEL=", "by-partlabel"),
    ] {
        if let Some(value) = device.strip_prefix(tag) {
            return format!("/dev/disk/{folder}/{}", value.trim_matches('"'));
        }
    }
    device.to_owned()
}

/// Whether `path` is the device (or, in tests, the file) that is open as `file`.
fn same_device(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(other)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    if ours.file_type().is_block_device() {
        return other.file_type().is_block_device() && ours.rdev() == other.rdev();
    }
    (ours.dev(), ours.ino()) == (other.dev(), other.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "0afd6329-fe84-4fc3-be1c-f947e595762f";
    const B: &str = "1afd6329-fe84-4fc3-be1c-f947e595762f";

    #[test]
    fn crypttab_names_a_volume_as_systemd_resolves_it() {
        let text = format!(
            "# a comment\nother UUID={B} none\nvda3_crypt\tUUID={} none luks,discard # x\nhome PARTLABEL=home - luks\n",
            A.to_uppercase()
        );
        let name = |uuid: &str, here: &str| name_in_crypttab(&text, uuid, &|path| path == here);
        assert_eq!(name(A, "").as_deref(), Some("vda3_crypt"));
        let unnamed = "2afd6329-fe84-4fc3-be1c-f947e595762f";
        assert_eq!(name(unnamed, "/dev/disk/by-partlabel/home").as_deref(), Some("home"));
        assert_eq!(name(unnamed, "/dev/sda1"), None);
    }

    #[test]
    fn the_active_mapping_counts_first() {
        let sys = tempfile::tempdir().unwrap();
        for (device, uuid, name) in [("dm-0", B, "data"), ("dm-1", A, "vda3_crypt")] {
            let dm = sys.path().join("class/block").join(device).join("dm");
            std::fs::create_dir_all(&dm).unwrap();
            std::fs::write(dm.join("uuid"), format!("CRYPT-LUKS2-{}-{name}\n", uuid.replace('-', "")))
                .unwrap();
            std::fs::write(dm.join("name"), format!("{name}\n")).unwrap();
        }
        assert_eq!(active_name(sys.path(), A).as_deref(), Some("vda3_crypt"));
        assert_eq!(active_name(sys.path(), "2afd6329-fe84-4fc3-be1c-f947e595762f"), None);
    }

    proptest! {
        #[test]
        fn any_crypttab_is_read(text in ".{0,200}") {
            name_in_crypttab(&text, A, &|_| false);
        }
    }
}
