//! The node's challenge: 32 random bytes, made for one enrollment and kept until it is done, also across reboots.
//!
//! The registrar gets it with the activation, the tenant signs it, and an enrollment that answers another one is refused. So a
//! server that kept an earlier enrollment, with halves that were stolen since, can't have it taken once more. It is public; that
//! nobody else writes it is what counts.

use crate::bounded;
use crate::console;
use crate::durable;
use crate::error::{Error, Result};
use halfkey_protocol::NodeId;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Where it is kept. /var/lib/halfkey is the server's, which can be on the same host.
const FOLDER: &str = "/var/lib/halfkey-agent";
const LENGTH: usize = 32;

/// The challenge of the enrollment that is under way.
#[derive(Debug)]
pub struct Challenge {
    bytes: [u8; LENGTH],
    file: PathBuf,
}

impl Challenge {
    /// That of an earlier run which did not come to its end, else a new one, which is on the disk when this returns.
    ///
    /// # Errors
    /// When it can't be read or kept.
    pub fn of(node: NodeId) -> Result<Self> {
        Self::within(Path::new(FOLDER), node)
    }

    /// What the enrollment must answer.
    pub fn bytes(&self) -> &[u8; LENGTH] {
        &self.bytes
    }

    /// The enrollment is complete and proved: the next one gets another challenge.
    pub fn done(self) {
        remove(&self.file);
    }

    /// An enrollment of this node that was not done is given up.
    pub fn forget(node: NodeId) {
        remove(&file(Path::new(FOLDER), node));
    }

    fn within(folder: &Path, node: NodeId) -> Result<Self> {
        let file = file(folder, node);
        let failed = |e: io::Error| Error::system(file.display(), e);
        let kept = match bounded::read(&file, LENGTH) {
            Ok(bytes) => <[u8; LENGTH]>::try_from(bytes).ok(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) if e.kind() == io::ErrorKind::FileTooLarge => None,
            Err(e) => return Err(failed(e)),
        };
        let bytes = match kept {
            Some(bytes) => bytes,
            None => {
                let mut bytes = [0; LENGTH];
                getrandom::fill(&mut bytes).map_err(|e| Error::system("random bytes", e))?;
                durable::replace(&file, &bytes, 0o600)
                    .map_err(failed)
                    .map_err(|e| e.hint("the challenge of an enrollment is kept there until it is done"))?;
                bytes
            }
        };
        Ok(Self { bytes, file })
    }
}

fn file(folder: &Path, node: NodeId) -> PathBuf {
    folder.join(format!("challenge-{node}"))
}

/// One that stays would be used once more, which is worth a line and no more: what was done is done.
fn remove(file: &Path) {
    let removed = fs::remove_file(file)
        .and_then(|()| file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()));
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => console::complain(
            &Error::system(file.display(), e)
                .hint("remove it: the next enrollment is to have a new challenge"),
        ),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NODE: NodeId = NodeId([0x80; 16]);

    #[test]
    fn it_is_the_same_until_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("lib").join("halfkey");
        let of = |node| Challenge::within(&folder, node).unwrap();
        let first = of(NODE);
        let mode = fs::metadata(&first.file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(of(NODE).bytes(), first.bytes());
        assert_ne!(of(NodeId([0x81; 16])).bytes(), first.bytes());
        let before = *first.bytes();
        first.done();
        assert_ne!(of(NODE).bytes(), &before);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "nothing is left beside them");
    }

    #[test]
    fn what_is_none_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path(), NODE);
        for damaged in [&[][..], &[1; 31], &[1; 33]] {
            fs::write(&file, damaged).unwrap();
            let made = Challenge::within(dir.path(), NODE).unwrap();
            assert_eq!(fs::read(&file).unwrap(), made.bytes());
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(Challenge::within(dir.path(), NODE).is_err());
    }
}
