//! Each question that is asked of what is recorded and each change of it: one transaction. When a change returns, what it did is
//! durable, whole, and so is its entry in the audit trail. Methods block; [`super::Db`] runs them on threads that may.

use super::ahead::Asking;
use super::boot::{Approval, BootReviewer};
use super::client::{Client, ClientKind};
use super::document::{self, NewDocument};
use super::enrollment::NewEnrollment;
use super::model::{Boot, Node, NodeSnapshot};
use super::policy::NewPolicy;
use super::propose::{ProposalRequest, ProposalRuling, Rule};
use super::registration::{NewRegistration, Registration, Saved};
use super::review::Reviewer;
use super::ruling::EvidenceRequest;
use super::{
    By, Error, Records, Result, TxView, audit, boot, client, enrollment, evidence, legible, node, policy,
    proposal, propose, registration, retention, revocation, ruling,
};
use crate::appraisal::Ruling;
use crate::events::{Announcement, Event};
use crate::limit::{Rate, Room, Source};
use crate::store::{Changes, NoticeRow, RegistrationLine, Standbys, Store as _, Then, Tx, Which};
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::operator::{
    AuditEntry, EvidenceRecord, EvidenceSummary, NodeSummary, PendingBoot,
};
use halfkey_protocol::wire::policies::{Group, PolicyRecord, PolicySummary, ProposalList};
use halfkey_protocol::wire::{SignedDocument, Verdict};
use std::sync::atomic::Ordering;

/// A node that begins.
pub struct Beginning {
    /// The node, if a tenant ever did something with it.
    pub known: Option<Node>,
    /// Its registration, if this database is the registrar's as well; or why it can't be read.
    pub registration: std::result::Result<Option<Registration>, String>,
}

fn begins(view: &TxView<'_>, node: NodeId) -> Result<Beginning> {
    let known = node::one(view, node)?;
    // Without it the enrollment serves.
    let (registration, why) = legible(registration::one(view, node))?;
    Ok(Beginning { known, registration: why.map_or(Ok(registration), Err) })
}

/// What a ruling will ask.
fn asks<'a>(request: &EvidenceRequest<'a>) -> Asking<'a> {
    Asking { ruling: true, ticket: request.ticket, ..Asking::of(request.node) }
}

/// Nodes that are looked at together.
const PAGE: u64 = 500;
/// Announcements of the same that are heard in a minute, and at once: who can make them up wakes nobody more often.
const HEARD: u32 = 60;

/// The servers' own.
impl Records {
    /// Writes something, to see that it can.
    ///
    /// # Errors
    /// When it can't.
    pub fn probe(&self, now: u64) -> Result<()> {
        self.write(|view| Ok(view.rows.set_meta("probed_at", now)?))
    }

