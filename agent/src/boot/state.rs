//! What this boot's unlocking leaves behind for `gate`, `fence`, `status`: /run/halfkey/state.json.
//!
//! No secret is in it. It lives in memory (tmpfs) and survives switch-root with /run.
//!
//! A switch-root that fails half-way can take /run along and go on in the initramfs with an empty one: systemd 252 moves
//! /sys, /dev, /run and /proc into the new root one after the other, and one damaged inode there stops it. What was opened
//! must be known then too, so the initramfs has a second copy in its own root, which no mount is moved from and which a
//! switch-root that succeeds deletes with all else.

use crate::console;
use crate::error::{Error, Result};
use halfkey_protocol::Bytes;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FOLDER: &str = "/run/halfkey";
/// The second copy.
const IN_INITRAMFS: &str = "/halfkey-state.json";

/// What was opened, and what PCR 15 became by it.
#[derive(Clone, Debug, PartialEq, miniserde::Serialize, miniserde::Deserialize)]
pub struct State {
    /// Version of this layout: 1.
    pub version: u32,
    /// Node id.
    pub node: String,
    /// Device of the TPM that attested; its number is that of this boot.
    pub tpm: Option<String>,
    /// Number of the released evidence at the verifier, if it gave one.
    pub evidence_id: Option<u64>,
    /// PCR 15 after the opening, in each bank whose hash the agent has, whether it is active or not.
    pub fence: Vec<BankValue>,
    /// URL of the server that released.
    pub server: String,
    /// Written before the fence says that volumes are opened, cleared when that has ended, well or not. Found
    /// set later, the agent was ended in between, and nobody knows what is open.
    pub opening: bool,
    /// The volumes that were tested: which of them are open, says their mapping.
    pub volumes: Vec<Opened>,
}

/// The value of a PCR in one bank.
#[derive(Clone, Debug, PartialEq, miniserde::Serialize, miniserde::Deserialize)]
pub struct BankValue {
    /// `sha256`, `sha384`
    pub bank: String,
    /// The PCR, as long as digests of the bank are.
    pub value: Bytes,
}

/// A volume whose key was tested.
#[derive(Clone, Debug, PartialEq, miniserde::Serialize, miniserde::Deserialize)]
pub struct Opened {
    /// Path of the device, as it was found: `/dev/vda2`.
    pub device: String,
    /// LUKS UUID, as in the header.
    pub uuid: String,
    /// Name of its mapping.
    pub name: String,
    /// Whether it was enrolled as the root.
    pub root: bool,
    /// The mapping as it was seen when the volume had been opened; none before that.
    pub mapping: Option<Mapping>,
    /// Which keyslot opened.
    pub keyslot: u32,
}

/// A mapping of device-mapper. Both count: a device number is given to the next mapping when this one is gone,
/// and a UUID can be given to a second one when its first has another name.
#[derive(Clone, Debug, PartialEq, miniserde::Serialize, miniserde::Deserialize)]
pub struct Mapping {
    /// UUID, as device-mapper has it.
    pub dm_uuid: String,
    /// `MAJOR:MINOR`, as sysfs has it.
    pub number: String,
}

/// What may be mounted where.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mappings {
    /// Of volumes that were enrolled as the root.
    pub root: Vec<Mapping>,
    /// Of all, these included.
    pub all: Vec<Mapping>,
}

impl State {
    /// Mappings that attestation opened in this boot.
    pub fn mappings(&self) -> Mappings {
        let mut mappings = Mappings::default();
        for volume in &self.volumes {
            let Some(mapping) = &volume.mapping else { continue };
            mappings.all.push(mapping.clone());
            if volume.root {
                mappings.root.push(mapping.clone());
            }
        }
        mappings
    }

