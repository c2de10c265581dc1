//! Boots that wait for an operator, and approvals.

use super::policies::Within;
use super::{as_u64, audit, broken, damaged, evidence, from_json, id_text, json, nodes, number, rows};
use crate::attest::Ruling;
use crate::domain::sequence::Index;
use crate::domain::{Approval, Boot, By, Decision, Result, Reviewer, StoreError, Waiting};
use halfkey_protocol::wire::operator::PendingBoot;
use halfkey_protocol::{NodeId, Reason};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

/// Boots that are remembered per node; the oldest go first.
const KEPT: u32 = 32;

const FIELDS: &str = "ticket, evidence_id, code, message, approvable, findings, since, expires,
                      decision, decided_by, because, approved_until, used_at IS NOT NULL, approval_tag";

/// A boot by its ticket.
pub fn one(c: &Connection, node: NodeId, ticket: &str, now: u64) -> Result<Option<Boot>> {
    let sql = format!("SELECT {FIELDS} FROM boots WHERE node_id = ?1 AND ticket = ?2 AND expires > ?3");
    c.prepare_cached(&sql)
        .and_then(|mut query| query.query_row(params![id_text(node), ticket, number(now)], fields).optional())
        .map_err(broken)?
        .map(|found| read(c, node, found))
        .transpose()
}

/// The newest boot that nobody decided on, as its evidence says.
pub fn waiting(
    c: &Connection,
    node: NodeId,
    reviewer: &dyn Reviewer,
    index: &Index,
    now: u64,
) -> Result<Option<PendingBoot>> {
    let sql = format!(
        "SELECT {FIELDS} FROM boots WHERE node_id = ?1 AND expires > ?2 AND decision IS NULL
         ORDER BY evidence_id DESC LIMIT 1"
    );
    let found = c
        .prepare_cached(&sql)
        .and_then(|mut query| query.query_row(params![id_text(node), number(now)], fields).optional())
        .map_err(broken)?;
    let Some(boot) = found.map(|found| read(c, node, found)).transpose()? else { return Ok(None) };
    Ok(match shown(c, node, boot.pending, reviewer, index)? {
        Waiting::Shown(boot) => Some(boot),
        Waiting::Allowed => None,
        Waiting::Unproven(why) => {
            tracing::error!(%node, "a boot that waits is not shown: {why}");
            None
        }
    })
}

/// What a row says that waits, by the evidence that it names.
fn shown(
    c: &Connection,
    node: NodeId,
    row: PendingBoot,
    reviewer: &dyn Reviewer,
    index: &Index,
) -> Result<Waiting> {
    let (ticket, number) = (row.ticket.clone(), row.evidence_id);
    let unproven = |why: &str| Waiting::Unproven(format!("boot {ticket:.64}, evidence {number}: {why}"));
    let Some(known) = nodes::one(c, node, index)? else { return Ok(unproven("the node is not enrolled")) };
    let Some(record) = evidence::one(c, number)? else { return Ok(unproven("it is gone")) };
    Ok(match reviewer.waiting(&known, row, &record, &Within(c))? {
        Waiting::Unproven(why) => unproven(&why),
        found @ (Waiting::Shown(_) | Waiting::Allowed) => found,
    })
}