    /// Whether nobody ever used the database.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn is_new(&self) -> Result<bool> {
        self.read_rows(|rows| {
            let nothing = rows.head()?.number == 0 && rows.audit_end()?.is_none();
            Ok(nothing
                && rows.clients()?.is_empty()
                && rows.registration_lines(&Which::After(None), 1)?.is_empty())
        })
    }

    /// As [`retention::expire`].
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn expire(&self, registered_before: u64, now: u64) -> Result<u64> {
        self.write(|view| retention::expire(view, registered_before, now))
    }

    /// Refused if the database is not the one that this server has answered with.
    ///
    /// # Errors
    /// `RolledBack`.
    pub fn require_here(&self) -> Result<()> {
        self.look_if_in_trouble()?;
        self.require_state()
    }

    fn look_if_in_trouble(&self) -> Result<()> {
        // Not held meanwhile.
        let in_trouble = self.sequence().in_trouble();
        if in_trouble { self.look_again() } else { Ok(()) }
    }

    /// Writes down where the audit trail ends: an older database is noticed by it. Refused if it is not the trail so far. Tells those
    /// who wait here what other servers wrote in it since.
    ///
    /// # Errors
    /// `RolledBack`; when the state file can't be written.
    pub fn note_size(&self) -> Result<()> {
        let told = self.told.load(Ordering::SeqCst);
        let (mut events, mut end) = (Vec::new(), Ok(None));
        let questions = Asking { here: true, ..Asking::default() }.questions(&self.sequence());
        // By a transaction that writes: what is written down has to be on the disk. No document is committed beside it.
        self.store.write_asking(Changes::Rows, &|rows| questions.ask(rows), &mut |rows| {
            events.clear();
            let in_trouble = self.sequence().in_trouble();
            end = match in_trouble {
                true => Ok(None),
                false => self.look_at_trail(rows, told, &mut events).map(Some),
            };
            // Most seconds there is nothing new, and the disk is left alone.
            match &end {
                Ok(Some(end)) if self.sequence().is_noted(end) => Then::RollBack,
                Ok(_) | Err(_) => Then::Commit,
            }
        })?;
        self.events.publish(&events);
        let Some(end) = end? else { return Ok(()) };
        self.told.store(end.number, Ordering::SeqCst);
        self.sequence_mut().grown(&end)
    }

    /// Where the trail ends, and what happened by it since the entry `told`. Boots that must not wait look at the sequence meanwhile.
    fn look_at_trail(&self, rows: &dyn Tx, told: u64, events: &mut Vec<Event>) -> Result<Place> {
        events.extend(self.catch_up(rows)?);
        let sequence = self.sequence();
        let trail = audit::trail(rows, sequence.entry())?;
        if told != 0 && trail.end.number > told {
            events.extend(audit::news(rows, told)?);
        }
        // Another trail that is longer is not written down as if it were ours.
        sequence.require(&rows.head()?, &trail)?;
        Ok(trail.end)
    }

    /// Has everything in the database by the cluster key in use that is by another one which is accepted, but for approvals, which are
    /// over soon. Gives how much it was.
    ///
    /// # Errors
    /// `RolledBack`; when the database can't be written.
    pub fn renew_tags(&self, now: u64) -> Result<usize> {
        let mut count = self.write_here(|view| Ok(client::renew(view)? + document::renew(view)?))?;
        let mut after = None;
        loop {
            let page = self.read_rows(|rows| Ok(rows.node_lines(&Which::After(after), PAGE, now)?))?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for line in page {
                let renew = |view: &TxView<'_>| {
                    Ok(enrollment::renew(view, line.id)? + proposal::renew(view, line.id)?)
                };
                count += self.write_here(renew)?;
            }
        }
        let detail = format!("{} by the new key", crate::counted(count, "row"));
        self.write_here(|view| {
            audit::append(view, By { actor: "verifier", now }, "cluster_key", None, &detail)
        })?;
        Ok(count)
    }

    /// As [`crate::store::Store::standbys`].
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn standbys(&self) -> Result<Option<Standbys>> {
        Ok(self.store.standbys()?)
    }

    /// Tells other servers over the same database what operators decide here, and `heard` what they decided there. It only says where
    /// to look: the rows have to say it, too.
    pub fn join(&self, heard: impl Fn(Announcement) + Send + Sync + 'static) {
        let rate = Rate::per_minute(HEARD);
        let tells = self.store.join(Box::new(move |text| match Announcement::parse(text) {
            Some(said) if rate.take(said) => {
                tracing::debug!(announcement = text, "another server told");
                heard(said);
            }
            // That is heard within a second all the same.
            Some(_) => {}
            None => tracing::debug!(bytes = text.len(), "what was told is nothing that this build knows"),
        }));
        if let Some(tells) = tells {
            self.events.subscribe(move |events| {
                events.iter().filter_map(Event::announcement).for_each(|said| tells(said.to_string()));
            });
        }
    }

    /// As [`client::one`].
    ///
    /// # Errors
    /// When its row is damaged, or can't be read.
    pub fn client(&self, fingerprint: &str) -> Result<Option<Client>> {
        self.read(|view| client::one(view, fingerprint))
    }

    /// As [`client::all`].
    ///
    /// # Errors
    /// When a row is damaged, or can't be read.
    pub fn clients(&self) -> Result<Vec<Client>> {
        self.read(client::all)
    }

    /// As [`client::add`].
    ///
    /// # Errors
    /// `Conflict`.
    pub fn add_client(&self, client: &Client) -> Result<()> {
        self.write(|view| client::add(view, client))
    }

    /// As [`client::remove`].
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove_client(&self, name: &str, kind: ClientKind, now: u64) -> Result<()> {
        self.write(|view| client::remove(view, name, kind, now))
    }

    /// Entries after `after`, oldest first; with `after` = `None` the newest `limit`, oldest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn audit(&self, after: Option<u64>, node: Option<NodeId>, limit: u64) -> Result<Vec<AuditEntry>> {
        self.read_rows(|rows| Ok(rows.audit_entries(after, node, limit)?))
    }

    /// Counts what anybody can do, and that belongs to no other change.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn count(
        &self,
        action: &str,
        source: Source,
        node: Option<NodeId>,
        detail: &str,
        by: By<'_>,
    ) -> Result<()> {
        self.write(|view| audit::count(view, by, action, &source.site(), node, detail))
    }
}

