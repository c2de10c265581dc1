//! What nodes propose to boot next, and when that is believed.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use aws_lc_rs::signature::Ed25519KeyPair;
use common::node::{Node, answered, said};
use common::{Server, get, path, post, refused};
use halfkey_protocol::keys::label;
use halfkey_protocol::keys::opening::OpeningSecret;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::operator::{AuditList, Because, NodeRecord};
use halfkey_protocol::wire::policies::{NodePolicy, ProposalList, ProposalRecord, ProposalState};
use halfkey_protocol::wire::{Begun, Evidence, Proposal, Propose, Proposed, ProposedLoader, Verdict};
use halfkey_protocol::{Bytes, Half, Key, Reason};
use halfkey_testkit::hex;
use halfkey_testkit::software::{Software, policy_head, trust};
use halfkey_verifier::client::Client;
use halfkey_verifier::domain::seal;
use halfkey_verifier::keys::ClusterKey;
use std::collections::BTreeMap;
use std::sync::Arc;

fn old() -> Software {
    Software::default()
}

fn new() -> Software {
    Software::version("6.1.0-56")
}

/// Enrolled, in this group.
async fn member(server: &Server, group: &str) -> Node {
    join(server, Node::new(), group).await
}

async fn join(server: &Server, node: Node, group: &str) -> Node {
    node.register(&server.anybody()).await.unwrap();
    node.enroll(&server.anybody(), &server.operator(), &node.id.to_string()).await;
    node.group(&server.operator(), Some(group)).await.unwrap();
    node
}

/// Boots, is released, and opens its volumes.
async fn opened(server: &Server, node: &Node, software: &Software) {
    node.reboot_into(software);
    let verdict = node.boot(&server.anybody()).await;
    assert_eq!(said(&verdict), "released", "{verdict:?}");
    node.open_fence();
}

/// Trusts five next boots of those in the group.
fn trusting() -> String {
    policy_head("web") + &trust("2999-01-01T00:00:00Z", 5) + &old().boot()
}

/// In a group with that policy, with the next boot trusted by it.
async fn trusted(server: &Server) -> (Node, Proposed) {
    let node = member(server, "web").await;
    node.apply(&server.operator(), "group:web", &trusting()).await.unwrap();
    opened(server, &node, &old()).await;
    let proposed = node.propose(&server.anybody(), &new()).await;
    assert_eq!(answered(&proposed), "accepted");
    (node, proposed)
}

async fn send(server: &Server, message: &Propose) -> Proposed {
    post(&server.anybody(), "/v1/propose", message).await.unwrap()
}

async fn record(operator: &Client, proposed: &Proposed) -> ProposalRecord {
    let path = format!("/v1/operator/proposals/{}", proposed.proposal_id.expect("it was stored"));
    get(operator, &path).await.unwrap()
}

async fn waiting(operator: &Client) -> Vec<u64> {
    let list: ProposalList = get(operator, "/v1/operator/proposals?waiting=true").await.unwrap();
    list.proposals.iter().map(|proposal| proposal.id).collect()
}

async fn actions(operator: &Client) -> BTreeMap<String, usize> {
    let trail: AuditList = get(operator, "/v1/operator/audit?after=0&limit=1000").await.unwrap();
    trail.entries.into_iter().fold(BTreeMap::new(), |mut count, entry| {
        *count.entry(entry.action).or_default() += 1;
        count
    })
}

#[tokio::test]
async fn a_hash_that_the_tenant_predicted_is_accepted_unseen() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    let policy = old().policy("web") + &new().boot();
    node.apply(&operator, "group:web", &policy).await.unwrap();
    opened(&server, &node, &old()).await;

    let proposed = node.propose(&anybody, &new()).await;
    assert_eq!(answered(&proposed), "accepted", "{proposed:?}");
    assert!(proposed.message.contains("boot \"6.1.0-56\" of group:web version 4"), "{proposed:?}");
    let before = record(&operator, &proposed).await;
    assert_eq!((before.state, &before.proposal), (ProposalState::Accepted, &new().proposal()));
    // The same again is the same.
    assert_eq!(node.propose(&anybody, &new()).await.proposal_id, proposed.proposal_id);

    node.reboot_into(&new());
    assert_eq!(said(&node.boot(&anybody).await), "released");
    assert_eq!(record(&operator, &proposed).await.state, ProposalState::Booted);
    let policy: NodePolicy = get(&operator, &path(node.id, "/policy")).await.unwrap();
    assert!(policy.trusted.is_empty(), "the policy allows it, no trust is needed");
    // Rollback within the policy.
    opened(&server, &node, &old()).await;

    // A policy that takes it back before it was booted: it waits.
    let third = Software::version("6.1.0-57");
    let both = old().policy("web") + &third.boot();
    node.apply(&operator, "group:web", &both).await.unwrap();
    let proposed = node.propose(&anybody, &third).await;
    assert_eq!(answered(&proposed), "accepted");
    node.apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    assert_eq!(record(&operator, &proposed).await.state, ProposalState::Waiting);
}

