//! Boots that wait for an operator, and approvals.

use super::document::{NewDocument, append_of_tenant};
use super::model::{Boot, Decision, Node, Waiting};
use super::policy_source::PolicySource;
use super::{By, Error, Result, TxView, audit, evidence, json, legible, node, retention, seal};
use crate::appraisal::Ruling;
use crate::events::Event;
use crate::store::BootRow;
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::wire::operator::{EvidenceRecord, PendingBoot};
use halfkey_protocol::{NodeId, Reason};

/// An approval to be recorded.
pub struct Approval<'a> {
    /// What the tenant signed: its body is the ticket of the boot.
    pub document: NewDocument<'a>,
    /// When it is forgotten.
    pub expires: u64,
}

/// Looks at recorded boots by what governs a node now.
pub trait BootReviewer {
    /// Whether the policy now allows this recorded boot.
    ///
    /// # Errors
    /// When the documents can't be read.
    fn boot(&self, node: &Node, record: &EvidenceRecord, documents: &dyn PolicySource) -> Result<bool>;
    /// What an operator is shown of a boot that waits. `record` is the evidence that the row names.
    ///
    /// # Errors
    /// When the documents can't be read.
    fn waiting(
        &self,
        node: &Node,
        row: PendingBoot,
        record: &EvidenceRecord,
        documents: &dyn PolicySource,
    ) -> Result<Waiting>;
}

/// A boot by its ticket.
///
/// # Errors
/// When its row is damaged, or can't be read.
pub fn one(view: &TxView<'_>, node: NodeId, ticket: &str, now: u64) -> Result<Option<Boot>> {
    let row = view.rows.boot(node, ticket)?.filter(|row| row.expires > now);
    row.map(|row| read(view, row)).transpose()
}

/// The newest boot that nobody decided on, as its evidence says.
///
/// # Errors
/// When its row is damaged, or can't be read.
pub fn waiting(
    view: &TxView<'_>,
    node: NodeId,
    reviewer: &dyn BootReviewer,
    now: u64,
) -> Result<Option<PendingBoot>> {
    // The newest: one that is damaged does not show an older one in its place.
    let lives = |row: &crate::store::Result<BootRow>| row.as_ref().map_or(true, |row| row.expires > now);
    let Some(row) = view.rows.undecided_boots(node)?.into_iter().find(lives) else {
        return Ok(None);
    };
    let boot = read(view, row?)?;
    Ok(match shown(view, node, boot.pending, reviewer)? {
        Waiting::Shown(boot) => Some(boot),
        Waiting::Allowed => None,
        Waiting::Unproven(why) => {
            tracing::error!(%node, "a boot that waits is not shown: {why}");
            None
        }
    })
}

/// What a row says that waits, by the evidence that it names.
fn shown(view: &TxView<'_>, node: NodeId, row: PendingBoot, reviewer: &dyn BootReviewer) -> Result<Waiting> {
    let (ticket, number) = (row.ticket.clone(), row.evidence_id);
    let unproven = |why: &str| Waiting::Unproven(format!("boot {ticket:.64}, evidence {number}: {why}"));
    let Some(known) = node::one(view, node)? else { return Ok(unproven("the node is not enrolled")) };
    let Some(record) = evidence::one(view, number)? else { return Ok(unproven("it is gone")) };
    Ok(match reviewer.waiting(&known, row, &record, view)? {
        Waiting::Unproven(why) => unproven(&why),
        found @ (Waiting::Shown(_) | Waiting::Allowed) => found,
    })
}

