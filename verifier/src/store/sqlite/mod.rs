//! [`Store`] over SQLite: WAL, `synchronous=FULL`, one connection that writes
//! and one that reads beside it.

mod audit;
mod boots;
mod documents;
mod evidence;
mod nodes;
mod policies;
mod proposals;
mod registrations;
mod review;
mod rows;
mod schema;

use super::sequence::{Index, Sequence};
use super::{
    Approval, Boot, By, Case, Client, ClientKind, Documents, NewDocument, NewEnrollment, NewPolicy,
    NewRegistration, Node, NodeLine, ProposalCase, ProposalRuling, ProposalStanding, Registration,
    RegistrationLine, Result, Reviewer, Saved, Standing, Store, StoreError, StoredProposal, Which,
};
use crate::attest::Ruling;
use crate::config::StateDir;
use crate::keys::{self, ClusterKey};
use crate::limit::Source;
use halfkey_protocol::document::{Deployment, Opened, Place};
use halfkey_protocol::wire::operator::{AuditEntry, EvidenceRecord, EvidenceSummary, PendingBoot};
use halfkey_protocol::wire::policies::{Group, PolicyRecord, PolicySummary, ProposalRecord};
use halfkey_protocol::wire::{SignedDocument, Verdict};
use halfkey_protocol::{NodeId, Reason};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, params};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// How long to wait for another process (`operator add`) that writes.
const BUSY: Duration = Duration::from_secs(5);

/// The database of one host.
pub struct Sqlite {
    // Taken after the writer and before the reader.
    sequence: RwLock<Sequence>,
    reader: Mutex<Connection>,
    // Closed last: who closes last empties and removes the write-ahead log.
    writer: Mutex<Connection>,
}

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

    /// Takes the database as it is, after a restore: the state file says then what it says. Gives what that is, and why it was not
    /// accepted before.
    ///
    /// # Errors
    /// When a document is wrong; when file or database can't be written.
    pub fn accept_rollback(&self, state: &StateDir, now: u64) -> Result<Option<(String, String)>> {
        let before = match super::kept::Kept::load(&state.sequence()) {
            Ok(kept) => kept.summary(),
            Err(why) => why,
        };
        let trouble = self.require_state();
        let Err(StoreError::Refused(_, why)) = trouble else { return trouble.map(|()| None) };
        let deployment = self.sequence().deployment();
        let mut index = Index::default();
        let writer = self.writer();
        documents::each(&writer, |signed| index.read(&signed, deployment).map_err(|what| damaged(&what)))?;
        drop(writer);
        let why = why.split("\nhint: ").next().unwrap_or_default().to_owned();
        let (head, audit) = (index.head(), self.read(|tx| audit::end(tx))?);
        let detail = format!(
            "{why}; state file before: {before}; now: document {}, {} audit entries",
            head.number, audit.number
        );
        self.write(|tx| audit::append(tx, By { actor: "verifier", now }, "accept_rollback", None, &detail))?;
        let audit = self.read(|tx| audit::end(tx))?;
        super::kept::Kept::create(&state.sequence(), deployment, &head, &audit)
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

    fn sequence(&self) -> RwLockReadGuard<'_, Sequence> {
        self.sequence.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn sequence_mut(&self) -> RwLockWriteGuard<'_, Sequence> {
        self.sequence.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the database is what this server has answered with.
    fn require_state(&self) -> Result<()> {
        let sequence = self.sequence();
        self.read(|tx| here(tx, &sequence))
    }

    /// Whether `accept-rollback` has run since.
    fn look_again(&self) -> Result<()> {
        let writer = self.writer();
        let mut sequence = self.sequence_mut();
        if let Some(again) =
            sequence.accepted_since(|deployment, file| self::sequence(&writer, deployment, file))?
        {
            *sequence = again;
        }
        Ok(())
    }

    /// One node, compared with what was signed about it.
    fn checked_node(&self, node: NodeId) -> Result<Option<Node>> {
        let sequence = self.sequence();
        self.read(|tx| nodes::one(tx, node, sequence.index()))
    }

    /// A transaction that only the database which this server has answered with may have.
    fn write_here<T>(&self, work: impl FnOnce(&Transaction<'_>, &Index) -> Result<T>) -> Result<T> {
        self.write(|tx| {
            let sequence = self.sequence();
            here(tx, &sequence)?;
            work(tx, sequence.index())
        })
    }

    /// A transaction with a document in it: it is written down before and after.
    fn write_document<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &Sequence) -> Result<(T, Option<Opened>)>,
    ) -> Result<T> {
        let mut connection = self.writer();
        let behavior = rusqlite::TransactionBehavior::Immediate;
        let tx = connection.transaction_with_behavior(behavior).map_err(broken)?;
        let (deployment, (done, opened)) = {
            let sequence = self.sequence();
            here(&tx, &sequence)?;
            (sequence.deployment(), work(&tx, &sequence)?)
        };
        let Some(opened) = opened else {
            tx.commit().map_err(broken)?;
            return Ok(done);
        };
        if opened.deployment != deployment {
            let what = format!("expected a document for {deployment}, found one for {}", opened.deployment);
            return Err(StoreError::Refused(Reason::Deployment, what));
        }
        let audit = audit::end(&tx)?;
        let mut sequence = self.sequence_mut();
        sequence.intend(&opened.place)?;
        tx.commit().map_err(broken)?;
        sequence.committed(&opened, &audit)?;
        Ok(done)
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        // A panic in a transaction rolled it back: the connection is as good as before.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let tx = connection.transaction().map_err(broken)?;
        work(&tx)
    }

    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.writer();
        let behavior = rusqlite::TransactionBehavior::Immediate;
        let tx = connection.transaction_with_behavior(behavior).map_err(broken)?;
        let done = work(&tx)?;
        tx.commit().map_err(broken)?;
        Ok(done)
    }
}