#[tokio::test]
async fn what_no_rule_accepts_waits_and_a_group_is_accepted_at_once() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let first = member(&server, "web").await;
    let second = join(&server, first.sibling(), "web").await;
    let nodes = [first, second];
    nodes[0].apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    let mut ids = Vec::new();
    for node in &nodes {
        opened(&server, node, &old()).await;
        let proposed = node.propose(&anybody, &new()).await;
        assert_eq!(answered(&proposed), "waiting proposal_waits");
        let hint = proposed.hint.as_deref().unwrap();
        assert!(
            hint.contains(&format!("halfkey proposal accept {}", proposed.proposal_id.unwrap())),
            "{hint}"
        );
        ids.push(proposed.proposal_id.unwrap());
    }
    // One of them also proposes what nobody wants.
    let unwanted = Software::version("6.1.0-57").with_command_line("init=/bin/sh");
    let bad = nodes[0].propose(&anybody, &unwanted).await;
    assert_eq!(answered(&bad), "waiting proposal_waits");
    assert_eq!(waiting(&operator).await.len(), 3);
    // Booted without waiting for an answer: denied, and it names the kernel.
    nodes[0].reboot_into(&new());
    let verdict = nodes[0].boot(&anybody).await;
    assert!(
        said(&verdict) == "denied policy_mismatch" && verdict.message.contains("6.1.0-56"),
        "{verdict:?}"
    );

    let both = old().policy("web") + &new().boot();
    nodes[0].apply(&operator, "group:web", &both).await.unwrap();
    assert_eq!(waiting(&operator).await, [bad.proposal_id.unwrap()]);
    for (node, id) in nodes.iter().zip(&ids) {
        let path = format!("/v1/operator/proposals/{id}");
        let record: ProposalRecord = get(&operator, &path).await.unwrap();
        assert_eq!(record.state, ProposalState::Accepted, "{record:?}");
        node.reboot_into(&new());
        assert_eq!(said(&node.boot(&anybody).await), "released");
        let record: ProposalRecord = get(&operator, &path).await.unwrap();
        assert_eq!(record.state, ProposalState::Booted);
        node.open_fence();
    }

    // Denied: it stays so, and says why.
    let deny = format!("/v1/operator/proposals/{}/deny", bad.proposal_id.unwrap());
    let because = Because { because: "no shells".into() };
    let record: ProposalRecord = post(&operator, &deny, &because).await.unwrap();
    assert_eq!((record.state, record.message.as_str()), (ProposalState::Denied, "ada: no shells"));
    let again = nodes[0].propose(&anybody, &unwanted).await;
    assert_eq!(answered(&again), "refused operator_denied");
    assert!(again.message.contains("no shells"), "{again:?}");
    assert_eq!(refused(post::<ProposalRecord>(&operator, &deny, &because).await), Reason::Conflict);
    let booted = format!("/v1/operator/proposals/{}/deny", ids[0]);
    assert_eq!(refused(post::<ProposalRecord>(&operator, &booted, &because).await), Reason::Conflict);
    let missing = "/v1/operator/proposals/999/deny";
    assert_eq!(refused(post::<ProposalRecord>(&operator, missing, &because).await), Reason::NotFound);

    let list: ProposalList =
        get(&operator, &format!("/v1/operator/proposals?node={}", nodes[1].id)).await.unwrap();
    assert_eq!(list.proposals.len(), 1);
    let count = actions(&operator).await;
    assert_eq!((count["propose"], count["proposal_accept"], count["proposal_deny"]), (4, 2, 1), "{count:?}");
}