/// The registrar's.
impl Records {
    /// As [`registration::one`].
    ///
    /// # Errors
    /// When its row is damaged, or can't be read.
    pub fn registration(&self, node: NodeId) -> Result<Option<Registration>> {
        self.read(|view| registration::one(view, node))
    }

    /// Lines of the list, by node id.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn registrations(&self, which: &Which, limit: u64) -> Result<Vec<RegistrationLine>> {
        self.read_rows(|rows| Ok(rows.registration_lines(which, limit)?))
    }

    /// As [`registration::save`].
    ///
    /// # Errors
    /// `AkChanged`, `Activation`, `RateLimited`.
    pub fn save_registration(&self, new: &NewRegistration, room: &Room, now: u64) -> Result<Saved> {
        self.write(|view| registration::save(view, new, room, now))
    }

    /// As [`registration::keep`].
    ///
    /// # Errors
    /// `UnknownNode`.
    pub fn keep_registration(&self, node: NodeId) -> Result<()> {
        self.write(|view| registration::keep(view, node))
    }
}

/// The verifier's: nodes and their boots.
impl Records {
    /// One node, if a tenant ever did something with it.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn node(&self, node: NodeId) -> Result<Option<Node>> {
        self.read_of(Asking::of(node), |view| node::one(view, node))
    }

    /// What is known of a node that begins, in the database that this server has answered with.
    ///
    /// # Errors
    /// `RolledBack`; when it can't be read.
    pub fn beginning(&self, node: NodeId) -> Result<Beginning> {
        self.look_if_in_trouble()?;
        let asking = Asking { registration: true, ..Asking::of(node) };
        self.read_here(asking, |view| begins(view, node))
    }

    /// The same on a thread that must not block. None if it can't be done there.
    ///
    /// # Errors
    /// As there.
    pub fn beginning_at_once(&self, node: NodeId) -> Option<Result<Beginning>> {
        if self.standing()?.in_trouble {
            return None;
        }
        self.read_here_at_once(|view| begins(view, node))
    }

    /// The same together with others. None if it has to be done by [`Records::beginning`].
    ///
    /// # Errors
    /// As there.
    pub async fn beginning_together(&self, node: NodeId) -> Option<Result<Beginning>> {
        if self.standing()?.in_trouble {
            return None;
        }
        let asking = Asking { registration: true, ..Asking::of(node) };
        self.read_here_together(asking, |view| begins(view, node)).await
    }

    /// As [`node::list`].
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn nodes(&self, which: &Which, limit: u64, now: u64) -> Result<Vec<NodeSummary>> {
        self.read(|view| node::list(view, which, limit, now))
    }

    /// The boot of this node that waits for an operator, as its evidence says.
    ///
    /// # Errors
    /// When its row is damaged, or can't be read.
    pub fn pending(
        &self,
        node: NodeId,
        reviewer: &dyn BootReviewer,
        now: u64,
    ) -> Result<Option<PendingBoot>> {
        self.read(|view| boot::waiting(view, node, reviewer, now))
    }

    /// As [`boot::one`].
    ///
    /// # Errors
    /// When its row is damaged, or can't be read.
    pub fn boot(&self, node: NodeId, ticket: &str, now: u64) -> Result<Option<Boot>> {
        self.read(|view| boot::one(view, node, ticket, now))
    }

    /// As [`enrollment::enroll`].
    ///
    /// # Errors
    /// `Revoked`, `Conflict`, `Sequence`, `RolledBack`, `Deployment`.
    pub fn enroll(&self, new: &NewEnrollment<'_>, by: By<'_>) -> Result<()> {
        self.write_document(|view| {
            enrollment::enroll(view, new, by)?;
            Ok(((), Some(new.document.opened.clone())))
        })
    }

    /// As [`enrollment::prove`].
    ///
    /// # Errors
    /// `Revoked`, `NotEnrolled`, `Proof`, `EnrollmentUsed`, `RolledBack`.
    pub fn prove(&self, node: NodeId, enrollment: &str, proof: &[u8], now: u64) -> Result<()> {
        // Anybody may ask, and who appends a document keeps everybody else from writing: first a look. What it finds may be over
        // by the time of the change, which looks again.
        if self
            .read_here(Asking::default(), |view| enrollment::provable(view, node, enrollment, proof))?
            .is_some()
        {
            self.write_document(|view| Ok(((), enrollment::prove(view, node, enrollment, proof, now)?)))?;
            self.store.purge();
        }
        Ok(())
    }

    /// As [`boot::approve`].
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `PolicySignature`, `Sequence`, `RolledBack`.
    pub fn approve(
        &self,
        node: NodeId,
        approval: &Approval<'_>,
        reviewer: &dyn BootReviewer,
        by: By<'_>,
    ) -> Result<()> {
        self.write_document(|view| {
            boot::approve(view, node, approval, reviewer, by)?;
            Ok(((), Some(approval.document.opened.clone())))
        })
    }

    /// As [`boot::deny`].
    ///
    /// # Errors
    /// `NotFound`, `Conflict`.
    pub fn deny(&self, node: NodeId, ticket: &str, because: &str, by: By<'_>) -> Result<()> {
        self.write(|view| boot::deny(view, node, ticket, because, by))
    }

    /// As [`revocation::revoke`].
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `RolledBack`.
    pub fn revoke(&self, node: NodeId, label: Option<&str>, because: &str, by: By<'_>) -> Result<()> {
        // As for `prove`: who says again what stands keeps nobody from writing.
        if self.read_here(Asking::default(), |view| revocation::revoked_by(view, node, because, by))? {
            return Ok(());
        }
        self.write_document(|view| Ok(((), revocation::revoke(view, node, label, because, by)?)))
    }

    /// As [`revocation::restore`].
    ///
    /// # Errors
    /// `Conflict`, `PolicySignature`, `Sequence`, `RolledBack`.
    pub fn restore(&self, node: NodeId, document: NewDocument<'_>, by: By<'_>) -> Result<()> {
        self.write_document(|view| {
            revocation::restore(view, node, document, by)?;
            Ok(((), Some(document.opened.clone())))
        })
    }

    /// As [`revocation::hold`].
    ///
    /// # Errors
    /// `NotEnrolled`, `Conflict`, `RolledBack`.
    pub fn hold(&self, node: NodeId, because: &str, by: By<'_>) -> Result<()> {
        if self.read_here(Asking::default(), |view| revocation::held_by(view, node, because, by))? {
            return Ok(());
        }
        self.write_document(|view| Ok(((), revocation::hold(view, node, because, by)?)))
    }

    /// As [`revocation::release`].
    ///
    /// # Errors
    /// `Conflict`, `PolicySignature`, `Sequence`, `RolledBack`.
    pub fn release(&self, node: NodeId, document: NewDocument<'_>, by: By<'_>) -> Result<()> {
        self.write_document(|view| {
            revocation::release(view, node, document, by)?;
            Ok(((), Some(document.opened.clone())))
        })
    }

    /// As [`ruling::attest`], with a rule that always has a ruling.
    ///
    /// # Errors
    /// `NotEnrolled`, `RolledBack`.
    pub fn attest(
        &self,
        request: &EvidenceRequest<'_>,
        rule: &mut dyn FnMut(&NodeSnapshot) -> Ruling,
    ) -> Result<Verdict> {
        self.attest_if(request, &mut |snapshot| Some(rule(snapshot)))?
            .ok_or_else(|| Error::unavailable("our bug: a ruling that was not recorded"))
    }

    /// As [`ruling::attest`].
    ///
    /// # Errors
    /// `NotEnrolled`, `RolledBack`.
    pub fn attest_if(
        &self,
        request: &EvidenceRequest<'_>,
        rule: &mut dyn FnMut(&NodeSnapshot) -> Option<Ruling>,
    ) -> Result<Option<Verdict>> {
        self.write_here_of(asks(request), |view| ruling::attest(view, request, rule))
    }

    /// Whether [`Records::attest_in_turn`] is worth trying.
    pub fn has_turns(&self) -> bool {
        self.store.has_turns()
    }

    /// The same on a thread that must not block. None if it can't be done there: nothing was changed.
    ///
    /// # Errors
    /// `NotEnrolled`, `RolledBack`.
    pub async fn attest_in_turn(
        &self,
        request: &EvidenceRequest<'_>,
        rule: &mut (dyn FnMut(&NodeSnapshot) -> Option<Ruling> + Send),
    ) -> Option<Result<Option<Verdict>>> {
        self.write_here_in_turn(asks(request), |view| ruling::attest(view, request, rule)).await
    }

    /// As [`evidence::of_node`].
    ///
    /// # Errors
    /// When a row is damaged, or can't be read.
    pub fn evidence_of(&self, node: NodeId, limit: u64) -> Result<Vec<EvidenceSummary>> {
        self.read(|view| evidence::of_node(view, node, limit))
    }

    /// As [`evidence::one`].
    ///
    /// # Errors
    /// When its row is damaged, or can't be read.
    pub fn evidence(&self, id: u64) -> Result<Option<EvidenceRecord>> {
        self.read(|view| evidence::one(view, id))
    }
}

