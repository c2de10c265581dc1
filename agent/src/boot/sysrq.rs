//! SysRq kills every process but the first, and shows what is in registers, at the console and on serial lines. From the attestation to
//! switch-root it must not: what checks the root, or closes the volumes before a shell, would be among them.

use crate::error::{Error, Result};
use crate::{bounded, console};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

const SYSRQ: &str = "/proc/sys/kernel/sysrq";
/// Read by systemd-sysctl of the running system, before all others: what that configures takes precedence.
const HANDED_ON: &str = "/run/sysctl.d/00-halfkey.conf";

/// Switches it off, and leaves what it was at first to the running system. Whether it was on.
///
/// # Errors
/// When it can't be switched off. A kernel without it is fine.
pub fn switch_off() -> Result<bool> {
    switch_off_at(Path::new(SYSRQ), Path::new(HANDED_ON))
}

/// In the initramfs, where something was opened: what has switched it on since (a systemd-sysctl that runs again after a switch-root
/// that failed half-way) is undone.
///
/// # Errors
/// As [`switch_off`].
pub fn stays_off() -> Result<()> {
    if console::in_initramfs() && switch_off()? {
        console::say("SysRq was switched on again after the opening: it is off");
    }
    Ok(())
}

fn switch_off_at(sysrq: &Path, handed_on: &Path) -> Result<bool> {
    let io = |error| Error::system(sysrq.display(), error);
    let before = match bounded::read_text(sysrq, 32) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other.map_err(io)?,
    };
    if before == "0" {
        return Ok(false);
    }
    std::fs::write(sysrq, "0\n").map_err(io)?;
    let after = bounded::read_text(sysrq, 32).map_err(io)?;
    if after != "0" {
        return Err(Error::system(sysrq.display(), format!("expected 0 after writing it, found {after}")));
    }
    // That the running system has less of it is no reason to open nothing. What was there at first counts.
    let folder = handed_on.parent().map_or(Ok(()), std::fs::create_dir_all);
    let new = folder.and_then(|()| File::options().write(true).create_new(true).open(handed_on));
    let _ = new.and_then(|mut file| file.write_all(format!("kernel.sysrq = {before}\n").as_bytes()));
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_system_gets_back_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let (sysrq, conf) = (folder.path().join("sysrq"), folder.path().join("sysctl.d/00.conf"));
        assert!(!switch_off_at(&sysrq, &conf).unwrap());
        assert!(!sysrq.exists(), "a kernel without it gets no such file");
        std::fs::write(&sysrq, "438\n").unwrap();
        assert!(switch_off_at(&sysrq, &conf).unwrap());
        assert!(!switch_off_at(&sysrq, &conf).unwrap());
        // Something switched it on again: that is not what the running system gets.
        std::fs::write(&sysrq, "1\n").unwrap();
        assert!(switch_off_at(&sysrq, &conf).unwrap());
        assert_eq!(std::fs::read_to_string(&sysrq).unwrap(), "0\n");
        assert_eq!(std::fs::read_to_string(&conf).unwrap(), "kernel.sysrq = 438\n");
        assert!(switch_off_at(folder.path(), &conf).is_err());
    }
}
