//! What this machine shows of its TPM.

use std::path::Path;

/// Whether the firmware left traces of a TPM: then a TPM that can't be reached is no reason to go on.
/// A TPM 1.2 seals nothing of ours and has no fence: it counts as none.
pub fn firmware_shows_tpm() -> bool {
    may_show_tpm(Path::new("/sys"))
}

/// Where sysfs is not mounted nothing can be seen, which is no reason to assume that there is no TPM.
fn may_show_tpm(sys: &Path) -> bool {
    !is_sysfs(sys) || shows_tpm(sys)
}

/// Whether sysfs is mounted there.
pub fn is_sysfs(path: &Path) -> bool {
    use nix::sys::statfs::{SYSFS_MAGIC, statfs};
    statfs(path).is_ok_and(|found| found.filesystem_type() == SYSFS_MAGIC)
}

fn shows_tpm(sys: &Path) -> bool {
    if sys.join("firmware/acpi/tables/TPM2").exists() {
        return true;
    }
    let chip = sys.join("class/tpm/tpm0");
    let version = crate::bounded::read_text(chip.join("tpm_version_major"), 16);
    // A TPM 1.2 has an event log too.
    version.map_or(true, |version| version != "1")
        && (chip.exists() || sys.join("kernel/security/tpm0/binary_bios_measurements").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tpm_of_version_1_is_none() {
        let sys = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = sys.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert!(!shows_tpm(sys.path()));
        write("kernel/security/tpm0/binary_bios_measurements", "");
        assert!(shows_tpm(sys.path()));
        write("class/tpm/tpm0/tpm_version_major", "1\n");
        assert!(!shows_tpm(sys.path()));
        write("class/tpm/tpm0/tpm_version_major", "2\n");
        assert!(shows_tpm(sys.path()));
        write("class/tpm/tpm0/tpm_version_major", "1\n");
        write("firmware/acpi/tables/TPM2", "");
        assert!(shows_tpm(sys.path()));
    }

    #[test]
    fn without_sysfs_there_may_be_a_tpm() {
        let empty = tempfile::tempdir().unwrap();
        assert!(!shows_tpm(empty.path()));
        assert!(may_show_tpm(empty.path()));
        assert!(may_show_tpm(Path::new("/nowhere")));
        assert!(is_sysfs(Path::new("/sys")));
        assert!(!is_sysfs(Path::new("/proc")));
    }
}
