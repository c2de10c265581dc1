//! Policies and groups.

use super::{as_u64, audit, broken, documents, id_text, nodes, number, proposals, review, shown};
use crate::domain::sequence::Index;
use crate::domain::{
    By, Damage, Documents, Governing, NewDocument, NewPolicy, PolicyRef, Result, Reviewer, StoreError,
    StoredProposal, TrustedUnder,
};
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::wire::SignedDocument;
use halfkey_protocol::wire::policies::{Group, PolicyRecord, PolicySummary, Scope};
use halfkey_protocol::{NodeId, Reason};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use std::collections::BTreeMap;

/// Documents as this connection sees them: with what its transaction has changed.
pub struct Within<'a>(pub &'a Connection);

impl Documents for Within<'_> {
    fn signed_document(&self, number: u64) -> Result<Option<SignedDocument>> {
        documents::one(self.0, number)
    }

    fn stored_proposal(&self, id: u64) -> Result<Option<StoredProposal>> {
        proposals::one(self.0, id)
    }
}

/// What a node's boots are judged by, as the rows say. Documents for this node up to `since` are a former tenant's, and a group's
/// count by the tenant key that the node is enrolled with.
pub fn governing(
    c: &Connection,
    node: NodeId,
    group: Option<String>,
    membership: Option<u64>,
    since: u64,
    key: Option<&[u8]>,
) -> Result<Governing> {
    let membership = membership.filter(|number| *number > since);
    let group = group.filter(|_| since == 0 || membership.is_some());
    let own = last_since(c, &format!("node:{node}"), since)?;
    let (policy, withdrawn) = match (own, &group) {
        (Some((own, false)), _) => (Some(own), None),
        (own, Some(group)) => (newest_of_group(c, group, key)?, own.map(|(reference, _)| reference)),
        (own, None) => (None, own.map(|(reference, _)| reference)),
    };
    let (additions, without_additions) = match last_since(c, &format!("additions:{node}"), since)? {
        Some((additions, false)) => (Some(additions), None),
        Some((withdrawal, true)) => (None, Some(withdrawal)),
        None => (None, None),
    };
    let membership = match membership {
        Some(at) => Some(PolicyRef {
            scope: Scope::Membership(node).to_string(),
            version: at,
            sha256: sha256_of(c, at)?,
        }),
        None => None,
    };
    let trusted = match &policy {
        Some(policy) => proposals::trusted(c, node, &TrustedUnder { scope: policy.scope.clone(), since })?,
        None => Vec::new(),
    };
    Ok(Governing { since, group, membership, policy, withdrawn, additions, without_additions, trusted })
}

/// Stores a policy and reviews what it governs.
pub fn apply(
    tx: &Transaction<'_>,
    new: &NewPolicy<'_>,
    reviewer: &dyn Reviewer,
    index: &Index,
    by: By<'_>,
) -> Result<Vec<NodeId>> {
    let NewDocument { opened, signed } = new.document;
    let scope = opened.scope.to_string();
    require_key(tx, &opened.scope, signed.tenant_key(), index)?;
    let withdrawn = new.name.is_empty();
    if withdrawn && in_force(tx, &scope)?.is_none() {
        let what = format!("{scope} has no policy that could be withdrawn");
        return Err(StoreError::Refused(Reason::Conflict, what));
    }
    documents::append(tx, opened, signed, by)?;
    tx.execute(
        "INSERT INTO policies (scope, version, name, tenant_key, sha256, applied_at, applied_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            scope,
            number(opened.place.number),
            new.name,
            signed.tenant_key(),
            opened.place.sha256,
            number(by.now),
            by.actor,
        ],
    )
    .map_err(broken)?;
    let nodes = match (opened.scope.node(), scope.strip_prefix("group:")) {
        (Some(node), _) => vec![node],
        (None, Some(group)) => members(tx, group)?,
        (None, None) => Vec::new(),
    };
    let mut reviewed = review::Reviewed::default();
    for node in &nodes {
        reviewed += review::node(tx, *node, reviewer, index, by)?;
    }
    let name = if withdrawn { "withdrawn".to_owned() } else { format!("{:?}", new.name) };
    let detail = format!(
        "{scope} version {} {name}, document sha256:{}, tenant key {}, {}{reviewed}",
        opened.place.number,
        crate::hex(&opened.place.sha256),
        fingerprint(signed.tenant_key()),
        crate::counted(nodes.len(), "node"),
    );
    let action = if withdrawn { "policy_withdraw" } else { "policy_apply" };
    audit::append(tx, by, action, opened.scope.node(), &detail)?;
    Ok(nodes)
}

