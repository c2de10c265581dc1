//! What this boot looks like to a policy, told early: a machine whose first boot no policy may accept should learn it at
//! enrollment, not at its next boot. Only a courtesy: the verifier judges by the event log, and here nothing of that is proven.

use crate::bounded;
use crate::tpm::machine;
use halfkey_measure::command_line::Floor;
use halfkey_measure::efi_stub::{INITRD_TAG, MEASURES_INITRD, measures_initrd, utf16};
use halfkey_measure::firmware::{APPLICATION, RETURNING};
use halfkey_measure::{grub, stub};
use halfkey_protocol::MAX_LOG;

/// Of the variable in efivarfs: four bytes of attributes, then its value.
const VARIABLE: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// What can be told of this boot.
#[derive(Debug, Default, miniserde::Serialize)]
pub struct Boot {
    /// Whether Secure Boot was on; none if neither event log nor variable tells.
    pub secure_boot: Option<bool>,
    /// What a policy's floor wants of the command line and this boot lacks.
    pub below_floor: Vec<String>,
    /// Why no policy can be learned from it.
    pub unpinned: Option<String>,
    /// Something was started before it and came back to the firmware.
    pub returned: bool,
}

/// How the kernel came to its initramfs, by the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// Both are in a unified kernel image.
    Uki,
    /// GRUB read it.
    Grub,
    /// It loaded it itself, or was handed it by another loader.
    Kernel,
}

/// How the running system came, for those that look for its next boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// By a unified kernel image.
    Uki,
    /// By GRUB.
    Grub {
        /// It read boot entries (`blscfg`), and not the configuration that was made of what is in /boot.
        entries: bool,
    },
    /// By a kernel that loaded its initramfs, or was handed it by another loader.
    Kernel,
}

impl std::fmt::Display for Came {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uki => "a unified kernel image",
            Self::Grub { entries: true } => "an entry that GRUB reads",
            Self::Grub { entries: false } => "a kernel that GRUB starts",
            Self::Kernel => "a kernel and its initrd",
        })
    }
}

impl Came {
    fn of(log: &[u8]) -> Self {
        match Path::of(log) {
            Path::Uki => Self::Uki,
            Path::Grub => Self::Grub { entries: grub::reads_entries(log) },
            Path::Kernel => Self::Kernel,
        }
    }
}

/// None without the firmware's log.
pub fn came() -> Option<Came> {
    let log = event_log();
    (!log.is_empty()).then(|| Came::of(&log))
}

/// Empty if there is none.
fn event_log() -> Vec<u8> {
    bounded::read(machine::event_log(), MAX_LOG).unwrap_or_default()
}

impl Boot {
    /// Of the running system.
    pub fn now() -> Self {
        let line = bounded::read_text("/proc/cmdline", 64 << 10).unwrap_or_default();
        let release = bounded::read_text("/proc/sys/kernel/osrelease", 256).unwrap_or_default();
        let log = event_log();
        Self::of(&line, &log, secure_boot_by(&log), &release)
    }

    /// `log` is empty if there is none.
    fn of(line: &str, log: &[u8], secure_boot: Option<bool>, release: &str) -> Self {
        let path = if log.is_empty() { None } else { Some(Path::of(log)) };
        let below_floor = below_floor(line, path, secure_boot);
        let unpinned = if path == Some(Path::Kernel) { unpinned(log, release) } else { None };
        Self { secure_boot, below_floor, unpinned, returned: returned(log) }
    }

    /// For people: warnings, each kind with its hint.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = below_floor_lines("this boot", &self.below_floor);
        lines.extend(self.other_warnings());
        lines
    }

    /// The same before the enrollment: the first boot that a policy is made of is the next one. `next`: what is booted next, then what the
    /// image after that is made of, as far as they are known.
    pub fn warnings_before(&self, next: &[NextLine]) -> Vec<String> {
        let mended = next.iter().find(|line| line.below_floor.is_empty());
        let (which, bad) = match next.first() {
            Some(first) if !first.below_floor.is_empty() => {
                (format!("the next boot, by {}", first.from), &first.below_floor)
            }
            Some(_) | None => ("this boot".to_owned(), &self.below_floor),
        };
        let mut lines = match mended {
            Some(line) if !bad.is_empty() => {
                let when = if line.built {
                    "after the reboot"
                } else {
                    "once an image is built with it, after the reboot"
                };
                let found = bad.iter().map(|what| format!("note: no policy can accept {which}: {what}"));
                found
                    .chain([format!("note: {} has the command line as it must be: {when}", line.from)])
                    .collect()
            }
            Some(_) | None => below_floor_lines(&which, bad),
        };
        lines.extend(self.other_warnings());
        lines
    }

    fn other_warnings(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(why) = &self.unpinned {
            lines.push(format!("warning: no policy can be learned from this boot: {why}"));
            lines.push("hint: boot a unified kernel image (dracut --uefi, ukify) or GRUB; or, if this kernel measures every initrd (commit c004703ed7ae was ported back), approve with --kernel-measures-initrd".into());
        }
        if self.returned {
            lines.push("warning: no policy is learned from this boot by itself: something was started before it and came back to the firmware, and could have done and measured all that followed".into());
            lines.push("hint: mend the order of the boot entries (efibootmgr) and boot again; or, if you trust it like the boot loader, whatever somebody at the machine can make it do, approve with --trust-returned-images".into());
        }
        lines
    }
}

