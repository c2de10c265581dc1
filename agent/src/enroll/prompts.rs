//! Whether the initramfs would ask for the passphrase of a volume that is not enrolled.
//!
//! Such a prompt comes after the opening, and none may stand over what attestation opened: the agent would close it again,
//! and the machine would not boot unattended. So it is said at the enrollment.

use super::plan::{self, Plan};
use crate::boot::cmdline::Settings;
use crate::boot::{gate, mountinfo};
use crate::bounded;
use crate::error::{Error, Result};
use crate::luks::Header;
use crate::luks::header::{Found, is_uuid};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Deeper stacks of block devices do not exist.
const DEPTH: u32 = 16;
/// More devices below one do not either.
const WIDTH: usize = 256;

/// What is mounted here is needed for an initramfs of this machine (dracut.sh, `host_devs`): dracut takes what it is on, and swap,
/// into a hostonly one.
const NEEDED: [&str; 15] = [
    "/",
    "/etc",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/usr",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib64",
    "/boot",
    "/boot/efi",
    "/boot/zipl",
    "/efi",
];

/// What this system says of its next boot.
struct System<'a> {
    cmdline: &'a str,
    crypttab: &'a str,
    /// LUKS UUIDs below what is mounted at [`NEEDED`], and swap.
    needed: BTreeSet<String>,
    /// The LUKS UUID of what stands at a path; none if it is not LUKS.
    uuid_at: &'a dyn Fn(&str) -> Option<String>,
    /// All LUKS UUIDs here.
    all: &'a dyn Fn() -> Vec<String>,
}

/// Refuses a set of volumes that leaves one for which the initramfs would ask. Plain files tell nothing of this system.
///
/// # Errors
/// Names the volumes that are left.
pub fn check(devices: &[PathBuf], plans: &[Plan]) -> Result<()> {
    if !devices.iter().any(|path| path.metadata().is_ok_and(|found| found.file_type().is_block_device())) {
        return Ok(());
    }
    let read =
        |path: &str, max| String::from_utf8_lossy(&bounded::read(path, max).unwrap_or_default()).into_owned();
    let system = System {
        cmdline: &read("/proc/cmdline", 64 << 10),
        crypttab: &read("/etc/crypttab", 64 << 10),
        needed: needed(
            &mountinfo::now(),
            &read("/proc/swaps", 64 << 10),
            Path::new("/sys"),
            &gate::device_number,
        ),
        uuid_at: &|path| uuid_of(Path::new(path)),
        all: &|| {
            let entries = std::fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
            entries.filter_map(|entry| uuid_of(&Path::new("/dev").join(entry.file_name()))).collect()
        },
    };
    let left = left(&system, plans);
    if left.is_empty() {
        return Ok(());
    }
    Err(Error::volume(format!(
        "the initramfs would ask for the passphrase of volume {}, and what attestation opened would be closed for it",
        left.join(", ")
    ))
    .hint("enroll it as well; or take it out of the initramfs (rd.luks.* on the kernel command line, x-initrd.attach and force in /etc/crypttab; what is mounted at /boot or /efi); if it is opened there without a prompt, add --others-may-ask"))
}

/// Those that would be asked for and are not enrolled.
fn left(system: &System, plans: &[Plan]) -> Vec<String> {
    let enrolled = |uuid: &String| plans.iter().any(|plan| plan.uuid == *uuid);
    asked(system).into_iter().filter(|uuid| !enrolled(uuid)).collect()
}

/// UUIDs of the volumes that an initramfs of this system opens.
fn asked(system: &System) -> BTreeSet<String> {
    let words: Vec<&str> = system.cmdline.split_ascii_whitespace().collect();
    let off = |name: &str| {
        let prefix = format!("{name}=");
        let last = words.iter().filter_map(|word| word.strip_prefix(&*prefix)).next_back();
        matches!(last, Some("0" | "no" | "off"))
    };
    let mut asked = BTreeSet::new();
    if off("rd.luks") || off("luks") {
        return asked;
    }
    asked.extend(Settings::parse(system.cmdline, "").named.into_iter().map(|named| named.uuid));
    for word in &words {
        if let Some(partition) = word.strip_prefix("rd.luks.partuuid=") {
            asked.extend((system.uuid_at)(&plan::path_of(&format!("PARTUUID={partition}"))));
        }
    }
    if words.iter().any(|word| matches!(*word, "rd.auto" | "rd.auto=1" | "rd.auto=yes")) {
        asked.extend((system.all)());
    }
    if !off("rd.luks.crypttab") && !off("luks.crypttab") {
        for entry in plan::entries(system.crypttab) {
            let mut options = entry.options.split(',');
            let attach = options.any(|option| matches!(option, "x-initrd.attach" | "force"));
            let uuid = (system.uuid_at)(&plan::path_of(entry.device));
            asked.extend(uuid.filter(|uuid| attach || system.needed.contains(uuid)));
        }
    }
    asked
}

