//! The exitrd: a second initramfs that PID 1 goes on in when the running system shuts down, with the root still mounted below it.
//!
//! dracut's `dracut-shutdown.service` unpacks one into /run/initramfs, from an initrd that it finds on the EFI system partition or
//! on /boot; systemd-shutdown changes into it and executes its /shutdown. Nobody measures that file: what was measured is the one
//! that booted, and not even that must be the same. Whoever can write it and press Ctrl-Alt-Del would have the open root. So it
//! has to stay undone after an attested boot. Whoever needs an exitrd has a unit that makes one of what is on the root
//! (docs/operations.md).

use std::io::{ErrorKind, Result};
use std::path::Path;

/// What unpacks an initrd that nobody measured.
const UNIT: &str = "dracut-shutdown.service";
/// Of systemd's folders in /run, the one whose units take precedence over those in /etc/systemd/system, which a link in
/// /run/systemd/system would not; and over generated ones (systemd.unit(5)).
const UNITS: &str = "systemd/system.control";
/// Below /run. The first is made by dracut (LVM, MD, multipath, iSCSI, NFS) and asks for the unpacking; the second is what
/// systemd-shutdown executes.
const FILES: [&str; 2] = ["initramfs/.need_shutdown", "initramfs/shutdown"];

/// Leaves the running system without one. `run` is /run, which outlives switch-root.
///
/// # Errors
/// Where that can't be written.
pub fn forbid(run: &Path) -> Result<()> {
    mask(&run.join(UNITS), UNIT)?;
    FILES.into_iter().try_for_each(|file| remove(&run.join(file)))
}

/// Has `folder/name` be nothing, whatever there is now.
///
/// # Errors
/// Where that can't be written.
pub fn mask(folder: &Path, name: &str) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let (link, new) = (folder.join(name), folder.join(".halfkey.new"));
    remove(&new)?;
    std::os::unix::fs::symlink("/dev/null", &new)?;
    std::fs::rename(new, link)
}

fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    #[test]
    fn the_running_system_unpacks_no_initrd_and_executes_none() {
        let run = tempfile::tempdir().unwrap();
        let left = || {
            let names = std::fs::read_dir(run.path().join("initramfs")).into_iter().flatten().flatten();
            names.map(|entry| entry.file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let link = run.path().join("systemd/system.control/dracut-shutdown.service");
        let masked = || std::fs::read_link(&link).is_ok_and(|to| to == Path::new("/dev/null"));
        // Without dracut's folder.
        forbid(run.path()).unwrap();
        assert!(masked());
        // Whatever was there before.
        std::fs::remove_file(&link).unwrap();
        write(&link, "[Service]\nExecStart=/bin/true\n").unwrap();
        create_dir_all(run.path().join("initramfs")).unwrap();
        for file in [".need_shutdown", "shutdown", "rdsosreport.txt"] {
            write(run.path().join("initramfs").join(file), "").unwrap();
        }
        forbid(run.path()).unwrap();
        assert!(masked());
        assert_eq!(left(), ["rdsosreport.txt"]);
    }

    #[test]
    fn where_it_can_not_be_forbidden_the_gate_hears_of_it() {
        let run = tempfile::tempdir().unwrap();
        // Even root can't remove these as files.
        for file in FILES {
            create_dir_all(run.path().join(file)).unwrap();
            assert!(forbid(run.path()).is_err(), "{file}");
            std::fs::remove_dir(run.path().join(file)).unwrap();
        }
        forbid(run.path()).unwrap();
        std::fs::remove_dir_all(run.path().join("systemd")).unwrap();
        write(run.path().join("systemd"), "").unwrap();
        assert!(forbid(run.path()).is_err());
    }
}
