//! What nodes proposed to boot next.

use super::policies::Within;
use super::{as_u64, audit, broken, damaged, from_json, id_text, json, nodes, number, rows};
use crate::domain::sequence::Index;
use crate::domain::{
    By, Documents, ProposalCase, ProposalRuling, ProposalStanding, Result, Stand, StoreError, StoredProposal,
    Trusted, TrustedUnder,
};
use aws_lc_rs::digest::{SHA256, digest};
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::policies::{ProposalRecord, ProposalState};
use halfkey_protocol::{NodeId, Reason};
use rusqlite::{Connection, Row, Transaction, params};

/// Proposals of a node in one state; beyond it the oldest are superseded. Those that are allowed by trust have a
/// bound of their own, in the policy.
const KEPT: u32 = 16;
/// Proposals of a node that are over and still shown.
const KEPT_OVER: u32 = 64;

const FIELDS: &str = "id, node_id, at, state, message, from_evidence, base_boot, by_trust, trusted_scope, trusted_since, proposal, tag";

/// One.
pub fn one(c: &Connection, id: u64) -> Result<Option<StoredProposal>> {
    Ok(select(c, "id = ?1", &[&number(id)])?.pop())
}

/// Allowed by trust that was given here, newest first.
pub fn trusted(c: &Connection, node: NodeId, under: &TrustedUnder) -> Result<Vec<Trusted>> {
    let condition = "node_id = ?1 AND by_trust = 1 AND trusted_scope = ?2 AND trusted_since = ?3
                     ORDER BY at DESC, id DESC";
    let found = readable(c, condition, &[&id_text(node), &under.scope, &number(under.since)])?;
    // Read with its tag: what nobody trusted is not by trust.
    let trusted = found.into_iter().filter(|stored| stored.by_trust);
    Ok(trusted.map(|stored| Trusted { id: stored.record.id, base_boot: stored.base_boot }).collect())
}

/// Accepted or trusted, and not booted yet.
pub fn accepted(c: &Connection, node: NodeId) -> Result<Vec<StoredProposal>> {
    readable(c, "node_id = ?1 AND state IN ('accepted', 'trusted') ORDER BY at, id", &[&id_text(node)])
}

/// Those whose standing a policy can change.
pub fn open(c: &Connection, node: NodeId) -> Result<Vec<StoredProposal>> {
    let id = id_text(node);
    let mut open =
        select(c, "node_id = ?1 AND state IN ('waiting', 'accepted', 'trusted') ORDER BY at, id", &[&id])?;
    open.extend(select(c, "node_id = ?1 AND by_trust = 1 AND state = 'booted' ORDER BY at, id", &[&id])?);
    Ok(open)
}

/// Newest first.
pub fn list(c: &Connection, node: Option<NodeId>, waiting: bool, limit: u64) -> Result<Vec<ProposalRecord>> {
    let (node, limit) = (node.map(id_text), number(limit));
    let condition = match (&node, waiting) {
        (Some(_), true) => "node_id = ?1 AND state = 'waiting' ORDER BY id DESC LIMIT ?2",
        (Some(_), false) => "node_id = ?1 ORDER BY id DESC LIMIT ?2",
        (None, true) => "?1 IS NULL AND state = 'waiting' ORDER BY id DESC LIMIT ?2",
        (None, false) => "?1 IS NULL ORDER BY id DESC LIMIT ?2",
    };
    Ok(readable(c, condition, &[&node, &limit])?.into_iter().map(|proposal| proposal.record).collect())
}

