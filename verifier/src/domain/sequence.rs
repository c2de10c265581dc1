//! The sequence of a database: which documents it has, and whether that is what this server has answered with.

use super::index::Index;
use super::state_file::{Kept, TrailEnd};
use super::{Error, Result as DomainResult};
use halfkey_protocol::Reason;
use halfkey_protocol::document::{Deployment, Opened, Place};
use std::path::{Path, PathBuf};

/// The sequence of a database, and whether it is what this server has answered before.
pub struct Sequence {
    deployment: Deployment,
    index: Index,
    file: Option<PathBuf>,
    kept: Option<Kept>,
    /// Why nothing is served.
    trouble: Option<String>,
    /// The state file that did not fit.
    seen: Option<Vec<u8>>,
}

impl Sequence {
    /// Of a database whose documents were read, up to the one that is wrong. `look` gives its audit trail with one entry.
    pub fn open(
        deployment: Deployment,
        index: Index,
        wrong: Option<String>,
        file: Option<&Path>,
        look: impl FnOnce(u64) -> DomainResult<TrailEnd>,
    ) -> Self {
        let mut opened = Self {
            deployment,
            index,
            file: file.map(Path::to_owned),
            kept: None,
            trouble: wrong,
            seen: None,
        };
        if opened.trouble.is_none() {
            opened.trouble = opened.compare(look).err();
        }
        if opened.trouble.is_some() {
            opened.seen = file.and_then(|file| std::fs::read(file).ok());
        }
        opened
    }

    fn compare(&mut self, look: impl FnOnce(u64) -> DomainResult<TrailEnd>) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let kept = Kept::load(file)?;
        let trail = look(kept.entry()).map_err(|e| e.to_string())?;
        kept.check(self.deployment, &self.index.head(), &trail)?;
        self.index.accept(kept.accepted());
        // Not written here: a command beside the server reads it too.
        self.kept = Some(kept);
        Ok(())
    }

    /// Whose.
    pub fn deployment(&self) -> Deployment {
        self.deployment
    }

    /// What the documents say.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The entry of the audit trail that [`Sequence::require`] wants to see.
    pub fn entry(&self) -> u64 {
        self.kept.as_ref().map_or(0, Kept::entry)
    }

    /// Nothing is served.
    pub fn in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    /// Reads everything again if the state file was written since it did not fit.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn accepted_since(
        &mut self,
        read: impl FnOnce(Deployment, Option<&Path>) -> DomainResult<Self>,
    ) -> DomainResult<Option<Self>> {
        let Some(file) = &self.file else { return Ok(None) };
        let seen = std::fs::read(file).ok();
        if seen == self.seen {
            return Ok(None);
        }
        self.seen = seen;
        let again = read(self.deployment, Some(file))?;
        Ok(Some(again))
    }

    /// Whether a database that ends there is the one that this server has answered with.
    ///
    /// # Errors
    /// `RolledBack`.
    pub fn require(&self, found: &Place, trail: &TrailEnd) -> DomainResult<()> {
        let here = self.index.head();
        let why = match (&self.trouble, &self.kept) {
            (Some(why), _) => why.clone(),
            (None, _) if *found != here => {
                format!(
                    "it was changed beside this server: document {} is its newest, not {}",
                    found.number, here.number
                )
            }
            (None, Some(kept)) => match kept.check(self.deployment, found, trail) {
                Ok(()) => return Ok(()),
                Err(why) => why,
            },
            (None, None) => return Ok(()),
        };
        Err(Error::Refused(Reason::RolledBack, why))
    }

    /// A document is about to be committed.
    ///
    /// # Errors
    /// When that can't be written down.
    pub fn intend(&mut self, place: &Place) -> DomainResult<()> {
        let here = self.index.head();
        self.kept.as_mut().map_or(Ok(()), |kept| kept.intend(&here, place)).map_err(unwritten)
    }

    /// It was.
    ///
    /// # Errors
    /// When that can't be written down. It will be accepted all the same, but what was before it as well.
    pub fn committed(&mut self, opened: &Opened, audit: &Place) -> DomainResult<()> {
        self.index.push(opened);
        self.kept.as_mut().map_or(Ok(()), |kept| kept.settle(&opened.place, audit)).map_err(unwritten)
    }

    /// The audit trail has grown. For the server alone: it is the one that writes.
    ///
    /// # Errors
    /// When that can't be written down.
    pub fn grown(&mut self, audit: &Place) -> DomainResult<()> {
        let head = self.index.head();
        self.kept.as_mut().map_or(Ok(()), |kept| kept.grown(&head, audit)).map_err(unwritten)
    }
}

fn unwritten(e: std::io::Error) -> Error {
    Error::unavailable(format!("the state file can't be written: {e}"))
}
