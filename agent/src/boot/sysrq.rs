//! SysRq kills every process but the first, at the console and on serial lines. From the opening of the volumes to
//! switch-root it must not: what checks the root, or closes the volumes before a shell, would be among them.

use crate::bounded;
use crate::error::{Error, Result};
use std::io::ErrorKind;
use std::path::Path;

const SYSRQ: &str = "/proc/sys/kernel/sysrq";
/// Read by systemd-sysctl of the running system, before all others: what that configures takes precedence.
const HANDED_ON: &str = "/run/sysctl.d/00-halfkey.conf";

/// Switches it off, and leaves what it was to the running system.
///
/// # Errors
/// When it can't be switched off. A kernel without it is fine.
pub fn switch_off() -> Result<()> {
    switch_off_at(Path::new(SYSRQ), Path::new(HANDED_ON))
}

fn switch_off_at(sysrq: &Path, handed_on: &Path) -> Result<()> {
    let io = |error| Error::system(sysrq.display(), error);
    let before = match bounded::read_text(sysrq, 32) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io)?,
    };
    if before == "0" {
        return Ok(());
    }
    std::fs::write(sysrq, "0\n").map_err(io)?;
    let after = bounded::read_text(sysrq, 32).map_err(io)?;
    if after != "0" {
        return Err(Error::system(sysrq.display(), format!("expected 0 after writing it, found {after}")));
    }
    // That the running system has less of it is no reason to open nothing.
    let folder = handed_on.parent().map_or(Ok(()), std::fs::create_dir_all);
    let _ = folder.and_then(|()| std::fs::write(handed_on, format!("kernel.sysrq = {before}\n")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_system_gets_back_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let (sysrq, conf) = (folder.path().join("sysrq"), folder.path().join("sysctl.d/00.conf"));
        switch_off_at(&sysrq, &conf).unwrap();
        assert!(!sysrq.exists(), "a kernel without it gets no such file");
        std::fs::write(&sysrq, "438\n").unwrap();
        switch_off_at(&sysrq, &conf).unwrap();
        switch_off_at(&sysrq, &conf).unwrap();
        assert_eq!(std::fs::read_to_string(&sysrq).unwrap(), "0\n");
        assert_eq!(std::fs::read_to_string(&conf).unwrap(), "kernel.sysrq = 438\n");
        assert!(switch_off_at(folder.path(), &conf).is_err());
    }
}