#[tokio::test]
async fn what_waits_for_the_same_boot_is_over_when_it_is_proposed_anew() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    let other = join(&server, node.sibling(), "web").await;
    node.apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    for node in [&node, &other] {
        opened(&server, node, &old()).await;
    }
    let first = node.propose(&anybody, &new()).await;
    let others = other.propose(&anybody, &new()).await;
    let later_kernel = || Software::version("6.1.0-57");
    let later = node.propose(&anybody, &later_kernel()).await;
    // Its initramfs was built once more.
    let again = node.propose(&anybody, &Software { initrd: vec![0x42; 32], ..new() }).await;
    assert_eq!(answered(&again), "waiting proposal_waits", "{again:?}");
    let superseded = record(&operator, &first).await;
    let because = format!("the node proposed {} for the same boot", again.proposal_id.unwrap());
    assert_eq!((superseded.state, superseded.message), (ProposalState::Superseded, because));
    // What waits for another boot, and what another machine proposed, goes on waiting.
    for waits in [&later, &others, &again] {
        assert_eq!(record(&operator, waits).await.state, ProposalState::Waiting);
    }
    // What a rule accepts stays accepted, whatever is proposed in its place.
    node.apply(&operator, "group:web", &(old().policy("web") + &later_kernel().boot())).await.unwrap();
    assert_eq!(record(&operator, &later).await.state, ProposalState::Accepted);
    let other = node.propose(&anybody, &Software { initrd: vec![0x43; 32], ..later_kernel() }).await;
    assert_eq!(answered(&other), "waiting proposal_waits", "{other:?}");
    assert_eq!(record(&operator, &later).await.state, ProposalState::Accepted);
    // The files of before are back.
    assert_eq!(node.propose(&anybody, &new()).await.proposal_id, first.proposal_id);
    assert_eq!(record(&operator, &first).await.state, ProposalState::Waiting);
    assert_eq!(record(&operator, &again).await.state, ProposalState::Superseded);
}

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

/// A disk of an attacker's own, with a token that leads to their relay: the genuine verifier releases, and the agent is answered with
/// other halves, another signature, another secret. Or it gets the genuine box, and the disk fits that V and a U of theirs.
#[tokio::test]
async fn what_another_verifier_gave_does_not_open_the_fence_as_this_one_expects() {
    let server = Server::start();
    let node = member(&server, "web").await;
    let policy = old().policy("web") + &new().boot();
    node.apply(&server.operator(), "group:web", &policy).await.unwrap();
    let theirs = OpeningSecret::new(&[1; 32]).unwrap();
    let key =
        |u: u8, v: u8| Key::combine(&Half::take(&mut [u; 32]).unwrap(), &Half::take(&mut [v; 32]).unwrap());
    let r_sha256 = Hash::Sha256.digest(&[halfkey_testkit::node::R]).try_into().unwrap();
    // Also r itself, and what a relay sees of it.
    let own = theirs.event(&r_sha256, &key(1, 2));
    for event in [Some(&own[..]), Some(halfkey_testkit::node::R), Some(&r_sha256), None] {
        node.reboot_into(&old());
        let (session, verdict) = node.attest(&server.anybody(), "boot").await.unwrap();
        assert_eq!(said(&verdict), "released");
        let genuine = node.open("boot", &session, &verdict).opening.unwrap();
        node.tpm.measure(15, event.unwrap_or(&*genuine.event(&r_sha256, &key(3, 4))));
        let proposed = node.propose(&server.anybody(), &new()).await;
        assert_eq!(answered(&proposed), "refused proposal_unattested", "{proposed:?}");
    }
    opened(&server, &node, &old()).await;
    assert_eq!(answered(&node.propose(&server.anybody(), &new()).await), "accepted");
}

/// What extended the fence was overheard. The power is cut while the machine is suspended, and another system begun: resetCount is the
/// same, PCR 15 was zero again.
#[tokio::test]
async fn a_tpm_that_restarted_is_not_in_the_boot_that_was_released() {
    let server = Server::start();
    let node = member(&server, "web").await;
    let policy = old().policy("web") + &new().boot();
    node.apply(&server.operator(), "group:web", &policy).await.unwrap();
    opened(&server, &node, &old()).await;
    node.tpm.restart();
    old().measure(&node.tpm);
    node.open_fence();
    let proposed = node.propose(&server.anybody(), &new()).await;
    assert_eq!(answered(&proposed), "refused proposal_unattested", "{proposed:?}");
    assert!(proposed.message.contains("it was suspended since"), "{proposed:?}");
}

