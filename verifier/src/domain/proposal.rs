//! What nodes proposed to boot next.

use super::node::{self, Node};
use super::view::Documents;
use super::{By, Counters, Error, Result, TxView, audit, retention, seal};
use crate::events::Event;
use crate::store::{Each, ProposalChange, ProposalRow, StoreError};
use aws_lc_rs::digest::{SHA256, digest};
use halfkey_evidence::Rejection;
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::policies::{ProposalRecord, ProposalState};
use halfkey_protocol::{NodeId, Reason};

/// A proposal that `trust_root_with_next_boot` accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// Its number.
    pub id: u64,
    /// The policy's boot that it takes shim and boot loader from.
    pub base_boot: Option<String>,
}

/// Where trust was given. It counts nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedUnder {
    /// The scope of the policy that gave it.
    pub scope: String,
    /// [`super::Governing::since`] of then: whose policy that was.
    pub since: u64,
}

/// A proposal, as it is kept.
#[derive(Clone, Debug)]
pub struct StoredProposal {
    /// What an operator sees.
    pub record: ProposalRecord,
    /// The policy's boot that it takes shim and boot loader from.
    pub base_boot: Option<String>,
    /// It is allowed because `trust_root_with_next_boot` accepted it, and for no other reason.
    pub by_trust: bool,
    /// Where that ever happened: it counts there once.
    pub trusted_under: Option<TrustedUnder>,
}

/// Where a proposal stands by a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProposalDecision {
    /// A rule accepts it.
    Accepted(String),
    /// `trust_root_with_next_boot` accepts it.
    Trusted(String),
    /// Nothing does.
    Waits(String),
}

impl ProposalDecision {
    /// For people: which rule, or why none.
    pub fn message(&self) -> &str {
        match self {
            Self::Accepted(message) | Self::Trusted(message) | Self::Waits(message) => message,
        }
    }

    /// The state of a proposal that has not been booted.
    pub fn state(&self) -> ProposalState {
        match self {
            Self::Accepted(_) => ProposalState::Accepted,
            Self::Trusted(_) => ProposalState::Trusted,
            Self::Waits(_) => ProposalState::Waiting,
        }
    }
}

/// A proposal to be decided on.
pub struct ProposalCase<'a> {
    /// Whose.
    pub node: NodeId,
    /// Seconds since 1970.
    pub now: u64,
    /// SHA-256 over the proposal's content: the same again is one.
    pub sha256: [u8; 32],
    /// The content, if it could be read.
    pub proposal: Option<&'a Proposal>,
}

/// What a decision on a proposal goes by: read in the transaction that records it.
#[derive(Clone, Debug)]
pub struct ProposalStanding {
    /// The node.
    pub node: Node,
    /// The same proposal, if it was made before.
    pub known: Option<StoredProposal>,
    /// How many **other** proposals of the node were ever trusted under the scope of its policy, since it is its tenant's.
    pub trusted_before: u64,
}

/// What is to be recorded about a proposal.
#[derive(Clone, Debug)]
pub struct ProposalRuling {
    /// Which enrollment the counters belong to.
    pub enrollment_id: String,
    /// Accepted counters.
    pub counters: Option<Counters>,
    /// Where it stands, or why it is refused.
    pub decision: std::result::Result<ProposalDecision, Rejection>,
    /// Number of the evidence that opened the boot it comes from.
    pub from_evidence: u64,
    /// The policy's boot that it takes shim and boot loader from.
    pub base_boot: Option<String>,
}

/// What decides on a proposal.
pub type Rule<'a> = &'a mut dyn FnMut(&ProposalStanding, &dyn Documents) -> Result<ProposalRuling>;

/// More than a node can have.
const ALL: u64 = 1 << 32;

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
        found.extend(stored.map(|stored| Trusted { id: stored.record.id, base_boot: stored.base_boot }));
    }
    Ok(found)
}

/// Accepted or trusted, and not booted yet.
///
/// # Errors
/// When the database can't be read.
pub fn accepted(view: &TxView<'_>, node: NodeId) -> Result<Vec<StoredProposal>> {
    let states = [ProposalState::Accepted.as_str(), ProposalState::Trusted.as_str()];
    let mut found = readable(view, view.rows.proposals(Some(node), &states, ALL)?)?;
    found.sort_by_key(|stored| (stored.record.at, stored.record.id));
    Ok(found)
}

