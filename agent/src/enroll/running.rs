//! What the running system would take from outside the enrolled volumes: file systems that it finds by a name which another one can
//! have, and a kernel, a set-uid program or a device that it takes from a /boot which is not encrypted. The gate sees none of it, for it comes later; so it is
//! said at the enrollment and by `status`. Nothing is refused for it: it is the owner's system.

use super::{address, anchor, plan, root};
use crate::boot::gate;
use crate::boot::mountinfo::{self, Mount, unescape};
use crate::bounded;
use std::path::{Path, PathBuf};

/// A warning for people.
#[derive(Clone, Debug, PartialEq, Eq, miniserde::Serialize)]
pub struct Warning {
    /// What is not as it should be.
    pub what: String,
    /// What helps.
    pub hint: String,
}

impl Warning {
    /// Its lines.
    pub fn lines(&self) -> [String; 2] {
        [format!("warning: {}", self.what), format!("hint: {}", self.hint)]
    }
}

/// What this system says of itself.
struct System<'a> {
    mounts: &'a [Mount],
    fstab: &'a str,
    /// /etc/default/kexec of Debian's kexec-tools.
    kexec: &'a str,
    /// Something loads a crash kernel.
    kdump: bool,
    sys: &'a Path,
    dev: &'a Path,
    /// LUKS UUIDs of the enrolled volumes.
    uuids: &'a [String],
    /// The number of the device at a path.
    number: &'a dyn Fn(&str) -> Option<(u32, u32)>,
}

/// All warnings about this system, were the volumes with these LUKS UUIDs the enrolled ones; none if none of them is open here.
pub fn warnings(uuids: &[String]) -> Vec<Warning> {
    if !root::any_open(uuids) {
        return Vec::new();
    }
    let read = |path: &str| {
        String::from_utf8_lossy(&bounded::read(path, 256 << 10).unwrap_or_default()).into_owned()
    };
    let system = System {
        mounts: &mountinfo::now(),
        fstab: &read("/etc/fstab"),
        kexec: &read("/etc/default/kexec"),
        kdump: read("/sys/kernel/kexec_crash_loaded").trim() == "1" || kdump_enabled(),
        sys: Path::new("/sys"),
        dev: Path::new("/dev"),
        uuids,
        number: &|path| gate::device_number(Path::new(path)),
    };
    let mut warnings = system.warnings();
    warnings.extend(address::warning());
    warnings.extend(anchor::warning());
    warnings
}

/// The same, of the enrolled volumes at these paths.
pub fn warnings_of(devices: &[PathBuf]) -> Vec<Warning> {
    warnings(&devices.iter().filter_map(|path| root::uuid_of(path)).collect::<Vec<_>>())
}

/// Fedora's, SUSE's and Debian's services.
fn kdump_enabled() -> bool {
    let targets = ["multi-user", "basic", "sysinit", "default"];
    ["kdump", "kdump-early", "kdump-tools"].iter().any(|unit| {
        targets.iter().any(|target| {
            Path::new(&format!("/etc/systemd/system/{target}.target.wants/{unit}.service"))
                .symlink_metadata()
                .is_ok()
        })
    })
}

