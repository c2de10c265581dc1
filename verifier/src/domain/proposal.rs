//! What nodes proposed to boot next.

use super::model::{ProposalDecision, StoredProposal, Trusted, TrustedUnder};
use super::{By, Error, Result, TxView, audit, legible, seal};
use crate::events::Event;
use crate::store::{ProposalChange, ProposalRow, StoreError, Tx};
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::policies::{ProposalList, ProposalRecord, ProposalState};
use halfkey_protocol::{NodeId, Reason, identity};

/// More than a node can have.
const ALL: u64 = 1 << 32;
/// Bytes of a page of the list, with one proposal more at most: each workstation takes such an answer, whoever proposed what is in it.
const PAGE: usize = 4 << 20;
/// More bytes than a row of this program's has in an answer.
const MAX_ROW: usize = 1 << 20;

/// One.
///
/// # Errors
/// When its row is damaged, or can't be read.
pub fn one(view: &TxView<'_>, id: u64) -> Result<Option<StoredProposal>> {
    view.rows.proposal(id)?.map(|row| read(view, row)).transpose()
}

/// Allowed by trust that was given here, newest first.
///
/// # Errors
/// When the database can't be read.
pub fn trusted(view: &TxView<'_>, node: NodeId, under: &TrustedUnder) -> Result<Vec<Trusted>> {
    let mut found = Vec::new();
    let heads = view.rows.proposal_heads(node)?;
    for head in heads.iter().rev().filter(|head| head.by_trust) {
        let stored = one(view, head.id).map_or_else(passed_over, Ok)?;
        // Read with its tag: what nobody trusted is not by trust.
        let here = |stored: &StoredProposal| stored.by_trust && stored.trusted_under.as_ref() == Some(under);
        let stored = stored.filter(here);
        found.extend(stored.map(|stored| Trusted {
            id: stored.record.id,
            base_boot: stored.base_boot,
            sha256: stored.sha256,
        }));
    }
    Ok(found)
}

/// Accepted, trusted or announced, and not booted yet.
///
/// # Errors
/// When the database can't be read.
pub fn not_booted(view: &TxView<'_>, node: NodeId) -> Result<Vec<StoredProposal>> {
    let mut found = Vec::new();
    for id in numbers_not_booted(view.rows, node)? {
        let stored = one(view, id).map_or_else(passed_over, Ok)?;
        let counts =
            |stored: &StoredProposal| stored.record.state != ProposalState::Waiting || stored.is_announced();
        found.extend(stored.filter(counts));
    }
    found.sort_by_key(|stored| (stored.record.at, stored.record.id));
    Ok(found)
}

/// Numbers of those that were accepted, trusted, or wait.
///
/// # Errors
/// When the database can't be read.
pub fn numbers_not_booted(rows: &dyn Tx, node: NodeId) -> Result<Vec<u64>> {
    let states = [ProposalState::Accepted, ProposalState::Trusted, ProposalState::Waiting];
    Ok(rows.proposal_numbers(Some(node), &states.map(ProposalState::as_str), None, ALL)?)
}

/// Those that a policy can change.
///
/// # Errors
/// When a row is damaged, or can't be read.
pub fn open(view: &TxView<'_>, node: NodeId) -> Result<Vec<StoredProposal>> {
    let open = [ProposalState::Waiting, ProposalState::Accepted, ProposalState::Trusted];
    let is_open = |state: &str| open.iter().any(|open| open.as_str() == state);
    let heads = view.rows.proposal_heads(node)?;
    let booted = |state: &str| state == ProposalState::Booted.as_str();
    let first = heads.iter().filter(|head| is_open(&head.state));
    let then = heads.iter().filter(|head| head.by_trust && booted(&head.state));
    let mut found = Vec::new();
    for head in first.chain(then) {
        found.extend(one(view, head.id)?);
    }
    Ok(found)
}

