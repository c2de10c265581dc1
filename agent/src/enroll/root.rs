//! Whether the next boot could pass the gate: its root, and all that the initramfs mounts in it, must be on volumes that are
//! enrolled.
//!
//! The gate can't ask what was meant: whoever can exchange the disk would answer. So it is asked here.

use super::plan;
use crate::boot::gate;
use crate::boot::mountinfo::{self, Mount, unescape};
use crate::boot::state::{Mapping, Mappings};
use crate::bounded;
use crate::error::{Error, Result};
use crate::luks::Header;
use crate::luks::header::Found;
use halfkey_protocol::Role;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Checks that the root of this system, its /usr, and what its fstab has the initramfs mount are on `devices`. Plain files
/// tell nothing about the next boot and pass.
///
/// # Errors
/// When the gate would refuse such a boot, unless `elsewhere`: another system boots from these volumes.
pub fn check(devices: &[PathBuf], elsewhere: bool) -> Result<()> {
    let block = |path: &&PathBuf| path.metadata().is_ok_and(|found| found.file_type().is_block_device());
    let uuids: Vec<_> = devices.iter().filter(block).filter_map(|path| uuid_of(path)).collect();
    if uuids.is_empty() || elsewhere {
        return Ok(());
    }
    match stopped(&uuids) {
        None => Ok(()),
        Some(why) => {
            Err(Error::volume(format!("the next boot would be stopped before switch-root: {why}"))
                .hint(REMEDY))
        }
    }
}

/// What helps against [`stopped`].
pub const REMEDY: &str = "enroll the volumes that it is on as well; what need not be trusted can be mounted later: without x-initrd.mount in /etc/fstab; a root that is an overlay, or on no block device, can't be followed to a volume. For the volumes of a system that is not running: --root-elsewhere";

/// Why the gate would stop a boot into this system, were the volumes with these UUIDs the enrolled ones; `None` if it would not.
pub fn stopped(uuids: &[String]) -> Option<String> {
    let fstab = bounded::read("/etc/fstab", 256 << 10).unwrap_or_default();
    let (sys, dev) = (Path::new("/sys"), Path::new("/dev"));
    let now = mountinfo::now();
    let line = bounded::read_text("/proc/cmdline", 64 << 10).unwrap_or_default();
    if is_found_by_type(&now, &line, dev) {
        return Some(BY_TYPE.into());
    }
    let next = next_boot(&now, &String::from_utf8_lossy(&fstab));
    next.and_then(|mounts| would_pass(&mounts, sys, dev, uuids)).err()
}

/// systemd-gpt-auto-generator is not in images with the module: anybody who has the disk could add a partition of that type.
const BY_TYPE: &str = "expected root= on the kernel command line, found a root that systemd takes by its partition type, \
     which it does not in an initramfs with Halfkey: name it, as root=/dev/mapper/root with rd.luks.name=UUID=root";

/// Whether the initramfs of this boot found the root by its partition's type: that one is mapped as `root`, and nothing names it.
fn is_found_by_type(mounts: &[Mount], line: &str, dev: &Path) -> bool {
    let is_name = |word: &str| word.starts_with("root=") && !word.starts_with("root=gpt-auto");
    let by_type = dev.join("gpt-auto-root-luks").symlink_metadata().is_ok();
    let mapped = mountinfo::at(mounts, "/").is_some_and(|mount| mount.source == "/dev/mapper/root");
    by_type && mapped && !line.split_ascii_whitespace().any(is_name)
}

/// Whether any of these volumes is open here: else they tell nothing of this system.
pub fn any_open(uuids: &[String]) -> bool {
    !mappings(Path::new("/sys"), uuids).is_empty()
}

/// What each of `devices` is to the system that boots: the root is on those without which it could not be followed
/// to its bottom. Where this system's root tells nothing (another system's volumes, plain files), each may be the root.
pub fn roles(devices: &[PathBuf], elsewhere: bool) -> Vec<Role> {
    if elsewhere {
        return vec![Role::Root; devices.len()];
    }
    let uuids: Vec<_> = devices.iter().map(|path| uuid_of(path).unwrap_or_default()).collect();
    roles_of(&mountinfo::now(), Path::new("/sys"), Path::new("/dev"), &uuids)
}

