//! [`Store`] in memory, for tests: the same answers without a disk, and rows that a test can change as somebody could who writes
//! the database.

use super::{
    BootRow, Boots, Changes, ClientRow, Clients, CountRow, DocumentRow, Documents, Each, EnrollmentRow,
    EnrollmentState, Enrollments, Evidence, EvidenceHead, EvidenceRow, NodeLineRow, NodeRow, Nodes,
    NoticeRow, Notices, Policies, PolicyRow, ProposalChange, ProposalHead, ProposalRow, Proposals, QuoteRow,
    RegistrationLine, RegistrationRow, Registrations, ReleasedRow, Result, SourceRow, Store, StoreError,
    Then, Trail, Tx, Which,
};
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::SignedDocument;
use halfkey_protocol::wire::operator::AuditEntry;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Every table.
#[derive(Clone, Default)]
struct Tables {
    clients: Vec<ClientRow>,
    registrations: BTreeMap<String, RegistrationRow>,
    nodes: BTreeMap<String, NodeRow>,
    enrollments: BTreeMap<String, EnrollmentRow>,
    tenant_keys: BTreeSet<(String, Vec<u8>)>,
    boots: BTreeMap<(String, String), BootRow>,
    evidence: BTreeMap<u64, EvidenceRow>,
    last_evidence: u64,
    proposals: BTreeMap<u64, ProposalRow>,
    trust_given: BTreeMap<(String, String, u64), u64>,
    last_proposal: u64,
    policies: BTreeMap<(String, u64), PolicyRow>,
    documents: BTreeMap<u64, Stored>,
    audit: BTreeMap<u64, (AuditEntry, [u8; 32])>,
    counts: BTreeMap<(u64, String, String), u64>,
    meta: BTreeMap<String, u64>,
    /// Rows of registrations that were looked at to make room.
    looked_at: u64,
    notices: BTreeMap<u64, NoticeRow>,
    last_notice: u64,
}

/// A document.
#[derive(Clone)]
struct Stored {
    sha256: [u8; 32],
    signed: SignedDocument,
    tag: [u8; 32],
}

/// A database that is gone with the process.
#[derive(Default)]
pub struct Memory(Mutex<Tables>);

impl Store for Memory {
    fn read(&self, work: &mut dyn FnMut(&dyn Tx)) -> Result<()> {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        work(&MemoryTx(RefCell::new(tables)));
        Ok(())
    }

    fn write(&self, _: Changes, work: &mut dyn FnMut(&dyn Tx) -> Then) -> Result<()> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tx = MemoryTx(RefCell::new(tables.clone()));
        match work(&tx) {
            Then::Commit | Then::CommitNow => *tables = tx.0.into_inner(),
            Then::RollBack => {}
        }
        Ok(())
    }

    fn purge(&self) {}
}

/// A copy that becomes the database, or does not.
struct MemoryTx(RefCell<Tables>);

impl Memory {
    /// Rows of registrations that were looked at so far to make room.
    pub fn looked_at(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).looked_at
    }
}

impl MemoryTx {
    fn looks_at(&self, rows: usize) {
        self.0.borrow_mut().looked_at += rows as u64;
    }
}

impl Clients for MemoryTx {
    fn client(&self, fingerprint: &str) -> Result<Option<ClientRow>> {
        Ok(self.0.borrow().clients.iter().find(|row| row.fingerprint == fingerprint).cloned())
    }

    fn clients(&self) -> Result<Vec<ClientRow>> {
        let mut rows = self.0.borrow().clients.clone();
        rows.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
        Ok(rows)
    }

    fn insert_client(&self, row: &ClientRow) -> Result<bool> {
        let clients = &mut self.0.borrow_mut().clients;
        let taken = |known: &ClientRow| {
            known.fingerprint == row.fingerprint || (&known.kind, &known.name) == (&row.kind, &row.name)
        };
        if clients.iter().any(taken) {
            return Ok(false);
        }
        clients.push(row.clone());
        Ok(true)
    }