impl System<'_> {
    fn warnings(&self) -> Vec<Warning> {
        let mut warnings: Vec<_> =
            self.fstab.lines().filter_map(entry).filter_map(|entry| self.can_be_another(&entry)).collect();
        if !self.boot_is_enrolled() {
            if self.kdump {
                warnings.push(Warning {
                    what: "kdump takes its kernel or initrd from a /boot that is on no enrolled volume: whoever writes there and makes the kernel crash can read the memory, and the keys of the disks in it".into(),
                    hint: "switch kdump off, or have /boot on an enrolled volume".into(),
                });
            }
            if loads_kexec(self.kexec) {
                warnings.push(Warning {
                    what: "kexec-tools loads a kernel from a /boot that is on no enrolled volume at each reboot (LOAD_KEXEC=true): whoever writes there has it start over the memory of the running system".into(),
                    hint: "LOAD_KEXEC=false in /etc/default/kexec, or have /boot on an enrolled volume".into(),
                });
            }
            if self.boot_grants() {
                warnings.push(Warning {
                    what: "/boot is on no enrolled volume and mounted without nosuid and nodev: whoever writes there while the machine is off can leave a set-uid program, or a device node of an open volume, for any account".into(),
                    hint: "mount /boot with nosuid,nodev in /etc/fstab".into(),
                });
            }
        }
        warnings
    }

    /// Whether the file system of /boot, now or at the next boot, can have set-uid programs or device nodes.
    fn boot_grants(&self) -> bool {
        let mut lines = self.fstab.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        let planned = lines.find_map(|fields| match *fields.as_slice() {
            [source, point, kind, ref rest @ ..]
                if !source.starts_with('#') && point.trim_end_matches('/') == "/boot" =>
            {
                Some((kind.to_owned(), rest.first().copied().unwrap_or_default().to_owned()))
            }
            _ => None,
        });
        let found = || {
            let mount = mountinfo::at(self.mounts, "/boot")?;
            Some((mount.kind.clone(), mount.options.clone()))
        };
        let Some((kind, options)) = planned.or_else(found) else { return false };
        // FAT has neither; what is behind an automount is not told.
        !["vfat", "msdos", "exfat", "autofs"].contains(&&*kind) && grants(&options)
    }

    /// Why the running system could be given another file system, or swap area, than the one on the enrolled volumes.
    fn can_be_another(&self, entry: &Entry) -> Option<Warning> {
        let path = plan::path_of(&entry.source);
        let number = (self.number)(&path)?;
        if !self.is_enrolled(number) {
            return None;
        }
        let file = self.sys.join(format!("dev/block/{}:{}/dm/uuid", number.0, number.1));
        let uuid = bounded::read_text(file, 256).unwrap_or_default();
        // What stands directly on a volume has the name that is sealed in it; LVM keeps its UUIDs inside of the volume. No name without
        // the UUID is sure: a volume group may be called "mapper", and udev then gives its volumes the links /dev/mapper/NAME.
        let is_sure = ["CRYPT-", "LVM-"].iter().any(|kind| uuid.starts_with(kind));
        let sure = is_sure.then(|| format!("/dev/disk/by-id/dm-uuid-{uuid}"));
        if sure.as_ref() == Some(&path) {
            return None;
        }
        let as_swap = entry.point.is_none();
        let what = format!(
            "/etc/fstab finds {} on the enrolled volumes by '{}', which somebody's partition without encryption, or volume group, can be called as well",
            entry.point.as_deref().unwrap_or("a swap area"),
            entry.source
        );
        let early = "let the initramfs mount it (x-initrd.mount), so that the gate looks at it";
        let hint = match (sure, as_swap) {
            (Some(sure), true) => format!("name it {sure}"),
            (Some(sure), false) => format!("name it {sure}; or {early}"),
            (None, true) => "have it on a volume of its own, or in a file on one".into(),
            (None, false) => early.into(),
        };
        Some(Warning { what, hint })
    }

    fn is_enrolled(&self, device: (u32, u32)) -> bool {
        let mount = Mount { device, point: "/".into(), kind: "ext4".into(), ..Mount::default() };
        root::would_pass(&[mount], self.sys, self.dev, self.uuids).is_ok()
    }

    /// Whether all that is found in /boot is on the enrolled volumes: what fstab or the running system mounts there counts.
    fn boot_is_enrolled(&self) -> bool {
        let found = mountinfo::at(self.mounts, "/boot").or_else(|| mountinfo::at(self.mounts, "/")).cloned();
        let planned =
            self.fstab.lines().filter_map(entry).find(|entry| entry.point.as_deref() == Some("/boot"));
        let planned = planned.map(|entry| (self.number)(&plan::path_of(&entry.source)));
        found.is_some_and(|mount| {
            let mount = Mount { point: "/".into(), ..mount };
            root::would_pass(&[mount], self.sys, self.dev, self.uuids).is_ok()
        }) && planned.is_none_or(|device| device.is_some_and(|device| self.is_enrolled(device)))
    }
}

/// An entry of fstab(5) for the running system.
struct Entry {
    source: String,
    /// None of a swap area.
    point: Option<String>,
}

/// The root's own, /usr's and what is marked for the initramfs are none: the gate looks at them.
fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split_ascii_whitespace();
    let mut field = || fields.next().filter(|field| !field.starts_with('#'));
    let (source, point, kind) = (field()?, unescape(field()?), field()?);
    let options = field().unwrap_or_default();
    let point = match (kind, point.trim_end_matches('/')) {
        ("swap", _) => None,
        (_, "" | "/usr") => return None,
        (_, point)
            if options.split(',').any(|option| option == "x-initrd.mount") || !point.starts_with('/') =>
        {
            return None;
        }
        (_, point) => Some(point.to_owned()),
    };
    Some(Entry { source: unescape(source), point })
}

/// Whether mount(8) takes these options for ones with set-uid programs or device nodes. The last of two that contradict counts.
fn grants(options: &str) -> bool {
    let (mut suid, mut dev) = (true, true);
    for option in options.split(',') {
        match option {
            "nosuid" => suid = false,
            "nodev" => dev = false,
            "suid" => suid = true,
            "dev" => dev = true,
            "defaults" => (suid, dev) = (true, true),
            "user" | "users" | "owner" | "group" => (suid, dev) = (false, false),
            _ => {}
        }
    }
    suid || dev
}

