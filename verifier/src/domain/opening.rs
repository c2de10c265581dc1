//! Opening the records: their keys, and whether the database is the one that the state file knows.

use super::index::Index;
use super::sequence::{Beside, Sequence};
use super::state_file::Kept;
use super::{By, Error, Records, Result, audit, document, enrollment};
use crate::cache::Cache;
use crate::config::StateDir;
use crate::events::Events;
use crate::keys::{self, ClusterKey};
use crate::store::measured::Measured;
use crate::store::{self, Store};
use halfkey_protocol::document::Deployment;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

impl Records {
    /// Opens or makes the database of a state folder. With a deployment it has to be what the state file says; else it opens, and
    /// serves nothing that depends on it.
    ///
    /// # Errors
    /// When it can't be opened or was made by a newer build; when there is no cluster key.
    pub fn open_in(state: &StateDir) -> Result<Self> {
        let at = state.database().map_err(|e| Error::unavailable(e.to_string()))?;
        Self::in_folder(state, store::open(&at)?)
    }

    /// The same over another database than the folder's own.
    ///
    /// # Errors
    /// When it can't be read; when there is no cluster key.
    pub fn in_folder(state: &StateDir, store: Arc<dyn Store>) -> Result<Self> {
        let unusable = |e: crate::Failure| Error::unavailable(e.to_string());
        let key = ClusterKey::load(state).map_err(unusable)?;
        let deployment = match state.deployment().exists() {
            true => Some(keys::load_deployment(&state.deployment()).map_err(unusable)?),
            false => None,
        };
        Self::of(store, key, deployment.map(|deployment| (deployment, state.sequence())))
    }

    /// Over a database that belongs to no deployment and is compared with no file. Rows that need a tag have it by this key.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn over(store: Arc<dyn Store>, key: ClusterKey) -> Result<Self> {
        Self::of(store, key, None)
    }

    /// What rows have their tag by.
    pub fn cluster_key(&self) -> Arc<ClusterKey> {
        self.key.clone()
    }

    fn of(store: Arc<dyn Store>, key: ClusterKey, of: Option<(Deployment, PathBuf)>) -> Result<Self> {
        let deployment = of.as_ref().map_or(Deployment([0; 16]), |(deployment, _)| *deployment);
        let sequence = sequence(&*store, &key, deployment, of.as_ref().map(|(_, file)| file.as_path()))?;
        let (sequence, events) = (RwLock::new(sequence), Events::default());
        Ok(Self {
            store: Measured::new(store),
            key: Arc::new(key),
            said: Cache::of(enrollment::KEPT),
            sequence,
            events,
            subscriptions: Default::default(),
            told: AtomicU64::default(),
        })
    }

    /// Takes the database as it is, after a restore: the state file says then what it says. Open enrollments are used up: whether
    /// they were proved after the backup is not known. Gives what that is, and why it was not accepted before. Where the state file
    /// fits there is nothing to accept, unless the caller knows that both were `restored`: no server may run then.
    ///
    /// # Errors
    /// When a document is wrong; when file or database can't be written.
    pub fn accept_rollback(
        &self,
        state: &StateDir,
        restored: bool,
        now: u64,
    ) -> Result<Option<(String, String)>> {
        let (before, accepted) = match Kept::load(&state.sequence()) {
            Ok(kept) => (kept.summary(), kept.accepted()),
            Err(why) => (why, 0),
        };
        let why = match self.require_state() {
            Err(Error::Refused(_, why)) => why,
            Ok(()) if restored => {
                "it was restored together with its state file, says who ran this".to_owned()
            }
            other => return other.map(|()| None),
        };
        let deployment = self.sequence().deployment();
        let (index, wrong) = read(&self.store, deployment)?;
        if let Some(what) = wrong {
            return Err(Error::damaged(what));
        }
        let head = index.head();
        let used = index.open_after(accepted);
        let (detail, audit) = self.write(|view| {
            view.rows.delete_every_c_u()?;
            let detail = format!(
                "{why}; state file before: {before}; now: document {}, {} audit entries; {} used up",
                head.number,
                audit::end(view.rows)?.number,
                crate::counted(used, "open enrollment")
            );
            audit::append(view, By { actor: "verifier", now }, "accept_rollback", None, &detail)?;
            Ok((detail, audit::end(view.rows)?))
        })?;
        self.store.purge();
        Kept::create(&state.sequence(), deployment, &head, &audit)
            .map_err(|e| Error::unavailable(format!("{}: {e}", state.sequence().display())))?;
        Ok(Some((why, detail)))
    }
}

/// Reads the documents of a database, and compares where they end with the state file.
///
/// # Errors
/// When they can't be read.
pub fn sequence(
    store: &dyn Store,
    key: &ClusterKey,
    deployment: Deployment,
    file: Option<&Path>,
) -> Result<Sequence> {
    let (index, wrong) = read(store, deployment)?;
    let head = index.head();
    let look = |entry| {
        let mut found = Err(Error::unavailable("our bug: not read"));
        store.read(&mut |rows| {
            let taken = document::was_taken(rows, key, deployment, &head);
            found = audit::trail(rows, entry).and_then(|trail| Ok(Beside { trail, taken: taken? }));
        })?;
        found
    };
    Ok(Sequence::open(deployment, index, wrong, file, look))
}

/// The documents up to the one that is wrong, and what is wrong with it.
fn read(store: &dyn Store, deployment: Deployment) -> Result<(Index, Option<String>)> {
    let (mut index, mut wrong) = (Index::default(), None);
    let mut done: std::result::Result<(), Error> = Ok(());
    store.read(&mut |rows| {
        (index, wrong) = (Index::default(), None);
        done = document::each(rows, 0, |signed| {
            if wrong.is_none() {
                wrong = index.read(&signed, deployment).err();
            }
            Ok(())
        });
    })?;
    done?;
    Ok((index, wrong))
}