    fn delete_client(&self, name: &str, kind: &str) -> Result<bool> {
        let clients = &mut self.0.borrow_mut().clients;
        let before = clients.len();
        clients.retain(|row| (row.name.as_str(), row.kind.as_str()) != (name, kind));
        Ok(clients.len() < before)
    }
}

/// Whether a line with this id and label is one of those.
fn is_one(which: &Which, id: &str, label: &str) -> bool {
    match which {
        Which::After(after) => after.is_none_or(|after| *id > *after.to_string()),
        Which::Named(name) => {
            label == name || which.id_prefix().is_some_and(|prefix| id.starts_with(&prefix))
        }
        Which::One(one) => id == one.to_string(),
    }
}

fn first<T>(limit: u64, rows: impl Iterator<Item = T>) -> Vec<T> {
    rows.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect()
}

impl Registrations for MemoryTx {
    fn registration(&self, node: NodeId) -> Result<Option<RegistrationRow>> {
        Ok(self.0.borrow().registrations.get(&node.to_string()).cloned())
    }

    fn registration_lines(&self, which: &Which, limit: u64) -> Result<Vec<RegistrationLine>> {
        let tables = self.0.borrow();
        let rows = tables.registrations.iter().filter(|(id, row)| is_one(which, id, &row.label));
        let line = |(id, row): (&String, &RegistrationRow)| RegistrationLine {
            node_id: id.clone(),
            label: row.label.clone(),
            last_seen: row.last_seen,
        };
        Ok(first(limit, rows.map(line)))
    }

    fn put_registration(&self, row: &RegistrationRow) -> Result<()> {
        self.0.borrow_mut().registrations.insert(row.node.to_string(), row.clone());
        Ok(())
    }

    fn keep_registration(&self, node: NodeId) -> Result<bool> {
        let mut tables = self.0.borrow_mut();
        let found = tables.registrations.get_mut(&node.to_string());
        Ok(found.map(|row| row.kept = true).is_some())
    }

    fn delete_registrations(&self, before: u64) -> Result<Vec<String>> {
        let gone = |_: &String, row: &mut RegistrationRow| !row.kept && row.last_seen < before;
        let mut tables = self.0.borrow_mut();
        let (gone, kept) = std::mem::take(&mut tables.registrations)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(id, row)| gone(id, &mut row.clone()));
        tables.registrations = kept;
        Ok(gone.into_keys().collect())
    }

    fn unkept_registrations(&self) -> Result<u64> {
        let unkept = self.0.borrow().registrations.values().filter(|row| !row.kept).count();
        self.looks_at(unkept);
        Ok(unkept as u64)
    }

    fn unkept_by_source(&self) -> Result<Vec<SourceRow>> {
        let mut sources: BTreeMap<String, SourceRow> = BTreeMap::new();
        for (number, row) in (0..).zip(self.0.borrow().registrations.values()).filter(|(_, row)| !row.kept) {
            let of_source = sources.entry(row.source.clone()).or_insert_with(|| SourceRow {
                source: row.source.clone(),
                count: 0,
                oldest: u64::MAX,
                oldest_row: 0,
            });
            of_source.count += 1;
            if row.last_seen < of_source.oldest {
                (of_source.oldest, of_source.oldest_row) = (row.last_seen, number);
            }
        }
        self.looks_at(sources.values().map(|row| row.count as usize).sum());
        Ok(sources.into_values().collect())
    }

    fn oldest_unkept(&self, source: &str, limit: u64) -> Result<Vec<(u64, i64)>> {
        let of_source = |tables: &Tables| -> Vec<(u64, i64)> {
            let rows = (0..).zip(tables.registrations.values());
            let rows = rows.filter(|(_, row)| !row.kept && row.source == source);
            rows.map(|(number, row)| (row.last_seen, number)).collect()
        };
        let mut oldest = of_source(&self.0.borrow());
        oldest.sort_unstable();
        // As by an index.
        let oldest = first(limit, oldest.into_iter());
        self.looks_at(oldest.len());
        Ok(oldest)
    }

    fn delete_unkept(&self, rows: &[i64]) -> Result<()> {
        let mut number = 0..;
        let is_one = |_: &String, row: &mut RegistrationRow| {
            number.next().is_some_and(|number| rows.contains(&number)) && !row.kept
        };
        self.0.borrow_mut().registrations.extract_if(.., is_one).for_each(drop);
        Ok(())
    }
}