/// Remembers that this boot waits; true if it did not before.
///
/// # Errors
/// When the database can't be written.
pub fn record(view: &TxView<'_>, node: NodeId, evidence_id: u64, ruling: &Ruling, now: u64) -> Result<bool> {
    let Some(pending) = ruling.decided.waiting() else { return Ok(false) };
    // It has waited since it was first seen, or since what was decided about it is void. A row that can't be read is written anew.
    let (before, _) = legible(view.rows.boot(node, &pending.ticket).map_err(Error::from))?;
    let waited = before.filter(|row| row.decision.is_none());
    let since = waited.as_ref().map_or(now, |row| row.since);
    view.rows.put_boot(&BootRow {
        node,
        ticket: pending.ticket.clone(),
        evidence_id,
        code: ruling.decided.reason().map_or("", Reason::code).to_owned(),
        message: ruling.decided.message(),
        approvable: pending.approvable,
        findings: json(&ruling.findings)?,
        since,
        expires: pending.expires,
        decision: None,
        decided_by: None,
        because: None,
        approved_until: None,
        used_at: None,
        approval_tag: None,
    })?;
    retention::trim_boots(view, node)?;
    Ok(waited.is_none())
}

/// This boot used its approval: it is void, and so is its row without the tag.
///
/// # Errors
/// When the database can't be written.
pub fn use_approval(view: &TxView<'_>, node: NodeId, ticket: &str, now: u64) -> Result<()> {
    if let Some(mut row) = view.rows.boot(node, ticket)? {
        row.used_at = Some(now);
        row.approval_tag = None;
        view.rows.put_boot(&row)?;
    }
    Ok(())
}

/// Approves a boot, this one time: the one that the evidence of its row is of.
///
/// # Errors
/// `NotFound`, `Conflict`, `PolicySignature` (by another key than the node's tenant's), `Sequence`.
pub fn approve(
    view: &TxView<'_>,
    node: NodeId,
    approval: &Approval<'_>,
    reviewer: &dyn BootReviewer,
    by: By<'_>,
) -> Result<()> {
    let conflict = |what: String| Err(Error::Refused(Reason::Conflict, what));
    let ticket = approval.document.opened.body.as_str();
    let (mut row, waits) = decidable(view, node, ticket, by.now)?;
    let boot = match shown(view, node, waits.pending, reviewer)? {
        Waiting::Shown(boot) => boot,
        Waiting::Allowed => {
            return conflict(format!(
                "the policy allows boot {ticket} by now: it is released when it asks again"
            ));
        }
        Waiting::Unproven(why) => {
            tracing::error!(%node, "not approved: {why}");
            return conflict(format!("what waits is not what is recorded: {why}"));
        }
    };
    if !boot.approvable {
        return conflict(format!("a boot that was refused with {} can't be approved", boot.code));
    }
    append_of_tenant(view, approval.document, by)?;
    let fields = Approved::new(node, ticket, approval.expires, by.actor);
    row.decision = Some(APPROVED.to_owned());
    row.decided_by = Some(by.actor.to_owned());
    row.approved_until = Some(approval.expires);
    row.used_at = None;
    row.approval_tag = Some(seal::tag(view.key, seal::Kind::Approval, &fields.each()).to_vec());
    view.rows.put_boot(&row)?;
    view.emit(Event::Decided(node));
    let NewDocument { opened, signed } = approval.document;
    let detail = format!(
        "boot {ticket} of evidence {}, once, document {}, tenant key {}",
        boot.evidence_id,
        opened.place.number,
        fingerprint(signed.tenant_key())
    );
    audit::append(view, by, "approve", Some(node), &detail)
}

/// Denies a boot.
///
/// # Errors
/// `NotFound`, `Conflict`.
pub fn deny(view: &TxView<'_>, node: NodeId, ticket: &str, because: &str, by: By<'_>) -> Result<()> {
    let (mut row, _) = decidable(view, node, ticket, by.now)?;
    let said = (row.decision.as_deref(), row.decided_by.as_deref(), row.because.as_deref());
    if said == (Some(DENIED), Some(by.actor), Some(because)) {
        return Ok(());
    }
    row.decision = Some(DENIED.to_owned());
    row.decided_by = Some(by.actor.to_owned());
    row.because = Some(because.to_owned());
    row.approved_until = None;
    row.approval_tag = None;
    view.rows.put_boot(&row)?;
    view.emit(Event::Decided(node));
    let detail = format!("boot {ticket} of evidence {}: {because}", row.evidence_id);
    audit::append(view, by, "deny", Some(node), &detail)
}

