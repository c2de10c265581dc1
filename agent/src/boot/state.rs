//! What this boot's unlocking leaves behind for `gate`, `fence`, `status`: /run/halfkey/state.json.
//!
//! No secret is in it. It lives in memory (tmpfs) and survives switch-root with /run.

use crate::error::{Error, Result};
use halfkey_protocol::Bytes;
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FOLDER: &str = "/run/halfkey";

/// What was opened, and what PCR 15 became by it.
#[derive(Clone, Debug, PartialEq, miniserde::Serialize, miniserde::Deserialize)]
pub struct State {
    /// Of this layout: 1.
    pub version: u32,
    /// Node id.
    pub node: String,
    /// Number of the evidence at the verifier.
    pub evidence_id: Option<u64>,
    /// PCR 15 of the SHA-256 bank after the opening.
    pub fence: Bytes,
    /// Which server released.
    pub server: String,
    /// The volumes. Written before they are opened, completed after.
    pub volumes: Vec<Opened>,
}

/// A volume that was opened.
#[derive(Clone, Debug, PartialEq, miniserde::Serialize, miniserde::Deserialize)]
pub struct Opened {
    /// The device.
    pub device: String,
    /// LUKS UUID.
    pub uuid: String,
    /// Name of its mapping.
    pub name: String,
    /// UUID of the mapping, as device-mapper has it: the one that it will have until it is open, none if it
    /// could not be opened.
    pub dm_uuid: Option<String>,
    /// Which keyslot opened.
    pub keyslot: u32,
}

impl State {
    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// When /run can't be written.
    pub fn save(&self) -> Result<()> {
        let io = |e| Error::system(format!("{FOLDER}/state.json"), e);
        match DirBuilder::new().mode(0o700).create(FOLDER) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(io(e)),
            _ => {}
        }
        let (path, new) = (file(), PathBuf::from(FOLDER).join("state.json.new"));
        let mut out =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(io)?;
        out.write_all(miniserde::json::to_string(self).as_bytes()).map_err(io)?;
        std::fs::rename(new, path).map_err(io)
    }

    /// What this boot left; `None` if it opened nothing.
    ///
    /// # Errors
    /// When there is something that can't be read: that is no reason to assume nothing.
    pub fn load() -> Result<Option<Self>> {
        let text = match crate::bounded::read(file(), 64 << 10) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::system(file().display(), e)),
        };
        let state = miniserde::json::from_str::<Self>(&text);
        state.map(Some).map_err(|_| Error::system(file().display(), "not what the agent wrote"))
    }
}

fn file() -> PathBuf {
    Path::new(FOLDER).join("state.json")
}

/// The UUID that cryptsetup gives to the mapping `name` of the volume `uuid`.
pub fn expected_mapping_uuid(uuid: &str, name: &str) -> String {
    format!("CRYPT-LUKS2-{}-{name}", uuid.replace('-', ""))
}

/// The UUID that device-mapper has for the mapping of this name; `None` if there is no such mapping.
pub fn mapping_uuid(name: &str) -> Option<String> {
    for entry in std::fs::read_dir("/sys/class/block").ok()?.flatten() {
        let dm = entry.path().join("dm");
        if crate::bounded::read_text(dm.join("name"), 256).is_ok_and(|found| found == name) {
            return crate::bounded::read_text(dm.join("uuid"), 256).ok();
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn state() -> State {
        State {
            version: 1,
            node: "80808080-8080-8080-8080-808080808080".into(),
            evidence_id: Some(7),
            fence: vec![1; 32].into(),
            server: "https://10.0.2.2:8443".into(),
            volumes: vec![Opened {
                device: "/dev/vda2".into(),
                uuid: "0afd6329-fe84-4fc3-be1c-f947e595762f".into(),
                name: "root".into(),
                dm_uuid: Some(expected_mapping_uuid("0afd6329-fe84-4fc3-be1c-f947e595762f", "root")),
                keyslot: 1,
            }],
        }
    }

    #[test]
    fn the_state_survives_its_json() {
        let text = miniserde::json::to_string(&state());
        assert_eq!(miniserde::json::from_str::<State>(&text).unwrap(), state());
    }
}