impl Nodes for MemoryTx {
    fn node(&self, node: NodeId) -> Result<Option<NodeRow>> {
        Ok(self.0.borrow().nodes.get(&node.to_string()).cloned())
    }

    fn put_node(&self, row: &NodeRow) -> Result<()> {
        self.0.borrow_mut().nodes.insert(row.id.to_string(), row.clone());
        Ok(())
    }

    fn set_seen(&self, node: NodeId, at: u64, outcome: &str, code: Option<&str>) -> Result<()> {
        if let Some(row) = self.0.borrow_mut().nodes.get_mut(&node.to_string()) {
            row.last_seen = at;
            row.last_outcome = Some(outcome.to_owned());
            row.last_code = code.map(str::to_owned);
        }
        Ok(())
    }

    fn node_lines(&self, which: &Which, limit: u64, now: u64) -> Result<Vec<NodeLineRow>> {
        let tables = self.0.borrow();
        let line = |(_, row): (&String, &NodeRow)| {
            let of_state = |state| {
                tables.enrollments.values().find(|found| found.node == row.id && found.state == state)
            };
            let current = of_state(EnrollmentState::Current);
            let twin =
                |found: &EnrollmentRow| found.released.as_ref().is_some_and(|last| last.twin.is_some());
            let waits = |boot: &BootRow| boot.node == row.id && boot.decision.is_none() && boot.expires > now;
            NodeLineRow {
                id: row.id,
                label: row.label.clone(),
                revoked: row.revoked_because.is_some(),
                open: of_state(EnrollmentState::Open).is_some(),
                current: current.is_some(),
                pending: tables.boots.values().any(waits),
                held: row.held_by.is_some(),
                cloned: current.is_some_and(twin),
                last_seen: row.last_seen,
                last_outcome: row.last_outcome.clone(),
                last_code: row.last_code.clone(),
            }
        };
        let rows = tables.nodes.iter().filter(|(id, row)| is_one(which, id, &row.label));
        Ok(first(limit, rows.map(line)))
    }
}

impl MemoryTx {
    fn with_enrollment(&self, id: &str, change: impl FnOnce(&mut EnrollmentRow)) -> Result<()> {
        if let Some(row) = self.0.borrow_mut().enrollments.get_mut(id) {
            change(row);
        }
        Ok(())
    }
}

impl Enrollments for MemoryTx {
    fn enrollment(&self, node: NodeId, state: EnrollmentState) -> Result<Option<EnrollmentRow>> {
        let tables = self.0.borrow();
        Ok(tables.enrollments.values().find(|row| row.node == node && row.state == state).cloned())
    }

    fn enrollment_state(&self, node: NodeId, id: &str) -> Result<Option<(EnrollmentState, u64)>> {
        let tables = self.0.borrow();
        let found = tables.enrollments.get(id).filter(|row| row.node == node);
        Ok(found.map(|row| (row.state, row.number)))
    }

    fn insert_enrollment(&self, row: &EnrollmentRow) -> Result<bool> {
        let mut tables = self.0.borrow_mut();
        let taken = tables.enrollments.values().any(|known| {
            known.id == row.id
                || row.state != EnrollmentState::Replaced
                    && (known.node, known.state) == (row.node, row.state)
        });
        if !taken {
            tables.enrollments.insert(row.id.clone(), row.clone());
        }
        Ok(!taken)
    }

