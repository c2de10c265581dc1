//! Which documents govern a node, as the rows say.

use super::model::{Governing, PolicyRef, TrustedUnder};
use super::{Result, TxView, document, proposal};
use crate::store::{NodeRow, PolicyRow};
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Scope;

/// What a node's boots are judged by, as the rows say. Documents for this node up to the proof by which it went to its tenant are a
/// former tenant's, and a group's count by the tenant key that the node is enrolled with.
///
/// # Errors
/// When a row is damaged, or can't be read.
pub fn of(view: &TxView<'_>, node: NodeId, membership: Option<u64>, key: Option<&[u8]>) -> Result<Governing> {
    let (since, trusts_since) = (view.index.since(node), view.index.trusts_since(node));
    let membership = membership.filter(|number| *number > since);
    // Which group it is, the document says.
    let group = membership.and_then(|number| view.group_of(number));
    let (own, withdrawn) = split(view, last_since(view, &Scope::Node(node), since)?);
    let policy = match (own, &group) {
        (Some(own), _) => Some(own),
        (None, Some(group)) => newest_of_group(view, group, key)?,
        (None, None) => None,
    };
    let (additions, without_additions) = split(view, last_since(view, &Scope::Additions(node), since)?);
    let membership = match membership {
        Some(at) => Some(PolicyRef {
            scope: Scope::Membership(node).to_string(),
            version: at,
            sha256: view.rows.document_sha256(at)?.ok_or_else(|| document::missing(at))?,
        }),
        None => None,
    };
    let trusted = match &policy {
        Some(policy) => {
            let under = TrustedUnder { scope: policy.scope.clone(), since: trusts_since };
            proposal::trusted(view, node, &under)?
        }
        None => Vec::new(),
    };
    Ok(Governing {
        since,
        trusts_since,
        group,
        membership,
        policy,
        withdrawn,
        additions,
        without_additions,
        trusted,
    })
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
    let said = said.and_then(|signed| halfkey_evidence::signed_document::open(&signed).ok());
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
fn split(view: &TxView<'_>, last: Option<PolicyRow>) -> (Option<PolicyRef>, Option<PolicyRef>) {
    match last {
        Some(last) if view.withdraws(last.version) => (None, Some(last.into())),
        Some(last) => (Some(last.into()), None),
        None => (None, None),
    }
}
