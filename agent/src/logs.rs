//! The logs that travel with a quote. What is missing or too large is left out; the verifier
//! says whether it can do without.

use crate::tpm::machine;
use crate::{bounded, console};
use halfkey_measure::systemd::{self, Record};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::{Bytes, MAX_LOG};
use std::path::Path;

const SYSTEMD: &str = "/run/log/systemd/tpm2-measure.log";
const IMA: &str = "/sys/kernel/security/ima/binary_runtime_measurements";
/// systemd writes a few lines.
const MAX_SYSTEMD: usize = 128 << 10;
/// COMMAND_LINE_SIZE of x86-64, twice.
const MAX_COMMAND_LINE: usize = 4096;
/// In the initramfs the list is short; all of it in memory several times over is not worth more.
const MAX_IMA: usize = 512 << 10;

/// The logs of this boot.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    /// The firmware's event log.
    pub firmware: Option<Bytes>,
    /// systemd's measurement log: what it extended PCRs with since the kernel started (JSON records).
    pub systemd: Option<Bytes>,
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
            firmware: log(&machine::event_log(), MAX_LOG),
            systemd: log(SYSTEMD.as_ref(), MAX_SYSTEMD),
            ima: log(IMA.as_ref(), MAX_IMA),
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

fn log(path: &Path, max: usize) -> Option<Bytes> {
    match bounded::read(path, max) {
        Ok(bytes) if bytes.is_empty() => None,
        Ok(bytes) => Some(bytes.into()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => {
            console::say(&format!("{} is left out: {e}", path.display()));
            None
        }
    }
}

/// systemd's measurement log as it is now; empty if there is none.
pub fn systemd() -> Vec<u8> {
    bounded::read(SYSTEMD, MAX_SYSTEMD).unwrap_or_default()
}

/// The digests that systemd extended into `pcr` of this bank, in the order of its measurement log; at most 64. Records that
/// can't be read are skipped.
pub fn systemd_digests(log: &[u8], pcr: u8, bank: PcrBank) -> Vec<Vec<u8>> {
    systemd::records(log)
        .filter_map(|record| miniserde::json::from_str::<Record>(std::str::from_utf8(record).ok()?).ok())
        .filter(|record| record.pcr == Some(pcr.into()))
        .filter_map(|record| record.digest(bank).ok())
        .take(64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_records_of_one_pcr_in_order() {
        let digest = |c: char, bytes: usize| c.to_string().repeat(2 * bytes);
        let record = |pcr, c| {
            format!(
                "\u{1e}{{\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"sha1\",\"digest\":\"00\"}},{{\"hashAlg\":\"sha256\",\"digest\":\"{}\"}},{{\"hashAlg\":\"sha384\",\"digest\":\"{}\"}}],\"content_type\":\"systemd\"}}\n",
                digest(c, 32),
                digest(c, 48)
            )
        };
        let log = [record(11, 'a'), record(15, 'b'), "\u{1e}damaged".into(), record(15, 'c')].concat();
        assert_eq!(systemd_digests(log.as_bytes(), 15, PcrBank::Sha256), [vec![0xbb; 32], vec![0xcc; 32]]);
        assert_eq!(systemd_digests(log.as_bytes(), 15, PcrBank::Sha384), [vec![0xbb; 48], vec![0xcc; 48]]);
    }

    proptest! {
        #[test]
        fn any_log_is_read(log in proptest::collection::vec(any::<u8>(), 0..300)) {
            systemd_digests(&log, 15, PcrBank::Sha384);
        }
    }
}
