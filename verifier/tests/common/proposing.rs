//! What tests of proposals have in common: machines of a group that have opened their volumes, and what became of what they proposed.

use super::node::{Node, answered, said};
use super::{Server, get, post};
use halfkey_protocol::wire::operator::AuditList;
use halfkey_protocol::wire::policies::{ProposalList, ProposalRecord};
use halfkey_protocol::wire::{Propose, Proposed};
use halfkey_testkit::software::{Software, policy_head, trust};
use halfkey_verifier::client::Client;
use std::collections::BTreeMap;

pub fn old() -> Software {
    Software::default()
}

pub fn new() -> Software {
    Software::version("6.1.0-56")
}

/// Enrolled, in this group.
pub async fn member(server: &Server, group: &str) -> Node {
    join(server, Node::new(), group).await
}

pub async fn join(server: &Server, node: Node, group: &str) -> Node {
    node.register(&server.anybody()).await.unwrap();
    node.enroll(&server.anybody(), &server.operator(), &node.id.to_string()).await;
    node.group(&server.operator(), Some(group)).await.unwrap();
    node
}

/// Boots, is released, and opens its volumes.
pub async fn opened(server: &Server, node: &Node, software: &Software) {
    node.reboot_into(software);
    let verdict = node.boot(&server.anybody()).await;
    assert_eq!(said(&verdict), "released", "{verdict:?}");
    node.open_fence();
}

/// Trusts five next boots of those in the group.
pub fn trusting() -> String {
    policy_head("web") + &trust("2999-01-01T00:00:00Z", 5) + &old().boot()
}

/// In a group with that policy, with the next boot trusted by it.
pub async fn trusted(server: &Server) -> (Node, Proposed) {
    let node = member(server, "web").await;
    node.apply(&server.operator(), "group:web", &trusting()).await.unwrap();
    opened(server, &node, &old()).await;
    let proposed = node.propose(&server.anybody(), &new()).await;
    assert_eq!(answered(&proposed), "accepted");
    (node, proposed)
}

pub async fn send(server: &Server, message: &Propose) -> Proposed {
    post(&server.anybody(), "/v1/propose", message).await.unwrap()
}

pub async fn record(operator: &Client, proposed: &Proposed) -> ProposalRecord {
    let path = format!("/v1/operator/proposals/{}", proposed.proposal_id.expect("it was stored"));
    get(operator, &path).await.unwrap()
}

pub async fn waiting(operator: &Client) -> Vec<u64> {
    let list: ProposalList = get(operator, "/v1/operator/proposals?waiting=true").await.unwrap();
    list.proposals.iter().map(|proposal| proposal.id).collect()
}

pub async fn actions(operator: &Client) -> BTreeMap<String, usize> {
    let trail: AuditList = get(operator, "/v1/operator/audit?after=0&limit=1000").await.unwrap();
    trail.entries.into_iter().fold(BTreeMap::new(), |mut count, entry| {
        *count.entry(entry.action).or_default() += 1;
        count
    })
}