/// A page of those before a number, newest first. Without those that are damaged: a row that can't be read allows nothing, and keeps
/// nobody from anything.
///
/// # Errors
/// When the database can't be read.
pub fn list(
    view: &TxView<'_>,
    node: Option<NodeId>,
    waiting: bool,
    before: Option<u64>,
    limit: u64,
) -> Result<ProposalList> {
    let states = ProposalState::ALL.map(ProposalState::as_str);
    let states = if waiting { &[ProposalState::Waiting.as_str()][..] } else { &states };
    let (mut list, mut bytes) = (ProposalList { proposals: Vec::new(), next: None }, 0);
    let mut last = None;
    for (looked_at, id) in (0..).zip(view.rows.proposal_numbers(node, states, before, limit + 1)?) {
        if looked_at == limit || bytes >= PAGE {
            list.next = last;
            break;
        }
        last = Some(id);
        let row = view.rows.proposal(id).map_err(Error::from).or_else(passed_over)?;
        let Some(row) = row else { continue };
        let size = size_of(&row);
        if let Some(stored) = read(view, row).map(Some).or_else(passed_over)? {
            bytes += size;
            list.proposals.push(stored.record);
        }
    }
    Ok(list)
}

/// Gives a row that is by trust its tag: now that it has its number.
///
/// # Errors
/// When the database can't be written.
pub fn tag(view: &TxView<'_>, row: &ProposalRow) -> Result<()> {
    let Some(fields) = TrustFields::of(row).filter(|_| row.by_trust) else { return Ok(()) };
    let tag = seal::tag(view.key, seal::Kind::Trusted, &fields.each());
    let change = ProposalChange { state: &row.state, message: None, by_trust: true, tag: Some(&tag) };
    Ok(view.rows.set_proposal(row.id, &change)?)
}

/// Gives what a node proposed, and what is by trust, the tag by the key in use. Gives how many these were.
///
/// # Errors
/// When the database can't be written.
pub fn renew(view: &TxView<'_>, node: NodeId) -> Result<usize> {
    let mut count = 0;
    for head in view.rows.proposal_heads(node)? {
        let (row, _) = legible(view.rows.proposal(head.id).map_err(Error::from))?;
        let Some(mut row) = row else { continue };
        let renewed = |kind, fields: &[&[u8]], tag: Option<&[u8]>| seal::renewed(view.key, kind, fields, tag);
        let made = with_made(&row, |fields| renewed(seal::Kind::Proposed, fields, row.made.as_deref()));
        let trusted = TrustFields::of(&row)
            .and_then(|fields| renewed(seal::Kind::Trusted, &fields.each(), row.tag.as_deref()));
        if made.is_none() && trusted.is_none() {
            continue;
        }
        row.made = made.map(|tag| tag.to_vec()).or(row.made);
        row.tag = trusted.map(|tag| tag.to_vec()).or(row.tag);
        view.rows.put_proposal(&row)?;
        count += 1;
    }
    Ok(count)
}

/// Sets where a proposal stands. Trust is never given here: a scope was counted when it was.
///
/// # Errors
/// When the database can't be written.
pub fn set(view: &TxView<'_>, id: u64, state: ProposalState, decision: &ProposalDecision) -> Result<()> {
    let Some(row) = view.rows.proposal(id)? else { return Ok(()) };
    let kept = match decision {
        ProposalDecision::Trusted(_) => (row.by_trust, row.tag.as_deref()),
        ProposalDecision::Accepted(_) | ProposalDecision::Waits(_) | ProposalDecision::OnceBooted(_) => {
            (false, None)
        }
    };
    let (by_trust, tag) = kept;
    let message = Some(decision.message());
    Ok(view.rows.set_proposal(id, &ProposalChange { state: state.as_str(), message, by_trust, tag })?)
}