/// Evidence of the newest boot that waits because of the policy. Those before it are over: the machine has gone on, and
/// an approval would be for what it was then.
///
/// # Errors
/// When the database can't be read.
pub fn undecided(view: &TxView<'_>, node: NodeId, now: u64) -> Result<Option<u64>> {
    let rows = view.rows.undecided_boots(node)?.into_iter().flatten();
    Ok(rows.filter(|row| row.approvable && row.expires > now).map(|row| row.evidence_id).max())
}

/// The policy allows the newest boot: neither it nor those before it wait any longer.
///
/// # Errors
/// When the database can't be written.
pub fn forget_undecided(view: &TxView<'_>, node: NodeId) -> Result<()> {
    for row in view.rows.undecided_boots(node)?.into_iter().flatten().filter(|row| row.approvable) {
        view.rows.delete_boot(node, &row.ticket)?;
    }
    Ok(())
}

/// A boot that an operator may decide on, as it is kept and as it is read.
fn decidable(view: &TxView<'_>, node: NodeId, ticket: &str, now: u64) -> Result<(BootRow, Boot)> {
    let refused = |reason, what: String| Err(Error::Refused(reason, what));
    let Some(row) = view.rows.boot(node, ticket)?.filter(|row| row.expires > now) else {
        return refused(Reason::NotFound, format!("node {node} has no boot {ticket} that waits"));
    };
    let boot = read(view, row.clone())?;
    match &boot.decision {
        Some(Decision::Approved { used: true, .. }) => {
            refused(Reason::Conflict, format!("boot {ticket} was approved and released already"))
        }
        // An operator may change their mind before the node has asked again.
        Some(Decision::Approved { used: false, .. } | Decision::Denied { .. }) | None => Ok((row, boot)),
    }
}

const APPROVED: &str = "approved";
const DENIED: &str = "denied";

/// What the tag of an approval is over.
struct Approved<'a> {
    node: NodeId,
    ticket: &'a str,
    until: [u8; 8],
    by: &'a str,
}

impl<'a> Approved<'a> {
    fn new(node: NodeId, ticket: &'a str, until: u64, by: &'a str) -> Self {
        Self { node, ticket, until: until.to_be_bytes(), by }
    }

    fn each(&self) -> [&[u8]; 4] {
        [&self.node.0, self.ticket.as_bytes(), &self.until, self.by.as_bytes()]
    }
}

/// An approval that no operator gave is none: the boot waits, and it is said.
fn read(view: &TxView<'_>, row: BootRow) -> Result<Boot> {
    let mut damage = None;
    let named = format!("table boots, ticket {:.64}", row.ticket);
    let used = row.used_at.is_some();
    let decision = match (row.decision.as_deref(), row.approved_until, row.decided_by, row.because) {
        (None, ..) => None,
        (Some(APPROVED), Some(expires), ..) if used => Some(Decision::Approved { expires, used }),
        (Some(APPROVED), Some(expires), Some(by), _) => {
            let fields = Approved::new(row.node, &row.ticket, expires, &by);
            let tag = row.approval_tag.as_deref();
            match seal::is_ours(view.key, seal::Kind::Approval, &fields.each(), tag) {
                true => Some(Decision::Approved { expires, used }),
                false => {
                    let what = format!("{named}: an approval that no operator gave");
                    tracing::error!(node = %row.node, "the database was changed beside this server: {what}");
                    damage = Some(what);
                    None
                }
            }
        }
        (Some(DENIED), _, Some(by), Some(because)) => Some(Decision::Denied { by, because }),
        (Some(APPROVED | DENIED), ..) => {
            return Err(Error::damaged(format!(
                "{named}: a decision without its time, or without who made it"
            )));
        }
        (Some(other), ..) => return Err(Error::damaged(format!("{named}: decision {other:.32?}"))),
    };
    let findings =
        serde_json::from_str(&row.findings).map_err(|e| Error::damaged(format!("{named}: findings: {e}")))?;
    let pending = PendingBoot {
        ticket: row.ticket,
        evidence_id: row.evidence_id,
        code: row.code,
        message: row.message,
        approvable: row.approvable,
        findings,
        since: row.since,
        expires: row.expires,
    };
    Ok(Boot { pending, decision, damage })
}
