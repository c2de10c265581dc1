//! The logs that travel with a quote. What is missing or too large is left out; the verifier
//! says whether it can do without.

use crate::{bounded, console};
use halfkey_protocol::{Bytes, MAX_LOG};

const FIRMWARE: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
const USERSPACE: &str = "/run/log/systemd/tpm2-measure.log";
const IMA: &str = "/sys/kernel/security/ima/binary_runtime_measurements";
/// systemd writes a few lines.
const MAX_USERSPACE: usize = 128 << 10;
/// COMMAND_LINE_SIZE of x86-64, twice.
const MAX_COMMAND_LINE: usize = 4096;
/// In the initramfs the list is short; all of it in memory several times over is not worth more.
const MAX_IMA: usize = 512 << 10;

/// The logs of this boot.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    /// The firmware's event log.
    pub firmware: Option<Bytes>,
    /// systemd's.
    pub userspace: Option<Bytes>,
    /// The IMA list.
    pub ima: Option<Bytes>,
    /// The kernel command line, without the newline that the kernel shows behind it.
    pub command_line: Option<Bytes>,
}

impl Logs {
    /// Reads what there is. Read anew for each quote: systemd's and IMA's grow.
    pub fn read() -> Self {
        mount_securityfs();
        Self {
            firmware: log(FIRMWARE, MAX_LOG),
            userspace: log(USERSPACE, MAX_USERSPACE),
            ima: log(IMA, MAX_IMA),
            command_line: command_line(),
        }
    }
}

/// systemd mounts it before anything of ours runs; dracut without systemd does not.
fn mount_securityfs() {
    use nix::mount::{MsFlags, mount};
    let folder = "/sys/kernel/security";
    if crate::console::in_initramfs()
        && std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
    {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let _ = mount(Some("securityfs"), folder, Some("securityfs"), flags, None::<&str>);
    }
}

fn command_line() -> Option<Bytes> {
    let mut text = bounded::read("/proc/cmdline", MAX_COMMAND_LINE).ok()?;
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    Some(text.into())
}

fn log(path: &str, max: usize) -> Option<Bytes> {
    match bounded::read(path, max) {
        Ok(bytes) if bytes.is_empty() => None,
        Ok(bytes) => Some(bytes.into()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => {
            console::say(&format!("{path} is left out: {e}"));
            None
        }
    }
}

/// Where systemd's log is, for [`crate::userspace_log`].
pub fn userspace() -> Vec<u8> {
    bounded::read(USERSPACE, MAX_USERSPACE).unwrap_or_default()
}