/// The node has booted these. What it was trusted with before is over: until now the machine could go back to it.
///
/// # Errors
/// When the database can't be written.
pub fn booted(view: &TxView<'_>, node: NodeId, ids: &[u64]) -> Result<()> {
    for id in ids {
        let Some(row) = view.rows.proposal(*id)? else { continue };
        let (by_trust, tag) = (row.by_trust, row.tag.as_deref());
        let state = ProposalState::Booted.as_str();
        view.rows.set_proposal(*id, &ProposalChange { state, message: None, by_trust, tag })?;
        if !by_trust {
            continue;
        }
        let earlier = |at: u64, id: u64| (at, id) < (row.at, row.id);
        for head in view.rows.proposal_heads(node)? {
            if head.by_trust && earlier(head.at, head.id) {
                supersede(view, head.id, &format!("the node booted proposal {id}"))?;
            }
        }
    }
    Ok(())
}

/// It is over, and so is trust in it.
///
/// # Errors
/// When the database can't be written.
pub fn supersede(view: &TxView<'_>, id: u64, because: &str) -> Result<()> {
    let state = ProposalState::Superseded.as_str();
    let change = ProposalChange { state, message: Some(because), by_trust: false, tag: None };
    Ok(view.rows.set_proposal(id, &change)?)
}

/// What waits of a node for this boot is over, but for one: the files were made anew, and nobody will boot those of before.
///
/// # Errors
/// When the database can't be read or written.
pub fn supersede_waiting(view: &TxView<'_>, node: NodeId, name: &str, but: u64) -> Result<()> {
    let waiting = ProposalState::Waiting.as_str();
    let heads = view.rows.proposal_heads(node)?;
    for head in heads.iter().filter(|head| head.state == waiting && head.id != but) {
        let stored = one(view, head.id).map_or_else(passed_over, Ok)?;
        if stored.is_some_and(|stored| stored.record.proposal.name == name) {
            supersede(view, head.id, &format!("the node proposed {but} for the same boot"))?;
        }
    }
    Ok(())
}

/// An operator says no; gives the node.
///
/// # Errors
/// `NotFound`, `Conflict`.
pub fn deny(view: &TxView<'_>, id: u64, because: &str, by: By<'_>) -> Result<NodeId> {
    let refused = |reason, what: String| Err(Error::Refused(reason, what));
    let Some(found) = one(view, id)? else {
        return refused(Reason::NotFound, format!("there is no proposal {id}"));
    };
    match (found.record.state, found.by_trust) {
        (ProposalState::Waiting, _) | (_, true) => {}
        (ProposalState::Accepted | ProposalState::Booted, false) => {
            let what = format!("proposal {id} is what the policy allows: {}", found.record.message);
            return refused(Reason::Conflict, what);
        }
        (over @ (ProposalState::Trusted | ProposalState::Denied | ProposalState::Superseded), false) => {
            return refused(Reason::Conflict, format!("proposal {id} is {}", over.as_str()));
        }
    }
    let message = format!("{}: {because}", by.actor);
    let (state, message) = (ProposalState::Denied.as_str(), Some(message.as_str()));
    view.rows.set_proposal(id, &ProposalChange { state, message, by_trust: false, tag: None })?;
    let node = NodeId::parse(&found.record.node_id)
        .ok_or_else(|| Error::damaged(format!("table proposals, id {id}: a node id that is none")))?;
    view.emit(Event::NodeChanged(node));
    audit::append(view, by, "proposal_deny", Some(node), &format!("proposal {id}: {because}"))?;
    Ok(node)
}

/// The node has gone to another tenant: what was proposed to the one before is over, and so is their trust.
///
/// # Errors
/// When the database can't be written.
pub fn forget_of_others(view: &TxView<'_>, node: NodeId) -> Result<()> {
    supersede_all(view, node, "the node went to another tenant")?;
    Ok(view.rows.delete_trust(node)?)
}

/// What is open is over, and so is all trust.
///
/// # Errors
/// When the database can't be written.
pub fn supersede_all(view: &TxView<'_>, node: NodeId, because: &str) -> Result<()> {
    let open = [ProposalState::Waiting, ProposalState::Accepted, ProposalState::Trusted];
    for head in view.rows.proposal_heads(node)? {
        if head.by_trust || open.iter().any(|open| open.as_str() == head.state) {
            supersede(view, head.id, because)?;
        }
    }
    Ok(())
}

