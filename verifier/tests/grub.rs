//! What GRUB announces, and no rule accepts before its first boot.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, answered, said};
use common::proposing::{member, new, old, opened, record, waiting};
use common::{Server, post};
use halfkey_protocol::wire::policies::ProposalState;
use halfkey_protocol::wire::{Proposal, Proposed, ProposedLoader};
use halfkey_testkit::software::Software;

/// No rule accepts it before its first boot: it is over with that.
#[tokio::test]
async fn what_grub_announced_is_over_once_it_was_booted() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    node.apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    let announce = async |node: &Node, software: &Software| {
        let loader = Some(ProposedLoader { name: "grub".into(), changes: "+linux\n".into(), files: None });
        let message = node.proposal(&anybody, &Proposal { loader, ..software.proposal() }).await.unwrap();
        let proposed: Proposed = post(&anybody, "/v1/propose", &message).await.unwrap();
        assert_eq!(answered(&proposed), "waiting proposal_waits");
        proposed
    };
    opened(&server, &node, &old()).await;
    let (next, later) = (announce(&node, &new()).await, Software::version("6.1.0-57"));
    let after = announce(&node, &later).await;
    // Denied, somebody types the passphrase, and it is learned: the machine may not boot it again for months.
    node.reboot_into(&new());
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    assert_eq!(waiting(&operator).await.len(), 2);
    node.apply(&operator, "group:web", &(old().policy("web") + &new().boot())).await.unwrap();
    assert_eq!(record(&operator, &next).await.state, ProposalState::Booted);
    assert_eq!(waiting(&operator).await, [after.proposal_id.unwrap()]);
    opened(&server, &node, &new()).await;
    assert_eq!(record(&operator, &after).await.state, ProposalState::Waiting);
    // Released, and not by a rule.
    node.reboot_into(&later);
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.approve(&operator).await.unwrap();
    assert_eq!(record(&operator, &after).await.state, ProposalState::Waiting);
    assert_eq!(said(&node.boot(&anybody).await), "released");
    assert_eq!(record(&operator, &after).await.state, ProposalState::Booted);
    assert_eq!(waiting(&operator).await, [0; 0]);
}