    fn replace_enrollment(&self, node: NodeId, state: EnrollmentState) -> Result<()> {
        let mut tables = self.0.borrow_mut();
        for row in tables.enrollments.values_mut().filter(|row| row.node == node && row.state == state) {
            row.state = EnrollmentState::Replaced;
            row.c_v = (None, None);
            row.c_u = None;
        }
        Ok(())
    }

    fn prove_enrollment(&self, id: &str, _at: u64) -> Result<()> {
        self.with_enrollment(id, |row| {
            row.state = EnrollmentState::Current;
            row.c_u = None;
        })
    }

    fn set_fetched(&self, id: &str, ticket: &str, c_u: Option<&[u8]>) -> Result<()> {
        self.with_enrollment(id, |row| {
            row.fetched_by = Some(ticket.to_owned());
            row.c_u = c_u.map(<[u8]>::to_vec);
        })
    }

    fn set_c_u(&self, id: &str, c_u: &[u8]) -> Result<()> {
        self.with_enrollment(id, |row| row.c_u = Some(c_u.to_vec()))
    }

    fn set_quoted(&self, id: &str, quote: &QuoteRow) -> Result<()> {
        self.with_enrollment(id, |row| row.quote = *quote)
    }

    fn set_released(&self, id: &str, released: &ReleasedRow) -> Result<()> {
        self.with_enrollment(id, |row| row.released = Some(released.clone()))
    }

    fn delete_every_c_u(&self) -> Result<()> {
        self.0.borrow_mut().enrollments.values_mut().for_each(|row| row.c_u = None);
        Ok(())
    }

    fn insert_tenant_key(&self, operator: &str, key: &[u8], _now: u64) -> Result<bool> {
        Ok(self.0.borrow_mut().tenant_keys.insert((operator.to_owned(), key.to_vec())))
    }
}

impl Boots for MemoryTx {
    fn boot(&self, node: NodeId, ticket: &str) -> Result<Option<BootRow>> {
        Ok(self.0.borrow().boots.get(&(node.to_string(), ticket.to_owned())).cloned())
    }

    fn undecided_boots(&self, node: NodeId) -> Result<Each<BootRow>> {
        let tables = self.0.borrow();
        let waits = |row: &&BootRow| row.node == node && row.decision.is_none();
        let mut rows: Vec<_> = tables.boots.values().filter(waits).cloned().collect();
        rows.sort_by_key(|row| Reverse(row.evidence_id));
        Ok(rows.into_iter().map(Ok).collect())
    }

    fn put_boot(&self, row: &BootRow) -> Result<()> {
        self.0.borrow_mut().boots.insert((row.node.to_string(), row.ticket.clone()), row.clone());
        Ok(())
    }

    fn delete_boot(&self, node: NodeId, ticket: &str) -> Result<()> {
        self.0.borrow_mut().boots.remove(&(node.to_string(), ticket.to_owned()));
        Ok(())
    }

    fn delete_boots(&self, node: NodeId) -> Result<()> {
        self.0.borrow_mut().boots.retain(|_, row| row.node != node);
        Ok(())
    }

    fn trim_boots(&self, node: NodeId, keep: u64) -> Result<()> {
        let mut numbers = self.evidence_of_boots(node)?;
        numbers.sort_unstable_by_key(|number| Reverse(*number));
        let Some(last) = numbers.get(usize::try_from(keep).unwrap_or(usize::MAX)).copied() else {
            return Ok(());
        };
        self.0.borrow_mut().boots.retain(|_, row| row.node != node || row.evidence_id > last);
        Ok(())
    }

    fn delete_expired_boots(&self, now: u64) -> Result<()> {
        self.0.borrow_mut().boots.retain(|_, row| row.expires > now);
        Ok(())
    }

