//! A policy tried on stored boots: what would have happened.

use crate::client::Client;
use crate::context::Context;
use crate::documents::signed::SignedByUs;
use crate::documents::signing::SigningContext;
use crate::documents::source::Source;
use crate::error::{Error, Exit, Result};
use crate::render::text::{clean, clean_short};
use crate::trust::boot::{self, Attester};
use halfkey_evidence::policy::{Finding, Policy, TenantNode};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::SignedDocument;
use halfkey_protocol::wire::operator::NodeState;
use halfkey_protocol::wire::policies::{PolicyRecord, Scope};
use serde::Serialize;

/// One boot against a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// Node id; none for a log from a file.
    pub node_id: Option<String>,
    /// Label of the node, as the verifier says it; or the name of the file.
    pub label: String,
    /// Number of the evidence that was tried; none if there is no boot, or for a file.
    pub evidence_id: Option<u64>,
    /// What would happen.
    pub result: Tried,
    /// Why it could not be tried.
    pub message: Option<String>,
    /// What the policy does not allow.
    pub findings: Vec<Finding>,
}

/// What would happen to a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tried {
    /// Released.
    Allowed,
    /// Denied.
    Denied,
    /// There is no released boot to try.
    NoBoot,
    /// There is one, but it did not pass a check made here.
    Unusable,
}

impl Trial {
    /// Whether the boot would be denied.
    pub fn denied(&self) -> bool {
        self.result == Tried::Denied
    }

    /// From what a policy found.
    pub fn found(
        node_id: Option<NodeId>,
        label: &str,
        evidence_id: Option<u64>,
        findings: Vec<Finding>,
    ) -> Self {
        let result = if findings.is_empty() { Tried::Allowed } else { Tried::Denied };
        Self {
            node_id: node_id.map(|id| id.to_string()),
            label: label.to_owned(),
            evidence_id,
            result,
            message: None,
            findings,
        }
    }
}

/// A policy on the last released boots of all nodes that it is for.
///
/// # Errors
/// As every request. A boot that can't be used is part of the result.
pub fn of_scope(signing: &SigningContext<'_>, scope: &Scope, policy: &Policy) -> Result<Vec<Trial>> {
    let nodes = nodes(&signing.client, scope)?;
    let mut trials = Vec::with_capacity(nodes.len());
    let among = matches!(scope, Scope::Group(_));
    for id in nodes {
        let tried = of_node(signing, id, scope, policy);
        trials.extend(tried.or_else(|error| untried(&signing.client, id, among, error).map(Some))?);
    }
    Ok(trials)
}

/// The nodes that a scope is about.
///
/// # Errors
/// As every request.
pub fn nodes(client: &Client, scope: &Scope) -> Result<Vec<NodeId>> {
    match scope {
        Scope::Group(group) => members(client, group),
        Scope::Node(id)
        | Scope::Additions(id)
        | Scope::Membership(id)
        | Scope::Enrollment(id)
        | Scope::Proof(id)
        | Scope::Revocation(id)
        | Scope::Hold(id)
        | Scope::Approval(id) => Ok(vec![*id]),
    }
}

/// What the server can't say of one node `among` others keeps no policy from these. One that was named alone has to be there.
fn untried(client: &Client, id: NodeId, among: bool, error: Error) -> Result<Trial> {
    if !among && error.exit == Exit::NotFound {
        return Err(error);
    }
    Ok(unusable(id, "", None, about_one(client, error)?))
}

fn unusable(id: NodeId, label: &str, number: Option<u64>, error: Error) -> Trial {
    Trial {
        result: Tried::Unusable,
        message: Some(error.message),
        ..Trial::found(Some(id), label, number, Vec::new())
    }
}

/// The error, if it can be about one node: the server answers something else.
///
/// # Errors
/// The error, if it does not.
pub fn about_one(client: &Client, error: Error) -> Result<Error> {
    match client.info() {
        Ok(_) => Ok(error),
        Err(_) => Err(error),
    }
}

/// A policy on the last released boot of each node, as if it were the node's own.
///
/// # Errors
/// As [`of_scope`].
pub fn of_nodes(signing: &SigningContext<'_>, nodes: &[NodeId], policy: &Policy) -> Result<Vec<Trial>> {
    let mut trials = Vec::with_capacity(nodes.len());
    for id in nodes {
        let tried = of_node(signing, *id, &Scope::Node(*id), policy);
        let among = nodes.len() > 1;
        trials.extend(tried.or_else(|error| untried(&signing.client, *id, among, error).map(Some))?);
    }
    Ok(trials)
}

