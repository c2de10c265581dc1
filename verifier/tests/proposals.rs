//! What nodes propose to boot next, and when that is believed.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{answered, said};
use common::proposing::{actions, join, member, new, old, opened, record, send, waiting};
use common::{Server, get, path, post, refused};
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::operator::{AuditList, Because};
use halfkey_protocol::wire::policies::{NodePolicy, ProposalList, ProposalRecord, ProposalState};
use halfkey_protocol::wire::{Begun, Evidence, Proposal, Propose, Proposed, Verdict};
use halfkey_protocol::{Bytes, Reason};
use halfkey_testkit::software::{Software, policy_head, trust};
use halfkey_verifier::config::StateDir;
use halfkey_verifier::domain::seal;
use halfkey_verifier::keys::ClusterKey;

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
        let key = ClusterKey::load(&StateDir::new(server.state())).unwrap();
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