/// Those whose standing a policy can change.
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

/// Newest first.
///
/// # Errors
/// When the database can't be read.
pub fn list(
    view: &TxView<'_>,
    node: Option<NodeId>,
    waiting: bool,
    limit: u64,
) -> Result<Vec<ProposalRecord>> {
    let states = ProposalState::ALL.map(ProposalState::as_str);
    let states = if waiting { &[ProposalState::Waiting.as_str()][..] } else { &states };
    let found = readable(view, view.rows.proposals(node, states, limit)?)?;
    Ok(found.into_iter().map(|proposal| proposal.record).collect())
}

/// Decides on a proposal and records it, its counters and its audit entry, or nothing. Gives its number, if it was stored.
///
/// # Errors
/// `NotEnrolled`, and what `rule` says.
pub fn propose(
    view: &TxView<'_>,
    case: &ProposalCase<'_>,
    rule: Rule<'_>,
) -> Result<(ProposalRuling, Option<u64>)> {
    let node = node::one(view, case.node)?
        .ok_or_else(|| Error::Refused(Reason::NotEnrolled, format!("node {} is not enrolled", case.node)))?;
    let before = view.rows.proposal_with(case.node, &case.sha256)?;
    let known = before.clone().map(|row| read(view, row)).transpose()?;
    let under = node.governing.trusting();
    let trusted_before = match &under {
        Some(under) => view.rows.count_trusted(case.node, &under.scope, under.since, &case.sha256)?,
        None => 0,
    };
    let standing = ProposalStanding { node, known, trusted_before };
    let ruling = rule(&standing, view)?;
    if let Some(counters) = ruling.counters {
        view.rows.set_quoted(&ruling.enrollment_id, &counters.into())?;
    }
    view.emit(Event::NodeChanged(case.node));
    let by = By { actor: "node", now: case.now };
    let (decision, proposal) = match (&ruling.decision, case.proposal) {
        (Ok(decision), Some(proposal)) => (decision, proposal),
        (Ok(_), None) => return Err(Error::unavailable("our bug: a ruling on no proposal")),
        (Err(rejection), _) => {
            let detail = format!("refused {}: {rejection}", rejection.reason.code());
            match ruling.counters.is_some() {
                true => audit::append(view, by, "propose", Some(case.node), &detail)?,
                // Anybody can send it in a node's name, or send again what the node sent.
                false => {
                    let source = case.node.to_string();
                    audit::count(view, by, "propose", &source, Some(case.node), &detail)?;
                }
            }
            return Ok((ruling, None));
        }
    };
    let state = state_of(decision, standing.known.as_ref());
    let by_trust = matches!(decision, ProposalDecision::Trusted(_));
    // Where it was ever trusted stays: it counts there.
    let counted = match (by_trust, &under, &before) {
        (true, Some(under), _) => (Some(under.scope.clone()), Some(under.since)),
        (true, None, _) => (None, None),
        (false, _, Some(before)) => (before.trusted_scope.clone(), before.trusted_since),
        (false, _, None) => (None, None),
    };
    let mut row = ProposalRow {
        id: 0,
        node_id: case.node.to_string(),
        sha256: case.sha256,
        at: case.now,
        state: state.as_str().to_owned(),
        message: decision.message().to_owned(),
        from_evidence: ruling.from_evidence,
        base_boot: ruling.base_boot.clone(),
        by_trust,
        trusted_scope: counted.0,
        trusted_since: counted.1,
        // Not what a row has of it: the tag is over what the node sent.
        content: super::json(proposal)?,
        tag: None,
    };
    let id = view.rows.put_proposal(&row)?;
    row.id = id;
    if let Some(fields) = TrustFields::of(&row).filter(|_| by_trust) {
        let tag = seal::tag(view.key, seal::Kind::Trusted, &fields.each());
        let change = ProposalChange { state: &row.state, message: None, by_trust, tag: Some(&tag) };
        view.rows.set_proposal(id, &change)?;
    }
    let detail = format!(
        "proposal {id} {:?} from evidence {}: {}: {}",
        proposal.name,
        ruling.from_evidence,
        state.as_str(),
        decision.message()
    );
    audit::append(view, by, "propose", Some(case.node), &detail)?;
    let newly = standing.known.is_none_or(|known| known.record.state != state);
    if newly && matches!(state, ProposalState::Accepted | ProposalState::Trusted) {
        let by = By { actor: "verifier", now: case.now };
        let detail = format!("proposal {id}: {}", decision.message());
        audit::append(view, by, "proposal_accept", Some(case.node), &detail)?;
    }
    retention::trim_proposals(view, case.node)?;
    Ok((ruling, Some(id)))
}