#[tokio::test]
async fn only_a_boot_that_attestation_opened_may_propose() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    let policy = old().policy("web") + &new().boot();
    node.apply(&operator, "group:web", &policy).await.unwrap();
    let unattested = async |software: &Software| {
        let proposed = node.propose(&anybody, software).await;
        assert_eq!(answered(&proposed), "refused proposal_unattested", "{proposed:?}");
        assert!(proposed.hint.is_some() && proposed.proposal_id.is_none(), "{proposed:?}");
        proposed.message
    };
    assert!(unattested(&new()).await.contains("no boot of this enrollment was released"));

    // Released, but the agent closed the fence: a passphrase opened it.
    assert_eq!(said(&node.boot(&anybody).await), "released");
    assert!(unattested(&new()).await.contains("pcr 15"), "the fence is still open");
    node.tpm.measure(15, label::FENCE_CLOSED);
    assert!(unattested(&new()).await.contains("found it closed"));

    // Opened, then a passphrase was asked for as well; a log that admits it does not help.
    opened(&server, &node, &old()).await;
    assert_eq!(answered(&node.propose(&anybody, &new()).await), "accepted");
    node.tpm.measure(15, label::FENCE_PASSPHRASE);
    unattested(&new()).await;
    let message = with_systemd_log(&anybody, &node, &[label::FENCE_PASSPHRASE]).await;
    let proposed = send(&server, &message).await;
    assert_eq!(answered(&proposed), "refused proposal_unattested");
    assert!(proposed.message.contains("a passphrase was asked for"), "{proposed:?}");

    // Opened, then a shell was given: whoever sat there is root and has a log that calls it systemd's.
    opened(&server, &node, &old()).await;
    node.tpm.measure(15, label::FENCE_SHELL);
    assert!(unattested(&new()).await.contains("a shell was given"));
    let message = with_systemd_log(&anybody, &node, &[label::FENCE_SHELL]).await;
    let proposed = send(&server, &message).await;
    assert_eq!(answered(&proposed), "refused proposal_unattested");
    assert!(proposed.message.contains("a shell was given"), "{proposed:?}");

    // Later systemd measures into the same PCR: its log explains that, and nothing else does.
    opened(&server, &node, &old()).await;
    node.tpm.measure(15, b"machine-id:1");
    unattested(&new()).await;
    let message = with_systemd_log(&anybody, &node, &[b"machine-id:2"]).await;
    assert_eq!(answered(&send(&server, &message).await), "refused proposal_unattested");
    let message = with_systemd_log(&anybody, &node, &[b"machine-id:1", b"not yet in the quote"]).await;
    assert_eq!(answered(&send(&server, &message).await), "accepted");
    let mut broken = with_systemd_log(&anybody, &node, &[b"machine-id:1"]).await;
    broken.evidence.systemd_log = Some(Bytes::from(&b"\x1e{"[..]));
    assert_eq!(answered(&send(&server, &broken).await), "refused log_malformed");

    // A boot that was not released, although the one before was.
    node.reboot_into(&Software::version("rogue"));
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.open_fence();
    assert!(unattested(&new()).await.contains("resetCount"));

    // Nor after a new enrollment, until that has booted.
    opened(&server, &node, &old()).await;
    node.enroll(&anybody, &operator, "again").await;
    unattested(&new()).await;
    opened(&server, &node, &old()).await;
    assert_eq!(answered(&node.propose(&anybody, &new()).await), "accepted");

    // Revoked.
    let because = Because { because: "stolen".into() };
    let _: NodeRecord = post(&operator, &path(node.id, "/revoke"), &because).await.unwrap();
    assert_eq!(answered(&node.propose(&anybody, &new()).await), "refused revoked");
    assert_eq!(waiting(&operator).await.len(), 0);
}

