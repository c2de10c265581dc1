//! Each method of the store: which transaction it is, and what is done in it.

use super::broken;
use super::clients::{ClientRow, client, client_row, client_tag};
use super::{Sqlite, audit, boots, documents, evidence, nodes, number, policies, proposals, registrations};
use crate::attest::Ruling;
use crate::domain::{
    Approval, Boot, By, Case, Client, ClientKind, Documents, NewDocument, NewEnrollment, NewPolicy,
    NewRegistration, Node, NodeLine, ProposalCase, ProposalRuling, ProposalStanding, Registration,
    RegistrationLine, Result, Reviewer, Saved, Standing, Store, StoreError, StoredProposal, Which,
};
use crate::limit::Source;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::operator::{AuditEntry, EvidenceRecord, EvidenceSummary, PendingBoot};
use halfkey_protocol::wire::policies::{Group, PolicyRecord, PolicySummary, ProposalRecord};
use halfkey_protocol::wire::{SignedDocument, Verdict};
use halfkey_protocol::{NodeId, Reason};
use rusqlite::{OptionalExtension as _, params};

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

    fn pending(&self, node: NodeId, reviewer: &dyn Reviewer, now: u64) -> Result<Option<PendingBoot>> {
        let sequence = self.sequence();
        self.read(|tx| boots::waiting(tx, node, reviewer, sequence.index(), now))
    }

    fn boot(&self, node: NodeId, ticket: &str, now: u64) -> Result<Option<Boot>> {
        self.read(|tx| boots::one(tx, node, ticket, now))
    }

    fn enroll(&self, new: &NewEnrollment<'_>, by: By<'_>) -> Result<()> {
        self.write_document(|tx, sequence| {
            nodes::enroll(tx, new, sequence.index(), by)?;
            Ok(((), Some(new.document.opened.clone())))
        })
    }

    fn prove(&self, node: NodeId, enrollment: &str, proof: &[u8], now: u64) -> Result<()> {
        self.write_document(|tx, sequence| {
            Ok(((), nodes::prove(tx, node, enrollment, proof, sequence, now)?))
        })?;
        self.forget_deleted();
        Ok(())
    }

    fn approve(
        &self,
        node: NodeId,
        approval: &Approval<'_>,
        reviewer: &dyn Reviewer,
        by: By<'_>,
    ) -> Result<()> {
        self.write_here(|tx, index| boots::approve(tx, node, approval, reviewer, index, by))
    }

    fn deny(&self, node: NodeId, ticket: &str, because: &str, by: By<'_>) -> Result<()> {
        self.write(|tx| boots::deny(tx, node, ticket, because, by))
    }

    fn revoke(&self, node: NodeId, label: Option<&str>, because: &str, by: By<'_>) -> Result<()> {
        self.write_document(|tx, sequence| {
            let label = label
                .or_else(|| sequence.index().label(node))
                .ok_or_else(|| StoreError::Refused(Reason::NotFound, format!("there is no node {node}")))?;
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
            let enrolled = sequence.index().is_enrolled(node);
            Ok(((), Some(nodes::hold(tx, node, because, enrolled, sequence.deployment(), by)?)))
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