/// What has been booted stays so. Trust that it has is not given anew.
fn state_of(decision: &ProposalDecision, known: Option<&StoredProposal>) -> ProposalState {
    match (decision, known) {
        (ProposalDecision::Accepted(_), Some(known)) if known.record.state == ProposalState::Booted => {
            ProposalState::Booted
        }
        (ProposalDecision::Trusted(_), Some(known))
            if known.record.state == ProposalState::Booted && known.by_trust =>
        {
            ProposalState::Booted
        }
        (
            ProposalDecision::Accepted(_) | ProposalDecision::Trusted(_) | ProposalDecision::Waits(_),
            Some(_) | None,
        ) => decision.state(),
    }
}

/// Sets where a proposal stands. Trust is never given here: a scope was counted when it was.
///
/// # Errors
/// When the database can't be written.
pub fn set(view: &TxView<'_>, id: u64, state: ProposalState, decision: &ProposalDecision) -> Result<()> {
    let Some(row) = view.rows.proposal(id)? else { return Ok(()) };
    let kept = match decision {
        ProposalDecision::Trusted(_) => (row.by_trust, row.tag.as_deref()),
        ProposalDecision::Accepted(_) | ProposalDecision::Waits(_) => (false, None),
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
    let open = [ProposalState::Waiting, ProposalState::Accepted, ProposalState::Trusted];
    for head in view.rows.proposal_heads(node)? {
        if head.by_trust || open.iter().any(|open| open.as_str() == head.state) {
            supersede(view, head.id, "the node went to another tenant")?;
        }
    }
    Ok(view.rows.delete_trust(node)?)
}

/// Without those that are damaged: a row that can't be read allows nothing, and keeps nobody from anything.
fn readable(view: &TxView<'_>, rows: Each<ProposalRow>) -> Result<Vec<StoredProposal>> {
    let mut found = Vec::new();
    for row in rows {
        let read = row.map_err(Error::from).and_then(|row| read(view, row).map(Some));
        found.extend(read.or_else(passed_over)?);
    }
    Ok(found)
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
        let mut content = [0; 32];
        content.copy_from_slice(digest(&SHA256, row.content.as_bytes()).as_ref());
        Some(Self {
            node: &row.node_id,
            id: row.id.to_be_bytes(),
            content,
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

/// One that says it is trusted and has no tag for it is not: nothing is allowed by it.
fn read(view: &TxView<'_>, row: ProposalRow) -> Result<StoredProposal> {
    let id = row.id;
    let damaged = |what: String| Error::damaged(format!("table proposals, id {id}: {what}"));
    let state =
        ProposalState::parse(&row.state).ok_or_else(|| damaged(format!("state {:.32?}", row.state)))?;
    let proposal: Proposal =
        serde_json::from_str(&row.content).map_err(|e| damaged(format!("proposal: {e}")))?;
    let tag = row.tag.as_deref();
    let ours = |fields: TrustFields<'_>| seal::is_ours(view.key, seal::Kind::Trusted, &fields.each(), tag);
    let by_trust = row.by_trust && TrustFields::of(&row).is_some_and(ours);
    if row.by_trust && !by_trust {
        tracing::error!(
            node = row.node_id,
            "the database was changed beside this server: table proposals, id {id}: trust that no policy gave"
        );
    }
    let under = row.trusted_scope.zip(row.trusted_since);
    Ok(StoredProposal {
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