/// A proposal with systemd's log of PCR 15.
async fn with_systemd_log(server: &Client, node: &Node, events: &[&[u8]]) -> Propose {
    let record = |event: &&[u8]| {
        let digest = hex(&Hash::Sha256.digest(&[event]));
        format!(
            "\x1e{{\"pcr\":15,\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{digest}\"}}],\"content\":{{}}}}\n"
        )
    };
    let log: String = events.iter().map(record).collect();
    let mut message = node.proposal(server, &new().proposal()).await.unwrap();
    message.evidence.systemd_log = Some(log.into_bytes().into());
    message
}

#[tokio::test]
async fn every_part_of_a_proposal_counts() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    let policy = old().policy("web") + &new().boot();
    node.apply(&operator, "group:web", &policy).await.unwrap();
    opened(&server, &node, &old()).await;

    let begun: Begun = {
        let body = serde_json::json!({"versions": [1], "node_id": node.id.to_string(), "purpose": "propose", "enrollments": []});
        post(&anybody, "/v1/begin", &body).await.unwrap()
    };
    assert_eq!(begun.bank, "sha256");
    let good = node.proposal(&anybody, &new().proposal()).await.unwrap();
    let flip = |bytes: &Bytes, at: usize| {
        let mut bytes = bytes.clone();
        bytes.0[at] ^= 1;
        bytes
    };
    let with = |evidence: Evidence| Propose { evidence, proposal: good.proposal.clone() };
    let of = good.evidence.clone();
    let boot = node.begin(&anybody, "boot").await.unwrap();
    for (bad, expected) in [
        (with(Evidence { nonce: flip(&of.nonce, 0), ..of.clone() }), "refused nonce_foreign"),
        (with(Evidence { nonce: boot.begun.nonce.clone(), ..of.clone() }), "refused nonce_foreign"),
        (with(Evidence { signature: flip(&of.signature, 20), ..of.clone() }), "refused signature"),
        (with(Evidence { quote: flip(&of.quote, 60), ..of.clone() }), "refused signature"),
        (with(Evidence { purpose_data: flip(&of.purpose_data, 3), ..of.clone() }), "refused qualifying_data"),
        (with(Evidence { pcrs: vec![flip(&of.pcrs[0], 0); 16], ..of.clone() }), "refused pcr_digest"),
        (with(Evidence { bank: "sha384".into(), ..of.clone() }), "refused bank"),
        (Propose { proposal: flip(&good.proposal, 30), evidence: of.clone() }, "refused qualifying_data"),
        (Propose { proposal: Bytes::default(), evidence: of.clone() }, "refused qualifying_data"),
    ] {
        assert_eq!(answered(&send(&server, &bad).await), expected);
    }
    // None of that was the node's word: its quote is still good, once.
    assert_eq!(answered(&send(&server, &good).await), "accepted");
    assert_eq!(answered(&send(&server, &good).await), "refused stale");

    for bad in [
        Evidence { purpose: "boot".into(), ..of.clone() },
        Evidence { hpke_public: Bytes(vec![1; 32]), ..of.clone() },
        Evidence { nonce_tpm: Bytes(vec![1; 32]), ..of.clone() },
        Evidence { purpose_data: Bytes::default(), ..of.clone() },
        Evidence { pcrs: vec![], ..of.clone() },
    ] {
        let answer = post::<Proposed>(&anybody, "/v1/propose", &with(bad)).await;
        assert_eq!(refused(answer), Reason::Malformed);
    }
    let answer = post::<Verdict>(&anybody, "/v1/finish", &of).await;
    assert_eq!(refused(answer), Reason::Malformed, "a proposal's quote releases nothing");

    // Content.
    let proposal = new().proposal();
    let text = |change: &dyn Fn(&mut Proposal)| {
        let mut proposal = proposal.clone();
        change(&mut proposal);
        serde_json::to_vec(&proposal).unwrap()
    };
    for bad in [
        b"{".to_vec(),
        b"".to_vec(),
        vec![b'['; 60_000],
        vec![b' '; (64 << 10) + 1],
        text(&|p| p.version = 2),
        text(&|p| p.bank = "sha1".into()),
        text(&|p| p.images.clear()),
        text(&|p| p.images = vec![p.images[0].clone(); 9]),
        text(&|p| p.images[0].authenticode = Bytes(vec![1; 20])),
        text(&|p| p.images[0].authenticode = Bytes(vec![1; 48])),
        text(&|p| p.images[0].role = "rootkit".into()),
        text(&|p| p.initrd = Some(Bytes(vec![1; 31]))),
        text(&|p| p.command_line = Some("x".repeat(50_000))),
        text(&|p| p.name = "\u{1b}[2J".into()),
        // Coherent, but not of the bank that the node boots with.
        text(&|p| {
            p.bank = "sha384".into();
            p.images[0].authenticode = Bytes(vec![1; 48]);
            p.initrd = Some(Bytes(vec![1; 48]));
        }),
    ] {
        let message = node.proposal_bytes(&anybody, bad.clone()).await.unwrap();
        let proposed = send(&server, &message).await;
        assert_eq!(
            answered(&proposed),
            "refused proposal_malformed",
            "{}",
            String::from_utf8_lossy(&bad[..bad.len().min(200)])
        );
    }
    assert!(!server.log().contains("panicked"));
    let trail: AuditList =
        get(&operator, &format!("/v1/operator/audit?node={}&limit=1000", node.id)).await.unwrap();
    let refusals =
        trail.entries.iter().filter(|e| e.action == "propose" && e.detail.starts_with("refused ")).count();
    // Each of the node's own is in the trail; the 10 that anybody could send are one, or two when an hour began.
    assert!((16..=17).contains(&refusals), "{refusals}");
}