/// Whether the database is what this server has answered with.
fn here(c: &Connection, sequence: &Sequence) -> Result<()> {
    sequence.require(&documents::head(c)?, &audit::trail(c, sequence.entry())?)
}

/// Reads the documents of a database, and compares where they end with the state file.
fn sequence(c: &Connection, deployment: Deployment, file: Option<&Path>) -> Result<Sequence> {
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

impl Documents for Sqlite {
    fn signed_document(&self, number: u64) -> Result<Option<SignedDocument>> {
        self.read(|tx| documents::one(tx, number))
    }

    fn stored_proposal(&self, id: u64) -> Result<Option<StoredProposal>> {
        self.read(|tx| proposals::one(tx, id))
    }
}

impl Store for Sqlite {
    fn probe(&self, now: u64) -> Result<()> {
        const SET: &str = "INSERT OR REPLACE INTO meta (key, value) VALUES ('probed_at', ?1)";
        self.write(|tx| tx.execute(SET, [number(now)]).map(|_| ()).map_err(broken))
    }

    fn expire(&self, registered_before: u64, now: u64) -> Result<u64> {
        self.write(|tx| {
            let expired = registrations::expire(tx, registered_before, now)?;
            boots::expire(tx, now)?;
            audit::close(tx, now)?;
            Ok(expired)
        })
    }

    fn client(&self, fingerprint: &str) -> Result<Option<Client>> {
        self.read(|tx| {
            tx.prepare_cached(
                "SELECT fingerprint, name, kind, added_at, tag FROM clients WHERE fingerprint = ?1",
            )
            .and_then(|mut query| query.query_row([fingerprint], client_row).optional())
            .map_err(broken)?
            .map(|row| client(tx, row))
            .transpose()
        })
    }

    fn clients(&self) -> Result<Vec<Client>> {
        self.read(|tx| {
            let mut query = tx
                .prepare("SELECT fingerprint, name, kind, added_at, tag FROM clients ORDER BY kind, name")
                .map_err(broken)?;
            let rows: Vec<ClientRow> =
                query.query_map([], client_row).and_then(Iterator::collect).map_err(broken)?;
            rows.into_iter().map(|row| client(tx, row)).collect()
        })
    }

    fn add_client(&self, new: &Client) -> Result<()> {
        self.write(|tx| {
            let tag = client_tag(tx, &new.fingerprint, new.kind.as_str(), &new.name)?;
            let done = tx.execute(
                "INSERT OR IGNORE INTO clients (fingerprint, name, kind, added_at, tag) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![new.fingerprint, new.name, new.kind.as_str(), number(new.added_at), tag],
            );
            if done.map_err(broken)? == 0 {
                let what = format!("there is a {} named {} already", new.kind.as_str(), new.name);
                return Err(StoreError::Refused(Reason::Conflict, what));
            }
            let detail = format!("{} {} with certificate {}", new.kind.as_str(), new.name, new.fingerprint);
            audit::append(tx, By { actor: "verifier", now: new.added_at }, "operator_add", None, &detail)
        })
    }

    fn remove_client(&self, name: &str, kind: ClientKind, now: u64) -> Result<()> {
        self.write(|tx| {
            let done = tx.execute("DELETE FROM clients WHERE name = ?1 AND kind = ?2", [name, kind.as_str()]);
            if done.map_err(broken)? == 0 {
                let what = format!("there is no {} named {name}", kind.as_str());
                return Err(StoreError::Refused(Reason::NotFound, what));
            }
            let detail = format!("{} {name}", kind.as_str());
            audit::append(tx, By { actor: "verifier", now }, "operator_remove", None, &detail)
        })
    }

    fn registration(&self, node: NodeId) -> Result<Option<Registration>> {
        self.read(|tx| registrations::one(tx, node))
    }

    fn registrations(&self, which: &Which, limit: u64) -> Result<Vec<RegistrationLine>> {
        self.read(|tx| registrations::list(tx, which, limit))
    }

    fn save_registration(
        &self,
        new: &NewRegistration,
        challenge: &[u8; 32],
        unenrolled: u64,
        now: u64,
    ) -> Result<Saved> {
        self.write(|tx| registrations::save(tx, new, challenge, unenrolled, now))
    }

    fn keep_registration(&self, node: NodeId) -> Result<()> {
        self.write(|tx| registrations::keep(tx, node))
    }

    fn node(&self, node: NodeId) -> Result<Option<Node>> {
        self.checked_node(node)
    }

    fn nodes(&self, which: &Which, limit: u64, now: u64) -> Result<Vec<NodeLine>> {
        let sequence = self.sequence();
        self.read(|tx| nodes::list(tx, which, limit, now, sequence.index()))
    }

    fn pending(&self, node: NodeId, now: u64) -> Result<Option<PendingBoot>> {
        self.read(|tx| boots::waiting(tx, node, now))
    }

    fn boot(&self, node: NodeId, ticket: &str, now: u64) -> Result<Option<Boot>> {
        self.read(|tx| boots::one(tx, node, ticket, now))
    }

    fn enroll(&self, new: &NewEnrollment<'_>, by: By<'_>) -> Result<()> {
        self.write_document(|tx, sequence| {
            nodes::enroll(tx, new, sequence.index().revoked(new.node), by)?;
            Ok(((), Some(new.document.opened.clone())))
        })
    }

    fn prove(&self, node: NodeId, enrollment: &str, proof: &[u8], now: u64) -> Result<()> {
        self.write_document(|tx, sequence| {
            Ok(((), nodes::prove(tx, node, enrollment, proof, sequence, now)?))
        })?;
        // C_U is in older pages of the log until these are overwritten. Best effort: a
        // reader may hold them, and the next checkpoint gets them.
        let truncated = self.writer().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(e) = truncated {
            tracing::warn!(error = %e, "the write-ahead log could not be emptied after an enrollment");
        }
        Ok(())
    }

    fn approve(&self, node: NodeId, approval: &Approval<'_>, by: By<'_>) -> Result<()> {
        self.write(|tx| boots::approve(tx, node, approval, by))
    }

    fn deny(&self, node: NodeId, ticket: &str, because: &str, by: By<'_>) -> Result<()> {
        self.write(|tx| boots::deny(tx, node, ticket, because, by))
    }

    fn revoke(&self, node: NodeId, label: &str, because: &str, by: By<'_>) -> Result<()> {
        self.write_document(|tx, sequence| {
            let entry = nodes::revoke(tx, node, label, because, sequence.deployment(), by)?;
            Ok(((), Some(entry)))
        })
    }

    fn restore(&self, node: NodeId, because: &str, by: By<'_>) -> Result<()> {
        self.write_document(|tx, sequence| {
            let revoked = sequence.index().is_revoked(node);
            let entry = nodes::restore(tx, node, because, revoked, sequence.deployment(), by)?;
            Ok(((), Some(entry)))
        })
    }

    fn hold(&self, node: NodeId, because: &str, by: By<'_>) -> Result<()> {
        self.write_document(|tx, sequence| {
            Ok(((), Some(nodes::hold(tx, node, because, sequence.deployment(), by)?)))
        })
    }

    fn release(&self, node: NodeId, because: &str, by: By<'_>) -> Result<()> {
        self.write_document(|tx, sequence| {
            let held = sequence.index().is_held(node);
            Ok(((), Some(nodes::release(tx, node, because, held, sequence.deployment(), by)?)))
        })
    }

    fn attest(&self, case: &Case<'_>, rule: &mut dyn FnMut(&Standing) -> Ruling) -> Result<Verdict> {
        self.write_here(|tx, index| evidence::attest(tx, case, index, rule))
    }

    fn evidence_of(&self, node: NodeId, limit: u64) -> Result<Vec<EvidenceSummary>> {
        self.read(|tx| evidence::of_node(tx, node, limit))
    }

    fn evidence(&self, id: u64) -> Result<Option<EvidenceRecord>> {
        self.read(|tx| evidence::one(tx, id))
    }

    fn policies(&self) -> Result<Vec<PolicySummary>> {
        self.read(|tx| policies::all(tx))
    }

    fn policy(&self, scope: &str, version: Option<u64>) -> Result<Option<PolicyRecord>> {
        self.read(|tx| policies::one(tx, scope, version))
    }

    fn apply(&self, new: &NewPolicy<'_>, reviewer: &dyn Reviewer, by: By<'_>) -> Result<Vec<NodeId>> {
        self.write_document(|tx, sequence| {
            let nodes = policies::apply(tx, new, reviewer, sequence.index(), by)?;
            Ok((nodes, Some(new.document.opened.clone())))
        })
    }

    fn set_group(
        &self,
        node: NodeId,
        label: &str,
        document: NewDocument<'_>,
        reviewer: &dyn Reviewer,
        by: By<'_>,
    ) -> Result<()> {
        self.write_document(|tx, sequence| {
            policies::set_group(tx, node, label, document, reviewer, sequence.index(), by)?;
            Ok(((), Some(document.opened.clone())))
        })
    }

    fn head(&self) -> Result<Place> {
        self.read(|tx| documents::head(tx))
    }

    fn documents_after(&self, number: u64) -> Result<Vec<SignedDocument>> {
        self.read(|tx| documents::after(tx, number))
    }

    fn require_here(&self) -> Result<()> {
        if self.sequence().in_trouble() {
            self.look_again()?;
        }
        self.require_state()
    }

    fn note_size(&self) -> Result<()> {
        // No document is committed in between.
        let mut sequence = self.sequence_mut();
        if sequence.in_trouble() {
            return Ok(());
        }
        let (head, trail) =
            self.read(|tx| Ok((documents::head(tx)?, audit::trail(tx, sequence.entry())?)))?;
        // Another trail that is longer is not written down as if it were ours.
        sequence.require(&head, &trail)?;
        sequence.grown(&trail.end)
    }

    fn groups(&self) -> Result<Vec<Group>> {
        self.read(|tx| policies::groups(tx))
    }

    fn propose(
        &self,
        case: &ProposalCase<'_>,
        rule: &mut dyn FnMut(&ProposalStanding, &dyn Documents) -> Result<ProposalRuling>,
    ) -> Result<(ProposalRuling, Option<u64>)> {
        self.write_here(|tx, index| proposals::propose(tx, case, index, rule))
    }

    fn proposals(&self, node: Option<NodeId>, waiting: bool, limit: u64) -> Result<Vec<ProposalRecord>> {
        self.read(|tx| proposals::list(tx, node, waiting, limit))
    }

    fn deny_proposal(&self, id: u64, because: &str, by: By<'_>) -> Result<NodeId> {
        self.write(|tx| proposals::deny(tx, id, because, by))
    }

    fn audit(&self, after: Option<u64>, node: Option<NodeId>, limit: u64) -> Result<Vec<AuditEntry>> {
        self.read(|tx| audit::list(tx, after, node, limit))
    }

    fn count(
        &self,
        action: &str,
        source: Source,
        node: Option<NodeId>,
        detail: &str,
        by: By<'_>,
    ) -> Result<()> {
        self.write(|tx| audit::count(tx, by, action, &source.site(), node, detail))
    }
}

/// What a certificate may do is never guessed: a kind that is not known is damage.
fn client(c: &Connection, row: ClientRow) -> Result<Client> {
    let ClientRow { fingerprint, name, kind, added_at, tag } = row;
    let fields = [fingerprint.as_bytes(), kind.as_bytes(), name.as_bytes()];
    if !rows::is_ours(c, rows::Kind::Client, &fields, tag.as_deref())? {
        let what = format!("table clients, {name:.64?}: kind {kind:.32}, which no halfkey-verifier listed");
        tracing::error!("the database was changed beside this server: {what}");
        return Err(damaged(&what));
    }
    let Some(kind) = ClientKind::parse(&kind) else {
        return Err(damaged(&format!("table clients, {name:.64?}: kind {kind:.32?}")));
    };
    Ok(Client { fingerprint, name, kind, added_at })
}

/// A certificate's row, as it was found.
struct ClientRow {
    fingerprint: String,
    name: String,
    kind: String,
    added_at: u64,
    tag: Option<Vec<u8>>,
}

fn client_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<ClientRow> {
    let (fingerprint, name, kind) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(ClientRow { fingerprint, name, kind, added_at: as_u64(row.get(3)?), tag: row.get(4)? })
}

fn client_tag(c: &Connection, fingerprint: &str, kind: &str, name: &str) -> Result<[u8; 32]> {
    rows::tag(c, rows::Kind::Client, &[fingerprint.as_bytes(), kind.as_bytes(), name.as_bytes()])
}

/// What an SQLite error means here.
fn broken(e: rusqlite::Error) -> StoreError {
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full(e.to_string()),
        _ => StoreError::Unavailable(e.to_string()),
    }
}