/// The verifier's: documents, policies and proposals.
impl Records {
    /// Where the sequence of documents ends.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn head(&self) -> Result<Place> {
        self.read_rows(|rows| Ok(rows.head()?))
    }

    /// Documents after a number, oldest first, up to some bytes.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn documents_after(&self, number: u64) -> Result<Vec<SignedDocument>> {
        self.read_rows(|rows| Ok(rows.documents_after(number, document::PART)?))
    }

    /// As [`policy::all`].
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn policies(&self) -> Result<Vec<PolicySummary>> {
        self.read(policy::all)
    }

    /// As [`policy::one`].
    ///
    /// # Errors
    /// `RolledBack`; when a row is damaged, or can't be read.
    pub fn policy(&self, scope: &str, version: Option<u64>) -> Result<Option<PolicyRecord>> {
        self.read(|view| policy::one(view, scope, version))
    }

    /// As [`policy::apply`].
    ///
    /// # Errors
    /// Those of [`policy::apply`], `RolledBack`, `Deployment`.
    pub fn apply(&self, new: &NewPolicy<'_>, reviewer: &dyn Reviewer, by: By<'_>) -> Result<Vec<NodeId>> {
        self.write_document(|view| {
            let nodes = policy::apply(view, new, reviewer, by)?;
            Ok((nodes, Some(new.document.opened.clone())))
        })
    }

    /// As [`policy::set_group`].
    ///
    /// # Errors
    /// Those of [`policy::set_group`], `RolledBack`, `Deployment`.
    pub fn set_group(
        &self,
        node: NodeId,
        label: &str,
        document: NewDocument<'_>,
        reviewer: &dyn Reviewer,
        by: By<'_>,
    ) -> Result<()> {
        self.write_document(|view| {
            policy::set_group(view, node, label, document, reviewer, by)?;
            Ok(((), Some(document.opened.clone())))
        })
    }

    /// As [`policy::groups`].
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn groups(&self) -> Result<Vec<Group>> {
        self.read(policy::groups)
    }

    /// As [`propose::propose`].
    ///
    /// # Errors
    /// `NotEnrolled`, `RolledBack`, and what `rule` says.
    pub fn propose(
        &self,
        request: &ProposalRequest<'_>,
        rule: Rule<'_>,
    ) -> Result<(ProposalRuling, Option<u64>)> {
        self.write_here(|view| propose::propose(view, request, rule))
    }

    /// As [`proposal::list`].
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn proposals(
        &self,
        node: Option<NodeId>,
        waiting: bool,
        before: Option<u64>,
        limit: u64,
    ) -> Result<ProposalList> {
        self.read(|view| proposal::list(view, node, waiting, before, limit))
    }

    /// As [`proposal::deny`].
    ///
    /// # Errors
    /// `NotFound`, `Conflict`.
    pub fn deny_proposal(&self, id: u64, because: &str, by: By<'_>) -> Result<NodeId> {
        self.write(|view| proposal::deny(view, id, because, by))
    }
}