/// What a row takes of an answer, about.
fn size_of(row: &ProposalRow) -> usize {
    256 + row.node_id.len() + row.message.len() + row.content.len()
}

/// None in place of what is damaged.
fn passed_over<T>(e: Error) -> Result<Option<T>> {
    match e {
        Error::Store(StoreError::Damaged(why)) => {
            tracing::error!("the database is damaged: {why}");
            Ok(None)
        }
        e => Err(e),
    }
}

/// What the tag of a trusted proposal is over.
struct TrustFields<'a> {
    node: &'a str,
    id: [u8; 8],
    content: [u8; 32],
    scope: &'a str,
    since: [u8; 8],
    base: Option<&'a str>,
}

impl<'a> TrustFields<'a> {
    /// None if the row says nowhere under what.
    fn of(row: &'a ProposalRow) -> Option<Self> {
        Some(Self {
            node: &row.node_id,
            id: row.id.to_be_bytes(),
            content: sha256_of(row),
            scope: row.trusted_scope.as_deref()?,
            since: row.trusted_since?.to_be_bytes(),
            base: row.base_boot.as_deref(),
        })
    }

    fn each(&self) -> [&[u8]; 7] {
        let known: &[u8] = if self.base.is_some() { &[1] } else { &[0] };
        let base = self.base.unwrap_or_default().as_bytes();
        [self.node.as_bytes(), &self.id, &self.content, self.scope.as_bytes(), &self.since, known, base]
    }
}

/// The tag of what a node made. Who writes the database would else have an image of their own shown as one that waits.
pub fn made(view: &TxView<'_>, row: &ProposalRow) -> [u8; 32] {
    with_made(row, |fields| seal::tag(view.key, seal::Kind::Proposed, fields))
}

fn with_made<T>(row: &ProposalRow, tell: impl FnOnce(&[&[u8]]) -> T) -> T {
    tell(&[row.node_id.as_bytes(), &sha256_of(row), &row.from_evidence.to_be_bytes()])
}

/// SHA-256 over what was proposed. The column of that name finds a row; what the row is about is this.
pub fn sha256_of(row: &ProposalRow) -> [u8; 32] {
    identity::sha256(row.content.as_bytes())
}

/// One that says it is trusted and has no tag for it is not: nothing is allowed by it.
pub fn read(view: &TxView<'_>, row: ProposalRow) -> Result<StoredProposal> {
    let id = row.id;
    let damaged = |what: String| Error::damaged(format!("table proposals, id {id}: {what}"));
    let size = size_of(&row);
    if size > MAX_ROW {
        return Err(damaged(format!("{size} bytes, of at most {MAX_ROW}")));
    }
    let state =
        ProposalState::parse(&row.state).ok_or_else(|| damaged(format!("state {:.32?}", row.state)))?;
    let proposal: Proposal =
        serde_json::from_str(&row.content).map_err(|e| damaged(format!("proposal: {e}")))?;
    let is_made =
        |fields: &[&[u8]]| seal::is_ours(view.key, seal::Kind::Proposed, fields, row.made.as_deref());
    if !with_made(&row, is_made) {
        return Err(damaged("a proposal that no node made".to_owned()));
    }
    let tag = row.tag.as_deref();
    let ours = |fields: TrustFields<'_>| seal::is_ours(view.key, seal::Kind::Trusted, &fields.each(), tag);
    let by_trust = row.by_trust && TrustFields::of(&row).is_some_and(ours);
    if row.by_trust && !by_trust {
        tracing::error!(
            node = row.node_id,
            "the database was changed beside this server: table proposals, id {id}: trust that no policy gave"
        );
    }
    let sha256 = sha256_of(&row);
    let under = row.trusted_scope.zip(row.trusted_since);
    Ok(StoredProposal {
        sha256,
        record: ProposalRecord {
            id,
            node_id: row.node_id,
            at: row.at,
            state,
            message: row.message,
            proposal,
            from_evidence: row.from_evidence,
        },
        base_boot: row.base_boot,
        by_trust,
        trusted_under: under.map(|(scope, since)| TrustedUnder { scope, since }),
    })
}
