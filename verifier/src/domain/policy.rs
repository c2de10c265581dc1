//! Policies and groups: which documents govern a node, and who may replace them.

use super::document::{self, NewDocument};
use super::node::{self, Damage};
use super::proposal::{self, Trusted, TrustedUnder};
use super::review::{self, Reviewed, Reviewer};
use super::{By, Error, Result, TxView, audit};
use crate::events::Event;
use crate::store::{NodeRow, PolicyRow, Tx};
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::wire::policies::{Group, PolicyRecord, PolicySummary, Scope};
use halfkey_protocol::{NodeId, Reason};
use std::collections::{BTreeMap, HashMap};

/// A version of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRef {
    /// What it is for: `node:ID`, `group:NAME`, `additions:ID`, `membership:ID`.
    pub scope: String,
    /// Number of the document in the sequence.
    pub version: u64,
    /// SHA-256 of the signed document.
    pub sha256: [u8; 32],
}

impl From<PolicyRow> for PolicyRef {
    fn from(row: PolicyRow) -> Self {
        Self { scope: row.scope, version: row.version, sha256: row.sha256 }
    }
}

/// What a node's boots are judged by. Two that are equal allow the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Governing {
    /// Number of the proof by which the node went to its tenant from another one, 0 if it never did: trust of before counts no more.
    pub since: u64,
    /// The node's group.
    pub group: Option<String>,
    /// The document that says so, or that it is in none.
    pub membership: Option<PolicyRef>,
    /// The node's own policy, else the group's.
    pub policy: Option<PolicyRef>,
    /// The version by which the node's own policy was withdrawn, if the group's governs it for that reason.
    pub withdrawn: Option<PolicyRef>,
    /// Its additions.
    pub additions: Option<PolicyRef>,
    /// The document by which they were withdrawn, if it has none for that reason.
    pub without_additions: Option<PolicyRef>,
    /// Under the scope of this policy and since then; newest first.
    pub trusted: Vec<Trusted>,
}

impl Governing {
    /// Where trust that is given now counts, if a policy governs the node.
    pub fn trusting(&self) -> Option<TrustedUnder> {
        let policy = self.policy.as_ref()?;
        Some(TrustedUnder { scope: policy.scope.clone(), since: self.since })
    }
}

/// A checked policy to be stored.
pub struct NewPolicy<'a> {
    /// The name that it gives itself; empty if it is a withdrawal.
    pub name: &'a str,
    /// What was signed.
    pub document: NewDocument<'a>,
}

/// What a node's boots are judged by, as the rows say. Documents for this node up to the proof by which it went to its tenant are a
/// former tenant's, and a group's count by the tenant key that the node is enrolled with.
///
/// # Errors
/// When a row is damaged, or can't be read.
pub fn governing(
    view: &TxView<'_>,
    node: NodeId,
    group: Option<String>,
    membership: Option<u64>,
    key: Option<&[u8]>,
) -> Result<Governing> {
    let since = view.index.since(node);
    let membership = membership.filter(|number| *number > since);
    let group = group.filter(|_| since == 0 || membership.is_some());
    let (own, withdrawn) = split(last_since(view, &Scope::Node(node), since)?);
    let policy = match (own, &group) {
        (Some(own), _) => Some(own),
        (None, Some(group)) => newest_of_group(view, group, key)?,
        (None, None) => None,
    };
    let (additions, without_additions) = split(last_since(view, &Scope::Additions(node), since)?);
    let membership = match membership {
        Some(at) => Some(PolicyRef {
            scope: Scope::Membership(node).to_string(),
            version: at,
            sha256: view.rows.document_sha256(at)?.ok_or_else(|| document::missing(at))?,
        }),
        None => None,
    };
    let trusted = match &policy {
        Some(policy) => proposal::trusted(view, node, &TrustedUnder { scope: policy.scope.clone(), since })?,
        None => Vec::new(),
    };
    Ok(Governing { since, group, membership, policy, withdrawn, additions, without_additions, trusted })
}