fn roles_of(mounts: &[Mount], sys: &Path, dev: &Path, uuids: &[String]) -> Vec<Role> {
    let root: Vec<_> = mountinfo::at(mounts, "/").into_iter().cloned().collect();
    let passes = |uuids: &[String]| would_pass(&root, sys, dev, uuids).is_ok();
    if !passes(uuids) {
        return vec![Role::Root; uuids.len()];
    }
    let is_needed = |uuid: &String| {
        let others: Vec<_> = uuids.iter().filter(|other| *other != uuid).cloned().collect();
        !passes(&others)
    };
    uuids.iter().map(|uuid| if is_needed(uuid) { Role::Root } else { Role::Data }).collect()
}

/// The UUID of the LUKS2 volume at `path`, if there is one.
pub(super) fn uuid_of(path: &Path) -> Option<String> {
    match Header::read(&File::open(path).ok()?) {
        Ok(Found::Luks2(header)) => Some(header.uuid),
        _ => None,
    }
}

/// What the initramfs of the next boot would mount: the root, /usr, and what fstab marks for it.
fn next_boot(mounts: &[Mount], fstab: &str) -> Result<Vec<Mount>, String> {
    let mounts: Vec<Mount> = mounts.iter().filter(|mount| !is_of_extensions(mount)).cloned().collect();
    let mut next: Vec<Mount> =
        ["/", "/usr"].into_iter().filter_map(|point| mountinfo::at(&mounts, point)).cloned().collect();
    for entry in fstab.lines().filter_map(initrd_mount) {
        next.push(entry.as_mounted(&mounts)?);
    }
    Ok(next)
}

/// What systemd-sysext and systemd-confext lay over /usr, /opt and /etc of the running system, by the names that they give
/// it. In the initramfs of an image with this module they do not.
fn is_of_extensions(mount: &Mount) -> bool {
    mount.kind == "overlay" && ["sysext", "confext"].contains(&mount.source.as_str())
}

/// An entry of fstab(5) for the initramfs.
struct InitrdMount {
    source: String,
    point: String,
    kind: String,
    /// Mounted only when somebody looks.
    automount: bool,
}

/// The root's own entry is none: the command line names the root. /usr is mounted there with or without the mark.
fn initrd_mount(line: &str) -> Option<InitrdMount> {
    let mut fields = line.split_ascii_whitespace();
    let mut field = || fields.next().filter(|field| !field.starts_with('#'));
    let (source, point, kind) = (field()?, unescape(field()?), field()?);
    let options: Vec<_> = field()?.split(',').collect();
    let point = match point.trim_end_matches('/') {
        "" | "/usr" => return None,
        point if point.starts_with('/') && kind != "swap" => point.to_owned(),
        _ => return None,
    };
    let automount =
        ["x-systemd.automount", "comment=systemd.automount"].iter().any(|word| options.contains(word));
    let entry = InitrdMount { source: unescape(source), point, kind: kind.into(), automount };
    options.contains(&"x-initrd.mount").then_some(entry)
}

impl InitrdMount {
    /// The mount, as it is here, or as it would be made of what is here.
    fn as_mounted(&self, mounts: &[Mount]) -> Result<Mount, String> {
        let new = |device, kind: &str| Mount {
            device,
            point: self.point.clone(),
            kind: kind.into(),
            source: self.source.clone(),
            ..Mount::default()
        };
        if self.automount {
            // Whatever comes there later, the gate sees only that.
            return Ok(new((0, 0), "autofs"));
        }
        let real = std::fs::canonicalize(&self.point).unwrap_or_else(|_| self.point.clone().into());
        if let Some(mount) = real.to_str().and_then(|real| mountinfo::at(mounts, real)) {
            return Ok(mount.clone());
        }
        let unmounted = new((0, 0), &self.kind);
        if gate::is_of_kernel(&unmounted) {
            return Ok(unmounted);
        }
        let device = gate::device_number(Path::new(&plan::path_of(&self.source)));
        device.map(|device| new(device, &self.kind)).ok_or_else(|| {
            format!(
                "{}: /etc/fstab has the initramfs mount '{}', which is not there",
                self.point, self.source
            )
        })
    }
}

