//! The root gate: the key must have opened the disk that is about to run.
//!
//! After everything is mounted and before switch-root, each mount at /sysroot and below is
//! followed through sysfs down to the bottom. Every path must end in a mapping that was opened
//! in this boot with an attested key. It bites only when something was opened: a machine that
//! is not enrolled, or fell back to its passphrase, boots as it would without Halfkey.
//! What an fstab marks `x-initrd.mount` is mounted before initrd-fs.target, which switch-root comes after; with `nofail`
//! that order is missing, and the module's drop-in for all mounts gives it back.
//! Programs of the initramfs use the mounted root before switch-root: they read its fstab, execute files of it, load modules
//! from it. So there are first looks, as soon as it is mounted and before each of those that are known.
//! And PID 1 must be able to start what is there: else it would start a shell instead.

use super::cmdline::Settings;
use super::exitrd;
use super::init;
use super::mountinfo::{self, Mount};
use super::state::{Mapping, Mappings, State};
use super::{sysrq, teardown, way_out};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::fence;
use crate::tpm::{Location, Tpm};
use crate::words;
use crate::{bounded, console, logs};
use halfkey_protocol::keys::label;
use std::path::{Path, PathBuf};

/// Generators of the running system that are masked.
const GENERATORS: [&str; 2] = [
    // It mounts partitions by their type.
    "systemd-gpt-auto-generator",
    // It has credentials, root's SSH keys among them, imported from the network on what firmware says is a cloud (systemd 261), whatever
    // `systemd.import_credentials=` says.
    "systemd-imds-generator",
];
/// Where the next root is mounted.
pub const ROOT: &str = "/sysroot";
/// File systems of the kernel: what is in them it made itself, or what is measured and the checked root have put there.
const KERNEL: [&str; 23] = [
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "proc",
    "pstore",
    "ramfs",
    "resctrl",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];
/// Deeper stacks of block devices do not exist.
const DEPTH: u32 = 16;
/// More devices below one file system do not either.
const WIDTH: usize = 256;

/// Checks this boot's root. On a rogue root: closes the mappings, extends the fence, powers off.
///
/// # Errors
/// When the root is rogue and the machine could not be powered off, or is the right one and holds nothing that PID 1 can
/// start: then nothing is closed yet, which is the business of whatever gives the shell that follows.
pub fn run(location: &Location, settings: &Settings) -> Result<()> {
    let _alone = way_out::alone();
    let state = match State::load() {
        Ok(None) => {
            console::say(words::GATE_NOTHING);
            return Ok(());
        }
        Ok(Some(state)) if is_closed(location, &state, Path::new("/sys")) => {
            console::say(words::GATE_CLOSED);
            return Ok(());
        }
        Ok(Some(state)) => state,
        Err(error) => return Err(refuse(location, settings, error)),
    };
    if state.opening {
        return Err(refuse(location, settings, words::gate_unfinished()));
    }
    let opened = state.mappings();
    if opened.all.is_empty() {
        // The keys were released and tested, and what came of it was closed: no data is open that a rogue root could read.
        console::say(words::GATE_NONE);
        return Ok(());
    }
    sysrq::stays_off()?;
    let look = || {
        let checked = check(&mountinfo::now(), Path::new("/sys"), Path::new("/dev"), &opened);
        checked.map_err(|why| refuse(location, settings, words::gate_rogue(&why)))
    };
    look()?;
    console::say(words::GATE_PASSED);
    hand_over(Path::new(ROOT), Path::new("/run"))?;
    // That took its time.
    look()
}

/// Looks at what is mounted at /sysroot by now, before something there is used. What is mounted later is seen by [`run`].
/// On a rogue root: as there.
///
/// # Errors
/// When the root is rogue and the machine could not be powered off.
pub fn first_look(location: &Location, settings: &Settings) -> Result<()> {
    let look = |state: &Result<Option<State>>| {
        suspicion(state, &mountinfo::now(), Path::new("/sys"), Path::new("/dev"))
    };
    let state = State::load();
    if !matches!(&state, Ok(None)) {
        sysrq::stays_off()?;
    }
    if look(&state).is_none() {
        return Ok(());
    }
    // Somebody may just be closing what was opened. And only now is there something to ask the TPM for.
    let _alone = way_out::alone();
    let state = State::load();
    match (look(&state), &state) {
        (None, _) => Ok(()),
        (Some(_), Ok(Some(state))) if is_closed(location, state, Path::new("/sys")) => Ok(()),
        (Some(why), _) => Err(refuse(location, settings, why)),
    }
}

