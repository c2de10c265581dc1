//! What `trust_root_with_next_boot` accepts, and when that is over.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use aws_lc_rs::signature::Ed25519KeyPair;
use common::node::{answered, said};
use common::proposing::{member, new, old, opened, record, trusted, trusting, waiting};
use common::{Server, get, path, post};
use halfkey_protocol::wire::operator::Because;
use halfkey_protocol::wire::policies::{NodePolicy, ProposalRecord, ProposalState};
use halfkey_protocol::wire::{Proposal, Proposed};
use halfkey_testkit::software::{Software, policy_head, trust};
use std::sync::Arc;

#[tokio::test]
async fn trust_in_the_next_boot_is_limited_in_number_and_time() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    let policy = |until: &str, count| policy_head("web") + &trust(until, count) + &old().boot();
    node.apply(&operator, "group:web", &policy("2000-01-01T00:00:00Z", 2)).await.unwrap();
    opened(&server, &node, &old()).await;
    let proposed = node.propose(&anybody, &new()).await;
    assert_eq!(answered(&proposed), "waiting proposal_waits");
    assert!(proposed.message.contains("trust_root_with_next_boot ended"), "{proposed:?}");

    node.apply(&operator, "group:web", &policy("2999-01-01T00:00:00Z", 2)).await.unwrap();
    assert_eq!(
        waiting(&operator).await,
        [proposed.proposal_id.unwrap()],
        "only what is proposed from now on"
    );
    let again = node.propose(&anybody, &new()).await;
    assert_eq!((answered(&again).as_str(), again.proposal_id), ("accepted", proposed.proposal_id));
    assert!(again.message.contains("trust_root_with_next_boot of group:web version 5, 1 of 2"), "{again:?}");
    assert_eq!(record(&operator, &again).await.state, ProposalState::Trusted);
    // Nor is what somebody could have put there while the machine was off.
    let message = Proposal { written_by_update: false, ..Software::version("6.1.0-59").proposal() };
    let message = node.proposal(&anybody, &message).await.unwrap();
    let found: Proposed = post(&anybody, "/v1/propose", &message).await.unwrap();
    assert_eq!(answered(&found), "waiting proposal_waits");
    assert!(found.message.contains("is for what an update wrote"), "{found:?}");
    // A command line that the policy forbids is not what trust is for.
    let shell = node.propose(&anybody, &new().with_command_line("init=/bin/sh")).await;
    assert_eq!(answered(&shell), "waiting proposal_waits", "{shell:?}");

    // The old one stays until the new one has booted.
    node.reboot_into(&old());
    assert_eq!(said(&node.boot(&anybody).await), "released");
    opened(&server, &node, &new()).await;
    assert_eq!(record(&operator, &again).await.state, ProposalState::Booted);
    assert_eq!(answered(&node.propose(&anybody, &new()).await), "accepted", "it counts once");

    // From the trusted boot to the next one.
    let third = Software::version("6.1.0-57");
    let next = node.propose(&anybody, &third).await;
    assert!(answered(&next) == "accepted" && next.message.contains("2 of 2"), "{next:?}");
    let fourth = node.propose(&anybody, &Software::version("6.1.0-58")).await;
    assert_eq!(answered(&fourth), "waiting proposal_waits");
    assert!(fourth.message.contains("has accepted 2 of 2 already"), "{fourth:?}");
    opened(&server, &node, &new()).await;
    opened(&server, &node, &third).await;
    assert_eq!(record(&operator, &again).await.state, ProposalState::Superseded);
    let trusted: NodePolicy = get(&operator, &path(node.id, "/policy")).await.unwrap();
    assert_eq!(trusted.trusted.iter().map(|p| Some(p.id)).collect::<Vec<_>>(), [next.proposal_id]);
    node.reboot_into(&new());
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch", "what came before is over");
    opened(&server, &node, &third).await;

    // Another group has not trusted it; without the table nothing is trusted.
    node.group(&operator, None).await.unwrap();
    node.group(&operator, Some("web")).await.unwrap();
    assert_eq!(record(&operator, &next).await.state, ProposalState::Waiting);
    assert_eq!(said(&node.boot(&anybody).await), "denied fence_extended");
    node.reboot_into(&third);
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
}