/// What the gate would say if these were the mounts of the next boot.
pub(super) fn would_pass(mounts: &[Mount], sys: &Path, dev: &Path, uuids: &[String]) -> Result<(), String> {
    let moved = mounts.iter().map(|mount| {
        let point = format!("{}{}", gate::ROOT, mount.point.trim_end_matches('/'));
        Mount { point, ..mount.clone() }
    });
    let moved: Vec<_> = moved.collect();
    let root = mappings(sys, uuids);
    let checked = gate::check(&moved, sys, dev, &Mappings { all: root.clone(), root });
    checked.map_err(|why| why.replace("/sysroot/", "/").replace("/sysroot", "/"))
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
    use proptest::prelude::*;
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;

    const ROOT: &str = "0afd6329-fe84-4fc3-be1c-f947e595762f";
    const DATA: &str = "1afd6329-fe84-4fc3-be1c-f947e595762f";

    #[test]
    fn a_root_by_partition_type_is_not_found_any_more() {
        let dev = tempfile::tempdir().unwrap();
        let root = |source: &str| {
            mountinfo::parse(&format!("25 1 253:0 / / rw,relatime shared:1 - ext4 {source} rw\n"))
        };
        let is = |source, line| is_found_by_type(&root(source), line, dev.path());
        assert!(!is("/dev/mapper/root", "quiet"), "dracut's own command line in the image may name it");
        symlink("../sda2", dev.path().join("gpt-auto-root-luks")).unwrap();
        assert!(is("/dev/mapper/root", "quiet"));
        assert!(is("/dev/mapper/root", "root=gpt-auto quiet"));
        assert!(!is("/dev/mapper/root", "root=/dev/mapper/root quiet"));
        assert!(!is("/dev/mapper/luks-0afd", "quiet"));
    }

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

    fn passes(lines: &str, fstab: &str, uuids: &[&str]) -> Result<(), String> {
        let uuids: Vec<_> = uuids.iter().map(|uuid| (*uuid).to_owned()).collect();
        let next = next_boot(&mountinfo::parse(lines), fstab)?;
        would_pass(&next, sysfs().path(), Path::new("/dev"), &uuids)
    }

    const ON_ROOT: &str = "28 1 253:0 / / rw - ext4 /dev/mapper/root rw";

    #[test]
    fn the_root_must_be_among_the_volumes() {
        assert_eq!(passes(ON_ROOT, "", &[ROOT]), Ok(()));
        assert_eq!(passes(ON_ROOT, "", &[DATA, ROOT]), Ok(()));
        let why = passes(ON_ROOT, "", &[DATA]).unwrap_err();
        assert!(why.starts_with("/: ") && why.contains("dm-0"), "{why}");
        let usr = format!("{ON_ROOT}\n29 28 254:32 / /usr ro - ext4 /dev/vdc ro");
        assert!(passes(&usr, "", &[ROOT]).unwrap_err().starts_with("/usr: "));
        assert!(passes("28 1 254:32 / / rw - ext4 /dev/vdc rw", "", &[DATA]).is_err());
    }

    #[test]
    fn extensions_of_the_running_system_are_not_mounted_by_the_initramfs() {
        let over = |lines: &str, point: &str, name: &str| {
            format!(
                "{lines}\n40 28 0:50 / {point} ro,nodev shared:1 - overlay {name} ro,lowerdir=/run/x:{point}"
            )
        };
        let merged = over(&over(ON_ROOT, "/usr", "sysext"), "/etc", "confext");
        assert_eq!(passes(&merged, "", &[ROOT]), Ok(()));
        // What is below them counts.
        let own = format!(
            "{ON_ROOT}\n29 28 253:1 / /usr ro - ext4 /dev/mapper/usr ro\n30 28 253:1 /etc /etc rw - ext4 /dev/mapper/usr rw"
        );
        let merged = over(&over(&own, "/usr", "sysext"), "/etc", "confext");
        let fstab = "/dev/mapper/usr /etc ext4 x-initrd.mount";
        assert_eq!(passes(&merged, fstab, &[ROOT, DATA]), Ok(()));
        assert!(passes(&merged, fstab, &[ROOT]).unwrap_err().starts_with("/usr: "));
        // Another overlay can be the initramfs's work.
        let why = passes(&over(ON_ROOT, "/usr", "overlay"), "", &[ROOT]).unwrap_err();
        assert!(why.starts_with("/usr: overlay"), "{why}");
    }

    #[test]
    fn a_root_that_can_not_be_followed_is_none() {
        for kind in ["overlay overlay", "tmpfs tmpfs", "nfs4 10.0.2.2:/"] {
            let why = passes(&format!("28 1 0:42 / / rw - {kind} rw"), "", &[ROOT, DATA]).unwrap_err();
            assert!(why.contains("is not on a block device"), "{why}");
        }
        assert!(passes("", "", &[DATA]).is_err());
    }

    #[test]
    fn what_fstab_has_the_initramfs_mount_must_be_on_the_volumes_too() {
        let lines = format!(
            "{ON_ROOT}\n29 28 253:1 / /srv rw - ext4 /dev/mapper/data rw\n30 28 254:32 / /opt/a\\040b rw - ext4 /dev/vdc rw"
        );
        let of = |fstab: &str, uuids: &[&str]| passes(&lines, fstab, uuids);
        let both: &[&str] = &[ROOT, DATA];
        for passing in [
            "/dev/mapper/data /srv ext4 defaults 0 2",
            "/dev/mapper/data /srv/ ext4 defaults,x-initrd.mount 0 2",
            "UUID=1 / ext4 x-initrd.mount\n# /dev/vdc /opt/a\\040b ext4 x-initrd.mount",
            "/dev/vdc none swap x-initrd.mount",
            "/dev/vdc /opt/a\\040b swap x-initrd.mount",
            "tmpfs /var/tmp tmpfs x-initrd.mount",
            "/dev/vdc /opt/a\\040b ext4 defaults,x-initrd.mounts,nofail",
            "",
        ] {
            assert_eq!(of(passing, both), Ok(()), "{passing}");
        }
        let why = of("/dev/mapper/data /srv ext4 noatime,x-initrd.mount", &[ROOT]).unwrap_err();
        assert!(why.starts_with("/srv: ") && why.contains("dm-1"), "{why}");
        let why = of("LABEL=opt /opt/a\\040b auto nofail,x-initrd.mount,x-systemd.device-timeout=5", both)
            .unwrap_err();
        assert!(why.starts_with("/opt/a b: ") && why.contains("vdc"), "{why}");
        let why = of("/dev/not-there /var ext4 x-initrd.mount", both).unwrap_err();
        assert!(why.starts_with("/var: ") && why.contains("'/dev/not-there'"), "{why}");
        let why = of("/dev/mapper/data /srv ext4 x-initrd.mount,x-systemd.automount", both).unwrap_err();
        assert!(why.starts_with("/srv: autofs"), "{why}");
    }

    #[test]
    fn the_root_is_on_those_volumes_that_it_can_not_do_without() {
        let roles = |lines: &str| {
            let uuids = [ROOT.to_owned(), DATA.to_owned()];
            roles_of(&mountinfo::parse(lines), sysfs().path(), Path::new("/dev"), &uuids)
        };
        assert_eq!(roles(ON_ROOT), [Role::Root, Role::Data]);
        let usr = format!("{ON_ROOT}\n29 28 253:1 / /usr ro - ext4 /dev/mapper/usr ro");
        assert_eq!(roles(&usr), [Role::Root, Role::Data]);
        // A root elsewhere, or on no block device, tells nothing of these volumes.
        assert_eq!(roles("28 1 254:32 / / rw - ext4 /dev/vdc rw"), [Role::Root, Role::Root]);
        assert_eq!(roles("28 1 0:42 / / rw - overlay overlay rw"), [Role::Root, Role::Root]);
    }

    proptest! {
        #[test]
        fn any_fstab_is_read(text in "([^\\s]{1,8} /[a-z\\\\0-7]{0,9} [a-z]{1,5} (x-initrd.mount|,|nofail){1,4}\n){0,3}.{0,60}") {
            let _ = next_boot(&[], &text);
        }
    }

    #[test]
    fn plain_files_tell_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(check(&[file.path().to_owned()], false).is_ok());
    }
}