/// A line that a later boot will have.
#[derive(Debug)]
pub struct NextLine {
    /// The file that it is in.
    pub from: String,
    /// Whether that is what is booted, and not what the next image is made of.
    pub built: bool,
    /// As [`Boot::below_floor`], of this line.
    pub below_floor: Vec<String>,
}

impl NextLine {
    /// Judges a line as one of a boot by the same path as this one.
    pub fn of(from: &std::path::Path, line: &str, built: bool) -> Self {
        let line = line.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let log = event_log();
        let path = if log.is_empty() { None } else { Some(Path::of(&log)) };
        let below_floor = below_floor(&line, path, secure_boot_by(&log));
        Self { from: from.display().to_string(), built, below_floor }
    }
}

fn below_floor(line: &str, path: Option<Path>, secure_boot: Option<bool>) -> Vec<String> {
    // Whether a kernel measures what is named at the front of its line is said elsewhere.
    let floor = Floor {
        secure_boot: secure_boot == Some(true),
        names_initrds: matches!(path, None | Some(Path::Kernel)),
        needs_initrd: matches!(path, Some(Path::Grub | Path::Kernel)),
    };
    let objections = floor.objections(line).into_iter();
    objections
        .map(|one| format!("kernel command line: expected {}, found {}", one.expected, one.found))
        .collect()
}

fn below_floor_lines(which: &str, below_floor: &[String]) -> Vec<String> {
    let mut lines: Vec<_> =
        below_floor.iter().map(|what| format!("warning: no policy can accept {which}: {what}")).collect();
    if !lines.is_empty() {
        lines.push("hint: change it before the first boot is approved: in /etc/kernel/cmdline (unified kernel images, systemd-boot) or GRUB_CMDLINE_LINUX of /etc/default/grub, then rebuild and reboot".into());
    }
    lines
}

impl Path {
    fn of(log: &[u8]) -> Self {
        if has(log, &stub::section_event(stub::LINUX)) {
            Self::Uki
        } else if grub::reads_initrd(log) {
            Self::Grub
        } else {
            Self::Kernel
        }
    }
}

/// Why nothing pins the initramfs of a kernel that loaded it itself.
fn unpinned(log: &[u8], release: &str) -> Option<String> {
    if !measures_initrd(release) {
        return Some(format!(
            "its kernel {release} loads the initramfs itself, and Linux before {}.{} does not measure one that initrd= names: whoever writes the boot entry would choose it",
            MEASURES_INITRD.0, MEASURES_INITRD.1
        ));
    }
    let measured = has(log, &INITRD_TAG.to_le_bytes());
    (!measured).then(|| "nothing in the event log says that an initramfs was measured".into())
}

/// Whether firmware said that an image came back, after one was started. A network boot that found none has started none.
fn returned(log: &[u8]) -> bool {
    // PCR 4, and the type.
    let started = [4u32.to_le_bytes(), APPLICATION.to_le_bytes()].concat();
    let first = log.windows(started.len()).position(|window| window == started);
    first.is_some_and(|at| has(&log[at..], RETURNING.as_bytes()))
}

fn has(log: &[u8], bytes: &[u8]) -> bool {
    log.windows(bytes.len()).any(|window| window == bytes)
}

/// Whether this boot had Secure Boot on: by the event log, else by the variable, which `efi=noruntime` hides. None if neither
/// tells.
pub fn secure_boot() -> Option<bool> {
    secure_boot_by(&event_log())
}

fn secure_boot_by(log: &[u8]) -> Option<bool> {
    in_log(log).or_else(|| bounded::read(VARIABLE, 16).ok().and_then(|variable| Some(*variable.get(4)? == 1)))
}