/// Remembers that this boot waits.
pub fn record(tx: &Transaction<'_>, node: NodeId, evidence_id: u64, ruling: &Ruling, now: u64) -> Result<()> {
    let Some(pending) = ruling.decided.waiting() else { return Ok(()) };
    let findings = json(&ruling.findings)?;
    tx.prepare_cached(
        "INSERT INTO boots (node_id, ticket, evidence_id, code, message, approvable, findings, since, expires)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (node_id, ticket) DO UPDATE SET
             evidence_id = ?3, code = ?4, message = ?5, approvable = ?6, findings = ?7, expires = ?9,
             since = iif(decision IS NULL, since, ?8),
             decision = NULL, decided_by = NULL, because = NULL, approved_until = NULL, used_at = NULL,
             approval_tag = NULL",
    )
    .and_then(|mut insert| {
        let code = ruling.decided.reason().map_or("", Reason::code);
        insert.execute(params![
            id_text(node),
            pending.ticket,
            number(evidence_id),
            code,
            ruling.decided.message(),
            pending.approvable,
            findings,
            number(now),
            number(pending.expires),
        ])
    })
    .and_then(|_| {
        tx.prepare_cached(
            "DELETE FROM boots WHERE node_id = ?1 AND evidence_id <=
                 (SELECT evidence_id FROM boots WHERE node_id = ?1 ORDER BY evidence_id DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute(params![id_text(node), KEPT])
    })
    .map(|_| ())
    .map_err(broken)
}

/// This boot used its approval: it is void, and so is its row without the tag.
pub fn use_approval(tx: &Transaction<'_>, node: NodeId, ticket: &str, now: u64) -> Result<()> {
    tx.execute(
        "UPDATE boots SET used_at = ?3, approval_tag = NULL WHERE node_id = ?1 AND ticket = ?2",
        params![id_text(node), ticket, number(now)],
    )
    .map(|_| ())
    .map_err(broken)
}

/// Approves a boot, this one time: the one that the evidence of its row is of.
pub fn approve(
    tx: &Transaction<'_>,
    node: NodeId,
    approval: &Approval<'_>,
    reviewer: &dyn Reviewer,
    index: &Index,
    by: By<'_>,
) -> Result<()> {
    let conflict = |what: String| Err(StoreError::Refused(Reason::Conflict, what));
    let row = decidable(tx, node, approval.ticket, by.now)?.pending;
    let boot = match shown(tx, node, row, reviewer, index)? {
        Waiting::Shown(boot) => boot,
        Waiting::Allowed => {
            let ticket = approval.ticket;
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
    let until = number(approval.expires);
    let tag = rows::tag(tx, rows::Kind::Approval, &approved(node, approval.ticket, until, by.actor).each())?;
    tx.execute(
        "UPDATE boots SET decision = 'approved', decided_by = ?3, approved_until = ?4, used_at = NULL,
             approval_tag = ?5
         WHERE node_id = ?1 AND ticket = ?2",
        params![id_text(node), approval.ticket, by.actor, until, tag],
    )
    .map_err(broken)?;
    let detail = format!("boot {} of evidence {}, once", approval.ticket, boot.evidence_id);
    audit::append(tx, by, "approve", Some(node), &detail)
}

/// Denies a boot.
pub fn deny(tx: &Transaction<'_>, node: NodeId, ticket: &str, because: &str, by: By<'_>) -> Result<()> {
    let boot = decidable(tx, node, ticket, by.now)?;
    tx.execute(
        "UPDATE boots SET decision = 'denied', decided_by = ?3, because = ?4, approved_until = NULL,
             approval_tag = NULL
         WHERE node_id = ?1 AND ticket = ?2",
        params![id_text(node), ticket, by.actor, because],
    )
    .map_err(broken)?;
    let detail = format!("boot {ticket} of evidence {}: {because}", boot.pending.evidence_id);
    audit::append(tx, by, "deny", Some(node), &detail)
}

/// Evidence of the newest boot that waits because of the policy. Those before it are over: the machine has gone on, and
/// an approval would be for what it was then.
pub fn undecided(c: &Connection, node: NodeId, now: u64) -> Result<Option<u64>> {
    const SQL: &str = "SELECT max(evidence_id) FROM boots
                       WHERE node_id = ?1 AND expires > ?2 AND decision IS NULL AND approvable";
    let newest: Option<i64> = c
        .prepare_cached(SQL)
        .and_then(|mut query| query.query_row(params![id_text(node), number(now)], |row| row.get(0)))
        .map_err(broken)?;
    Ok(newest.map(as_u64))
}

/// The policy allows the newest boot: neither it nor those before it wait any longer.
pub fn forget_undecided(tx: &Transaction<'_>, node: NodeId) -> Result<()> {
    const SQL: &str = "DELETE FROM boots WHERE node_id = ?1 AND decision IS NULL AND approvable";
    tx.execute(SQL, [id_text(node)]).map(|_| ()).map_err(broken)
}

/// Forgets boots that are over.
pub fn expire(tx: &Transaction<'_>, now: u64) -> Result<()> {
    tx.execute("DELETE FROM boots WHERE expires <= ?1", [number(now)]).map(|_| ()).map_err(broken)
}

fn decidable(tx: &Transaction<'_>, node: NodeId, ticket: &str, now: u64) -> Result<Boot> {
    let refused = |reason, what: String| Err(StoreError::Refused(reason, what));
    let Some(boot) = one(tx, node, ticket, now)? else {
        return refused(Reason::NotFound, format!("node {node} has no boot {ticket} that waits"));
    };
    match &boot.decision {
        Some(Decision::Approved { used: true, .. }) => {
            refused(Reason::Conflict, format!("boot {ticket} was approved and released already"))
        }
        // An operator may change their mind before the node has asked again.
        Some(Decision::Approved { used: false, .. } | Decision::Denied { .. }) | None => Ok(boot),
    }
}

/// The findings and the decision are read further by [`read`].
struct Fields {
    pending: PendingBoot,
    findings: String,
    decision: Option<String>,
    decided_by: Option<String>,
    because: Option<String>,
    approved_until: Option<i64>,
    used: bool,
    tag: Option<Vec<u8>>,
}

fn fields(row: &Row<'_>) -> rusqlite::Result<Fields> {
    let pending = PendingBoot {
        ticket: row.get(0)?,
        evidence_id: as_u64(row.get(1)?),
        code: row.get(2)?,
        message: row.get(3)?,
        approvable: row.get(4)?,
        findings: Vec::new(),
        since: as_u64(row.get(6)?),
        expires: as_u64(row.get(7)?),
    };
    Ok(Fields {
        pending,
        findings: row.get(5)?,
        decision: row.get(8)?,
        decided_by: row.get(9)?,
        because: row.get(10)?,
        approved_until: row.get(11)?,
        used: row.get(12)?,
        tag: row.get(13)?,
    })
}

/// What the tag of an approval is over.
struct Approved<'a> {
    node: NodeId,
    ticket: &'a str,
    until: [u8; 8],
    by: &'a str,
}

fn approved<'a>(node: NodeId, ticket: &'a str, until: i64, by: &'a str) -> Approved<'a> {
    Approved { node, ticket, until: until.to_be_bytes(), by }
}

impl Approved<'_> {
    fn each(&self) -> [&[u8]; 4] {
        [&self.node.0, self.ticket.as_bytes(), &self.until, self.by.as_bytes()]
    }
}

/// An approval that no operator gave is none: the boot waits, and it is said.
fn read(c: &Connection, node: NodeId, fields: Fields) -> Result<Boot> {
    let Fields { pending, findings, decision, decided_by, because, approved_until, used, tag } = fields;
    let mut damage = None;
    let row = format!("table boots, ticket {:.64}", pending.ticket);
    let decision = match (decision.as_deref(), approved_until, decided_by, because) {
        (None, ..) => None,
        (Some("approved"), Some(until), ..) if used => {
            Some(Decision::Approved { expires: as_u64(until), used })
        }
        (Some("approved"), Some(until), Some(by), _) => {
            let fields = approved(node, &pending.ticket, until, &by);
            match rows::is_ours(c, rows::Kind::Approval, &fields.each(), tag.as_deref())? {
                true => Some(Decision::Approved { expires: as_u64(until), used }),
                false => {
                    let what = format!("{row}: an approval that no operator gave");
                    tracing::error!(%node, "the database was changed beside this server: {what}");
                    damage = Some(what);
                    None
                }
            }
        }
        (Some("denied"), _, Some(by), Some(because)) => Some(Decision::Denied { by, because }),
        (Some("approved" | "denied"), ..) => {
            return Err(damaged(&format!("{row}: a decision without its time, or without who made it")));
        }
        (Some(other), ..) => return Err(damaged(&format!("{row}: decision {other:.32?}"))),
    };
    let findings = from_json(&findings, &format!("{row}: findings"))?;
    Ok(Boot { pending: PendingBoot { findings, ..pending }, decision, damage })
}
