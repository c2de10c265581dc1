//! The volumes that one release is for, and whether they are what K sealed.

use super::cmdline::Settings;
use super::devices::{Devices, Volume};
use crate::console;
use crate::error::Result;
use crate::luks::{HeaderCopy, Token};
use crate::words;
use halfkey_protocol::Key;
use std::path::Path;

/// A volume of the current enrollment, whose header passed the allow-list.
pub struct Target<'a> {
    /// The device, its size and its whole header, as they were found.
    pub volume: &'a Volume,
    /// Its token of this enrollment.
    pub token: &'a Token,
    /// What was checked, and is all that will be opened.
    pub copy: HeaderCopy,
}

impl Target<'_> {
    /// What K sealed must be what is there, before anything else is done with it.
    ///
    /// # Errors
    /// [`crate::error::Kind::Volume`] when header or token are not what was sealed.
    pub fn check_seal(&self, key: &Key) -> Result<()> {
        let path = self.volume.path.display();
        if !self.token.is_sealed_by(key, &self.copy) {
            return Err(words::not_sealed(
                path,
                &self.copy.uuid,
                &self.token.mapping,
                self.token.role.as_str(),
            ));
        }
        if self.copy.flags != self.token.flags {
            console::say(&words::other_flags(path, &self.copy.flags, &self.token.flags));
        }
        Ok(())
    }
}

/// The volumes of this enrollment, each with a checked header. Volumes of other enrollments are left to their
/// passphrases: another machine's disk must not stop this one. But none that the seal names, and none that says it is one of these;
/// and all that the seal names must be there.
///
/// # Errors
/// Names the volume that is not as it must be, or not there.
pub fn targets<'a>(found: &'a Devices, current: &Token, settings: &Settings) -> Result<Vec<Target<'a>>> {
    let mut targets: Vec<Target> = Vec::new();
    let mut others: Vec<(&Path, &str)> =
        found.others.iter().map(|(path, uuid)| (path.as_path(), uuid.as_str())).collect();
    for volume in &found.volumes {
        let path = volume.path.display().to_string();
        let ours = |(_, token): &&(u32, Token)| {
            (token.node, &token.enrollment) == (current.node, &current.enrollment)
        };
        let Some((_, token)) = volume.tokens.iter().find(ours) else {
            console::say(&words::left_to_its_passphrase(&path));
            others.push((&volume.path, &volume.header.uuid));
            continue;
        };
        if let Some(twin) = targets.iter().find(|other| other.copy.uuid == volume.header.uuid) {
            return Err(words::same_uuid(twin.volume.path.display(), path));
        }
        if let Some(same) = targets.iter().find(|other| other.token.mapping == token.mapping) {
            return Err(words::same_mapping(same.volume.path.display(), path, &token.mapping));
        }
        let checked = volume.header.check(token.slot, volume.size).map_err(|e| e.context(&path))?;
        let copy = checked.copy(&volume.file, &token.flags).map_err(|e| e.context(&path))?;
        if let Some(other) = settings.name_of(&copy.uuid).filter(|name| *name != token.mapping) {
            console::say(&words::other_name(&path, other, &token.mapping));
        }
        targets.push(Target { volume, token, copy });
    }
    complete(&targets, &others)?;
    Ok(targets)
}

/// Whether all volumes that the enrollment has are among `targets`. The running system would ask for the passphrase of one that
/// is not, and take whatever volume then has its UUID, with whatever passphrase opens that. The lists are authentic once the seals
/// are checked; until then this can only refuse.
fn complete(targets: &[Target], others: &[(&Path, &str)]) -> Result<()> {
    let Some(first) = targets.first() else {
        return Err(words::none_is_current());
    };
    let volumes = &first.token.volumes;
    for target in targets {
        if target.token.volumes != *volumes || !volumes.contains(&target.copy.uuid) {
            let (path, first) = (target.volume.path.display(), first.volume.path.display());
            return Err(words::other_volumes(path, first));
        }
    }
    for uuid in volumes {
        if let Some((path, _)) = others.iter().find(|(_, other)| other == uuid) {
            return Err(words::token_is_gone(path.display(), uuid));
        }
        if targets.iter().all(|target| target.copy.uuid != *uuid) {
            return Err(words::volume_is_gone(uuid));
        }
    }
    Ok(())
}