    fn evidence_of_boots(&self, node: NodeId) -> Result<Vec<u64>> {
        let tables = self.0.borrow();
        Ok(tables.boots.values().filter(|row| row.node == node).map(|row| row.evidence_id).collect())
    }
}

impl MemoryTx {
    /// Numbers of a node's evidence of one kind, newest first.
    fn kind(&self, node: NodeId, authentic: bool, outcome: &str) -> Vec<u64> {
        let tables = self.0.borrow();
        let id = node.to_string();
        let of_kind = tables.evidence.values().filter(|row| {
            (row.head.node_id.as_str(), row.authentic, row.head.outcome.as_str()) == (&id, authentic, outcome)
        });
        let mut numbers: Vec<_> = of_kind.map(|row| row.head.id).collect();
        numbers.reverse();
        numbers
    }
}

impl Evidence for MemoryTx {
    fn insert_evidence(&self, row: &EvidenceRow) -> Result<u64> {
        let mut tables = self.0.borrow_mut();
        tables.last_evidence += 1;
        let id = tables.last_evidence;
        let head = EvidenceHead { id, ..row.head.clone() };
        tables.evidence.insert(id, EvidenceRow { head, ..row.clone() });
        Ok(id)
    }

    fn evidence(&self, id: u64) -> Result<Option<EvidenceRow>> {
        Ok(self.0.borrow().evidence.get(&id).cloned())
    }

    fn evidence_of(&self, node: NodeId, limit: u64) -> Result<Vec<EvidenceHead>> {
        let tables = self.0.borrow();
        let id = node.to_string();
        let rows = tables.evidence.values().rev().filter(|row| row.head.node_id == id);
        Ok(first(limit, rows.map(|row| row.head.clone())))
    }

    fn trim_evidence(
        &self,
        node: NodeId,
        authentic: bool,
        outcome: &str,
        keep: u64,
        except: &[u64],
    ) -> Result<()> {
        let old = self.kind(node, authentic, outcome).into_iter();
        for number in old.skip(usize::try_from(keep).unwrap_or(usize::MAX)) {
            if !except.contains(&number) {
                self.0.borrow_mut().evidence.remove(&number);
            }
        }
        Ok(())
    }

    fn trim_logs(&self, node: NodeId, authentic: bool, outcome: &str, bytes: u64) -> Result<()> {
        let numbers = self.kind(node, authentic, outcome);
        let mut tables = self.0.borrow_mut();
        // Each is kept once.
        let mut seen = BTreeMap::new();
        let mut total = 0;
        for number in numbers {
            let Some(row) = tables.evidence.get_mut(&number) else { continue };
            for log in [&mut row.ima_log, &mut row.systemd_log, &mut row.event_log] {
                let Some(found) = log else { continue };
                let stays = *seen.entry(found.clone()).or_insert_with(|| {
                    total += found.len() as u64;
                    total <= bytes
                });
                if !stays {
                    *log = None;
                }
            }
        }
        Ok(())
    }
}

impl Proposals for MemoryTx {
    fn proposal(&self, id: u64) -> Result<Option<ProposalRow>> {
        Ok(self.0.borrow().proposals.get(&id).cloned())
    }

    fn proposal_with(&self, node: NodeId, sha256: &[u8; 32]) -> Result<Option<ProposalRow>> {
        let id = node.to_string();
        let tables = self.0.borrow();
        Ok(tables.proposals.values().find(|row| row.node_id == id && row.sha256 == *sha256).cloned())
    }

    fn proposal_numbers(
        &self,
        node: Option<NodeId>,
        states: &[&str],
        before: Option<u64>,
        limit: u64,
    ) -> Result<Vec<u64>> {
        let id = node.map(|node| node.to_string());
        let tables = self.0.borrow();
        let rows = tables.proposals.values().rev().filter(|row| {
            id.as_ref().is_none_or(|id| *id == row.node_id)
                && states.contains(&row.state.as_str())
                && before.is_none_or(|before| row.id < before)
        });
        Ok(first(limit, rows.map(|row| row.id)))
    }