/// Whether the boot window is over though nothing has said so: a root is mounted, and in this boot nothing was opened. `halfkey-unlock.service`,
/// which comes first and ends it, does not run where the command line wants a root from the network.
pub fn is_over() -> bool {
    is_over_by(&State::load(), &mountinfo::now())
}

fn is_over_by(state: &Result<Option<State>>, mounts: &[Mount]) -> bool {
    matches!(state, Ok(None)) && mountinfo::at(mounts, ROOT).is_some()
}

/// Why what is mounted so far must not be used, unless the fence says closed.
fn suspicion(state: &Result<Option<State>>, mounts: &[Mount], sys: &Path, dev: &Path) -> Option<Error> {
    match state {
        Ok(None) => None,
        Ok(Some(state)) if state.opening => Some(words::gate_unfinished()),
        Ok(Some(state)) => {
            let opened = state.mappings();
            if opened.all.is_empty() {
                return None;
            }
            // The initramfs itself is among them: else they could not be read.
            if mounts.is_empty() {
                return Some(words::gate_rogue("what is mounted can't be seen"));
            }
            check_mounted(mounts, sys, dev, &opened).err().map(|why| words::gate_rogue(&why))
        }
        Err(error) => Some(Error::new(Kind::Volume, format!("gate: {error}"))),
    }
}

/// The root is the right one. Where it can't be handed over to, this unit fails, and the shell that follows closes it.
fn hand_over(root: &Path, run: &Path) -> Result<()> {
    init::check(root).map_err(words::gate_damaged)?;
    exitrd::forbid(run).map_err(|e| Error::system("gate: see that no exitrd is executed at shutdown", e))?;
    mask_generators(run).map_err(|e| Error::system("gate: mask generators", e))
}

/// The running system must not mount what it finds on the disk of the root by its partition type alone: anybody can add a
/// partition. Nor may anybody on its network say who may log in. /run outlives switch-root, and what is there takes precedence over
/// /etc and /usr.
fn mask_generators(run: &Path) -> std::io::Result<()> {
    GENERATORS.iter().try_for_each(|name| exitrd::mask(&run.join("systemd/system-generators"), name))
}

/// Whether PCR 15 proves that nothing was opened. Anything else, and a TPM that does not answer, counts as opened; and so does what
/// is there of what the record says was opened, whatever a TPM says that somebody can have reset.
fn is_closed(location: &Location, state: &State, sys: &Path) -> bool {
    if is_there(&state.mappings(), sys) {
        return false;
    }
    match fence::proves_closed(location, state, logs::systemd) {
        Ok(closed) => closed,
        Err(error) => {
            console::complain(&error.context("gate: whether the fence says closed"));
            false
        }
    }
}

/// Whether one of these mappings is in sysfs.
fn is_there(opened: &Mappings, sys: &Path) -> bool {
    opened.all.iter().any(|mapping| {
        let uuid = bounded::read_text(sys.join("dev/block").join(&mapping.number).join("dm/uuid"), 256);
        uuid.is_ok_and(|uuid| uuid == mapping.dm_uuid)
    })
}

fn refuse(location: &Location, settings: &Settings, why: Error) -> Error {
    if let Err(error) = teardown::close_all(Deadline::after(teardown::LIMIT)) {
        console::complain(&error);
    }
    for one in location.each() {
        let extended = Tpm::open(&one)
            .map_err(Error::from)
            .and_then(|mut tpm| fence::extend(&mut tpm, label::FENCE_ROGUE));
        if let Err(error) = extended {
            console::complain(&error);
        }
    }
    // Without a TPM nothing was opened, so this is not a matter of `firmware_shows_tpm`. And
    // rd.halfkey=off opens nothing.
    if console::in_initramfs() && !settings.off { fence::power_off(&why) } else { why }
}