/// Puts a node into a group, or into none.
pub fn set_group(
    tx: &Transaction<'_>,
    node: NodeId,
    label: &str,
    document: NewDocument<'_>,
    reviewer: &dyn Reviewer,
    index: &Index,
    by: By<'_>,
) -> Result<()> {
    let NewDocument { opened, signed } = document;
    // A node that only registered can be in a group already; whose word that is counts when it is enrolled.
    match require_key(tx, &opened.scope, signed.tenant_key(), index) {
        Err(StoreError::Refused(Reason::NotEnrolled, _)) | Ok(()) => {}
        Err(e) => return Err(e),
    }
    nodes::upsert(tx, node, None, by.now)?;
    documents::append(tx, opened, signed, by)?;
    let id = id_text(node);
    let before: Option<String> = tx
        .query_row("SELECT group_name FROM nodes WHERE node_id = ?1", [&id], |row| shown(row, 0))
        .map_err(broken)?;
    let group = Some(opened.body.as_str()).filter(|group| !group.is_empty());
    tx.execute(
        "UPDATE nodes SET group_name = ?2, group_number = ?4, label = iif(label = '', ?3, label) WHERE node_id = ?1",
        params![id, group, label, number(opened.place.number)],
    )
    .map_err(broken)?;
    let reviewed = review::node(tx, node, reviewer, index, by)?;
    let name =
        |group: Option<&str>| group.map_or_else(|| "no group".to_owned(), |name| format!("group {name}"));
    let detail = format!(
        "{}, before: {}, document {}, tenant key {}{reviewed}",
        name(group),
        name(before.as_deref()),
        opened.place.number,
        fingerprint(signed.tenant_key())
    );
    audit::append(tx, by, "group_set", Some(node), &detail)
}

/// Groups that have nodes or a policy.
pub fn groups(c: &Connection) -> Result<Vec<Group>> {
    const NODES: &str = "SELECT group_name, node_id FROM nodes WHERE group_name IS NOT NULL
                         ORDER BY group_name, node_id";
    const POLICIES: &str = "SELECT scope, max(version) FROM policies WHERE scope >= 'group:' AND scope < 'group;' GROUP BY scope";
    let mut groups: BTreeMap<String, (Option<u64>, Vec<String>)> = BTreeMap::new();
    let mut query = c.prepare_cached(POLICIES).map_err(broken)?;
    let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, as_u64(row.get(1)?))));
    for row in rows.map_err(broken)? {
        let (scope, version) = row.map_err(broken)?;
        groups.entry(scope["group:".len()..].to_owned()).or_default().0 = Some(version);
    }
    let mut query = c.prepare_cached(NODES).map_err(broken)?;
    let rows = query
        .query_map([], |row| Ok((shown(row, 0)?.unwrap_or_default(), shown(row, 1)?.unwrap_or_default())));
    for row in rows.map_err(broken)? {
        let (group, node) = row.map_err(broken)?;
        // A row whose id is none is no node's.
        if NodeId::parse(&node).is_some() {
            groups.entry(group).or_default().1.push(node);
        }
    }
    Ok(groups.into_iter().map(|(name, (version, nodes))| Group { name, version, nodes }).collect())
}