/// What the policy says of the kernel that runs is not said of an older one, which loads its initrd unmeasured.
#[tokio::test]
async fn trust_takes_no_kernel_that_may_not_measure_its_initrd() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    node.apply(&operator, "group:web", &trusting()).await.unwrap();
    opened(&server, &node, &old()).await;
    let propose = async |release: Option<&str>| -> Proposed {
        let mut proposal = new().proposal();
        proposal.images[0].release = release.map(str::to_owned);
        let message = node.proposal(&anybody, &proposal).await.unwrap();
        post(&anybody, "/v1/propose", &message).await.unwrap()
    };
    for release in [Some("6.12.63-amd64"), Some("6.1.0-56-amd64"), None] {
        let proposed = propose(release).await;
        assert_eq!(answered(&proposed), "waiting proposal_waits", "{release:?}");
        assert!(proposed.message.contains("kernel_measures_initrd = true"), "{proposed:?}");
    }
    node.reboot_into(&new());
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    opened(&server, &node, &old()).await;
    assert_eq!(answered(&propose(Some("6.13.0-amd64")).await), "accepted");
    opened(&server, &node, &new()).await;
}

/// What was trusted and is over is trusted as any other is: root does not go to and fro between two when the number is used up.
#[tokio::test]
async fn what_was_superseded_counts_once_more() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    let policy = policy_head("web") + &trust("2999-01-01T00:00:00Z", 3) + &old().boot();
    node.apply(&operator, "group:web", &policy).await.unwrap();
    opened(&server, &node, &old()).await;
    let (first, second) = (new(), Software::version("6.1.0-57"));
    let trusted = async |software: &Software, number: &str| {
        let proposed = node.propose(&anybody, software).await;
        assert!(answered(&proposed) == "accepted" && proposed.message.contains(number), "{proposed:?}");
        proposed
    };
    let one = trusted(&first, "1 of 3").await;
    opened(&server, &node, &first).await;
    trusted(&second, "2 of 3").await;
    // The one that runs, proposed again, is not newer for it.
    trusted(&first, "").await;
    opened(&server, &node, &second).await;
    assert_eq!(record(&operator, &one).await.state, ProposalState::Superseded);
    trusted(&first, "3 of 3").await;
    opened(&server, &node, &first).await;
    for _ in 0..2 {
        let again = node.propose(&anybody, &second).await;
        assert_eq!(answered(&again), "waiting proposal_waits");
        assert!(again.message.contains("has accepted 3 of 3 already"), "{again:?}");
    }
    node.reboot_into(&second);
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");

    // What another policy trusts meanwhile is counted there, and not taken from here.
    opened(&server, &node, &first).await;
    let own = format!("node:{}", node.id);
    node.apply(&operator, &own, &policy).await.unwrap();
    trusted(&first, "1 of 3").await;
    node.apply(&operator, &own, "").await.unwrap();
    let fresh = node.propose(&anybody, &Software::version("6.1.0-58")).await;
    assert!(fresh.message.contains("has accepted 3 of 3 already"), "{fresh:?}");
}

/// What `group set` or `policy withdraw` signs is looked at in the transaction that stores it.
#[tokio::test]
async fn the_same_group_again_or_the_groups_policy_in_force_changes_nothing() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let (node, proposed) = trusted(&server).await;
    node.group(&operator, Some("web")).await.unwrap();
    assert_eq!(record(&operator, &proposed).await.state, ProposalState::Trusted);
    opened(&server, &node, &new()).await;
    node.group(&operator, Some("web")).await.unwrap();
    assert_eq!(record(&operator, &proposed).await.state, ProposalState::Booted);
    node.reboot();
    assert_eq!(said(&node.boot(&anybody).await), "released");

    // A policy of its own, and withdrawn: what the group's accepts is accepted at once.
    let other = member(&server, "strict").await;
    let both = policy_head("strict") + &old().boot() + "\n" + &new().boot();
    other.apply(&operator, "group:strict", &both).await.unwrap();
    let scope = format!("node:{}", other.id);
    other.apply(&operator, &scope, &old().policy("own")).await.unwrap();
    opened(&server, &other, &old()).await;
    let proposed = other.propose(&anybody, &new()).await;
    assert_eq!(answered(&proposed), "waiting proposal_waits");
    other.apply(&operator, &scope, "").await.unwrap();
    assert_eq!(record(&operator, &proposed).await.state, ProposalState::Accepted);
}