    fn proposal_heads(&self, node: NodeId) -> Result<Vec<ProposalHead>> {
        let id = node.to_string();
        let tables = self.0.borrow();
        let of_node = tables.proposals.values().filter(|row| row.node_id == id);
        let head = |row: &ProposalRow| ProposalHead {
            id: row.id,
            at: row.at,
            state: row.state.clone(),
            from_evidence: row.from_evidence,
            by_trust: row.by_trust,
        };
        let mut heads: Vec<_> = of_node.map(head).collect();
        heads.sort_by_key(|head| (head.at, head.id));
        Ok(heads)
    }

    fn put_proposal(&self, row: &ProposalRow) -> Result<u64> {
        let mut tables = self.0.borrow_mut();
        let same = |known: &&ProposalRow| known.node_id == row.node_id && known.sha256 == row.sha256;
        let known = tables.proposals.values().find(same).map(|known| known.id);
        let id = known.unwrap_or(tables.last_proposal + 1);
        tables.last_proposal = tables.last_proposal.max(id);
        tables.proposals.insert(id, ProposalRow { id, ..row.clone() });
        Ok(id)
    }

    fn set_proposal(&self, id: u64, change: &ProposalChange<'_>) -> Result<()> {
        if let Some(row) = self.0.borrow_mut().proposals.get_mut(&id) {
            change.state.clone_into(&mut row.state);
            if let Some(message) = change.message {
                message.clone_into(&mut row.message);
            }
            row.by_trust = change.by_trust;
            row.tag = change.tag.map(<[u8]>::to_vec);
        }
        Ok(())
    }

    fn delete_proposal(&self, id: u64) -> Result<()> {
        self.0.borrow_mut().proposals.remove(&id);
        Ok(())
    }

    fn delete_trust(&self, node: NodeId) -> Result<()> {
        let id = node.to_string();
        let mut tables = self.0.borrow_mut();
        for row in tables.proposals.values_mut().filter(|row| row.node_id == id) {
            row.by_trust = false;
            row.tag = None;
            row.trusted_scope = None;
            row.trusted_since = None;
        }
        tables.trust_given.retain(|(node, ..), _| *node != id);
        Ok(())
    }

    fn times_trusted(&self, node: NodeId, scope: &str, since: u64) -> Result<u64> {
        let key = (node.to_string(), scope.to_owned(), since);
        Ok(self.0.borrow().trust_given.get(&key).copied().unwrap_or(0))
    }

    fn add_trusted(&self, node: NodeId, scope: &str, since: u64) -> Result<()> {
        let key = (node.to_string(), scope.to_owned(), since);
        *self.0.borrow_mut().trust_given.entry(key).or_default() += 1;
        Ok(())
    }
}

impl Policies for MemoryTx {
    fn policy(&self, scope: &str, version: Option<u64>) -> Result<Option<PolicyRow>> {
        let tables = self.0.borrow();
        let mut of_scope = tables.policies.values().rev().filter(|row| row.scope == scope);
        Ok(of_scope.find(|row| version.is_none_or(|version| row.version == version)).cloned())
    }

    fn policy_by(&self, scope: &str, key: &[u8]) -> Result<Option<PolicyRow>> {
        let tables = self.0.borrow();
        let mut newest = tables.policies.values().rev();
        Ok(newest.find(|row| row.scope == scope && row.tenant_key == key).cloned())
    }

    fn insert_policy(&self, row: &PolicyRow) -> Result<()> {
        let place = (row.scope.clone(), row.version);
        match self.0.borrow_mut().policies.insert(place, row.clone()) {
            None => Ok(()),
            Some(_) => Err(StoreError::Unavailable("a version is there already".to_owned())),
        }
    }