/// Stores a policy and reviews what it governs; gives the nodes that this concerns.
///
/// # Errors
/// `Sequence`, `PolicySignature` (by another key than the one that the scope belongs to), `NotEnrolled`, `RolledBack`, `Conflict`
/// (there is nothing to withdraw).
pub fn apply(
    view: &TxView<'_>,
    new: &NewPolicy<'_>,
    reviewer: &dyn Reviewer,
    by: By<'_>,
) -> Result<Vec<NodeId>> {
    let NewDocument { opened, signed } = new.document;
    let scope = opened.scope.to_string();
    require_key(view, &opened.scope, signed.tenant_key())?;
    let withdrawn = new.name.is_empty();
    if withdrawn && view.rows.policy(&scope, None)?.is_none_or(|last| is_withdrawal(&last)) {
        let what = format!("{scope} has no policy that could be withdrawn");
        return Err(Error::Refused(Reason::Conflict, what));
    }
    document::append(view, opened, signed, by)?;
    view.rows.insert_policy(&PolicyRow {
        scope: scope.clone(),
        version: opened.place.number,
        name: new.name.to_owned(),
        tenant_key: signed.tenant_key().to_vec(),
        sha256: opened.place.sha256,
        applied_at: by.now,
        applied_by: by.actor.to_owned(),
    })?;
    let nodes = match (opened.scope.node(), scope.strip_prefix("group:")) {
        (Some(node), _) => vec![node],
        (None, Some(group)) => members(view.rows, group)?,
        (None, None) => Vec::new(),
    };
    let mut reviewed = Reviewed::default();
    for node in &nodes {
        reviewed += review::node(view, *node, reviewer, by)?;
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
    audit::append(view, by, action, opened.scope.node(), &detail)?;
    view.emit(Event::PolicyApplied { scope, nodes: nodes.clone() });
    Ok(nodes)
}

/// Puts a node into a group, or into none, and reviews what is open. `label` is for a node that only registered.
///
/// # Errors
/// `Sequence`, `PolicySignature`, `RolledBack`.
pub fn set_group(
    view: &TxView<'_>,
    node: NodeId,
    label: &str,
    document: NewDocument<'_>,
    reviewer: &dyn Reviewer,
    by: By<'_>,
) -> Result<()> {
    let NewDocument { opened, signed } = document;
    // A node that only registered can be in a group already; whose word that is counts when it is enrolled.
    match require_key(view, &opened.scope, signed.tenant_key()) {
        Err(Error::Refused(Reason::NotEnrolled, _)) | Ok(()) => {}
        Err(e) => return Err(e),
    }
    document::append(view, opened, signed, by)?;
    let mut row = node::row(view, node, by.now)?;
    let group = Some(opened.body.as_str()).filter(|group| !group.is_empty()).map(str::to_owned);
    let before = std::mem::replace(&mut row.group_name, group.clone());
    row.group_number = Some(opened.place.number);
    if row.label.is_empty() {
        label.clone_into(&mut row.label);
    }
    view.rows.put_node(&row)?;
    let reviewed = review::node(view, node, reviewer, by)?;
    let name =
        |group: Option<String>| group.map_or_else(|| "no group".to_owned(), |name| format!("group {name}"));
    let detail = format!(
        "{}, before: {}, document {}, tenant key {}{reviewed}",
        name(group),
        name(before),
        opened.place.number,
        fingerprint(signed.tenant_key())
    );
    view.emit(Event::NodeChanged(node));
    audit::append(view, by, "group_set", Some(node), &detail)
}

/// Groups that have nodes or a policy, by name.
///
/// # Errors
/// When the database can't be read.
pub fn groups(view: &TxView<'_>) -> Result<Vec<Group>> {
    let mut groups: BTreeMap<String, (Option<u64>, Vec<String>)> = BTreeMap::new();
    for policy in view.rows.newest_policies()? {
        if let Some(name) = policy.scope.strip_prefix("group:") {
            groups.entry(name.to_owned()).or_default().0 = Some(policy.version);
        }
    }
    for (group, node) in view.rows.members(None)? {
        // A row whose id is none is no node's.
        if NodeId::parse(&node).is_some() {
            groups.entry(group).or_default().1.push(node);
        }
    }
    Ok(groups.into_iter().map(|(name, (version, nodes))| Group { name, version, nodes }).collect())
}

/// The newest policy of each scope, by scope.
///
/// # Errors
/// When the database can't be read.
pub fn all(view: &TxView<'_>) -> Result<Vec<PolicySummary>> {
    let newest = view.rows.newest_policies()?;
    let of_node = |node: &str| {
        newest.binary_search_by(|row| row.scope.as_str().cmp(&format!("node:{node}"))).map(|at| &newest[at])
    };
    // A group's policy governs those of its nodes that have none of their own.
    let mut governed: HashMap<String, u64> = HashMap::new();
    for (group, node) in view.rows.members(None)? {
        if of_node(&node).map_or(true, is_withdrawal) {
            *governed.entry(group).or_default() += 1;
        }
    }
    let nodes = |row: &PolicyRow| match row.scope.strip_prefix("group:") {
        Some(group) => governed.get(group).copied().unwrap_or(0),
        None => u64::from(!is_withdrawal(row)),
    };
    Ok(newest.iter().map(|row| summary(row, nodes(row))).collect())
}

/// A policy, whole; without a version the newest of its scope.
///
/// # Errors
/// `RolledBack`: the sequence has a newer one than the rows. When a row is damaged, or can't be read.
pub fn one(view: &TxView<'_>, scope: &str, version: Option<u64>) -> Result<Option<PolicyRecord>> {
    let found = view.rows.policy(scope, version)?;
    if version.is_none() {
        require_newest(view, scope, found.as_ref())?;
    }
    let Some(row) = found else { return Ok(None) };
    let signed = view.rows.document(row.version)?.ok_or_else(|| document::missing(row.version))?;
    let nodes = match scope.strip_prefix("group:") {
        Some(group) => {
            let mut governed = 0;
            for (_, node) in view.rows.members(Some(group))? {
                let own = view.rows.policy(&format!("node:{node}"), None)?;
                governed += u64::from(own.is_none_or(|own| is_withdrawal(&own)));
            }
            governed
        }
        None => u64::from(!is_withdrawal(&row)),
    };
    Ok(Some(PolicyRecord { summary: summary(&row, nodes), signed }))
}

/// What an operator goes on from is what was signed last: from an older one a boot would come back that a newer one took out.
fn require_newest(view: &TxView<'_>, scope: &str, found: Option<&PolicyRow>) -> Result<()> {
    let expected = Scope::parse(scope).map_or(0, |scope| view.index.newest_that_counts(&scope));
    let found = found.map_or(0, |row| row.version);
    if found >= expected {
        return Ok(());
    }
    let what = format!(
        "the database is not what was signed: {scope}: it goes by document {found}, and {expected} is newer"
    );
    Err(Error::Refused(Reason::RolledBack, what))
}

/// The key is that of the enrollment: of the node, or of any node for a group's first version. A group's versions stay with one
/// key as long as any node is enrolled with it. Whose that is the documents say; rows could give the name away.
fn require_key(view: &TxView<'_>, scope: &Scope, key: &[u8]) -> Result<()> {
    let index = view.index;
    let (expected, whose) = match scope.node() {
        Some(node) => {
            let found = node::one(view, node)?;
            if let Some(damage @ Damage::Enrollment(_)) = found.as_ref().and_then(|node| node.damage.as_ref())
            {
                return Err(Error::Refused(Reason::RolledBack, damage.to_string()));
            }
            let enrollment = found.and_then(|node| node.current.or(node.open));
            let Some(enrollment) = enrollment else {
                return Err(Error::Refused(Reason::NotEnrolled, format!("node {node}")));
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
    Err(Error::Refused(Reason::PolicySignature, what))
}

/// The open enrollment is proved, and the node belongs to the tenant with this key: what others signed for it alone counts no longer,
/// nor do their versions. Its group is what this tenant said last, if that counts; others may have said something since.
///
/// # Errors
/// When the database can't be written.
pub fn forget_of_others(view: &TxView<'_>, row: &mut NodeRow, key: &[u8]) -> Result<()> {
    for scope in [Scope::Node(row.id), Scope::Additions(row.id)] {
        view.rows.delete_policies_but(&scope.to_string(), key)?;
    }
    let membership = view.index.membership_at_proof(row.id);
    let said = membership.map(|at| view.rows.document(at)).transpose()?.flatten();
    // One that can't be read is in no group, and damage when it is compared with the sequence.
    let said = said.and_then(|signed| halfkey_evidence::document::open(&signed).ok());
    row.group_name = said.map(|said| said.body).filter(|group| !group.is_empty());
    row.group_number = membership;
    Ok(())
}

/// The last version of a group's policy by a key, whatever it says; if there is none, the last of anybody, which does not count.
fn newest_of_group(view: &TxView<'_>, group: &str, key: Option<&[u8]>) -> Result<Option<PolicyRef>> {
    let scope = format!("group:{group}");
    let by_key = key.map(|key| view.rows.policy_by(&scope, key)).transpose()?.flatten();
    let found = match by_key {
        Some(found) => Some(found),
        None => view.rows.policy(&scope, None)?,
    };
    Ok(found.map(PolicyRef::from))
}

/// The last version after a number.
fn last_since(view: &TxView<'_>, scope: &Scope, since: u64) -> Result<Option<PolicyRow>> {
    Ok(view.rows.policy(&scope.to_string(), None)?.filter(|last| last.version > since))
}

/// What is in force, or what withdrew it.
fn split(last: Option<PolicyRow>) -> (Option<PolicyRef>, Option<PolicyRef>) {
    match last {
        Some(last) if is_withdrawal(&last) => (None, Some(last.into())),
        Some(last) => (Some(last.into()), None),
        None => (None, None),
    }
}

/// A version without a name.
fn is_withdrawal(row: &PolicyRow) -> bool {
    row.name.is_empty()
}

fn members(rows: &dyn Tx, group: &str) -> Result<Vec<NodeId>> {
    // A row whose id is none is no node's.
    Ok(rows.members(Some(group))?.iter().filter_map(|(_, node)| NodeId::parse(node)).collect())
}

fn summary(row: &PolicyRow, nodes: u64) -> PolicySummary {
    PolicySummary {
        scope: row.scope.clone(),
        version: row.version,
        name: row.name.clone(),
        tenant_key: fingerprint(&row.tenant_key),
        sha256: crate::hex(&row.sha256),
        applied_at: row.applied_at,
        applied_by: row.applied_by.clone(),
        nodes,
    }
}
