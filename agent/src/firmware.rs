//! What this boot looks like to a policy's floor, told early: a machine whose first boot no policy may accept should learn it
//! at enrollment, not at its next boot. Only a courtesy: the verifier judges by the event log.

use crate::bounded;
use halfkey_protocol::MAX_LOG;

const EVENT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
/// Of the variable in efivarfs: four bytes of attributes, then its value.
const VARIABLE: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Whether this boot had Secure Boot on: by the event log, else by the variable, which `efi=noruntime` hides. `None` if
/// neither tells.
pub fn secure_boot() -> Option<bool> {
    bounded::read(EVENT_LOG, MAX_LOG)
        .ok()
        .and_then(|log| in_log(&log))
        .or_else(|| bounded::read(VARIABLE, 16).ok().and_then(|variable| Some(*variable.get(4)? == 1)))
}

/// The value in the event of the variable SecureBoot: a `UEFI_VARIABLE_DATA` (PC Client Platform Firmware Profile, 10.4.2).
fn in_log(log: &[u8]) -> Option<bool> {
    let mut event = b"\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c".to_vec();
    event.extend(10u64.to_le_bytes());
    event.extend(1u64.to_le_bytes());
    event.extend("SecureBoot".encode_utf16().flat_map(u16::to_le_bytes));
    let at = log.windows(event.len()).position(|window| window == event)?;
    Some(*log.get(at + event.len())? == 1)
}

/// What a policy's floor wants of the command line and this boot lacks; each with what to do about it.
pub fn below_floor() -> Vec<String> {
    let command_line = bounded::read_text("/proc/cmdline", 64 << 10).unwrap_or_default();
    lacking(&command_line, secure_boot())
}

fn lacking(command_line: &str, secure_boot: Option<bool>) -> Vec<String> {
    let words: Vec<&str> = command_line.split_ascii_whitespace().collect();
    let mut lacking = Vec::new();
    if !words.contains(&"systemd.import_credentials=no") {
        lacking.push("the kernel command line lacks systemd.import_credentials=no".into());
    }
    if secure_boot != Some(true) && !words.contains(&"efi=noruntime") {
        lacking.push("Secure Boot is off, and the kernel command line lacks efi=noruntime".into());
    }
    let forbidden = ["rdinit=", "rd.cmdline", "systemd.confirm_spawn"];
    for word in words.iter().filter(|word| forbidden.iter().any(|prefix| word.starts_with(prefix))) {
        lacking
            .push(format!("the kernel command line has {}, which no policy may allow", word.escape_debug()));
    }
    lacking
}

/// Where to change it.
pub const REMEDY: &str = "change it before the first boot is approved: in /etc/kernel/cmdline (unified kernel images, systemd-boot) or GRUB_CMDLINE_LINUX of /etc/default/grub, then rebuild and reboot";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_told_word_by_word() {
        let fine = "root=/dev/x systemd.import_credentials=no efi=noruntime";
        assert!(lacking(fine, None).is_empty() && lacking(fine, Some(false)).is_empty());
        let signed = "root=/dev/x systemd.import_credentials=no";
        assert!(lacking(signed, Some(true)).is_empty());
        assert!(lacking(signed, None)[0].contains("efi=noruntime"));
        assert_eq!(lacking("systemd.import_credentials=yes efi=noruntimes", Some(false)).len(), 2);
        let shell = format!("{fine} rdinit=/bin/sh rd.cmdline=ask systemd.confirm_spawn");
        assert_eq!(lacking(&shell, None).len(), 3);
    }

    #[test]
    fn the_event_log_tells() {
        let off = include_bytes!("../../evidence/tests/fixtures/uki-no-secure-boot.bin");
        let on = include_bytes!("../../evidence/tests/fixtures/uki-secure-boot-own-keys.bin");
        assert_eq!((in_log(off), in_log(on)), (Some(false), Some(true)));
        let name: Vec<u8> = "SecureBoot".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let value = on.windows(name.len()).position(|window| window == name).unwrap() + name.len();
        assert_eq!(in_log(&on[..value]), None);
        assert_eq!(in_log(b""), None);
    }
}