    /// Writes it, each copy whole or not at all.
    ///
    /// # Errors
    /// When /run, or the root of the initramfs, can't be written.
    pub fn save(&self) -> Result<()> {
        match DirBuilder::new().mode(0o700).create(FOLDER) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(Error::system(FOLDER, e)),
            _ => {}
        }
        self.save_to(&places())
    }

    fn save_to(&self, places: &[PathBuf]) -> Result<()> {
        let text = miniserde::json::to_string(self);
        let write = |path: &Path| {
            let new = path.with_extension("json.new");
            let mut out = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            out.write_all(text.as_bytes())?;
            std::fs::rename(new, path)
        };
        places.iter().try_for_each(|path| write(path).map_err(|e| Error::system(path.display(), e)))
    }

    /// What this boot left; `None` if it opened nothing.
    ///
    /// # Errors
    /// When there is something that can't be read: that is no reason to assume nothing.
    pub fn load() -> Result<Option<Self>> {
        Self::load_from(&places())
    }

    /// By the first copy that is there.
    fn load_from(places: &[PathBuf]) -> Result<Option<Self>> {
        for path in places {
            let text = match crate::bounded::read(path, 64 << 10) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::system(path.display(), e)),
            };
            let state = miniserde::json::from_str::<Self>(&text);
            return state.map(Some).map_err(|_| Error::system(path.display(), "not what the agent wrote"));
        }
        Ok(None)
    }
}

/// Where it is kept. The second place is the initramfs's alone: in the running system that path is anybody's.
fn places() -> Vec<PathBuf> {
    let mut places = vec![Path::new(FOLDER).join("state.json")];
    if console::in_initramfs() {
        places.push(IN_INITRAMFS.into());
    }
    places
}

/// The UUID that cryptsetup gives to the mapping `name` of the volume `uuid`.
pub fn expected_mapping_uuid(uuid: &str, name: &str) -> String {
    format!("CRYPT-LUKS2-{}-{name}", uuid.replace('-', ""))
}

/// The UUID that device-mapper has for the mapping of this name; `None` if there is no such mapping.
pub fn mapping_uuid(name: &str) -> Option<String> {
    mapping(Path::new("/sys"), name).map(|mapping| mapping.dm_uuid)
}

/// The mapping of this name below `sys`, which is /sys but for tests; `None` if there is none.
pub fn mapping(sys: &Path, name: &str) -> Option<Mapping> {
    let read = |path: PathBuf| crate::bounded::read_text(path, 256);
    for entry in std::fs::read_dir(sys.join("class/block")).ok()?.flatten() {
        let device = entry.path();
        if read(device.join("dm/name")).is_ok_and(|found| found == name) {
            let (dm_uuid, number) = (read(device.join("dm/uuid")).ok()?, read(device.join("dev")).ok()?);
            return Some(Mapping { dm_uuid, number });
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
            tpm: Some("/dev/tpmrm0".into()),
            evidence_id: Some(7),
            fence: crate::fence::opened_with(b"r of this boot"),
            server: "https://10.0.2.2:8443".into(),
            opening: false,
            volumes: vec![Opened {
                device: "/dev/vda2".into(),
                uuid: "0afd6329-fe84-4fc3-be1c-f947e595762f".into(),
                name: "root".into(),
                root: true,
                mapping: Some(Mapping {
                    dm_uuid: expected_mapping_uuid("0afd6329-fe84-4fc3-be1c-f947e595762f", "root"),
                    number: "253:0".into(),
                }),
                keyslot: 1,
            }],
        }
    }

    #[test]
    fn the_state_survives_its_json() {
        let text = miniserde::json::to_string(&state());
        assert_eq!(miniserde::json::from_str::<State>(&text).unwrap(), state());
    }

    #[test]
    fn a_switch_root_that_takes_run_along_takes_no_knowledge_of_what_is_open() {
        let (run, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let places = [run.path().join("state.json"), root.path().join("halfkey-state.json")];
        assert_eq!(State::load_from(&places).unwrap(), None);
        state().save_to(&places).unwrap();
        // A fresh /run.
        std::fs::remove_file(&places[0]).unwrap();
        assert_eq!(State::load_from(&places).unwrap(), Some(state()));
        // What was closed then is closed by both.
        let mut closed = state();
        closed.volumes[0].mapping = None;
        closed.save_to(&places).unwrap();
        for place in &places {
            assert_eq!(State::load_from(std::slice::from_ref(place)).unwrap(), Some(closed.clone()));
        }
        // One that can't be read is no reason to take the other, or none.
        std::fs::write(&places[0], "").unwrap();
        assert!(State::load_from(&places).is_err());
        // A copy that can't be written: nothing may be opened.
        let nowhere = [places[0].clone(), root.path().join("nowhere/halfkey-state.json")];
        assert!(state().save_to(&nowhere).is_err());
    }
}