/// Whether the root ends in mappings of volumes that were enrolled as the root, and whatever else is mounted in it in any
/// that were opened: the volumes of an enrollment vouch for each other, and what is mounted where depends on the root,
/// whose fstab says it. A mount that another one covers counts as well. The folders are /sys and /dev but for tests.
///
/// # Errors
/// Which path does not.
pub fn check(mounts: &[Mount], sys: &Path, dev: &Path, opened: &Mappings) -> Result<(), String> {
    if check_mounted(mounts, sys, dev, opened)? {
        Ok(())
    } else {
        Err(format!("nothing is mounted at {ROOT}"))
    }
}

/// The same for what is mounted so far; whether a root is.
fn check_mounted(mounts: &[Mount], sys: &Path, dev: &Path, opened: &Mappings) -> Result<bool, String> {
    let mut has_root = false;
    for mount in mounts {
        let opened = match mount.point.strip_prefix(ROOT) {
            Some("") => {
                has_root = true;
                &opened.root
            }
            // What every program is loaded from is on a disk.
            Some("/usr") => &opened.all,
            Some(below) if below.starts_with('/') && !is_of_kernel(mount) => &opened.all,
            _ => continue,
        };
        let mut budget = WIDTH;
        for device in devices_of(mount, sys, dev)? {
            descend(&device, opened, DEPTH, &mut budget).map_err(|why| format!("{}: {why}", mount.point))?;
        }
    }
    Ok(has_root)
}

/// Whether nothing in this file system can come from a disk, or from elsewhere.
pub fn is_of_kernel(mount: &Mount) -> bool {
    mount.device.0 == 0 && KERNEL.contains(&mount.kind.as_str())
}

/// Folders in sysfs of the block devices that a file system lives on.
fn devices_of(mount: &Mount, sys: &Path, dev: &Path) -> Result<Vec<PathBuf>, String> {
    let refused = |what: &str| format!("{}: {} on '{}' {what}", mount.point, mount.kind, mount.source);
    let (major, minor) = mount.device;
    let by_number = |major, minor| sys.join(format!("dev/block/{major}:{minor}"));
    // However many devices it is on, its number is that of one.
    if mount.kind == "bcachefs" {
        return Err(refused("can be on more devices than its number tells"));
    }
    if major != 0 {
        return Ok(vec![by_number(major, minor)]);
    }
    // An anonymous device: btrfs (one for each subvolume), or a file system without a block
    // device (nfs, tmpfs, overlay), which is refused.
    if mount.kind != "btrfs" {
        return Err(refused("is not on a block device"));
    }
    let source = mount.source.strip_prefix("/dev/").ok_or_else(|| refused("does not name its device"))?;
    let number =
        device_number(&dev.join(source)).ok_or_else(|| refused("names a device that is not there"))?;
    btrfs_members(sys, &by_number(number.0, number.1)).ok_or_else(|| refused("is not known to the kernel"))
}

/// All devices of the btrfs that this one is a member of: each of them counts.
fn btrfs_members(sys: &Path, member: &Path) -> Option<Vec<PathBuf>> {
    let member = std::fs::canonicalize(member).ok()?;
    for system in std::fs::read_dir(sys.join("fs/btrfs")).ok()?.flatten() {
        let Ok(members) = std::fs::read_dir(system.path().join("devices")) else { continue };
        let members: Vec<_> = members.flatten().collect();
        if members.iter().any(|other| Some(other.file_name().as_os_str()) == member.file_name()) {
            return Some(members.iter().map(std::fs::DirEntry::path).collect());
        }
    }
    None
}