#[tokio::test]
async fn a_policy_without_trust_drops_what_was_trusted() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let (node, proposed) = trusted(&server).await;
    // Limits are for what comes: it stays trusted.
    let ended = policy_head("web") + &trust("2000-01-01T00:00:00Z", 1) + &old().boot();
    node.apply(&operator, "group:web", &ended).await.unwrap();
    assert_eq!(record(&operator, &proposed).await.state, ProposalState::Trusted);
    opened(&server, &node, &new()).await;
    node.apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    assert_eq!(record(&operator, &proposed).await.state, ProposalState::Waiting);
    node.reboot();
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");

    // Denied by an operator while it is trusted: also over.
    node.apply(&operator, "group:web", &trusting()).await.unwrap();
    opened(&server, &node, &old()).await;
    let again = node.propose(&anybody, &new()).await;
    assert_eq!((answered(&again).as_str(), again.proposal_id), ("accepted", proposed.proposal_id));
    let deny = format!("/v1/operator/proposals/{}/deny", again.proposal_id.unwrap());
    let _: ProposalRecord = post(&operator, &deny, &Because { because: "stop".into() }).await.unwrap();
    node.reboot_into(&new());
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
}

/// Neither by a policy of the node's own, nor by that of a group whose name the new tenant took over; and what the one before
/// used up is no number of the new one's.
#[tokio::test]
async fn trust_by_the_tenant_before_is_none_of_the_new_one() {
    for in_group in [false, true] {
        let server = Server::start();
        let (anybody, operator) = (server.anybody(), server.operator());
        let mut node = member(&server, "web").await;
        let scope = if in_group { "group:web".to_owned() } else { format!("node:{}", node.id) };
        let evil = Software::version("evil");
        let policy = |until, count| policy_head("web") + &trust(until, count) + &old().boot();
        node.apply(&operator, &scope, &policy("2999-01-01T00:00:00Z", 5)).await.unwrap();
        opened(&server, &node, &old()).await;
        let proposed = node.propose(&anybody, &evil).await;
        assert_eq!(answered(&proposed), "accepted");
        let waits = node.propose(&anybody, &evil.with_command_line("init=/bin/sh")).await;
        assert_eq!(answered(&waits), "waiting proposal_waits");
        let database = server.database();
        database.execute("CREATE TABLE kept AS SELECT * FROM proposals", []).unwrap();

        node.tenant = Arc::new(Ed25519KeyPair::generate().unwrap());
        node.enroll(&anybody, &operator, "second").await;
        // The policy first: no review in between finds the node without one.
        node.apply(&operator, &scope, &policy("2000-01-01T00:00:00Z", 1)).await.unwrap();
        if in_group {
            node.group(&operator, Some("web")).await.unwrap();
        }
        node.reboot_into(&evil);
        let denied = async |why: &str| {
            let verdict = node.boot(&anybody).await;
            assert_eq!(said(&verdict), "denied policy_mismatch", "{why}: {verdict:?}");
            let policy: NodePolicy = get(&operator, &path(node.id, "/policy")).await.unwrap();
            assert!(policy.trusted.is_empty(), "{why}");
        };
        denied("after the proof").await;
        for proposed in [&proposed, &waits] {
            let record = record(&operator, proposed).await;
            assert_eq!(record.state, ProposalState::Superseded, "{record:?}");
            assert!(record.message.contains("another tenant"), "{record:?}");
        }
        // The row of then, with its tag; the same as if it had been given since.
        database.execute_batch("DELETE FROM proposals; INSERT INTO proposals SELECT * FROM kept").unwrap();
        denied("the row as it was").await;
        let proof = "(SELECT max(number) FROM documents WHERE scope LIKE 'proof:%')";
        database.execute(&format!("UPDATE proposals SET trusted_since = {proof}"), []).unwrap();
        denied("the row with another number").await;
        database.execute_batch("DELETE FROM proposals; INSERT INTO proposals SELECT * FROM kept").unwrap();

        node.apply(&operator, &scope, &policy("2999-01-01T00:00:00Z", 1)).await.unwrap();
        denied("trust that is given from now on").await;
        opened(&server, &node, &old()).await;
        let proposed = node.propose(&anybody, &new()).await;
        assert_eq!(answered(&proposed), "accepted", "{proposed:?}");
        let proposed = node.propose(&anybody, &evil).await;
        assert_eq!(answered(&proposed), "waiting proposal_waits", "{proposed:?}");
        let message = record(&operator, &proposed).await.message;
        assert!(message.contains("has accepted 1 of 1"), "{message}");
        opened(&server, &node, &new()).await;
    }
}

