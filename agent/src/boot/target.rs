//! The volumes that one release is for, and whether they are what K sealed.

use super::cmdline::Settings;
use super::devices::{Devices, Volume};
use crate::console;
use crate::error::{Error, Kind, Result};
use crate::luks::{HeaderCopy, Token};
use halfkey_protocol::Key;
use std::path::Path;

/// A volume of the current enrollment, whose header passed the allow-list.
pub struct Target<'a> {
    /// The volume.
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
    /// When it is not.
    pub fn check_seal(&self, key: &Key) -> Result<()> {
        let path = self.volume.path.display();
        if !self.token.is_sealed_by(key, &self.copy) {
            return Err(Error::volume(format!(
                "{path}: header and token are not those that were sealed at the enrollment: expected {} as {} ({})",
                self.copy.uuid,
                self.token.mapping,
                self.token.role.as_str()
            ))
            .hint("if the volume was changed on purpose (reencrypted, another name), enroll it again; else somebody tampered with the disk"));
        }
        if self.copy.flags != self.token.flags {
            console::say(&format!(
                "warning: {path}: its header has the flags [{}], it is opened with those of the enrollment [{}]. hint: to change them, enroll again",
                self.copy.flags.join(", "),
                self.token.flags.join(", ")
            ));
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
            console::say(&format!(
                "{path} has no token of the current enrollment and is left to its passphrase. hint: enroll it again with the others"
            ));
            others.push((&volume.path, &volume.header.uuid));
            continue;
        };
        if let Some(twin) = targets.iter().find(|other| other.copy.uuid == volume.header.uuid) {
            let other = twin.volume.path.display();
            return Err(Error::volume(format!("{other} and {path} have the same LUKS UUID"))
                .hint("one of them is a copy: unplug it, or give it another UUID (cryptsetup luksUUID)"));
        }
        if let Some(same) = targets.iter().find(|other| other.token.mapping == token.mapping) {
            let other = same.volume.path.display();
            return Err(Error::volume(format!("{other} and {path} would both be '{}'", token.mapping))
                .hint("if their tokens were changed on purpose, enroll both again; else somebody tampered with the disks"));
        }
        let checked = volume.header.check(token.slot, volume.size).map_err(|e| e.context(&path))?;
        let copy = checked.copy(&volume.file, &token.flags).map_err(|e| e.context(&path))?;
        if let Some(other) = settings.name_of(&copy.uuid).filter(|name| *name != token.mapping) {
            console::say(&format!(
                "warning: command line or crypttab call {path} '{other}'; it is opened as '{}', its name at the enrollment",
                token.mapping
            ));
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
        return Err(Error::new(Kind::NotEnrolled, "no volume here has a token of the current enrollment")
            .hint("to enroll, run in the booted system: halfkey-agent enroll"));
    };
    let volumes = &first.token.volumes;
    for target in targets {
        if target.token.volumes != *volumes || !volumes.contains(&target.copy.uuid) {
            return Err(Error::volume(format!(
                "{}: its token names other volumes of the enrollment than that of {}",
                target.volume.path.display(),
                first.volume.path.display()
            ))
            .hint("enroll all volumes again, in one run"));
        }
    }
    for uuid in volumes {
        if let Some((path, _)) = others.iter().find(|(_, other)| other == uuid) {
            return Err(Error::volume(format!(
                "{}: volume {uuid} of the enrollment has no token of it, and nothing is opened beside it",
                path.display()
            ))
            .hint("if its header was changed on purpose, enroll all volumes again; else somebody tampered with the disk"));
        }
        if targets.iter().all(|target| target.copy.uuid != *uuid) {
            return Err(Error::volume(format!(
                "volume {uuid} of the enrollment is not there, and nothing is opened without it: another could take its place afterwards"
            ))
            .hint("look at its disk and cable, and boot with the passphrase; if it is gone for good, enroll again without it"));
        }
    }
    Ok(())
}