    fn delete_policies_but(&self, scope: &str, key: &[u8]) -> Result<()> {
        self.0.borrow_mut().policies.retain(|_, row| row.scope != scope || row.tenant_key == key);
        Ok(())
    }
}

impl Documents for MemoryTx {
    fn head(&self) -> Result<Place> {
        let tables = self.0.borrow();
        let last = tables.documents.last_key_value();
        Ok(last.map_or_else(Place::default, |(number, last)| Place { number: *number, sha256: last.sha256 }))
    }

    fn insert_document(&self, row: &DocumentRow<'_>) -> Result<()> {
        let document = Stored { sha256: row.place.sha256, signed: row.signed.clone(), tag: row.tag };
        match self.0.borrow_mut().documents.insert(row.place.number, document) {
            None => Ok(()),
            Some(_) => Err(StoreError::Unavailable("a document is there already".to_owned())),
        }
    }

    fn document(&self, number: u64) -> Result<Option<SignedDocument>> {
        Ok(self.0.borrow().documents.get(&number).map(|stored| stored.signed.clone()))
    }

    fn document_sha256(&self, number: u64) -> Result<Option<[u8; 32]>> {
        Ok(self.0.borrow().documents.get(&number).map(|stored| stored.sha256))
    }

    fn document_tag(&self, number: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().documents.get(&number).map(|stored| stored.tag.to_vec()))
    }

    fn set_document_tag(&self, number: u64, tag: &[u8; 32]) -> Result<()> {
        if let Some(stored) = self.0.borrow_mut().documents.get_mut(&number) {
            stored.tag = *tag;
        }
        Ok(())
    }

    fn documents_after(&self, number: u64, bytes: usize) -> Result<Vec<SignedDocument>> {
        let tables = self.0.borrow();
        let (mut part, mut found) = (Vec::new(), 0);
        for (_, stored) in tables.documents.range(number.saturating_add(1)..) {
            found += stored.signed.document.len() + 256;
            part.push(stored.signed.clone());
            if found > bytes {
                break;
            }
        }
        Ok(part)
    }
}

impl Trail for MemoryTx {
    fn hold_trail(&self) -> Result<()> {
        Ok(())
    }

    fn hold_sweep(&self) -> Result<bool> {
        Ok(true)
    }

    fn audit_end(&self) -> Result<Option<(u64, Option<[u8; 32]>)>> {
        Ok(self.0.borrow().audit.last_key_value().map(|(seq, (_, hash))| (*seq, Some(*hash))))
    }

    fn audit_entry(&self, seq: u64) -> Result<Option<(AuditEntry, Option<[u8; 32]>)>> {
        Ok(self.0.borrow().audit.get(&seq).map(|(entry, hash)| (entry.clone(), Some(*hash))))
    }

    fn audit_entries(&self, after: Option<u64>, node: Option<NodeId>, limit: u64) -> Result<Vec<AuditEntry>> {
        let id = node.map(|node| node.to_string());
        let tables = self.0.borrow();
        let of_node = |entry: &&AuditEntry| id.is_none() || entry.node_id == id;
        let entries = tables.audit.values().map(|(entry, _)| entry).filter(of_node);
        Ok(match after {
            Some(after) => first(limit, entries.filter(|entry| entry.seq > after).cloned()),
            None => {
                let mut newest = first(limit, entries.rev().cloned());
                newest.reverse();
                newest
            }
        })
    }

    fn insert_audit(&self, entry: &AuditEntry, hash: &[u8; 32]) -> Result<()> {
        match self.0.borrow_mut().audit.insert(entry.seq, (entry.clone(), *hash)) {
            None => Ok(()),
            Some(_) => Err(StoreError::Unavailable("an entry is there already".to_owned())),
        }
    }

    fn add_count(&self, hour: u64, action: &str, source: &str) -> Result<bool> {
        let mut tables = self.0.borrow_mut();
        let count = tables.counts.get_mut(&(hour, action.to_owned(), source.to_owned()));
        Ok(count.map(|count| *count += 1).is_some())
    }