/// What was proposed to it is another state's of the TPM. The tenant's number goes on.
#[tokio::test]
async fn trust_of_before_the_tpm_was_cleared_is_over() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let (mut node, proposed) = trusted(&server).await;
    let waits = node.propose(&anybody, &new().with_command_line("init=/bin/sh")).await;
    assert_eq!(answered(&waits), "waiting proposal_waits");
    // Enrolled again as it is: it is the same TPM that proposed.
    node.enroll(&anybody, &operator, "same").await;
    assert_eq!(record(&operator, &proposed).await.state, ProposalState::Trusted);
    let database = server.database();
    database.execute("CREATE TABLE kept AS SELECT * FROM proposals", []).unwrap();

    node.clear_tpm();
    node.take_new_keys();
    node.register(&anybody).await.unwrap();
    assert_eq!(record(&operator, &proposed).await.state, ProposalState::Trusted, "nothing is proved yet");
    node.enroll(&anybody, &operator, "cleared").await;
    for proposed in [&proposed, &waits] {
        let record = record(&operator, proposed).await;
        assert_eq!(record.state, ProposalState::Superseded, "{record:?}");
        assert!(record.message.contains("its TPM was cleared"), "{record:?}");
    }
    let denied = async |why: &str| {
        node.reboot_into(&new());
        let verdict = node.boot(&anybody).await;
        assert_eq!(said(&verdict), "denied policy_mismatch", "{why}: {verdict:?}");
    };
    denied("after the proof").await;
    // The row of then, with its tag; and as if it had been given since.
    database.execute_batch("DELETE FROM proposals; INSERT INTO proposals SELECT * FROM kept").unwrap();
    denied("the row as it was").await;
    let proof = "(SELECT max(number) FROM documents WHERE scope LIKE 'proof:%')";
    database.execute(&format!("UPDATE proposals SET trusted_since = {proof}"), []).unwrap();
    denied("the row with another number").await;

    opened(&server, &node, &old()).await;
    let proposed = node.propose(&anybody, &new()).await;
    assert!(answered(&proposed) == "accepted" && proposed.message.contains("2 of 5"), "{proposed:?}");
    opened(&server, &node, &new()).await;
    assert_eq!(record(&operator, &proposed).await.state, ProposalState::Booted);
}

/// The name of a boot is the tenant's to choose. That it reads like a trusted proposal's makes it none.
#[tokio::test]
async fn a_boot_that_is_called_like_a_trusted_proposal_is_none() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    let policy = policy_head("web") + &trust("2999-01-01T00:00:00Z", 5) + &old().boot();
    node.apply(&operator, "group:web", &policy).await.unwrap();
    opened(&server, &node, &old()).await;
    let proposed = node.propose(&anybody, &Software::version("6.1.0-57")).await;
    assert_eq!(record(&operator, &proposed).await.state, ProposalState::Trusted);

    let named = format!("name = \"6.1.0-56 (proposal {})\"", proposed.proposal_id.unwrap());
    let other = new().boot().replace("name = \"6.1.0-56\"", &named);
    assert!(other.contains(&named), "{other}");
    node.apply(&operator, "group:web", &(policy + &other)).await.unwrap();
    opened(&server, &node, &new()).await;
    assert_eq!(record(&operator, &proposed).await.state, ProposalState::Trusted, "it was not booted");
    // What it proposes next stands upon the boot that it runs.
    let next = node.propose(&anybody, &Software::version("6.1.0-58")).await;
    assert_eq!(record(&operator, &next).await.state, ProposalState::Trusted);
    node.reboot_into(&Software::version("6.1.0-58"));
    assert_eq!(said(&node.boot(&anybody).await), "released");
    assert_eq!(record(&operator, &next).await.state, ProposalState::Booted);
}