/// `None` if a policy of that scope does not govern the node: it has one of its own.
fn of_node(
    signing: &SigningContext<'_>,
    id: NodeId,
    scope: &Scope,
    policy: &Policy,
) -> Result<Option<Trial>> {
    let client = &signing.client;
    let judged = client.node_policy(id)?;
    let own = |record: PolicyRecord| record.summary.scope == Scope::Node(id).to_string();
    if let Scope::Group(group) = scope {
        if !is_member(signing, id, group, judged.membership.as_ref()) {
            let what =
                format!("nothing that this workstation's key has signed says that it is in group {group}");
            return Ok(Some(unusable(id, "", None, Error::untrusted(what))));
        }
        if judged.policy.is_some_and(own) {
            return Ok(None);
        }
    }
    let record = client.node(id)?;
    let label = record.summary.label.clone();
    let Some(number) = boot::find_last(client, id, boot::released)? else {
        return Ok(Some(Trial { result: Tried::NoBoot, ..Trial::found(Some(id), &label, None, Vec::new()) }));
    };
    let try_it = || -> Result<Vec<Finding>> {
        let attester = Attester::of(id, &record, &signing.key)?;
        // Whatever it says of the boot: it would count as none.
        attester.require_mine()?;
        let boot = attester.boot(client, number)?;
        match (scope, &judged.additions) {
            // What the node may boot besides stays allowed.
            (Scope::Group(_) | Scope::Node(_), Some(record)) => {
                let own = SignedByUs::check(&record.signed, &Scope::Additions(id), &signing.key)?;
                Ok(boot.by(&policy.with(&Source::from(&own).additions()?))?.findings)
            }
            _ => Ok(boot.by(policy)?.findings),
        }
    };
    match try_it() {
        Ok(findings) => Ok(Some(Trial::found(Some(id), &label, Some(number), findings))),
        Err(error) => Ok(Some(unusable(id, &label, Some(number), about_one(client, error)?))),
    }
}

/// The server lists whom any operator, or a row, has put into the group. Its policy governs whom its tenant has.
pub fn is_member(
    signing: &SigningContext<'_>,
    id: NodeId,
    group: &str,
    membership: Option<&SignedDocument>,
) -> bool {
    let own =
        membership.and_then(|signed| SignedByUs::check(signed, &Scope::Membership(id), &signing.key).ok());
    let node = TenantNode { id, tenant_key: signing.key.public() };
    own.is_some_and(|own| node.group(own.document()) == Ok(Some(group)))
}

/// The nodes of a group; none if it does not exist.
///
/// # Errors
/// As every request.
pub fn members(client: &Client, name: &str) -> Result<Vec<NodeId>> {
    let groups = client.groups()?.groups;
    let Some(group) = groups.into_iter().find(|group| group.name == name) else { return Ok(Vec::new()) };
    group.nodes.iter().map(|id| parse(id)).collect()
}

/// All nodes that boot: enrolled ones.
///
/// # Errors
/// As every request.
pub fn enrolled(client: &Client) -> Result<Vec<NodeId>> {
    let nodes = client.nodes()?.nodes;
    nodes.iter().filter(|node| node.state == NodeState::Enrolled).map(|node| parse(&node.id)).collect()
}

fn parse(id: &str) -> Result<NodeId> {
    NodeId::parse(id).ok_or_else(|| {
        Error::untrusted(format!("the server lists a node with the impossible id `{}`", clean_short(id, 64)))
    })
}

/// Says which last boots a policy would deny.
pub fn warn(context: &Context, trials: &[Trial]) {
    let denied: Vec<_> = trials.iter().filter(|trial| trial.denied()).collect();
    if !denied.is_empty() {
        context.out.note(&format!(
            "warning: this would deny the last released boot of {} of {} nodes\n{}",
            denied.len(),
            trials.len(),
            denied_lines(&denied)
        ));
    }
    let untried =
        trials.iter().filter(|trial| matches!(trial.result, Tried::NoBoot | Tried::Unusable)).count();
    if untried > 0 {
        context.out.note(&format!(
            "note: {untried} of {} nodes have no stored boot that it could be tried on{}",
            trials.len(),
            unusable_ones(trials)
        ));
    }
}

/// The nodes of a trial that would be denied, a line each.
pub fn denied_lines(trials: &[&Trial]) -> String {
    let line = |trial: &&Trial| format!("  {}: {}", clean_short(&trial.label, 40), why(trial));
    trials.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The nodes of a trial whose boot could not be used, each in a line of its own.
fn unusable_ones(trials: &[Trial]) -> String {
    const SHOWN: usize = 8;
    let found: Vec<_> = trials.iter().filter(|trial| trial.result == Tried::Unusable).collect();
    let mut text = String::new();
    for trial in found.iter().take(SHOWN) {
        let (id, label) = (trial.node_id.as_deref().unwrap_or_default(), clean_short(&trial.label, 40));
        text.push_str(&format!("\n  {} {label}: {}", clean_short(id, 36), clean_short(&why(trial), 200)));
    }
    if found.len() > SHOWN {
        text.push_str(&format!("\n  ... and {} more", found.len() - SHOWN));
    }
    text
}

/// Why a boot would be denied, or could not be tried: one line.
pub fn why(trial: &Trial) -> String {
    let message = trial.message.as_deref().map(clean).unwrap_or_default();
    match &trial.findings[..] {
        [] => message,
        [only] => clean(&only.to_string()),
        [first, rest @ ..] => format!("{} (and {} more)", clean(&first.to_string()), rest.len()),
    }
}