/// Decides on a proposal and records everything, or nothing.
pub fn propose(
    tx: &Transaction<'_>,
    case: &ProposalCase<'_>,
    index: &Index,
    rule: &mut dyn FnMut(&ProposalStanding, &dyn Documents) -> Result<ProposalRuling>,
) -> Result<(ProposalRuling, Option<u64>)> {
    let node = nodes::one(tx, case.node, index)?.ok_or_else(|| {
        StoreError::Refused(Reason::NotEnrolled, format!("node {} is not enrolled", case.node))
    })?;
    let id_of_node = id_text(case.node);
    let known = select(tx, "node_id = ?1 AND sha256 = ?2", &[&id_of_node, &case.sha256])?.pop();
    let under = node.governing.trusting();
    let trusted_before = match &under {
        Some(under) => trusted_under(tx, &id_of_node, under, &case.sha256)?,
        None => 0,
    };
    let standing = ProposalStanding { node, known, trusted_before };
    let ruling = rule(&standing, &Within(tx))?;
    if let Some(counters) = ruling.counters {
        nodes::set_counters(tx, &ruling.enrollment_id, counters)?;
    }
    let by = By { actor: "node", now: case.now };
    let (stand, proposal) = match (&ruling.stand, case.proposal) {
        (Ok(stand), Some(proposal)) => (stand, proposal),
        (Ok(_), None) => return Err(StoreError::Unavailable("our bug: a ruling on no proposal".into())),
        (Err(rejection), _) => {
            let detail = format!("refused {}: {rejection}", rejection.reason.code());
            match ruling.counters.is_some() {
                true => audit::append(tx, by, "propose", Some(case.node), &detail)?,
                // Anybody can send it in a node's name, or send again what the node sent.
                false => audit::count(tx, by, "propose", &id_of_node, Some(case.node), &detail)?,
            }
            return Ok((ruling, None));
        }
    };
    let booted = |known: &StoredProposal| known.record.state == ProposalState::Booted;
    let state = match (stand, &standing.known) {
        (Stand::Accepted(_), Some(known)) if booted(known) => ProposalState::Booted,
        // Trust that it has is not given anew.
        (Stand::Trusted(_), Some(known)) if booted(known) && known.by_trust => ProposalState::Booted,
        (Stand::Accepted(_) | Stand::Trusted(_) | Stand::Waits(_), Some(_) | None) => stand.state(),
    };
    let by_trust = matches!(stand, Stand::Trusted(_));
    let id = tx
        .query_row(
            "INSERT INTO proposals (node_id, sha256, at, state, message, from_evidence, base_boot, by_trust,
                                    trusted_scope, trusted_since, proposal)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, iif(?8, ?9, NULL), iif(?8, ?10, NULL), ?11)
             ON CONFLICT (node_id, sha256) DO UPDATE SET
                 at = ?3, state = ?4, message = ?5, from_evidence = ?6, base_boot = ?7, by_trust = ?8,
                 trusted_scope = iif(?8, ?9, trusted_scope), trusted_since = iif(?8, ?10, trusted_since)
             RETURNING id",
            params![
                id_of_node,
                case.sha256,
                number(case.now),
                state.as_str(),
                stand.message(),
                number(ruling.from_evidence),
                ruling.base_boot,
                by_trust,
                under.as_ref().map(|under| &under.scope),
                under.as_ref().map(|under| number(under.since)),
                json(proposal)?,
            ],
            |row| row.get(0),
        )
        .map(as_u64)
        .map_err(broken)?;
    let tag = match (by_trust, &under) {
        (true, Some(under)) => {
            let sum = sha256(&json(proposal)?);
            let (id, since) = (id.to_be_bytes(), under.since.to_be_bytes());
            let base = ruling.base_boot.as_deref();
            let fields = trust_fields(&id_of_node, &id, &sum, &under.scope, &since, base);
            Some(rows::tag(tx, rows::Kind::Trusted, &fields)?)
        }
        (true, None) | (false, _) => None,
    };
    tx.execute("UPDATE proposals SET tag = ?2 WHERE id = ?1", params![number(id), tag]).map_err(broken)?;
    let detail = format!(
        "proposal {id} {:?} from evidence {}: {}: {}",
        proposal.name,
        ruling.from_evidence,
        state.as_str(),
        stand.message()
    );
    audit::append(tx, by, "propose", Some(case.node), &detail)?;
    let newly = standing.known.is_none_or(|known| known.record.state != state);
    if newly && matches!(state, ProposalState::Accepted | ProposalState::Trusted) {
        let by = By { actor: "verifier", now: case.now };
        let detail = format!("proposal {id}: {}", stand.message());
        audit::append(tx, by, "proposal_accept", Some(case.node), &detail)?;
    }
    trim(tx, &id_of_node)?;
    Ok((ruling, Some(id)))
}