#[tokio::test]
async fn a_node_keeps_no_more_than_its_share() {
    let server = Server::with_settings("evidence_per_minute = 100000\n");
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    node.apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    opened(&server, &node, &old()).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        let proposed = node.propose(&anybody, &Software::version(&format!("6.1.0-{number}"))).await;
        assert_eq!(answered(&proposed), "waiting proposal_waits");
        ids.push(proposed.proposal_id.unwrap());
    }
    ids.reverse();
    assert_eq!(waiting(&operator).await, ids[..16]);
    let first: ProposalRecord = get(&operator, &format!("/v1/operator/proposals/{}", ids[19])).await.unwrap();
    assert_eq!(first.state, ProposalState::Superseded);
}

#[tokio::test]
async fn what_was_answered_about_policies_and_proposals_is_there_after_a_kill() {
    let mut server = Server::start();
    let node = member(&server, "web").await;
    server.kill();
    server.serve();
    let policy = policy_head("web") + &trust("2999-01-01T00:00:00Z", 5) + &old().boot();
    node.apply(&server.operator(), "group:web", &policy).await.unwrap();
    server.kill();
    server.serve();
    node.reboot();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    node.open_fence();
    server.kill();
    server.serve();
    let message = node.proposal(&server.anybody(), &new().proposal()).await.unwrap();
    server.kill();
    server.serve();
    let proposed = send(&server, &message).await;
    assert_eq!(answered(&proposed), "accepted");
    server.kill();
    server.serve();
    assert_eq!(answered(&send(&server, &message).await), "refused stale", "its counters were recorded");
    assert_eq!(record(&server.operator(), &proposed).await.state, ProposalState::Trusted);
    node.reboot_into(&new());
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    server.kill();
    server.serve();
    assert_eq!(record(&server.operator(), &proposed).await.state, ProposalState::Booted);
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

/// Who writes the database could else keep a group on the policy that it has.
#[tokio::test]
async fn damaged_rows_keep_no_policy_from_a_group() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    let other = join(&server, node.sibling(), "web").await;
    node.apply(&operator, "group:web", &(old().policy("web") + &new().boot())).await.unwrap();
    opened(&server, &node, &old()).await;
    let proposed = node.propose(&anybody, &Software::version("6.1.0-57")).await;
    assert_eq!(answered(&proposed), "waiting proposal_waits", "{proposed:?}");
    for damage in [
        "UPDATE proposals SET proposal = '{'",
        "INSERT INTO nodes (node_id, label, last_seen, group_name) VALUES ('x', '', 0, 'web')",
    ] {
        assert_eq!(server.database().execute(damage, []).unwrap(), 1);
    }
    // One kernel is taken out.
    node.apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    for node in [&node, &other] {
        node.reboot_into(&new());
        let verdict = node.boot(&anybody).await;
        assert_ne!(verdict.outcome, "released", "{verdict:?}");
    }
    let trail: AuditList = get(&operator, "/v1/operator/audit?after=0&limit=1000").await.unwrap();
    let applied = trail.entries.iter().rfind(|entry| entry.action == "policy_apply").unwrap();
    assert!(applied.detail.ends_with("1 node with damaged rows not looked at"), "{applied:?}");
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

/// A row that says that a member has a policy of its own, and there is no such document.
#[tokio::test]
async fn a_policy_without_its_document_keeps_no_policy_from_the_group() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    node.apply(&operator, "group:web", &(old().policy("web") + &new().boot())).await.unwrap();
    opened(&server, &node, &old()).await;
    let proposed = node.propose(&anybody, &Software::version("6.1.0-57")).await;
    assert_eq!(answered(&proposed), "waiting proposal_waits", "{proposed:?}");
    let sql = format!(
        "PRAGMA foreign_keys = OFF;
         INSERT INTO policies (scope, version, name, tenant_key, sha256, applied_at, applied_by)
             VALUES ('node:{}', 1000000, 'x', x'00', zeroblob(32), 0, 'x')",
        node.id
    );
    server.database().execute_batch(&sql).unwrap();
    node.apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    let trail: AuditList = get(&operator, "/v1/operator/audit?after=0&limit=1000").await.unwrap();
    let applied = trail.entries.iter().rfind(|entry| entry.action == "policy_apply").unwrap();
    assert!(applied.detail.ends_with("1 node with damaged rows not looked at"), "{applied:?}");
}