/// How many nodes a policy governs: those of a group that have no policy of their own. A version without a name is a
/// withdrawal.
const SUMMARY: &str = "p.scope, p.version, p.name, p.tenant_key, p.sha256, p.applied_at, p.applied_by,
    CASE WHEN p.scope LIKE 'group:%' THEN
        (SELECT count(*) FROM nodes n WHERE n.group_name = substr(p.scope, 7) AND '' = coalesce(
             (SELECT o.name FROM policies o WHERE o.scope = 'node:' || n.node_id ORDER BY o.version DESC LIMIT 1), ''))
    ELSE p.name != '' END";

/// The newest of each scope.
pub fn all(c: &Connection) -> Result<Vec<PolicySummary>> {
    let sql = format!(
        "SELECT {SUMMARY} FROM policies p
         WHERE p.version = (SELECT max(version) FROM policies q WHERE q.scope = p.scope) ORDER BY p.scope"
    );
    let mut query = c.prepare_cached(&sql).map_err(broken)?;
    query.query_map([], summary).and_then(Iterator::collect).map_err(broken)
}

/// One, whole; without a version the newest.
pub fn one(c: &Connection, scope: &str, version: Option<u64>) -> Result<Option<PolicyRecord>> {
    let sql = format!(
        "SELECT {SUMMARY}, d.signatures, d.document FROM policies p JOIN documents d ON d.number = p.version
         WHERE p.scope = ?1 AND p.version = coalesce(?2, p.version) ORDER BY p.version DESC LIMIT 1"
    );
    let read =
        |row: &Row<'_>| Ok(PolicyRecord { summary: summary(row)?, signed: documents::signed(row, 8)? });
    c.prepare_cached(&sql)
        .and_then(|mut query| query.query_row(params![scope, version.map(number)], read).optional())
        .map_err(broken)
}

/// The key is that of the enrollment: of the node, or of any node for a group's first version. A group's versions stay with one
/// key as long as any node is enrolled with it. Whose that is the documents say; rows could give the name away.
fn require_key(tx: &Transaction<'_>, scope: &Scope, key: &[u8], index: &Index) -> Result<()> {
    let (expected, whose) = match scope.node() {
        Some(node) => {
            let found = nodes::one(tx, node, index)?;
            if let Some(damage @ Damage::Enrollment(_)) = found.as_ref().and_then(|node| node.damage.as_ref())
            {
                return Err(StoreError::Refused(Reason::RolledBack, damage.to_string()));
            }
            let enrollment = found.and_then(|node| node.current.or(node.open));
            let Some(enrollment) = enrollment else {
                return Err(StoreError::Refused(Reason::NotEnrolled, format!("node {node}")));
            };
            (fingerprint(enrollment.signed.tenant_key()), "that enrolled the node")
        }
        None => match index.owner(&scope.to_string()) {
            Some(owner) if owner == key || index.enrolls(owner) => {
                (fingerprint(owner), "of the earlier versions")
            }
            // Else an operator without a tenant key could take any group's name.
            _ if index.enrolls(key) => return Ok(()),
            _ => ("one that a node is enrolled with".to_owned(), "of the group"),
        },
    };
    let found = fingerprint(key);
    if expected == found {
        return Ok(());
    }
    let what = format!("expected the tenant key {whose}, {expected}, found {found}");
    Err(StoreError::Refused(Reason::PolicySignature, what))
}

/// The open enrollment is proved, and the node belongs to the tenant that signed it: what others signed for it alone counts no longer,
/// nor do their versions. Its group is what this tenant said last, if that counts; others may have said something since.
pub fn forget_of_others(tx: &Transaction<'_>, node: NodeId, enrollment: &str, index: &Index) -> Result<()> {
    const SQL: &str = "DELETE FROM policies WHERE scope IN (?1, ?2)
        AND tenant_key != (SELECT tenant_key FROM enrollments WHERE enrollment_id = ?3)";
    const GROUP: &str = "UPDATE nodes SET group_name = ?2, group_number = ?3 WHERE node_id = ?1";
    let membership = index.membership_at_proof(node);
    let said = membership.map(|at| documents::one(tx, at)).transpose()?.flatten();
    // One that can't be read is in no group, and damage when it is compared with the sequence.
    let said = said.and_then(|signed| halfkey_evidence::document::open(&signed).ok());
    let group = said.map(|said| said.body).filter(|group| !group.is_empty());
    let scopes = [Scope::Node(node), Scope::Additions(node)].map(|scope| scope.to_string());
    tx.execute(SQL, params![scopes[0], scopes[1], enrollment])
        .and_then(|_| tx.execute(GROUP, params![id_text(node), group, membership.map(number)]))
        .map(|_| ())
        .map_err(broken)
}

