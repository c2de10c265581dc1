//! Policies and groups: which documents govern a node, and who may replace them.

use super::document::{self, NewDocument};
use super::model::Damage;
use super::review::{self, Reviewed, Reviewer};
use super::{By, Error, Result, TxView, audit, legible, node};
use crate::events::Event;
use crate::store::PolicyRow;
use halfkey_protocol::document::Place;
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::wire::policies::{Group, PolicyRecord, PolicySummary, Scope};
use halfkey_protocol::{NodeId, Reason};
use std::collections::{BTreeMap, HashMap};

/// A checked policy to be stored.
pub struct NewPolicy<'a> {
    /// The name that it gives itself; empty if it is a withdrawal.
    pub name: &'a str,
    /// What was signed.
    pub document: NewDocument<'a>,
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
    // The sequence says it: whoever writes rows must not keep anybody from withdrawing what is in force.
    let in_force = || opened.keys.iter().any(|key| view.index.in_force(&opened.scope, key));
    if withdrawn && !in_force() {
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
        (None, Some(group)) => members(view, group),
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
    let mut row = view.node_row(node, by.now)?;
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
    view.emit(Event::Decided(node));
    audit::append(view, by, "group_set", Some(node), &detail)
}

/// Groups that have nodes or a policy, by name.
///
/// # Errors
/// When the database can't be read.
pub fn groups(view: &TxView<'_>) -> Result<Vec<Group>> {
    let mut groups: BTreeMap<String, (Option<u64>, Vec<String>)> = BTreeMap::new();
    for policy in newest_of_each(view)? {
        if let Some(name) = policy.scope.strip_prefix("group:") {
            groups.entry(name.to_owned()).or_default().0 = Some(policy.version);
        }
    }
    for (group, node) in view.index.members() {
        groups.entry(group.to_owned()).or_default().1.push(node.to_string());
    }
    groups.values_mut().for_each(|(_, nodes)| nodes.sort_unstable());
    Ok(groups.into_iter().map(|(name, (version, nodes))| Group { name, version, nodes }).collect())
}

/// The newest policy of each scope, by scope.
///
/// # Errors
/// When the database can't be read.
pub fn all(view: &TxView<'_>) -> Result<Vec<PolicySummary>> {
    let newest = newest_of_each(view)?;
    let withdraws = |row: &PolicyRow| view.withdraws(row.version);
    let of_node = |node: &str| {
        newest.binary_search_by(|row| row.scope.as_str().cmp(&format!("node:{node}"))).map(|at| &newest[at])
    };
    // A group's policy governs those of its nodes that have none of their own.
    let mut governed: HashMap<&str, u64> = HashMap::new();
    for (group, node) in view.index.members() {
        if of_node(&node.to_string()).map_or(true, withdraws) {
            *governed.entry(group).or_default() += 1;
        }
    }
    let nodes = |row: &PolicyRow| match row.scope.strip_prefix("group:") {
        Some(group) => governed.get(group).copied().unwrap_or(0),
        None => u64::from(!withdraws(row)),
    };
    Ok(newest.iter().map(|row| summary(view, row, nodes(row))).collect())
}

/// A policy, whole; without a version the newest of its scope.
///
/// # Errors
/// `RolledBack`: the sequence has a newer one than the rows. When a row is damaged, or can't be read.
pub fn one(view: &TxView<'_>, scope: &str, version: Option<u64>) -> Result<Option<PolicyRecord>> {
    let found = match version {
        Some(version) => view.rows.policy(scope, Some(version))?,
        None => newest_known(view, scope)?,
    };
    if version.is_none() {
        require_newest(view, scope, found.as_ref())?;
    }
    let Some(row) = found else { return Ok(None) };
    let signed = view.rows.document(row.version)?.ok_or_else(|| document::missing(row.version))?;
    let nodes = match scope.strip_prefix("group:") {
        Some(group) => {
            let mut governed = 0;
            for node in members(view, group) {
                let own = newest_known(view, &format!("node:{node}"))?;
                governed += u64::from(own.is_none_or(|own| view.withdraws(own.version)));
            }
            governed
        }
        None => u64::from(!view.withdraws(row.version)),
    };
    Ok(Some(PolicyRecord { summary: summary(view, &row, nodes), signed }))
}

/// The newest version of a scope that is of the sequence. Rows beside it, and those that can't be read, are nobody's: they stand in
/// the way of none.
fn newest_known(view: &TxView<'_>, scope: &str) -> Result<Option<PolicyRow>> {
    for number in view.index.newest_by_key(scope) {
        let (row, damage) = legible(view.rows.policy(scope, Some(number)).map_err(Error::from))?;
        if let Some(why) = damage {
            tracing::error!(scope, number, "the database is damaged: {why}");
        }
        let is_known = |row: &PolicyRow| view.index.has(&Place { number: row.version, sha256: row.sha256 });
        if let Some(row) = row.filter(is_known) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// The same of each scope that has one, by scope.
fn newest_of_each(view: &TxView<'_>) -> Result<Vec<PolicyRow>> {
    let mut found = Vec::new();
    for scope in view.index.scopes() {
        if Scope::parse(scope).is_some_and(|scope| scope.is_of_policy()) {
            found.extend(newest_known(view, scope)?);
        }
    }
    Ok(found)
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
            // Whoever damages the node's row must not keep its tenant from saying what governs it: whose it is the documents say.
            let (found, damage) = legible(node::one(view, node))?;
            if let Some(damage @ Damage::Enrollment(_)) = found.as_ref().and_then(|node| node.damage.as_ref())
            {
                return Err(Error::Refused(Reason::RolledBack, damage.to_string()));
            }
            let enrollment = found.and_then(|node| node.current.or(node.open));
            let by_row = enrollment.as_ref().map(|enrollment| enrollment.signed.tenant_key());
            let by_index = damage.and_then(|_| index.key(node)).map(<[u8; 32]>::as_slice);
            let Some(key) = by_row.or(by_index) else {
                return Err(Error::Refused(Reason::NotEnrolled, format!("node {node}")));
            };
            (fingerprint(key), "that enrolled the node")
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

fn members(view: &TxView<'_>, group: &str) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = view.index.members_of(group).collect();
    nodes.sort_unstable();
    nodes
}

fn summary(view: &TxView<'_>, row: &PolicyRow, nodes: u64) -> PolicySummary {
    // Without a name it is shown as withdrawn.
    let name = match (view.withdraws(row.version), row.name.as_str()) {
        (true, _) => "",
        (false, "") => "?",
        (false, name) => name,
    };
    PolicySummary {
        scope: row.scope.clone(),
        version: row.version,
        name: name.to_owned(),
        tenant_key: fingerprint(&row.tenant_key),
        sha256: crate::hex(&row.sha256),
        applied_at: row.applied_at,
        applied_by: row.applied_by.clone(),
        nodes,
    }
}