/// Follows a device downwards until a mapping that was opened. A device with nothing
/// below it that is none of those is the end of a rogue path.
fn descend(device: &Path, opened: &[Mapping], depth: u32, budget: &mut usize) -> Result<(), String> {
    let device = std::fs::canonicalize(device).map_err(|e| format!("{}: {e}", device.display()))?;
    let name = device.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if depth == 0 || *budget == 0 {
        return Err(format!("too many devices below one another at {name}"));
    }
    *budget -= 1;
    if let Ok(dm_uuid) = bounded::read_text(device.join("dm/uuid"), 256)
        && let Ok(number) = bounded::read_text(device.join("dev"), 32)
        && opened.contains(&Mapping { dm_uuid, number })
    {
        return Ok(());
    }
    if device.join("partition").exists() {
        let disk = device.parent().ok_or("a partition without a disk")?;
        return descend(disk, opened, depth - 1, budget);
    }
    let below: Vec<_> = std::fs::read_dir(device.join("slaves")).into_iter().flatten().flatten().collect();
    if below.is_empty() {
        return Err(format!(
            "it is on {name}, which is not a volume that was enrolled for it and opened in this boot"
        ));
    }
    below.iter().try_for_each(|slave| descend(&slave.path(), opened, depth - 1, budget))
}