/// LUKS UUIDs of the mappings below [`NEEDED`] and swap: dracut takes their entries of crypttab into the image.
fn needed(
    mounts: &[mountinfo::Mount],
    swaps: &str,
    sys: &Path,
    number: &dyn Fn(&Path) -> Option<(u32, u32)>,
) -> BTreeSet<String> {
    let mut numbers = devices_of(&NEEDED, mounts, number);
    for line in swaps.lines().skip(1) {
        let path = line.split_whitespace().next().unwrap_or_default();
        numbers.extend(number(Path::new(path)));
    }
    mappings(&numbers, sys).iter().filter_map(Mapping::luks_uuid).collect()
}

/// A mapping of device-mapper.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapping {
    /// `CRYPT-LUKS2-..`, `LVM-..`
    pub uuid: String,
    /// Its name in /dev/mapper.
    pub name: String,
    /// A logical volume is made of it, and brings it along.
    pub is_part: bool,
}

impl Mapping {
    /// The UUID of the LUKS volume that it is of.
    pub fn luks_uuid(&self) -> Option<String> {
        self.uuid.strip_prefix("CRYPT-LUKS").and_then(|rest| rest.get(2..34)).and_then(dashed)
    }

    /// The names of group and logical volume, if it is one that is activated by itself.
    pub fn logical_volume(&self) -> Option<(String, String)> {
        if self.is_part || !self.is_lvm() {
            return None;
        }
        // A hyphen of a name is written twice.
        let name = self.name.replace("--", "\0");
        let (group, volume) = name.split_once('-')?;
        Some((group.replace('\0', "-"), volume.replace('\0', "-")))
    }

    fn is_lvm(&self) -> bool {
        self.uuid.starts_with("LVM-")
    }
}

/// The mappings below / and /usr of this system.
pub fn mappings_of_root() -> BTreeSet<Mapping> {
    mappings(&devices_of(&["/", "/usr"], &mountinfo::now(), &gate::device_number), Path::new("/sys"))
}

/// The devices of what is mounted at these points.
fn devices_of(
    points: &[&str],
    mounts: &[mountinfo::Mount],
    number: &dyn Fn(&Path) -> Option<(u32, u32)>,
) -> Vec<(u32, u32)> {
    let mut numbers = Vec::new();
    for mount in points.iter().filter_map(|point| mountinfo::at(mounts, point)) {
        if mount.device.0 != 0 {
            numbers.push(mount.device);
        } else if mount.kind == "btrfs" {
            numbers.extend(number(Path::new(&mount.source)));
        }
    }
    numbers
}

fn mappings(numbers: &[(u32, u32)], sys: &Path) -> BTreeSet<Mapping> {
    let (mut found, mut budget) = (BTreeSet::new(), WIDTH);
    for (major, minor) in numbers {
        below(&sys.join(format!("dev/block/{major}:{minor}")), false, DEPTH, &mut budget, &mut found);
    }
    found
}

fn below(device: &Path, is_part: bool, depth: u32, budget: &mut usize, found: &mut BTreeSet<Mapping>) {
    if depth == 0 || *budget == 0 {
        return;
    }
    *budget -= 1;
    let read = |name| bounded::read_text(device.join("dm").join(name), 256).ok();
    let mapping = read("uuid").map(|uuid| Mapping { uuid, name: read("name").unwrap_or_default(), is_part });
    let is_lvm = mapping.as_ref().is_some_and(Mapping::is_lvm);
    found.extend(mapping);
    for slave in std::fs::read_dir(device.join("slaves")).into_iter().flatten().flatten() {
        below(&slave.path(), is_lvm, depth - 1, budget, found);
    }
}