/// Sets where a proposal stands. Trust is never given here: a scope was counted when it was.
pub fn set(tx: &Transaction<'_>, id: u64, state: ProposalState, stand: &Stand) -> Result<()> {
    tx.execute(
        "UPDATE proposals SET state = ?2, message = ?3, by_trust = by_trust AND ?4,
             tag = iif(?4, tag, NULL)
         WHERE id = ?1",
        params![number(id), state.as_str(), stand.message(), matches!(stand, Stand::Trusted(_))],
    )
    .map(|_| ())
    .map_err(broken)
}

/// The node has booted these. What it was trusted with before is over: until now the machine could go back to it.
pub fn booted(tx: &Transaction<'_>, node: NodeId, ids: &[u64]) -> Result<()> {
    for id in ids {
        tx.execute("UPDATE proposals SET state = 'booted' WHERE id = ?1", [number(*id)]).map_err(broken)?;
        tx.execute(
            "UPDATE proposals SET state = 'superseded', by_trust = 0, tag = NULL,
                 message = 'the node booted proposal ' || ?2
             WHERE node_id = ?1 AND by_trust = 1
               AND EXISTS (SELECT 1 FROM proposals b WHERE b.id = ?2 AND b.by_trust = 1
                               AND (proposals.at, proposals.id) < (b.at, b.id))",
            params![id_text(node), number(*id)],
        )
        .map_err(broken)?;
    }
    Ok(())
}

