//! The sequence of a database: which documents it has, and whether that is what this server has answered with.

use super::index::Index;
use super::state_file::{Kept, TrailEnd};
use super::{Error, Result as DomainResult, document};
use crate::events::Event;
use crate::keys::ClusterKey;
use crate::store::Tx;
use halfkey_protocol::Reason;
use halfkey_protocol::document::{Deployment, Opened, Place};
use std::path::{Path, PathBuf};

/// What is beside the documents of a database, for [`Sequence::open`].
pub struct Beside {
    /// The audit trail, with one entry.
    pub trail: TrailEnd,
    /// The newest document was taken by a server of this deployment.
    pub taken: bool,
}

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
    /// Of a database whose documents were read, up to the one that is wrong. `look` gives what else it has, with this entry.
    pub fn open(
        deployment: Deployment,
        index: Index,
        wrong: Option<String>,
        file: Option<&Path>,
        look: impl FnOnce(u64) -> DomainResult<Beside>,
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

    fn compare(&mut self, look: impl FnOnce(u64) -> DomainResult<Beside>) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let kept = Kept::load(file)?;
        let Beside { trail, taken } = look(kept.entry()).map_err(|e| e.to_string())?;
        // Its hash names all that was before it.
        let follows = |newest: &Place| taken && self.index.goes_on_from(newest);
        let head = self.index.head();
        kept.check(self.deployment, &head, follows, &trail)?;
        // What this server would append has a tag by another key then: all others would refuse it, and everything after it.
        if !taken && head.number > kept.accepted() {
            return Err(format!(
                "the tag of document {} is by another cluster key than this server's: cluster.key has to be that of the other servers",
                head.number
            ));
        }
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

    /// Whether a database that ends there may have documents that another server took.
    pub fn is_behind(&self, found: &Place) -> bool {
        self.trouble.is_none() && found.number > self.index.head().number
    }

    /// Reads the documents that other servers of this deployment took, and writes down how far that is. None is taken if the last
    /// is not theirs, or they don't go on from here: [`Sequence::require`] says so then. They are read twice, so that they need not
    /// be kept in between. Gives what happened by them.
    ///
    /// # Errors
    /// When they can't be read, or that can't be written down.
    pub fn catch_up(&mut self, rows: &dyn Tx, key: &ClusterKey) -> DomainResult<Vec<Event>> {
        let (found, here) = (rows.head()?, self.index.head());
        if !self.is_behind(&found) || !document::was_taken(rows, key, self.deployment, &found)? {
            return Ok(Vec::new());
        }
        let (mut end, mut broken) = (here, false);
        document::each(rows, here.number, |signed| {
            match halfkey_evidence::signed_document::open(&signed) {
                Ok(next) if halfkey_protocol::document::follows(&next, &end).is_ok() => end = next.place,
                Ok(_) | Err(_) => broken = true,
            }
            Ok(())
        })?;
        if broken || end != found {
            return Ok(Vec::new());
        }
        let mut events = Vec::new();
        document::each(rows, here.number, |signed| {
            // A server took them, by the same rules: what is wrong now is this program.
            if self.trouble.is_none() {
                match self.index.read(&signed, self.deployment) {
                    Ok(opened) => {
                        self.index.nodes_of(&opened.scope, |node| events.push(Event::NodeChanged(node)))
                    }
                    Err(why) => self.trouble = Some(why),
                }
            }
            Ok(())
        })?;
        if self.trouble.is_none() && self.index.head() != found {
            self.trouble = Some("the documents changed while they were read".to_owned());
        }
        if self.trouble.is_none() {
            self.kept
                .as_mut()
                .map_or(Ok(()), |kept| kept.settle(&found, &Place::default()))
                .map_err(unwritten)?;
        }
        Ok(events)
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
            (None, Some(kept)) => {
                match kept.check(self.deployment, found, |newest| self.index.goes_on_from(newest), trail) {
                    Ok(()) => return Ok(()),
                    Err(why) => why,
                }
            }
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

    /// Whether [`Sequence::grown`] has nothing to write down of a trail that ends there.
    pub fn is_noted(&self, audit: &Place) -> bool {
        self.kept.as_ref().is_none_or(|kept| audit.number <= kept.entry())
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