/// The last assignment counts, as in the shell that reads it.
fn loads_kexec(settings: &str) -> bool {
    let mut values = settings.lines().filter_map(|line| line.trim().strip_prefix("LOAD_KEXEC="));
    values.next_back().is_some_and(|value| {
        let value = value.split_ascii_whitespace().next().unwrap_or_default();
        value.trim_matches(['"', '\'', ';']) == "true"
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;

    const HOME: &str = "1afd6329-fe84-4fc3-be1c-f947e595762f";
    const HOME_BY_UUID: &str = "/dev/disk/by-id/dm-uuid-CRYPT-LUKS2-1afd6329fe844fc3be1cf947e595762f-home";
    const ON_VOLUME: &str = "28 1 253:0 / / rw - ext4 /dev/mapper/home rw";

    /// LVM (dm-1) on the mapping `home` (dm-0) of the enrolled volume; a plain vda1.
    fn sysfs() -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        let block = top.path().join("devices/block");
        for folder in ["dev/block", "class/block", "devices/block/dm-1/slaves"] {
            create_dir_all(top.path().join(folder)).unwrap();
        }
        let luks = format!("CRYPT-LUKS2-{}-home", HOME.replace('-', ""));
        for (device, number, dm) in [
            ("dm-0", "253:0", Some(luks.as_str())),
            ("dm-1", "253:1", Some("LVM-abc")),
            ("vda1", "254:1", None),
        ] {
            create_dir_all(block.join(device).join("dm")).unwrap();
            if let Some(uuid) = dm {
                write(block.join(device).join("dm/uuid"), format!("{uuid}\n")).unwrap();
            }
            write(block.join(device).join("dev"), format!("{number}\n")).unwrap();
            symlink(block.join(device), top.path().join("dev/block").join(number)).unwrap();
            symlink(block.join(device), top.path().join("class/block").join(device)).unwrap();
        }
        symlink(block.join("dm-0"), block.join("dm-1/slaves/dm-0")).unwrap();
        top
    }

    fn number(path: &str) -> Option<(u32, u32)> {
        match path {
            HOME_BY_UUID | "/dev/mapper/home" | "/dev/disk/by-uuid/5" | "/dev/disk/by-label/home" => {
                Some((253, 0))
            }
            "/dev/mapper/vg-var"
            | "/dev/vg/var"
            | "/dev/disk/by-uuid/6"
            | "/dev/disk/by-id/dm-uuid-LVM-abc" => Some((253, 1)),
            "/dev/disk/by-uuid/7" => Some((254, 1)),
            _ => None,
        }
    }

    fn warned(mounts: &str, fstab: &str, kexec: &str, kdump: bool) -> Vec<Warning> {
        let (sys, uuids) = (sysfs(), [HOME.to_owned()]);
        let mounts = mountinfo::parse(mounts);
        let system = System {
            mounts: &mounts,
            fstab,
            kexec,
            kdump,
            sys: sys.path(),
            dev: Path::new("/dev"),
            uuids: &uuids,
            number: &number,
        };
        system.warnings()
    }

    #[test]
    fn what_another_partition_can_be_called_is_warned_of() {
        let one = |line: &str| {
            let mut found = warned(ON_VOLUME, line, "", false);
            assert!(found.len() < 2, "{found:?}");
            found.pop()
        };
        for line in [
            &format!("{HOME_BY_UUID} /home ext4 defaults 0 2"),
            &format!("{HOME_BY_UUID} none swap sw"),
            "/dev/disk/by-id/dm-uuid-LVM-abc /var ext4 defaults",
            "UUID=5 / ext4 defaults",
            "UUID=5 /usr ext4 defaults",
            "UUID=5 /home ext4 x-initrd.mount,noatime",
            "# UUID=5 /home ext4 defaults",
            // On no volume that is enrolled: nothing here tells whether it is the right one.
            "UUID=7 /boot ext4 nosuid,nodev",
            "UUID=8 /srv ext4 nofail",
            "tmpfs /tmp tmpfs defaults",
            "proc",
            "",
        ] {
            assert_eq!(one(line), None, "{line}");
        }
        for line in [
            "UUID=5 /home ext4",
            "/dev/mapper/home /home ext4",
            "LABEL=home /home/ ext4 defaults 0 2",
            "UUID=\"5\" /home auto nofail",
        ] {
            let found = one(line).unwrap();
            assert!(found.what.contains("finds /home on") && found.what.contains('\''), "{found:?}");
            assert!(found.hint.starts_with(&format!("name it {HOME_BY_UUID}; or ")), "{found:?}");
        }
        let swap = one("UUID=5 none swap sw 0 0").unwrap();
        assert!(swap.what.contains("a swap area"), "{swap:?}");
        assert_eq!(swap.hint, format!("name it {HOME_BY_UUID}"));
        for line in
            ["/dev/mapper/vg-var /var ext4 defaults", "/dev/vg/var /var ext4", "UUID=6 /var ext4 defaults"]
        {
            let found = one(line).unwrap();
            assert!(found.what.contains("finds /var on"), "{found:?}");
            assert!(found.hint.starts_with("name it /dev/disk/by-id/dm-uuid-LVM-abc; or "), "{found:?}");
        }
    }

    #[test]
    fn a_kernel_from_a_plain_boot_is_warned_of() {
        let words = |mounts: &str, fstab: &str, kexec: &str, kdump| {
            let found = warned(mounts, fstab, kexec, kdump);
            found.iter().map(|found| found.what.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let plain = format!("{ON_VOLUME}\n29 28 254:1 / /boot rw - ext4 /dev/vda1 rw");
        let automount = format!("{ON_VOLUME}\n29 28 0:42 / /boot rw - autofs systemd-1 rw");
        const ON: &str = "# LOAD_KEXEC=false\nLOAD_KEXEC=false\nLOAD_KEXEC=\"true\" # yes\n";
        assert_eq!(words(&plain, "", ON, true), ["kdump", "kexec-tools", "/boot"]);
        assert_eq!(words(&automount, "", ON, true), ["kdump", "kexec-tools"]);
        // Not mounted now, but at the next boot; and one that is not there.
        for source in ["UUID=7", "UUID=8"] {
            let fstab = format!("{source} /boot ext4 noauto");
            assert_eq!(words(ON_VOLUME, &fstab, ON, true), ["kdump", "kexec-tools", "/boot"]);
        }
        let plain = plain.replace("/boot rw", "/boot rw,nosuid,nodev");
        assert!(words(&plain, "", "LOAD_KEXEC=true\nLOAD_KEXEC=false\n", false).is_empty());
        assert!(words(&plain, "", "", false).is_empty());
        // With the root.
        assert!(words(ON_VOLUME, "", ON, true).is_empty());
    }

    #[test]
    fn a_plain_boot_that_can_have_set_uid_programs_is_warned_of() {
        let mounted = |options: &str, kind: &str| {
            warned(
                &format!("{ON_VOLUME}\n29 28 254:1 / /boot {options} - {kind} /dev/vda1 rw"),
                "",
                "",
                false,
            )
            .len()
        };
        for (options, kind, warnings) in [
            ("rw,relatime", "ext4", 1),
            ("rw,nosuid,relatime", "ext4", 1),
            ("rw,nodev", "xfs", 1),
            ("rw,nosuid,nodev,noexec", "ext4", 0),
            ("rw", "vfat", 0),
        ] {
            assert_eq!(mounted(options, kind), warnings, "{options} {kind}");
        }
        // What the next boot does counts, whether it is mounted or not.
        for (line, warnings) in [
            ("UUID=7 /boot ext4 defaults 0 2", 1),
            ("UUID=7 /boot/ ext4", 1),
            ("UUID=7 /boot ext4 nosuid,nodev,defaults", 1),
            ("UUID=7 /boot ext4 user,suid", 1),
            ("UUID=7 /boot ext4 defaults,nosuid,nodev 0 2", 0),
            ("UUID=7 /boot auto noauto,user", 0),
            ("UUID=7 /boot vfat umask=0077", 0),
        ] {
            let mounts = format!("{ON_VOLUME}\n29 28 254:1 / /boot rw,nosuid - ext4 /dev/vda1 rw");
            for mounts in [ON_VOLUME, &mounts] {
                let found = warned(mounts, line, "", false);
                assert_eq!(found.len(), warnings, "{line}: {found:?}");
                assert!(found.iter().all(|found| found.hint.contains("nosuid,nodev")));
            }
        }
        // In the root, which is enrolled, or with a file system of the root's.
        assert!(warned(ON_VOLUME, "", "", false).is_empty());
        assert!(warned(ON_VOLUME, "UUID=5 /boot ext4 x-initrd.mount", "", false).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "([^\\s]{1,8} /[a-z\\\\0-7]{0,9} (swap|ext4) (x-initrd.mount|,|nofail){1,4}\n){0,3}.{0,60}") {
            let _ = text.lines().filter_map(entry).count();
            loads_kexec(&text);
        }
    }
}