/// What webhooks are to tell.
impl Records {
    /// How many an endpoint is still to be told, and how many of these are due.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn notices(&self, endpoint: &str, now: u64) -> Result<(u64, u64)> {
        self.read_rows(|rows| Ok(rows.count_notices(endpoint, now)?))
    }

    /// Takes what is due, until `until`; of what an endpoint is to be told so many stay, and the oldest are dropped. Gives what was
    /// taken, and how many were dropped.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn take_notices(
        &self,
        endpoint: &str,
        now: u64,
        until: u64,
        take: u64,
        keep: u64,
    ) -> Result<(Vec<NoticeRow>, u64)> {
        self.write(|view| {
            let dropped = view.rows.trim_notices(endpoint, keep)?;
            Ok((view.rows.take_notices(endpoint, now, until, take)?, dropped))
        })
    }

    /// Writes down what came of what was taken: the numbers of those that were delivered, and of the others with the time before which
    /// they are not tried again.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn settle_notices(&self, delivered: &[u64], put_off: &[(u64, u64)]) -> Result<()> {
        self.write(|view| {
            delivered.iter().try_for_each(|id| view.rows.delete_notice(*id))?;
            Ok(put_off.iter().try_for_each(|(id, until)| view.rows.put_off_notice(*id, *until))?)
        })
    }
}
