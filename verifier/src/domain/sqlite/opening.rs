//! Opening the database: its schema, the keys that its rows need, and whether it is the one that the state file knows.

use super::{Sqlite, audit, broken, damaged, documents, nodes, number, rows, schema};
use crate::config::StateDir;
use crate::domain::kept::Kept;
use crate::domain::sequence::{Index, Sequence};
use crate::domain::{By, Result, StoreError};
use crate::keys::{self, ClusterKey};
use halfkey_protocol::document::Deployment;
use rusqlite::{Connection, OpenFlags};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

/// How long to wait for another process (`operator add`) that writes.
const BUSY: Duration = Duration::from_secs(5);

impl Sqlite {
    /// Opens or makes the database of a state folder. With a deployment it has to be what the state file says; else it opens, and
    /// serves nothing that depends on it.
    ///
    /// # Errors
    /// As [`Sqlite::open`]; when there is no cluster key.
    pub fn open_in(state: &StateDir) -> Result<Self> {
        let unusable = |e: crate::Failure| StoreError::Unavailable(e.to_string());
        let key = ClusterKey::load(&state.cluster_key()).map_err(unusable)?;
        let deployment = match state.deployment().exists() {
            true => Some(keys::load_deployment(&state.deployment()).map_err(unusable)?),
            false => None,
        };
        Self::connect(&state.database(), key, deployment.map(|deployment| (deployment, state.sequence())))
    }

    /// Opens or makes the database and brings it to this build's schema. It belongs to no deployment and is compared with no file.
    /// Rows that need a tag have it by this key.
    ///
    /// # Errors
    /// When it can't be opened or was made by a newer build.
    pub fn open(path: &Path, key: ClusterKey) -> Result<Self> {
        Self::connect(path, key, None)
    }

    fn connect(path: &Path, key: ClusterKey, of: Option<(Deployment, std::path::PathBuf)>) -> Result<Self> {
        // SQLite gives its other files the mode of this one.
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true).mode(0o600);
        options.open(path).map_err(|e| StoreError::Unavailable(e.to_string()))?;
        let mut writer = connect(path, OpenFlags::default())?;
        // Switching to WAL writes the database: before anything else.
        writer
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))
            .map_err(broken)
            .and_then(|mode| match mode.as_str() {
                "wal" => Ok(()),
                other => Err(StoreError::Unavailable(format!(
                    "expected journal mode wal, found {other}: {} has to be on a local file system",
                    path.display()
                ))),
            })?;
        schema::migrate(&mut writer)?;
        let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        let key = Arc::new(key);
        rows::install(&writer, &key)?;
        rows::install(&reader, &key)?;
        let deployment = of.as_ref().map_or(Deployment([0; 16]), |(deployment, _)| *deployment);
        let sequence = sequence(&writer, deployment, of.as_ref().map(|(_, file)| file.as_path()))?;
        Ok(Self { sequence: RwLock::new(sequence), writer: Mutex::new(writer), reader: Mutex::new(reader) })
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
            Err(StoreError::Refused(_, why)) => why,
            Ok(()) if restored => {
                "it was restored together with its state file, says who ran this".to_owned()
            }
            other => return other.map(|()| None),
        };
        let deployment = self.sequence().deployment();
        let mut index = Index::default();
        let writer = self.writer();
        documents::each(&writer, |signed| index.read(&signed, deployment).map_err(|what| damaged(&what)))?;
        drop(writer);
        let why = why.split("\nhint: ").next().unwrap_or_default().to_owned();
        let (head, audit) = (index.head(), self.read(|tx| audit::end(tx))?);
        let used = index.open_after(accepted);
        let detail = self.write(|tx| {
            nodes::delete_c_u(tx)?;
            let detail = format!(
                "{why}; state file before: {before}; now: document {}, {} audit entries; {} used up",
                head.number,
                audit.number,
                crate::counted(used, "open enrollment")
            );
            audit::append(tx, By { actor: "verifier", now }, "accept_rollback", None, &detail)?;
            Ok(detail)
        })?;
        self.forget_deleted();
        let audit = self.read(|tx| audit::end(tx))?;
        Kept::create(&state.sequence(), deployment, &head, &audit)
            .map_err(|e| StoreError::Unavailable(format!("{}: {e}", state.sequence().display())))?;
        Ok(Some((why, detail)))
    }

    /// Keeps the database from growing beyond this many pages of 4096 bytes.
    ///
    /// # Errors
    /// When the database can't be asked.
    pub fn limit_pages(&self, pages: u64) -> Result<()> {
        self.writer().pragma_update(None, "max_page_count", number(pages)).map_err(broken)
    }
}

/// Reads the documents of a database, and compares where they end with the state file.
pub fn sequence(c: &Connection, deployment: Deployment, file: Option<&Path>) -> Result<Sequence> {
    let (mut index, mut wrong) = (Index::default(), None);
    documents::each(c, |signed| {
        if wrong.is_none() {
            wrong = index.read(&signed, deployment).err();
        }
        Ok(())
    })?;
    Ok(Sequence::open(deployment, index, wrong, file, |entry| audit::trail(c, entry)))
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, flags).map_err(broken)?;
    connection.busy_timeout(BUSY).map_err(broken)?;
    connection.set_prepared_statement_cache_capacity(64);
    // secure_delete: C_U is to be gone when it is deleted. cache_size is in KiB if negative.
    connection
        .execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;
             PRAGMA cache_size = -2048; PRAGMA journal_size_limit = 4194304; PRAGMA temp_store = MEMORY;",
        )
        .map_err(broken)?;
    Ok(connection)
}