/// The value in the event of the variable SecureBoot: a `UEFI_VARIABLE_DATA` (PC Client Platform Firmware Profile, 10.4.2).
fn in_log(log: &[u8]) -> Option<bool> {
    let mut event = b"\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c".to_vec();
    event.extend(10u64.to_le_bytes());
    event.extend(1u64.to_le_bytes());
    event.extend(utf16("SecureBoot"));
    let at = log.windows(event.len()).position(|window| window == event)?;
    Some(*log.get(at + event.len())? == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_next_boot_has_is_no_reason_to_do_anything() {
        let bad = Boot { below_floor: vec!["expected a word".into()], ..Boot::default() };
        let line = |from: &str, built, below_floor: &[&str]| NextLine {
            from: from.into(),
            built,
            below_floor: below_floor.iter().map(|what| (*what).to_owned()).collect(),
        };
        let said = |boot: &Boot, next: &[NextLine]| boot.warnings_before(next).join("\n");
        assert_eq!(bad.warnings_before(&[]), bad.warnings());
        let (uki, configured) = (line("a.efi", true, &[]), line("cmdline", false, &[]));
        for (next, when) in
            [(uki, "after the reboot"), (configured, "once an image is built with it, after the reboot")]
        {
            let from = next.from.clone();
            assert_eq!(
                said(&bad, &[next]),
                format!(
                    "note: no policy can accept this boot: expected a word\nnote: {from} has the command line as it must be: {when}"
                )
            );
        }
        let (fine, old) = (Boot::default(), || line("a.efi", true, &["expected another"]));
        assert_eq!(said(&fine, &[line("a.efi", true, &[]), line("cmdline", false, &["x"])]), "");
        assert_eq!(said(&fine, &[line("cmdline", false, &[])]), "");
        // It has been taken off.
        for boot in [&fine, &bad] {
            let found = said(boot, &[old(), line("cmdline", false, &["x"])]);
            assert!(
                found.starts_with(
                    "warning: no policy can accept the next boot, by a.efi: expected another\nhint: "
                ),
                "{found}"
            );
            let found = said(boot, &[old(), line("cmdline", false, &[])]);
            assert!(
                found.starts_with(
                    "note: no policy can accept the next boot, by a.efi: expected another\nnote: cmdline has"
                ),
                "{found}"
            );
        }
        // A file of several lines is one line.
        let next = NextLine::of(std::path::Path::new("/etc/kernel/cmdline"), &FINE.replace(' ', "\n"), false);
        assert_eq!(next.below_floor, [""; 0]);
    }

    const FINE: &str = "root=/dev/mapper/x systemd.import_credentials=no efi=noruntime";

    fn lacking(line: &str, secure_boot: Option<bool>) -> Vec<String> {
        Boot::of(line, b"", secure_boot, "6.1.0").below_floor
    }

    #[test]
    fn the_whole_floor_is_told() {
        assert!(lacking(FINE, None).is_empty() && lacking(FINE, Some(false)).is_empty());
        let signed = "root=/dev/x systemd.import_credentials=no";
        assert!(lacking(signed, Some(true)).is_empty());
        assert!(lacking(signed, None)[0].contains("efi=noruntime"));
        assert_eq!(lacking("systemd.import_credentials=yes efi=noruntimes", Some(false)).len(), 2);
        // Every word that the verifier refuses, however it is written: each by itself, all named.
        let words = [
            "rdinit=/bin/sh",
            "init=/bin/sh",
            "rd.cmdline=ask",
            "systemd.confirm_spawn",
            "rd.break",
            "systemd.debug-shell",
            "rd.systemd.run=x",
            "systemd.mount-extra=a:b",
            "systemd.set_credential=a:b",
            "systemd.unit=rescue.target",
            "single",
            "1",
            "emergency",
            "kgdboc=ttyS0",
            "bootconfig",
            "x\"initrd=/y\"",
            "noinitrd",
            "netroot=nfs",
            "root=dhcp",
            "efivar_ssdt=Ssdt",
            "sysrq_always_enabled",
            "SYSTEMD_SULOGIN_FORCE=1",
            "systemd.condition-first-boot=yes",
        ];
        for word in words {
            let found = lacking(&format!("{FINE} {word}"), Some(true));
            assert!(found.len() == 1 && found[0].ends_with(&format!("found {word}")), "{word}: {found:?}");
        }
        assert_eq!(lacking(&format!("{FINE} {}", words.join(" ")), None).len(), words.len());
        assert!(lacking(&format!("{FINE} \u{a0}init=/bin/sh"), None)[0].contains("printable ASCII"));
    }

    /// The log, the line as the kernel got it.
    macro_rules! recorded {
        ($name:literal) => {
            (
                &include_bytes!(concat!("../../testkit/boots/", $name, ".bin"))[..],
                include_str!(concat!("../../testkit/boots/", $name, ".cmdline")),
            )
        };
    }

    #[test]
    fn a_boot_that_pins_its_initramfs_is_not_warned_of() {
        for ((log, line), path) in [
            (recorded!("uki-no-secure-boot"), Path::Uki),
            (recorded!("uki-secure-boot-own-keys"), Path::Uki),
            (recorded!("grub-shim-ms-keys"), Path::Grub),
        ] {
            assert_eq!(Path::of(log), path);
            // Debian's GRUB reads no entries; Fedora's does.
            let came = if path == Path::Uki { Came::Uki } else { Came::Grub { entries: false } };
            let by_entry = [log, b"grub_cmd: blscfg\0"].concat();
            assert_eq!(Came::of(log), came);
            assert_eq!(Came::of(&by_entry) == Came::Grub { entries: true }, path == Path::Grub);
            let boot = Boot::of(line, log, in_log(log), "6.1.0-56-cloud-amd64");
            assert!(boot.warnings().is_empty(), "{:?}", boot.warnings());
            // There the kernel would load what nobody measures.
            let named = format!("initrd=\\x {line}");
            assert!(Boot::of(&named, log, in_log(log), "7.0").below_floor[0].contains("no initrd="));
            let by_kernel = format!("{} root=/dev/vda2", line.trim());
            let found = Boot::of(&by_kernel, log, in_log(log), "7.0").below_floor;
            assert_eq!(found.is_empty(), path == Path::Uki, "{found:?}");
        }
    }

    #[test]
    fn a_kernel_that_loads_its_initramfs_can_not_be_learned_from() {
        for (log, line) in
            [recorded!("systemd-boot-type1"), recorded!("systemd-boot-type1-unmeasured-initrd")]
        {
            let of = |release| Boot::of(line, log, in_log(log), release);
            for release in ["6.1.0-56-cloud-amd64", "5.15", "6.12.9", ""] {
                let boot = of(release);
                assert!(boot.below_floor.is_empty(), "{boot:?}");
                let said = boot.warnings().join("\n");
                assert!(
                    said.contains("loads the initramfs itself") && said.contains("hint: boot a unified"),
                    "{said}"
                );
            }
            for release in ["6.13.0-rc1", "6.13", "7.0.1-generic"] {
                assert!(of(release).warnings().is_empty(), "{release}");
            }
            // Without an initramfs, whatever the kernel can.
            let none: Vec<u8> = log.iter().map(|byte| if *byte == 0x8f { 0 } else { *byte }).collect();
            assert!(
                Boot::of(line, &none, in_log(log), "6.13")
                    .unpinned
                    .unwrap()
                    .contains("nothing in the event log")
            );
        }
        // What is not known is not said.
        assert!(Boot::of(FINE, b"", None, "6.1").unpinned.is_none());
    }

    #[test]
    fn what_came_back_to_the_firmware_is_warned_of() {
        let (log, line) = recorded!("uki-no-secure-boot");
        let returning = b"Returning from EFI Application from Boot Option";
        // Between events nothing is looked at but what these events have.
        let first = [log, &returning[..]].concat();
        let said = Boot::of(line, &first, in_log(log), "6.1").warnings().join("\n");
        assert!(
            said.contains("came back to the firmware") && said.contains("--trust-returned-images"),
            "{said}"
        );
        // Nothing was started before it.
        let found_nothing = [&returning[..], log].concat();
        assert!(Boot::of(line, &found_nothing, in_log(log), "6.1").warnings().is_empty());
    }

    #[test]
    fn the_event_log_tells() {
        let off = include_bytes!("../../testkit/boots/uki-no-secure-boot.bin");
        let on = include_bytes!("../../testkit/boots/uki-secure-boot-own-keys.bin");
        assert_eq!((in_log(off), in_log(on)), (Some(false), Some(true)));
        let name: Vec<u8> = "SecureBoot".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let value = on.windows(name.len()).position(|window| window == name).unwrap() + name.len();
        assert_eq!(in_log(&on[..value]), None);
        assert_eq!(in_log(b""), None);
    }
}
