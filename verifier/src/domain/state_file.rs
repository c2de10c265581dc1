//! The state file: how far the database had come when this server last answered.
//!
//! It is beside the release key and not in the database. A backup of the database that is put back, and one that somebody changed
//! beside the server, is not what it says. Whoever holds the database and this file can put back both.

use halfkey_protocol::Bytes;
use halfkey_protocol::document::{Deployment, Place};
use halfkey_protocol::wire::operator::Head;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Its name in the state folder.
pub const FILE: &str = "sequence.state";

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    /// 1
    format: u32,
    /// Whose.
    deployment: String,
    /// The newest document.
    newest: Head,
    /// The one that is being written. After a power cut it is there or it is not.
    next: Option<Head>,
    /// An entry of the audit trail: it has at least so many.
    audit: Head,
    /// Epoch of the notices of revocation. None are given yet.
    epoch: u64,
    /// The newest document of the database that was accepted last after a restore, or 0.
    accepted: u64,
}

/// The audit trail of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailEnd {
    /// Its last entry.
    pub end: Place,
    /// Hash of the entry that the state file names.
    pub entry: Option<[u8; 32]>,
}

/// The file, as this process knows it.
pub struct Kept {
    path: PathBuf,
    text: Text,
}

impl Kept {
    /// Makes the file of a new deployment, or of a database that is accepted as it is.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn create(path: &Path, deployment: Deployment, newest: &Place, audit: &Place) -> io::Result<Self> {
        // A new deployment has no document.
        let accepted = newest.number;
        let text = Text {
            format: 1,
            deployment: deployment.to_string(),
            newest: head(newest),
            next: None,
            audit: head(audit),
            epoch: 0,
            accepted,
        };
        let kept = Self { path: path.to_owned(), text };
        kept.write()?;
        Ok(kept)
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is not there, or damaged, for people.
    pub fn load(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let text: Text =
            serde_json::from_slice(&bytes).map_err(|e| format!("{} is damaged: {e}", path.display()))?;
        if text.format != 1 {
            return Err(format!("{}: expected format 1, found {}", path.display(), text.format));
        }
        Ok(Self { path: path.to_owned(), text })
    }

    /// The newest document of the database that was accepted last after a restore, or 0.
    pub fn accepted(&self) -> u64 {
        self.text.accepted
    }

    /// The entry of the audit trail that it names.
    pub fn entry(&self) -> u64 {
        self.text.audit.number
    }

    /// Whether a database is what it says, or goes on from there. `follows` says of the document that it names, if it is not the
    /// newest: whether it is among those before, and servers of this deployment took what came after. `trail` has the entry that
    /// [`Kept::entry`] names.
    ///
    /// # Errors
    /// What is not, for people.
    pub fn check(
        &self,
        deployment: Deployment,
        found: &Place,
        follows: impl FnOnce(&Place) -> bool,
        trail: &TrailEnd,
    ) -> Result<(), String> {
        let Text { newest, next, .. } = &self.text;
        if self.text.deployment != deployment.to_string() {
            return Err(format!(
                "the state file is of deployment {}, this is {deployment}",
                self.text.deployment
            ));
        }
        let found_head = head(found);
        let known = found_head == *newest || Some(&found_head) == next.as_ref();
        let goes_on = || found.number > newest.number && follows(&place(newest));
        if !(known || goes_on()) {
            return Err(if found.number < newest.number {
                format!(
                    "its newest document is number {}, and this server has already answered with number {}",
                    found.number, newest.number
                )
            } else {
                format!(
                    "it has a document {} that this server did not take; the newest that it took is {}",
                    found.number, newest.number
                )
            });
        }
        let Head { number, sha256 } = &self.text.audit;
        if trail.end.number < *number {
            return Err(format!(
                "its audit trail has {} entries, and this server has already written {number}",
                trail.end.number
            ));
        }
        if *number > 0 && trail.entry.map(Bytes::from).as_ref() != Some(sha256) {
            return Err(format!(
                "entry {number} of its audit trail is not the one that this server has written"
            ));
        }
        Ok(())
    }