    fn insert_count(&self, hour: u64, action: &str, source: &str) -> Result<()> {
        self.0.borrow_mut().counts.insert((hour, action.to_owned(), source.to_owned()), 1);
        Ok(())
    }

    fn counted_sources(&self, hour: u64, action: &str) -> Result<u64> {
        let tables = self.0.borrow();
        let same = |(of_hour, of, _): &&(u64, String, String)| (*of_hour, of.as_str()) == (hour, action);
        Ok(tables.counts.keys().filter(same).count() as u64)
    }

    fn counts_before(&self, hour: u64) -> Result<Vec<CountRow>> {
        let tables = self.0.borrow();
        let before = tables.counts.iter().filter(|((of_hour, ..), _)| *of_hour < hour);
        let row = |((hour, action, source), count): (&(u64, String, String), &u64)| CountRow {
            hour: *hour,
            action: action.clone(),
            source: source.clone(),
            count: *count,
        };
        let mut rows: Vec<_> = before.map(row).collect();
        let order = |row: &CountRow| (row.hour, row.action.clone(), Reverse(row.count), row.source.clone());
        rows.sort_by_key(order);
        Ok(rows)
    }

    fn delete_counts_before(&self, hour: u64) -> Result<()> {
        self.0.borrow_mut().counts.retain(|(of_hour, ..), _| *of_hour >= hour);
        Ok(())
    }

    fn set_meta(&self, key: &str, value: u64) -> Result<()> {
        self.0.borrow_mut().meta.insert(key.to_owned(), value);
        Ok(())
    }
}

impl Notices for MemoryTx {
    fn insert_notice(&self, row: &NoticeRow) -> Result<()> {
        let tables = &mut *self.0.borrow_mut();
        tables.last_notice += 1;
        tables.notices.insert(tables.last_notice, NoticeRow { id: tables.last_notice, ..row.clone() });
        Ok(())
    }

    fn take_notices(&self, endpoint: &str, now: u64, until: u64, limit: u64) -> Result<Vec<NoticeRow>> {
        let tables = &mut *self.0.borrow_mut();
        let due = tables.notices.values_mut().filter(|row| row.endpoint == endpoint && row.due <= now);
        let take = |row: &mut NoticeRow| {
            row.due = until;
            row.attempts += 1;
            row.clone()
        };
        Ok(due.take(limit as usize).map(take).collect())
    }

    fn put_off_notice(&self, id: u64, until: u64) -> Result<()> {
        if let Some(row) = self.0.borrow_mut().notices.get_mut(&id) {
            row.due = until;
        }
        Ok(())
    }

    fn delete_notice(&self, id: u64) -> Result<()> {
        self.0.borrow_mut().notices.remove(&id);
        Ok(())
    }

    fn trim_notices(&self, endpoint: &str, keep: u64) -> Result<u64> {
        let notices = &mut self.0.borrow_mut().notices;
        let of_it = notices.values().rev().filter(|row| row.endpoint == endpoint).map(|row| row.id);
        let old: Vec<_> = of_it.skip(keep as usize).collect();
        old.iter().for_each(|id| drop(notices.remove(id)));
        Ok(old.len() as u64)
    }

    fn delete_notices_before(&self, at: u64) -> Result<u64> {
        let notices = &mut self.0.borrow_mut().notices;
        let before = notices.len();
        notices.retain(|_, row| row.at >= at);
        Ok((before - notices.len()) as u64)
    }

    fn count_notices(&self, endpoint: &str, now: u64) -> Result<(u64, u64)> {
        let tables = self.0.borrow();
        let of_it = || tables.notices.values().filter(|row| row.endpoint == endpoint);
        Ok((of_it().count() as u64, of_it().filter(|row| row.due <= now).count() as u64))
    }
}
