//! The judge's evidence: what the guest wrote to its second disk in this boot, read back raw.

use crate::error::{Context, Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Size of the marker disk.
pub const SIZE: u64 = 1 << 20;
const OFFSET: u64 = 4096;

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
    /// PCR 15 of the SHA-256 bank, hex.
    pub fence: String,
    /// Device-mapper devices: name and UUID.
    pub mappings: BTreeMap<String, String>,
    /// `/run/halfkey/state.json`; none if the agent opened nothing.
    pub agent: Option<AgentState>,
    /// What the agent's units said in this boot, base64.
    pub journal: String,
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

    const JSON: &str = r#"{"token":"t","boot_id":"b","cmdline":"","root":"/dev/mapper/root","fence":"00","mappings":{"root":"CRYPT"},"agent":null,"journal":""}"#;

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
}