/// Sixteen of a node, of each of twenty nodes: no answer is larger than a workstation takes, whoever fills it.
#[tokio::test]
async fn the_list_comes_in_pages_of_bounded_size() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    node.apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    opened(&server, &node, &old()).await;
    let first = node.propose(&anybody, &new()).await.proposal_id.unwrap();
    {
        let database = server.database();
        database.execute_batch("PRAGMA foreign_keys = OFF; BEGIN").unwrap();
        for index in 0..1400_u32 {
            // Most are small; some can't be read.
            let line = "\"".repeat(if index < 320 { 26_000 } else { 10 });
            let content = if index % 100 == 7 { "'{'" } else { "json_set(proposal, '$.command_line', ?2)" };
            let sql = format!(
                "INSERT INTO proposals (node_id, sha256, at, state, message, from_evidence, by_trust, proposal)
                 SELECT node_id, ?1, at, state, message, from_evidence, by_trust, {content}
                 FROM proposals WHERE id = {first} AND length(?2) > 0"
            );
            database.execute(&sql, (index.to_be_bytes(), &line)).unwrap();
        }
        // As the server tags what a node sends.
        let key = ClusterKey::load(&server.state().join("cluster.key")).unwrap();
        let mut query =
            database.prepare("SELECT id, node_id, proposal, from_evidence FROM proposals").unwrap();
        let rows: Vec<(i64, String, String, i64)> = query
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for (id, node, content, evidence) in rows {
            let content = Hash::Sha256.digest(&[content.as_bytes()]);
            let fields: [&[u8]; 3] = [node.as_bytes(), &content, &(evidence as u64).to_be_bytes()];
            let made = seal::tag(&key, seal::Kind::Proposed, &fields);
            database.execute("UPDATE proposals SET made = ?2 WHERE id = ?1", (id, made)).unwrap();
        }
        database.execute_batch("COMMIT").unwrap();
    }
    let (mut all, mut before) = (Vec::new(), String::new());
    let mut pages = 0;
    loop {
        let path = format!("/v1/operator/proposals?waiting=true{before}");
        let page: ProposalList = get(&operator, &path).await.unwrap();
        assert!(serde_json::to_vec(&page).unwrap().len() < 5 << 20 && page.proposals.len() <= 1000);
        all.extend(page.proposals.iter().map(|record| record.id));
        pages += 1;
        let Some(next) = page.next else { break };
        before = format!("&before={next}");
    }
    assert_eq!(all.len(), 1 + 1400 - 14, "without those that can't be read");
    assert!(all.is_sorted_by(|a, b| a > b) && all.last() == Some(&first) && pages > 3, "{pages}");
}

/// No rule accepts it before its first boot: it is over with that.
#[tokio::test]
async fn what_grub_announced_is_over_once_it_was_booted() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = member(&server, "web").await;
    node.apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    let announce = async |node: &Node, software: &Software| {
        let loader = Some(ProposedLoader { name: "grub".into(), changes: "+linux\n".into() });
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