    /// A document is about to be committed, to a database that ends `here`. The one that was written before it may have been
    /// committed without having been settled: then `here` is what was `next`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn intend(&mut self, here: &Place, place: &Place) -> io::Result<()> {
        self.change(|text| {
            text.newest = head(here);
            text.next = Some(head(place));
        })
    }

    /// The database ends there now.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn settle(&mut self, newest: &Place, audit: &Place) -> io::Result<()> {
        self.change(|text| {
            text.newest = head(newest);
            text.next = None;
            if audit.number > text.audit.number {
                text.audit = head(audit);
            }
        })
    }

    /// The audit trail has grown. A document that was being written when the power failed is there, or it never will be.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn grown(&mut self, newest: &Place, audit: &Place) -> io::Result<()> {
        if audit.number <= self.text.audit.number && self.text.next.is_none() {
            return Ok(());
        }
        self.settle(newest, audit)
    }

    /// What it says, for people.
    pub fn summary(&self) -> String {
        format!("document {}, {} audit entries", self.text.newest.number, self.text.audit.number)
    }

    /// What is not on the disk is not remembered either.
    fn change(&mut self, change: impl FnOnce(&mut Text)) -> io::Result<()> {
        let before = self.text.clone();
        change(&mut self.text);
        self.write().inspect_err(|_| self.text = before)
    }

    /// Whole or not at all, and durable.
    fn write(&self) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(&self.text).map_err(io::Error::other)?;
        let temporary = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&json)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

fn place(head: &Head) -> Place {
    // One of another length is that of no document.
    Place { number: head.number, sha256: head.sha256.array().unwrap_or_default() }
}

fn head(place: &Place) -> Head {
    Head { number: place.number, sha256: Bytes::from(place.sha256) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Deployment = Deployment([5; 16]);

    fn at(number: u64) -> Place {
        Place { number, sha256: [number as u8; 32] }
    }

    fn trail(end: u64, entry: u64) -> TrailEnd {
        TrailEnd { end: at(end), entry: Some(at(entry).sha256) }
    }

    fn file() -> (tempfile::TempDir, Kept) {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::create(&dir.path().join(FILE), HERE, &at(2), &at(10)).unwrap();
        (dir, kept)
    }

    /// Each moment at which the power can fail while document 3 is written.
    #[test]
    fn a_power_cut_at_any_moment_leaves_a_database_that_is_served() {
        let (_dir, mut kept) = file();
        let after = |kept: &Kept, databases: &[u64]| {
            let again = Kept::load(&kept.path).unwrap();
            for number in 1..=4 {
                let served = again.check(HERE, &at(number), |_| false, &trail(10, 10)).is_ok();
                assert_eq!(served, databases.contains(&number), "{number}");
            }
        };
        after(&kept, &[2]);
        kept.intend(&at(2), &at(3)).unwrap();
        after(&kept, &[2, 3]);
        // The commit failed, and another document takes the place.
        kept.intend(&at(2), &Place { number: 3, sha256: [9; 32] }).unwrap();
        after(&kept, &[2]);
        kept.intend(&at(2), &at(3)).unwrap();
        // Committed, and the power failed before that was written down; then again while the next one is written.
        let mut kept = Kept::load(&kept.path).unwrap();
        kept.intend(&at(3), &at(4)).unwrap();
        after(&kept, &[3, 4]);
        kept.settle(&at(3), &at(12)).unwrap();
        assert!(
            Kept::load(&kept.path).unwrap().check(HERE, &at(3), |_| false, &trail(11, 12)).is_err(),
            "the trail was longer"
        );
        assert!(Kept::load(&kept.path).unwrap().check(HERE, &at(2), |_| false, &trail(12, 12)).is_err());
        assert!(Kept::load(&kept.path).unwrap().check(HERE, &at(3), |_| false, &trail(12, 12)).is_ok());
        assert!(
            Kept::load(&kept.path).unwrap().check(HERE, &at(3), |_| false, &trail(99, 11)).is_err(),
            "another trail"
        );
        assert!(
            Kept::load(&kept.path)
                .unwrap()
                .check(Deployment([6; 16]), &at(3), |_| false, &trail(12, 12))
                .is_err()
        );
    }

    /// Another server took documents meanwhile.
    #[test]
    fn a_database_may_go_on_from_what_it_says() {
        let (_dir, kept) = file();
        let goes_on = |found, from: Place| {
            let found = kept.check(HERE, &at(found), |newest| *newest == from, &trail(10, 10));
            found.is_ok()
        };
        assert!(goes_on(4, at(2)));
        assert!(!goes_on(4, at(3)), "from another one");
        assert!(!goes_on(1, at(2)), "it does not go back");
        let fork = Place { number: 2, sha256: [9; 32] };
        assert!(kept.check(HERE, &fork, |_| true, &trail(10, 10)).is_err());
    }

    #[test]
    fn the_trail_only_grows_and_damage_is_no_empty_file() {
        let (_dir, mut kept) = file();
        kept.grown(&at(2), &at(15)).unwrap();
        kept.grown(&at(2), &at(11)).unwrap();
        assert!(Kept::load(&kept.path).unwrap().check(HERE, &at(2), |_| false, &trail(14, 15)).is_err());
        fs::write(&kept.path, "").unwrap();
        assert!(Kept::load(&kept.path).err().unwrap().contains("damaged"));
        fs::remove_file(&kept.path).unwrap();
        assert!(Kept::load(&kept.path).is_err());
    }
}