/// An operator says no.
pub fn deny(tx: &Transaction<'_>, id: u64, because: &str, by: By<'_>) -> Result<NodeId> {
    let refused = |reason, what: String| Err(StoreError::Refused(reason, what));
    let Some(found) = one(tx, id)? else {
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
    tx.execute(
        "UPDATE proposals SET state = 'denied', by_trust = 0, tag = NULL, message = ?2 WHERE id = ?1",
        params![number(id), format!("{}: {because}", by.actor)],
    )
    .map_err(broken)?;
    let node = NodeId::parse(&found.record.node_id)
        .ok_or_else(|| damaged(&format!("table proposals, id {id}: a node id that is none")))?;
    audit::append(tx, by, "proposal_deny", Some(node), &format!("proposal {id}: {because}"))?;
    Ok(node)
}

/// The node has gone to another tenant: what was proposed to the one before is over, and so is his trust.
pub fn forget_of_others(tx: &Transaction<'_>, node: NodeId) -> Result<()> {
    const OPEN: &str =
        "UPDATE proposals SET state = 'superseded', message = 'the node went to another tenant'
        WHERE node_id = ?1 AND (state IN ('waiting', 'accepted', 'trusted') OR by_trust = 1)";
    const TRUST: &str =
        "UPDATE proposals SET by_trust = 0, tag = NULL, trusted_scope = NULL, trusted_since = NULL
        WHERE node_id = ?1";
    let id = id_text(node);
    tx.execute(OPEN, [&id]).and_then(|_| tx.execute(TRUST, [&id])).map(|_| ()).map_err(broken)
}

/// How many others were ever trusted here.
fn trusted_under(c: &Connection, node: &str, under: &TrustedUnder, but: &[u8; 32]) -> Result<u64> {
    const SQL: &str = "SELECT count(*) FROM proposals
        WHERE node_id = ?1 AND trusted_scope = ?2 AND trusted_since = ?3 AND sha256 <> ?4";
    c.prepare_cached(SQL)
        .and_then(|mut query| {
            query.query_row(params![node, under.scope, number(under.since), but], |row| row.get(0))
        })
        .map(as_u64)
        .map_err(broken)
}

/// Keeps a node from filling the database. What counts against a limit of trust is never forgotten.
fn trim(tx: &Transaction<'_>, node: &str) -> Result<()> {
    for state in ["waiting", "accepted"] {
        tx.execute(
            "UPDATE proposals SET state = 'superseded', message = 'the node proposed something newer'
             WHERE id IN (SELECT id FROM proposals WHERE node_id = ?1 AND state = ?2
                          ORDER BY at DESC, id DESC LIMIT -1 OFFSET ?3)",
            params![node, state, KEPT],
        )
        .map_err(broken)?;
    }
    tx.execute(
        "DELETE FROM proposals WHERE id IN
             (SELECT id FROM proposals WHERE node_id = ?1 AND by_trust = 0 AND trusted_scope IS NULL
                  AND state IN ('superseded', 'booted', 'denied') ORDER BY at DESC, id DESC LIMIT -1 OFFSET ?2)",
        params![node, KEPT_OVER],
    )
    .map(|_| ())
    .map_err(broken)
}

fn select(c: &Connection, condition: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<StoredProposal>> {
    rows_of(c, condition, values, Err)
}

/// Without those that are damaged: a row that can't be read allows nothing, and keeps nobody from anything.
fn readable(c: &Connection, condition: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<StoredProposal>> {
    rows_of(c, condition, values, |e| match e {
        StoreError::Damaged(why) => {
            tracing::error!("the database is damaged: {why}");
            Ok(())
        }
        e => Err(e),
    })
}

fn rows_of(
    c: &Connection,
    condition: &str,
    values: &[&dyn rusqlite::ToSql],
    pass: impl Fn(StoreError) -> Result<()>,
) -> Result<Vec<StoredProposal>> {
    let sql = format!("SELECT {FIELDS} FROM proposals WHERE {condition}");
    let mut query = c.prepare_cached(&sql).map_err(broken)?;
    let mut rows = query.query(values).map_err(broken)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(broken)? {
        match read(c, row) {
            Ok(proposal) => found.push(proposal),
            Err(e) => pass(e)?,
        }
    }
    Ok(found)
}

/// What the tag of a trusted proposal is over.
fn trust_fields<'a>(
    node: &'a str,
    id: &'a [u8],
    sha256: &'a [u8],
    scope: &'a str,
    since: &'a [u8],
    base: Option<&'a str>,
) -> [&'a [u8]; 7] {
    let known: &[u8] = if base.is_some() { &[1] } else { &[0] };
    [node.as_bytes(), id, sha256, scope.as_bytes(), since, known, base.unwrap_or_default().as_bytes()]
}

fn sha256(text: &str) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    sum
}

/// One that says it is trusted and has no tag for it is not: nothing is allowed by it.
fn read(c: &Connection, row: &Row<'_>) -> Result<StoredProposal> {
    let texts = || -> rusqlite::Result<(i64, String, String)> {
        Ok((row.get("id")?, row.get("state")?, row.get("proposal")?))
    };
    let (id, state, proposal) = texts().map_err(broken)?;
    let state = ProposalState::parse(&state)
        .ok_or_else(|| damaged(&format!("table proposals, id {id}: state {state:.32?}")))?;
    let text = proposal;
    let proposal: Proposal = from_json(&text, &format!("table proposals, id {id}: proposal"))?;
    let fields = || -> rusqlite::Result<StoredProposal> {
        let under: (Option<String>, Option<i64>) = (row.get("trusted_scope")?, row.get("trusted_since")?);
        Ok(StoredProposal {
            record: ProposalRecord {
                id: as_u64(row.get("id")?),
                node_id: row.get("node_id")?,
                at: as_u64(row.get("at")?),
                state,
                message: row.get("message")?,
                proposal,
                from_evidence: as_u64(row.get("from_evidence")?),
            },
            base_boot: row.get("base_boot")?,
            by_trust: row.get("by_trust")?,
            trusted_under: under
                .0
                .zip(under.1)
                .map(|(scope, since)| TrustedUnder { scope, since: as_u64(since) }),
        })
    };
    let mut stored = fields().map_err(broken)?;
    if stored.by_trust {
        let found: Option<Vec<u8>> = row.get("tag").map_err(broken)?;
        let (id, sum) = (stored.record.id.to_be_bytes(), sha256(&text));
        let base = stored.base_boot.as_deref();
        stored.by_trust = match &stored.trusted_under {
            Some(TrustedUnder { scope, since }) => {
                let since = since.to_be_bytes();
                let fields = trust_fields(&stored.record.node_id, &id, &sum, scope, &since, base);
                rows::is_ours(c, rows::Kind::Trusted, &fields, found.as_deref())?
            }
            None => false,
        };
        if !stored.by_trust {
            tracing::error!(
                node = stored.record.node_id,
                "the database was changed beside this server: table proposals, id {}: trust that no policy gave",
                stored.record.id
            );
        }
    }
    Ok(stored)
}
