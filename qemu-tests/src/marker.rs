//! The judge's evidence: what the guest wrote to its second disk in this boot, read back raw.

use crate::error::{Context, Error, Result};
use crate::lab::machine::unbase64;
use halfkey_measure::systemd;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_testkit::hex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Size of the marker disk.
pub const SIZE: u64 = 1 << 20;
const OFFSET: u64 = 4096;
/// The PCR of the fence.
const FENCE_PCR: u32 = 15;

/// What `guest/marker.sh` writes.
#[derive(Clone, Debug, Deserialize)]
pub struct Marker {
    /// The tests' name for this boot.
    pub token: String,
    /// The kernel's name for this boot.
    pub boot_id: String,
    /// Kernel command line.
    pub cmdline: String,
    /// Device that is mounted at /.
    pub root: String,
    /// PCR 15 of the SHA-256 bank, hex: the fence, and what systemd has measured on top of it; see [`Marker::fence_was`].
    pub fence: String,
    /// `/run/log/systemd/tpm2-measure.log`, base64; empty if systemd keeps none.
    pub measured: String,
    /// Device-mapper devices: name and UUID.
    pub mappings: BTreeMap<String, String>,
    /// `/run/halfkey/state.json`; none if the agent opened nothing.
    pub agent: Option<AgentState>,
    /// What the agent's units said in this boot, base64.
    pub journal: String,
}

impl Marker {
    /// Whether PCR 15 was `expected` (hex) when the initramfs was left: newer versions of systemd then measure the machine id and
    /// file systems into it, and keep a log of that.
    ///
    /// # Errors
    /// If the log is not what systemd writes.
    pub fn fence_was(&self, expected: &str) -> Result<bool> {
        let byte = |at| expected.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let pcr: Option<Vec<u8>> = (0..expected.len()).step_by(2).map(byte).collect();
        let mut pcr = pcr.context(format_args!("{expected} is no value of a PCR"))?;
        let log = unbase64(&self.measured).context("systemd's measurement log is not base64")?;
        for text in systemd::records(&log).skip(1) {
            let record: systemd::Record =
                serde_json::from_slice(text).context("a record of systemd's measurement log")?;
            if record.pcr == Some(FENCE_PCR) {
                let digest = record.digest(PcrBank::Sha256);
                let digest = digest.ok().context("a record of systemd's measurement log has no SHA-256")?;
                pcr = Sha256::digest([pcr, digest].concat()).to_vec();
            }
        }
        Ok(hex(&pcr) == self.fence)
    }
}

/// What the agent left of its unlocking.
#[derive(Clone, Debug, Deserialize)]
pub struct AgentState {
    /// Node id.
    pub node: String,
    /// Number of the evidence at the verifier.
    pub evidence_id: Option<u64>,
    /// The volumes that it opened.
    pub volumes: Vec<Opened>,
}

/// A volume that the agent opened.
#[derive(Clone, Debug, Deserialize)]
pub struct Opened {
    /// LUKS UUID.
    pub uuid: String,
    /// Name of the mapping.
    pub name: String,
    /// Which keyslot opened.
    pub keyslot: u32,
}

/// Prepares the disk for a boot with this name.
///
/// # Errors
/// If the disk can't be written.
pub fn prepare(disk: &Path, token: &str) -> Result<()> {
    let mut content = vec![0; usize::try_from(SIZE).expect("a marker disk is small")];
    content[..token.len()].copy_from_slice(token.as_bytes());
    fs::write(disk, content).context(format_args!("can't write {}", disk.display()))
}

/// Reads the marker of the boot with this name; none if the guest has written nothing.
///
/// # Errors
/// If the disk can't be read, or holds something that the guest did not write for this boot.
pub fn read(disk: &Path, token: &str) -> Result<Option<Marker>> {
    let mut file = File::open(disk).context(format_args!("can't open {}", disk.display()))?;
    file.seek(SeekFrom::Start(OFFSET)).context("can't seek")?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).context(format_args!("can't read {}", disk.display()))?;
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let marker = parse(&bytes).context("the guest's marker")?;
    if marker.token != token {
        return Err(Error::new(format!("the marker is of boot {:?}, expected {token:?}", marker.token)));
    }
    Ok(Some(marker))
}

fn parse(bytes: &[u8]) -> Result<Marker> {
    let end = bytes.iter().position(|byte| *byte == b'\n').context("no line")?;
    let line = std::str::from_utf8(&bytes[..end]).context("not text")?;
    let length = line.strip_prefix("HALFKEY ").and_then(|digits| digits.parse::<usize>().ok());
    let length = length.context(format_args!("unexpected first line {line:?}"))?;
    let json = bytes.get(end + 1..).and_then(|rest| rest.get(..length)).context("shorter than it says")?;
    serde_json::from_slice(json).context("not the expected JSON")
}

/// A disk with nothing on it.
///
/// # Errors
/// If it can't be written.
pub fn blank(disk: &Path, size: u64) -> Result<()> {
    let mut file = File::create(disk).context(format_args!("can't make {}", disk.display()))?;
    file.set_len(size).and_then(|()| file.flush()).context(format_args!("can't make {}", disk.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::machine::base64;

    const JSON: &str = r#"{"token":"t","boot_id":"b","cmdline":"","root":"/dev/mapper/root","fence":"00","measured":"","mappings":{"root":"CRYPT"},"agent":null,"journal":""}"#;

    #[test]
    fn a_marker_is_read_back_for_its_boot_only() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("marker");
        prepare(&disk, "t").unwrap();
        assert!(read(&disk, "t").unwrap().is_none());
        let mut file = File::options().write(true).open(&disk).unwrap();
        file.seek(SeekFrom::Start(OFFSET)).unwrap();
        write!(file, "HALFKEY {}\n{JSON}", JSON.len()).unwrap();
        assert_eq!(read(&disk, "t").unwrap().unwrap().root, "/dev/mapper/root");
        assert!(read(&disk, "u").is_err());
    }

    #[test]
    fn what_systemd_measured_is_on_top_of_the_fence() {
        let extend =
            |pcr: [u8; 32], digest: [u8; 32]| <[u8; 32]>::from(Sha256::digest([pcr, digest].concat()));
        let record = |pcr: u32, digest: [u8; 32]| {
            let digests = format!(r#"[{{"hashAlg":"sha256","digest":"{}"}}]"#, hex(&digest));
            format!("\u{1e}{{\"pcr\":{pcr},\"digests\":{digests},\"content\":{{}}}}\n")
        };
        let log = [record(11, [1; 32]), record(15, [2; 32]), record(15, [3; 32])].concat();
        let mut marker: Marker = serde_json::from_str(JSON).unwrap();
        marker.fence = hex(&extend(extend([7; 32], [2; 32]), [3; 32]));
        marker.measured = base64(log.as_bytes());
        assert!(marker.fence_was(&hex(&[7; 32])).unwrap());
        assert!(!marker.fence_was(&hex(&[8; 32])).unwrap());
        marker.measured.clear();
        assert!(!marker.fence_was(&hex(&[7; 32])).unwrap());
        assert!(marker.fence_was(&marker.fence.clone()).unwrap());
    }
}