/// The number of the block device at `node`, if there is one.
pub fn device_number(node: &Path) -> Option<(u32, u32)> {
    use nix::sys::stat::{major, minor};
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let metadata = std::fs::metadata(node).ok()?;
    if metadata.file_type().is_block_device() {
        return Some((major(metadata.rdev()) as u32, minor(metadata.rdev()) as u32));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;

    const OPENED: &str = "CRYPT-LUKS2-0afd6329fe844fc3be1cf947e595762f-root";

    fn mappings(number: &str) -> Mappings {
        let root = vec![Mapping { dm_uuid: OPENED.into(), number: number.into() }];
        Mappings { all: root.clone(), root }
    }

    /// A tree as sysfs has it: LVM (dm-1) on an opened mapping (dm-0) on a partition of vda; vdb plain.
    fn sysfs(dm_uuid: &str) -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        let block = top.path().join("devices/block");
        let link = |from: &str, to: &str| {
            let from = top.path().join(from);
            create_dir_all(from.parent().unwrap()).unwrap();
            symlink(block.join(to), from).unwrap();
        };
        for folder in ["dm-0/dm", "dm-1/dm", "vda/vda2", "vdb"] {
            create_dir_all(block.join(folder)).unwrap();
        }
        write(block.join("dm-0/dm/uuid"), format!("{dm_uuid}\n")).unwrap();
        write(block.join("dm-1/dm/uuid"), "LVM-abc\n").unwrap();
        write(block.join("dm-0/dev"), "253:0\n").unwrap();
        write(block.join("dm-1/dev"), "253:1\n").unwrap();
        write(block.join("vda/vda2/partition"), "2\n").unwrap();
        link("devices/block/dm-0/slaves/vda2", "vda/vda2");
        link("devices/block/dm-1/slaves/dm-0", "dm-0");
        for (number, name) in [("253:0", "dm-0"), ("253:1", "dm-1"), ("254:2", "vda/vda2"), ("254:16", "vdb")]
        {
            link(&format!("dev/block/{number}"), name);
        }
        top
    }

    fn mounted(lines: &[&str]) -> Vec<Mount> {
        mountinfo::parse(&lines.join("\n"))
    }

    fn checked(lines: &[&str], dm_uuid: &str) -> Result<(), String> {
        check(&mounted(lines), sysfs(dm_uuid).path(), Path::new("/dev"), &mappings("253:0"))
    }

    const ON_OPENED: &str = "28 1 253:0 / /sysroot rw - ext4 /dev/mapper/root rw";

    #[test]
    fn a_root_on_an_opened_volume_passes_through_lvm_too() {
        assert_eq!(checked(&[ON_OPENED], OPENED), Ok(()));
        assert_eq!(checked(&["28 1 253:1 / /sysroot rw - ext4 /dev/vg/root rw"], OPENED), Ok(()));
    }

    #[test]
    fn a_first_look_sees_a_rogue_root_as_soon_as_it_is_mounted() {
        let sys = sysfs(OPENED);
        let mut state = crate::boot::state::tests::state();
        state.volumes[0].mapping = Some(Mapping { dm_uuid: OPENED.into(), number: "253:0".into() });
        let look = |state: Result<Option<State>>, lines: &[&str]| {
            let why = suspicion(&state, &mounted(lines), sys.path(), Path::new("/dev"));
            why.map(|error| error.message)
        };
        let rogue = "28 1 254:2 / /sysroot rw - ext4 /dev/vda2 rw";
        let why = look(Ok(Some(state.clone())), &[rogue]).unwrap();
        assert!(why.contains("/sysroot: it is on vda"), "{why}");
        let usr = "29 28 254:2 / /sysroot/usr ro - ext4 /dev/vda2 ro";
        assert!(look(Ok(Some(state.clone())), &[ON_OPENED, usr]).is_some());
        assert!(look(Ok(Some(state.clone())), &[usr]).is_some());
        assert!(look(Ok(Some(state.clone())), &[]).is_some(), "what is mounted can't be seen");
        // Nothing is mounted yet, or the right one.
        assert_eq!(look(Ok(Some(state.clone())), &["1 1 0:2 / / rw - rootfs rootfs rw"]), None);
        assert_eq!(look(Ok(Some(state.clone())), &[ON_OPENED]), None);
        // Nothing was opened, or nothing is open any more: a boot by passphrase.
        assert_eq!(look(Ok(None), &[rogue]), None);
        let mut closed = state.clone();
        closed.volumes[0].mapping = None;
        assert_eq!(look(Ok(Some(closed.clone())), &[rogue]), None);
        // Nobody knows.
        closed.opening = true;
        assert!(look(Ok(Some(closed)), &[]).is_some());
        assert!(look(Err(Error::system("state", "damaged")), &[]).is_some());
    }

    #[test]
    fn a_root_that_nobody_opened_ends_the_boot_window() {
        let over = |state: Result<Option<State>>, lines: &[&str]| is_over_by(&state, &mounted(lines));
        let root = "28 1 0:40 / /sysroot rw - nfs4 10.0.2.2:/ rw";
        assert!(over(Ok(None), &[root]));
        assert!(!over(Ok(None), &["1 1 0:2 / / rw - rootfs rootfs rw"]));
        // The record says more, and is looked at.
        assert!(!over(Ok(Some(crate::boot::state::tests::state())), &[root]));
        assert!(!over(Err(Error::system("state", "damaged")), &[root]));
    }

    #[test]
    fn each_of_several_devices_below_it_counts() {
        let sys = sysfs(OPENED);
        let block = sys.path().join("devices/block");
        let root = mounted(&["28 1 253:1 / /sysroot rw - ext4 /dev/vg/root rw"]);
        let gate = || check(&root, sys.path(), Path::new("/dev"), &mappings("253:0"));
        assert_eq!(gate(), Ok(()));
        // The volume group grows onto a plain disk.
        symlink(block.join("vdb"), block.join("dm-1/slaves/vdb")).unwrap();
        assert!(gate().unwrap_err().contains("vdb"));

        // btrfs over both; and another one, which is not asked.
        for (system, member) in [("a", "vda"), ("b", "dm-0"), ("b", "vdb")] {
            let devices = sys.path().join("fs/btrfs").join(system).join("devices");
            create_dir_all(&devices).unwrap();
            symlink(block.join(member), devices.join(member)).unwrap();
        }
        let members = |of: &str| {
            let mut members = btrfs_members(sys.path(), &sys.path().join("dev/block").join(of))?;
            members.sort_unstable();
            Some(members)
        };
        let both = ["dm-0", "vdb"].map(|name| sys.path().join("fs/btrfs/b/devices").join(name)).to_vec();
        assert_eq!((members("253:0"), members("254:16")), (Some(both.clone()), Some(both)));
        assert_eq!((members("253:1"), members("1:1")), (None, None));
    }

    #[test]
    fn what_is_on_record_and_there_is_not_closed() {
        let sys = sysfs(OPENED);
        let location = Location::Device("/nonexistent/tpm".into());
        let state = |number: &str| {
            let mut state = crate::boot::state::tests::state();
            let found = Mapping { dm_uuid: OPENED.into(), number: number.into() };
            state.volumes[0].mapping = Some(found);
            state
        };
        assert!(is_there(&state("253:0").mappings(), sys.path()));
        assert!(!is_closed(&location, &state("253:0"), sys.path()));
        // Another mapping has its number; or it is gone.
        for other in ["253:1", "253:7"] {
            assert!(!is_there(&state(other).mappings(), sys.path()), "{other}");
        }
        assert!(!is_there(&Mappings::default(), sys.path()));
    }

    #[test]
    fn one_that_is_known_by_one_of_its_devices_does_not() {
        for source in ["/dev/dm-0:/dev/vdb", "/dev/dm-0"] {
            let why = checked(&[&format!("28 1 253:0 / /sysroot rw - bcachefs {source} rw")], OPENED);
            assert!(why.is_err_and(|why| why.contains("bcachefs")), "{source}");
            let var = format!("29 28 253:0 / /sysroot/var rw - bcachefs {source} rw");
            assert!(checked(&[ON_OPENED, &var], OPENED).is_err(), "{source}");
        }
    }

    #[test]
    fn a_root_elsewhere_does_not() {
        assert!(checked(&["28 1 254:16 / /sysroot rw - ext4 /dev/vdb rw"], OPENED).is_err());
        assert!(checked(&["28 1 254:2 / /sysroot rw - ext4 /dev/vda2 rw"], OPENED).is_err());
        assert!(checked(&[ON_OPENED], "CRYPT-LUKS2-ffff-root").is_err());
        assert!(checked(&[ON_OPENED, "29 28 254:16 / /sysroot/usr ro - ext4 /dev/vdb ro"], OPENED).is_err());
        assert!(checked(&[ON_OPENED, "29 1 254:16 / /sysroot rw - ext4 /dev/vdb rw"], OPENED).is_err());
        assert!(checked(&[], OPENED).is_err());
    }

    #[test]
    fn a_mapping_of_that_name_and_uuid_that_is_another_device_does_not() {
        let sys = sysfs(OPENED);
        let root = mounted(&[ON_OPENED]);
        let gate = |opened: &Mappings| check(&root, sys.path(), Path::new("/dev"), opened);
        assert_eq!(gate(&mappings("253:0")), Ok(()));
        // Opened as 253:7, closed, and what is there now was opened by somebody else.
        assert!(gate(&mappings("253:7")).is_err());
        assert!(gate(&Mappings::default()).is_err());
    }

    #[test]
    fn a_data_volume_is_no_root_and_may_hold_usr() {
        let sys = sysfs(OPENED);
        let gate =
            |lines: &[&str], opened: &Mappings| check(&mounted(lines), sys.path(), Path::new("/dev"), opened);
        let mut both = mappings("253:0");
        // dm-1 is opened as data; here it stands for a mapping of its own.
        both.all.push(Mapping { dm_uuid: "LVM-abc".into(), number: "253:1".into() });
        for point in ["usr", "var"] {
            let data = format!("29 28 253:1 / /sysroot/{point} ro - ext4 /dev/mapper/data ro");
            assert_eq!(gate(&[ON_OPENED, &data], &both), Ok(()));
        }
        let swapped = Mappings { root: vec![both.all[1].clone()], all: both.all.clone() };
        let why = gate(&[ON_OPENED], &swapped).unwrap_err();
        assert!(why.contains("enrolled for it"), "{why}");
    }

    /// As systemd-fstab-generator has it mounted for an entry of /sysroot/etc/fstab with `x-initrd.mount`.
    #[test]
    fn whatever_is_mounted_in_the_root_is_on_an_opened_volume_too() {
        for point in ["etc", "var", "var/lib/machines", "usr/local", "a b"] {
            let at = |rest: &str| format!("29 28 {}", rest.replace("AT", &point.replace(' ', "\\040")));
            let plain = at("254:16 / /sysroot/AT rw,relatime - ext4 /dev/vdb rw");
            let why = checked(&[ON_OPENED, &plain], OPENED).unwrap_err();
            assert!(why.starts_with(&format!("/sysroot/{point}: ")) && why.contains("vdb"), "{why}");
            // In whatever order, and covered by another mount.
            assert!(checked(&[&plain, ON_OPENED], OPENED).is_err());
            let covered = at("253:1 / /sysroot/AT rw - ext4 /dev/vg/var rw");
            assert!(checked(&[ON_OPENED, &plain, &covered], OPENED).is_err());
            assert_eq!(checked(&[ON_OPENED, &covered], OPENED), Ok(()));
            // A folder of the root once more.
            assert_eq!(
                checked(&[ON_OPENED, &at("253:0 /var /sysroot/AT rw - ext4 /dev/dm-0 rw")], OPENED),
                Ok(())
            );
        }
        // Outside: what the initramfs itself uses is not what runs afterwards.
        for point in ["/boot", "/sysroot2", "/run/x", "/sysusr/usr"] {
            let elsewhere = format!("29 1 254:16 / {point} rw - ext4 /dev/vdb rw");
            assert_eq!(checked(&[ON_OPENED, &elsewhere], OPENED), Ok(()), "{point}");
        }
    }

    #[test]
    fn what_can_not_be_followed_is_not_mounted_in_the_root() {
        let var =
            |kind: &str| checked(&[ON_OPENED, &format!("29 28 0:42 / /sysroot/var rw - {kind} rw")], OPENED);
        for kind in [
            "nfs4 10.0.2.2:/",
            "overlay overlay",
            "fuse.sshfs x",
            "autofs systemd-1",
            "9p x",
            "virtiofs x",
            "zfs p/var",
        ] {
            let why = var(kind).unwrap_err();
            assert!(why.starts_with("/sysroot/var: "), "{why}");
        }
        for kind in KERNEL {
            assert_eq!(var(&format!("{kind} {kind}")), Ok(()));
            // A name that is a file system of the kernel, on a disk.
            let on_disk = format!("29 28 254:16 / /sysroot/var rw - {kind} /dev/vdb rw");
            assert!(checked(&[ON_OPENED, &on_disk], OPENED).is_err(), "{kind}");
            let usr = format!("29 28 0:42 / /sysroot/usr rw - {kind} {kind} rw");
            assert!(checked(&[ON_OPENED, &usr], OPENED).is_err(), "{kind}");
        }
    }

    /// The initramfs mounts it, and hands it to the root just before the gate, wherever it has dracut's module for NFS.
    #[test]
    fn what_an_initramfs_that_knows_nfs_binds_into_the_root_is_of_the_kernel() {
        let bound =
            "41 28 0:37 / /sysroot/var/lib/nfs/rpc_pipefs rw,relatime shared:9 - rpc_pipefs rpc_pipefs rw";
        assert_eq!(checked(&[ON_OPENED, bound], OPENED), Ok(()));
        // What they stand for is elsewhere: the content of these is another's.
        for other in ["nfsd nfsd", "nfs4 10.0.2.2:/", "autofs systemd-1"] {
            let other = bound.replace("rpc_pipefs rpc_pipefs", other);
            assert!(checked(&[ON_OPENED, &other], OPENED).is_err(), "{other}");
        }
    }

    #[test]
    fn the_running_system_mounts_nothing_by_its_partition_type_and_imports_no_credentials() {
        let run = tempfile::tempdir().unwrap();
        let link = |name: &str| run.path().join("systemd/system-generators").join(name);
        let masked = || {
            ["systemd-gpt-auto-generator", "systemd-imds-generator"]
                .iter()
                .all(|name| std::fs::read_link(link(name)).is_ok_and(|to| to == Path::new("/dev/null")))
        };
        mask_generators(run.path()).unwrap();
        assert!(masked());
        // Whatever was there before.
        for name in GENERATORS {
            std::fs::remove_file(link(name)).unwrap();
            write(link(name), "#!/bin/sh\n").unwrap();
        }
        mask_generators(run.path()).unwrap();
        assert!(masked());
        std::fs::remove_dir_all(run.path().join("systemd")).unwrap();
        write(run.path().join("systemd"), "").unwrap();
        assert!(mask_generators(run.path()).is_err());
    }

    #[test]
    fn a_root_that_can_not_be_started_is_not_handed_over_to() {
        let (run, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let error = hand_over(root.path(), run.path()).unwrap_err();
        assert!(error.message.contains("can't be started") && error.hint.is_some(), "{error}");
    }

    #[test]
    fn network_and_memory_roots_do_not() {
        for kind in ["nfs4 10.0.2.2:/", "tmpfs tmpfs", "overlay overlay", "btrfs /dev/not-there"] {
            assert!(checked(&[&format!("28 1 0:42 / /sysroot rw - {kind} rw")], OPENED).is_err(), "{kind}");
        }
    }
}