/// A UUID as LUKS writes it, from one without dashes.
fn dashed(hex: &str) -> Option<String> {
    let part = |from, to| hex.get(from..to);
    let uuid =
        format!("{}-{}-{}-{}-{}", part(0, 8)?, part(8, 12)?, part(12, 16)?, part(16, 20)?, part(20, 32)?);
    is_uuid(&uuid).then_some(uuid)
}

fn uuid_of(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    match Header::read(&file) {
        Ok(Found::Luks2(header)) => Some(header.uuid),
        Ok(Found::Luks1) | Err(_) => Header::claimed_uuid(&file),
        Ok(Found::Nothing) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;

    const A: &str = "0afd6329-fe84-4fc3-be1c-f947e595762f";
    const B: &str = "1afd6329-fe84-4fc3-be1c-f947e595762f";
    const C: &str = "2afd6329-fe84-4fc3-be1c-f947e595762f";

    /// /dev/vdb is volume B, and C is here as well.
    fn of(cmdline: &str, crypttab: &str, needed: &[&str]) -> Vec<String> {
        let at = |path: &str| {
            let b = ["/dev/vdb", "/dev/disk/by-partuuid/p-b"].contains(&path) || path.ends_with(B);
            if b { Some(B.to_owned()) } else { None }
        };
        let system = System {
            cmdline,
            crypttab,
            needed: needed.iter().map(|uuid| (*uuid).to_owned()).collect(),
            uuid_at: &at,
            all: &|| vec![A.into(), B.into(), C.into()],
        };
        asked(&system).into_iter().collect()
    }

    #[test]
    fn what_is_enrolled_is_not_asked_for() {
        let plan = |uuid: &str| Plan {
            uuid: uuid.into(),
            mapping: "x".into(),
            role: halfkey_protocol::Role::Data,
            flags: Vec::new(),
        };
        let cmdline = format!("rd.luks.uuid={A} rd.luks.uuid={B}");
        let system = System {
            cmdline: &cmdline,
            crypttab: "",
            needed: BTreeSet::new(),
            uuid_at: &|_| None,
            all: &Vec::new,
        };
        assert_eq!(left(&system, &[plan(A)]), [B]);
        assert_eq!(left(&system, &[plan(C), plan(B)]), [A]);
        assert!(left(&system, &[plan(B), plan(A)]).is_empty());
    }

    #[test]
    fn what_the_command_line_names() {
        assert!(of("quiet root=/dev/mapper/root", "", &[]).is_empty());
        assert_eq!(of(&format!("rd.luks.name={A}=root rd.luks.uuid=luks-{B}"), "", &[]), [A, B]);
        assert_eq!(of("rd.luks.partuuid=p-b", "", &[]), [B]);
        assert_eq!(of("rd.auto", "", &[]), [A, B, C]);
        assert!(of(&format!("rd.luks.uuid={B} rd.luks=0"), "", &[]).is_empty());
    }

    #[test]
    fn what_crypttab_brings_into_the_image() {
        let entry = |options: &str| format!("data /dev/vdb none {options}\n");
        assert!(of("", &entry("luks,discard"), &[]).is_empty());
        assert_eq!(of("", &entry("luks,x-initrd.attach"), &[]), [B]);
        // dracut's own word for it.
        assert_eq!(of("", &entry("luks,force"), &[]), [B]);
        assert!(of("", &entry("luks,force-x"), &[]).is_empty());
        // Below swap, /usr or /boot.
        assert_eq!(of("", &entry("luks"), &[B]), [B]);
        assert_eq!(of("", &format!("data UUID={B} /key x-initrd.attach"), &[]), [B]);
        assert!(of("rd.luks.crypttab=0", &entry("x-initrd.attach"), &[]).is_empty());
        assert!(of("", "swap /dev/vdz /dev/urandom swap,x-initrd.attach", &[]).is_empty());
    }

    #[test]
    fn what_is_below_the_root() {
        let top = tempfile::tempdir().unwrap();
        let block = top.path().join("devices/block");
        create_dir_all(top.path().join("dev/block")).unwrap();
        for (name, uuid) in [
            ("dm-0", format!("CRYPT-LUKS2-{}-root", A.replace('-', ""))),
            ("dm-1", "LVM-abc".into()),
            ("dm-2", "CRYPT-LUKS1-short".into()),
            ("dm-3", format!("CRYPT-LUKS2-{}-swap", B.replace('-', ""))),
            ("dm-4", format!("CRYPT-LUKS2-{}-pool", C.replace('-', ""))),
        ] {
            create_dir_all(block.join(name).join("dm")).unwrap();
            write(block.join(name).join("dm/uuid"), uuid).unwrap();
        }
        create_dir_all(block.join("dm-1/slaves")).unwrap();
        for slave in ["dm-0", "dm-2"] {
            symlink(block.join(slave), block.join("dm-1/slaves").join(slave)).unwrap();
        }
        for minor in [1, 3, 4] {
            let node = top.path().join(format!("dev/block/253:{minor}"));
            symlink(block.join(format!("dm-{minor}")), node).unwrap();
        }
        let mounts = mountinfo::parse("28 1 253:1 / / rw - ext4 /dev/vg/root rw");
        let found = |mounts: &[mountinfo::Mount], swaps: &str| -> Vec<_> {
            let number = |path: &Path| match path.to_str() {
                Some("/dev/dm-3") => Some((253, 3)),
                Some("/dev/mapper/pool") => Some((253, 4)),
                _ => None,
            };
            needed(mounts, swaps, top.path(), &number).into_iter().collect()
        };
        assert_eq!(found(&mounts, "Filename Type\n/dev/not-there partition\n"), [A]);
        assert_eq!(found(&mounts, "Filename Type\n/swapfile file\n/dev/dm-3 partition\n"), [A, B]);
        let usr = mountinfo::parse("29 1 0:31 / /usr rw - btrfs /dev/mapper/pool rw");
        assert_eq!(found(&usr, ""), [C]);
        for point in ["/boot", "/boot/efi", "/efi"] {
            let beside = mountinfo::parse(&format!("30 28 253:4 / {point} rw - vfat /dev/mapper/pool rw"));
            assert_eq!(found(&[mounts.clone(), beside].concat(), ""), [A, C], "{point}");
        }
        let data = mountinfo::parse("30 28 253:4 / /srv rw - ext4 /dev/mapper/pool rw");
        assert_eq!(found(&[mounts.clone(), data].concat(), ""), [A]);
    }

    #[test]
    fn logical_volumes_that_the_root_is_on() {
        let top = tempfile::tempdir().unwrap();
        // A thin volume, its pool and what that is made of; and a volume under a mapping of LUKS.
        for (minor, name, uuid, slaves) in [
            (0, "my--vg-the--root", "LVM-abc".to_owned(), &[1][..]),
            (1, "my--vg-pool-tpool", "LVM-def-tpool".into(), &[2]),
            (2, "my--vg-pool_tdata", "LVM-ghi".into(), &[3]),
            (3, "luks", format!("CRYPT-LUKS2-{}-luks", A.replace('-', "")), &[4]),
            (4, "vg-below", "LVM-jkl".into(), &[]),
        ] {
            let device = top.path().join(format!("dev/block/253:{minor}"));
            create_dir_all(device.join("dm")).unwrap();
            create_dir_all(device.join("slaves")).unwrap();
            write(device.join("dm/uuid"), uuid + "\n").unwrap();
            write(device.join("dm/name"), format!("{name}\n")).unwrap();
            for slave in slaves {
                symlink(
                    top.path().join(format!("dev/block/253:{slave}")),
                    device.join(format!("slaves/dm-{slave}")),
                )
                .unwrap();
            }
        }
        let found = mappings(&[(253, 0)], top.path());
        assert_eq!(found.iter().filter_map(Mapping::luks_uuid).collect::<Vec<_>>(), [A]);
        let volumes: Vec<_> = found.iter().filter_map(Mapping::logical_volume).collect();
        assert_eq!(volumes, [("my-vg".into(), "the-root".into()), ("vg".into(), "below".into())]);
    }

    proptest! {
        #[test]
        fn any_texts_are_read(cmdline in ".{0,100}", crypttab in ".{0,100}", uuid in ".{0,60}") {
            of(&cmdline, &crypttab, &[]);
            dashed(&uuid);
        }
    }
}