fn sha256_of(c: &Connection, at: u64) -> Result<[u8; 32]> {
    c.prepare_cached("SELECT sha256 FROM documents WHERE number = ?1")
        .and_then(|mut query| query.query_row([number(at)], |row| row.get(0)).optional())
        .map_err(broken)?
        .ok_or_else(|| documents::missing(at))
}

/// The last version of a group's policy by a key, whatever it says; if there is none, the last of anybody, which does not count.
fn newest_of_group(c: &Connection, group: &str, key: Option<&[u8]>) -> Result<Option<PolicyRef>> {
    const SQL: &str = "SELECT version, sha256 FROM policies WHERE scope = ?1
                       ORDER BY tenant_key IS ?2 DESC, version DESC LIMIT 1";
    let scope = format!("group:{group}");
    c.prepare_cached(SQL)
        .and_then(|mut query| {
            let read = |row: &Row<'_>| {
                Ok(PolicyRef { scope: scope.clone(), version: as_u64(row.get(0)?), sha256: row.get(1)? })
            };
            query.query_row(params![scope, key], read).optional()
        })
        .map_err(broken)
}

/// The policy of a scope, unless it was withdrawn.
fn in_force(c: &Connection, scope: &str) -> Result<Option<PolicyRef>> {
    Ok(last(c, scope)?.and_then(|(reference, withdrawn)| (!withdrawn).then_some(reference)))
}

fn last(c: &Connection, scope: &str) -> Result<Option<(PolicyRef, bool)>> {
    last_since(c, scope, 0)
}

/// The last version after a number.
fn last_since(c: &Connection, scope: &str, since: u64) -> Result<Option<(PolicyRef, bool)>> {
    const SQL: &str = "SELECT version, sha256, name = '' FROM policies WHERE scope = ?1 AND version > ?2 ORDER BY version DESC LIMIT 1";
    c.prepare_cached(SQL)
        .and_then(|mut query| {
            let read = |row: &Row<'_>| {
                let scope = scope.to_owned();
                Ok((PolicyRef { scope, version: as_u64(row.get(0)?), sha256: row.get(1)? }, row.get(2)?))
            };
            query.query_row(params![scope, number(since)], read).optional()
        })
        .map_err(broken)
}

fn members(c: &Connection, group: &str) -> Result<Vec<NodeId>> {
    let mut query = c.prepare_cached("SELECT node_id FROM nodes WHERE group_name = ?1").map_err(broken)?;
    let rows = query.query_map([group], |row| Ok(shown(row, 0)?.unwrap_or_default())).map_err(broken)?;
    // A row whose id is none is no node's.
    rows.filter_map(|id| id.map_err(broken).map(|id| NodeId::parse(&id)).transpose()).collect()
}

fn summary(row: &Row<'_>) -> rusqlite::Result<PolicySummary> {
    Ok(PolicySummary {
        scope: row.get(0)?,
        version: as_u64(row.get(1)?),
        name: row.get(2)?,
        tenant_key: fingerprint(&row.get::<_, Vec<u8>>(3)?),
        sha256: crate::hex(&row.get::<_, Vec<u8>>(4)?),
        applied_at: as_u64(row.get(5)?),
        applied_by: row.get(6)?,
        nodes: as_u64(row.get(7)?),
    })
}