/// A row that this program can't have written.
fn damaged(what: &str) -> StoreError {
    StoreError::Unavailable(format!("the database is damaged: {what}"))
}

/// SQLite's integers are signed. Times and counts here are far below 2^63.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The way back.
fn as_u64(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn id_text(node: NodeId) -> String {
    node.to_string()
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| StoreError::Unavailable(format!("our bug: {e}")))
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| damaged(&format!("{what}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Sqlite) {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("db"), ClusterKey::from_bytes(&[1; 32])).unwrap();
        (dir, store)
    }

    #[test]
    fn a_client_of_an_unknown_kind_is_damage_and_nobody() {
        let (_dir, store) = store();
        let client = |name: &str, kind| Client {
            fingerprint: name.to_owned(),
            name: name.to_owned(),
            kind,
            added_at: 1,
        };
        store.add_client(&client("ada", ClientKind::Operator)).unwrap();
        store.add_client(&client("peer", ClientKind::Verifier)).unwrap();
        assert_eq!(store.clients().unwrap().len(), 2);
        store.writer().execute("UPDATE clients SET kind = 'operator' WHERE name = 'peer'", []).unwrap();
        for said in [store.client("peer").unwrap_err(), store.clients().unwrap_err()] {
            let said = said.to_string();
            assert!(said.contains("table clients, \"peer\": kind operator, which no"), "{said}");
        }
        store.writer().execute("UPDATE clients SET kind = 'verifier' WHERE name = 'peer'", []).unwrap();
        let tag = client_tag(&store.writer(), "ada", "Operator", "ada").unwrap();
        let change = "UPDATE clients SET kind = 'Operator', tag = ?1 WHERE name = 'ada'";
        store.writer().execute(change, [tag]).unwrap();
        for said in [store.client("ada").unwrap_err(), store.clients().unwrap_err()] {
            let said = said.to_string();
            assert!(said.contains("table clients, \"ada\": kind \"Operator\""), "{said}");
        }
        assert_eq!(store.client("peer").unwrap().unwrap().kind, ClientKind::Verifier);
    }
}
