//! Node, tenant and verifier, with a real TPM: from registration to revocation.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{CHALLENGE, Node, enrolled, line_at, said};
use common::turned::TurnedServer;
use common::{Server, get, path, post, refused};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::fence;
use halfkey_protocol::wire::operator::{
    AuditList, Because, Deny, EvidenceList, EvidenceRecord, NodeList, NodeRecord, NodeState,
};
use halfkey_protocol::wire::{Document, Evidence, Verdict, Wait, Waited};
use halfkey_protocol::{Bytes, Reason};
use halfkey_testkit::software::Software;
use std::time::Duration;

/// Evidence that never reached the verifier in this form.
async fn finish(server: &Server, evidence: &Evidence) -> String {
    said(&post::<Verdict>(&server.anybody(), "/v1/finish", evidence).await.unwrap())
}

#[tokio::test]
async fn a_node_registers_enrolls_boots_and_is_revoked() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = Node::new();

    assert_eq!(refused(node.begin(&anybody, "boot").await), Reason::UnknownNode);
    node.register(&anybody).await.unwrap();
    node.register(&anybody).await.expect("the same keys again");
    assert_eq!(refused(node.begin(&anybody, "boot").await), Reason::NotEnrolled);
    let list: NodeList = get(&operator, "/v1/operator/nodes").await.unwrap();
    assert_eq!((list.nodes.len(), list.nodes[0].state), (1, NodeState::Registered));

    // A node that waits for its tenant is woken by the enrollment.
    let waiting = tokio::spawn({
        let (anybody, wait) = (server.anybody(), Wait { node_id: node.id.to_string(), ticket: None });
        async move { post::<Waited>(&anybody, "/v1/wait", &wait).await.unwrap() }
    });
    let (enroll, halves) = node.enrollment(&operator, "first").await;
    let record: NodeRecord = post(&operator, &path(node.id, "/enrollment"), &enroll).await.unwrap();
    assert_eq!((record.summary.state, record.summary.label.as_str()), (NodeState::Enrolling, "web1"));
    assert!(waiting.await.unwrap().changed);
    assert_eq!(refused(node.begin(&anybody, "boot").await), Reason::EnrollmentOpen);

    // C_U may be fetched again in the same boot, and not in another one.
    let (session, verdict) = node.attest(&anybody, "enroll").await.unwrap();
    assert_eq!(said(&verdict), "released");
    assert!(node.open("enroll", &session, &verdict).c_u.is_some());
    assert_eq!(verdict.enrollment, Some(enroll.signed));
    assert!(verdict.release_signature.is_none());
    assert_eq!(said(&node.attest(&anybody, "enroll").await.unwrap().1), "released");
    node.reboot();
    assert_eq!(said(&node.attest(&anybody, "enroll").await.unwrap().1), "denied enrollment_used");

    let wrong = common::node::Halves { key: node.enrollment(&operator, "x").await.1.key, ..halves };
    assert_eq!(refused(node.prove(&anybody, &wrong).await), Reason::Proof);

    // A new enrollment, to the end.
    let halves = node.enroll(&anybody, &operator, "second").await;
    node.prove(&anybody, &halves).await.expect("the answer may have been lost");
    assert_eq!(refused(node.begin(&anybody, "enroll").await), Reason::EnrollmentUsed);
    let record: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
    assert_eq!(record.summary.state, NodeState::Enrolled);

    // The first boot waits for an operator, and is released when it asks again.
    node.reboot();
    let pending = node.boot(&anybody).await;
    assert_eq!(said(&pending), "pending no_policy");
    let waiting = tokio::spawn({
        let (anybody, wait) =
            (server.anybody(), Wait { node_id: node.id.to_string(), ticket: pending.ticket });
        async move { post::<Waited>(&anybody, "/v1/wait", &wait).await.unwrap() }
    });
    let record = node.approve(&operator).await.unwrap();
    assert!(record.pending.is_none() && record.policy.is_none(), "this boot only");
    assert!(waiting.await.unwrap().changed);
    let (session, verdict) = node.attest(&anybody, "boot").await.unwrap();
    assert_eq!(said(&verdict), "released");
    let released = node.open("boot", &session, &verdict);
    assert!(released.c_u.is_none());
    node.tpm.activate_with_srk(&released.c_v);
    assert_eq!(verdict.release_signature.as_ref().map(|s| s.len()), Some(64));
    let evidence: EvidenceRecord =
        get(&operator, &format!("/v1/operator/evidence/{}", verdict.evidence_id.unwrap())).await.unwrap();
    let r_sha256 = session.purpose_data.as_slice().try_into().unwrap();
    let event = released.opening.unwrap().event(r_sha256, &halves.key);
    assert_eq!(evidence.expected_fence, Some(Bytes::from(fence::opened(PcrBank::Sha256, &*event))));
    assert!(evidence.reset_count.is_some() && evidence.findings.is_empty());

    // With a policy the next one needs nobody.
    node.allow(&operator).await;
    node.reboot();
    let verdict = node.boot(&anybody).await;
    assert_eq!(said(&verdict), "released");
    assert!(verdict.message.contains("boot \"6.1.0-55\" of node:"), "{verdict:?}");

    // Revoked: evidence is recorded and nothing is released; restored: as before.
    let because = Because { because: "stolen".into() };
    let record: NodeRecord = post(&operator, &path(node.id, "/revoke"), &because).await.unwrap();
    assert_eq!(record.revoked_because.as_deref(), Some("stolen"));
    let verdict = node.boot(&anybody).await;
    assert_eq!(said(&verdict), "denied revoked");
    assert!(verdict.sealed.is_none() && verdict.release_signature.is_none());
    node.decide(&operator, "/restore", "found").await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");
    assert_eq!(refused(node.decide(&operator, "/restore", "found").await), Reason::Conflict);

    // The fence is extended: too late.
    node.tpm.measure(15, b"closed");
    assert_eq!(said(&node.boot(&anybody).await), "denied fence_extended");

    // All of it is in the trail, in order, and a reader can wait for more.
    let trail: AuditList = get(&operator, "/v1/operator/audit?after=0&limit=1000").await.unwrap();
    let actions: Vec<_> = trail.entries.iter().map(|e| (e.actor.as_str(), e.action.as_str())).collect();
    for expected in [
        ("node", "register"),
        ("ada", "enroll"),
        ("node", "prove"),
        ("ada", "approve"),
        ("ada", "policy_apply"),
        ("ada", "revoke"),
        ("ada", "restore"),
        ("verifier", "verdict"),
    ] {
        assert!(actions.contains(&expected), "{expected:?} in {actions:?}");
    }
    assert!(trail.entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq), "no gaps");
    let last = trail.entries.len();
    let following = tokio::spawn({
        let operator = server.operator();
        async move {
            get::<AuditList>(&operator, &format!("/v1/operator/audit?after={last}&wait=20")).await.unwrap()
        }
    });
    node.boot(&anybody).await;
    assert_eq!(following.await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn what_was_booted_decides() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    node.allow(&operator).await;
    assert_eq!(said(&node.boot(&anybody).await), "released");

    // PCR 10 is IMA's and nobody's here. What the log does not explain is refused before any policy.
    node.tpm.measure(10, b"a file that was run");
    assert_eq!(said(&node.boot(&anybody).await), "released");
    node.tpm.measure(9, b"not in the log");
    assert_eq!(said(&node.boot(&anybody).await), "denied log_replay");

    let shell = Software::default().with_command_line("init=/bin/sh");
    node.reboot_into(&shell);
    let verdict = node.boot(&anybody).await;
    assert_eq!(said(&verdict), "denied policy_mismatch");
    assert!(
        verdict.message.contains("pcr 9, event ") && verdict.message.contains("init=/bin/sh"),
        "{verdict:?}"
    );
    assert!(verdict.ticket.is_none() && verdict.sealed.is_none());
    let record: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
    let pending = record.pending.unwrap();
    assert_eq!((pending.code.as_str(), pending.approvable), ("policy_mismatch", true));
    assert!(pending.findings.iter().any(|finding| finding.pcr == Some(9)), "{pending:?}");
    let evidence: EvidenceRecord =
        get(&operator, &format!("/v1/operator/evidence/{}", verdict.evidence_id.unwrap())).await.unwrap();
    assert_eq!(evidence.findings, pending.findings);

    // Approved: for this boot, one time; the policy stays.
    node.approve(&operator).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");

    // Denied: it says why, and stays denied for this boot.
    let ticket = get::<NodeRecord>(&operator, &path(node.id, "")).await.unwrap().pending.unwrap().ticket;
    let deny = Deny { ticket, because: "not mine".into() };
    let record: NodeRecord = post(&operator, &path(node.id, "/deny"), &deny).await.unwrap();
    assert!(record.pending.is_none());
    // Said again it is what was said.
    let _: NodeRecord = post(&operator, &path(node.id, "/deny"), &deny).await.unwrap();
    let trail: AuditList = get(&operator, "/v1/operator/audit?after=0&limit=1000").await.unwrap();
    assert_eq!(trail.entries.iter().filter(|entry| entry.action == "deny").count(), 1);
    let verdict = node.boot(&anybody).await;
    assert_eq!(said(&verdict), "denied operator_denied");
    assert!(verdict.message.contains("ada: not mine"), "{verdict:?}");

    // An approval is for that boot, not for the next one with the same software.
    node.reboot();
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    node.approve(&operator).await.unwrap();
    node.reboot();
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");

    // Revoking voids approvals.
    node.approve(&operator).await.unwrap();
    let because = Because { because: "to be sure".into() };
    let _: NodeRecord = post(&operator, &path(node.id, "/revoke"), &because).await.unwrap();
    node.decide(&operator, "/restore", "found").await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");

    // Without a log there is nothing that a policy could allow, whatever the PCRs.
    node.reboot_into(&Software::default());
    let session = node.begin(&anybody, "boot").await.unwrap();
    let bare = Evidence { event_log: None, ..node.evidence("boot", &session) };
    let verdict: Verdict = post(&anybody, "/v1/finish", &bare).await.unwrap();
    assert_eq!(said(&verdict), "denied policy_mismatch");
    assert!(verdict.message.contains("event log"), "{verdict:?}");
}

#[tokio::test]
async fn approvals_expire() {
    let server = TurnedServer::start("approval = 60\n").await;
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = Node::new();
    node.register(&anybody).await.unwrap();
    node.enroll(&anybody, &operator, "first").await;
    for (later, expected) in [(59, "released"), (60, "pending no_policy")] {
        assert_eq!(said(&node.boot(&anybody).await), "pending no_policy");
        node.approve(&operator).await.unwrap();
        server.clock.turn(Duration::from_secs(later));
        assert_eq!(said(&node.boot(&anybody).await), expected, "{later} s later");
    }
}

#[tokio::test]
async fn every_part_of_the_evidence_counts() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    node.allow(&operator).await;

    let session = node.begin(&anybody, "boot").await.unwrap();
    let good = node.evidence("boot", &session);
    let flip = |bytes: &Bytes, at: usize| {
        let mut bytes = bytes.clone();
        bytes.0[at] ^= 1;
        bytes
    };
    for (bad, expected) in [
        (Evidence { nonce: flip(&good.nonce, 0), ..good.clone() }, "denied nonce_foreign"),
        (Evidence { nonce: Bytes::default(), ..good.clone() }, "denied nonce_foreign"),
        (Evidence { signature: flip(&good.signature, 20), ..good.clone() }, "denied signature"),
        (Evidence { quote: flip(&good.quote, 60), ..good.clone() }, "denied signature"),
        (Evidence { hpke_public: flip(&good.hpke_public, 1), ..good.clone() }, "denied qualifying_data"),
        (Evidence { nonce_tpm: flip(&good.nonce_tpm, 1), ..good.clone() }, "denied qualifying_data"),
        (Evidence { purpose_data: flip(&good.purpose_data, 1), ..good.clone() }, "denied qualifying_data"),
        (Evidence { pcrs: vec![flip(&good.pcrs[0], 0); 16], ..good.clone() }, "denied pcr_digest"),
        (Evidence { bank: "sha384".into(), ..good.clone() }, "denied bank"),
        (Evidence { event_log: Some(Bytes::from(&b"no log"[..])), ..good.clone() }, "denied log_malformed"),
    ] {
        assert_eq!(finish(&server, &bad).await, expected);
    }
    // The last one was by the AK and for this exchange: its clock counts.
    assert_eq!(finish(&server, &good).await, "denied stale");
    assert_eq!(said(&node.boot(&anybody).await), "released");
    assert_eq!(said(&node.boot(&anybody).await), "released");

    // A nonce of another purpose.
    let session = node.begin(&anybody, "boot").await.unwrap();
    let other = Evidence {
        purpose: "enroll".into(),
        nonce_tpm: Bytes::default(),
        purpose_data: node.commits("enroll", &node.tenant_key()).into(),
        ..node.evidence("boot", &session)
    };
    assert_eq!(refused(post::<Verdict>(&anybody, "/v1/finish", &other).await), Reason::EnrollmentUsed);
    for bad in [
        Evidence { hpke_public: Bytes(vec![1; 31]), ..good.clone() },
        Evidence { nonce_tpm: Bytes::default(), ..good.clone() },
        Evidence { pcrs: vec![], ..good.clone() },
        Evidence { purpose: "runtime".into(), ..good.clone() },
        Evidence { node_id: node.id.to_string().to_uppercase(), ..good.clone() },
    ] {
        assert_eq!(refused(post::<Verdict>(&anybody, "/v1/finish", &bad).await), Reason::Malformed);
    }
    let bad = Evidence { version: 9, ..good.clone() };
    assert_eq!(refused(post::<Verdict>(&anybody, "/v1/finish", &bad).await), Reason::Version);

    // Every verdict is on record, forged ones without logs.
    let list: EvidenceList = get(&operator, &path(node.id, "/evidence?limit=100")).await.unwrap();
    for code in
        ["nonce_foreign", "signature", "qualifying_data", "pcr_digest", "bank", "log_malformed", "stale"]
    {
        assert!(list.evidence.iter().any(|e| e.code.as_deref() == Some(code)), "{code}");
    }
    let summary: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
    assert_eq!(summary.summary.last_outcome.as_deref(), Some("released"));
}

#[tokio::test]
async fn an_old_nonce_is_told_from_a_foreign_one() {
    let server = TurnedServer::start("nonce = 60\n").await;
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = Node::new();
    node.register(&anybody).await.unwrap();
    node.enroll(&anybody, &operator, "first").await;
    node.allow(&operator).await;
    for (later, expected) in [(60, "released"), (61, "denied nonce_expired")] {
        let session = node.begin(&anybody, "boot").await.unwrap();
        server.clock.turn(Duration::from_secs(later));
        let verdict: Verdict = post(&anybody, "/v1/finish", &node.evidence("boot", &session)).await.unwrap();
        assert_eq!(said(&verdict), expected, "{later} s later");
    }
}

#[tokio::test]
async fn an_interrupted_re_enrollment_does_not_lock_out() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = Node::new();
    node.register(&anybody).await.unwrap();
    node.enroll(&anybody, &operator, "first").await;
    node.allow(&operator).await;

    let (enroll, halves) = node.enrollment(&operator, "second").await;
    let record: NodeRecord = post(&operator, &path(node.id, "/enrollment"), &enroll).await.unwrap();
    assert_eq!(record.summary.state, NodeState::Enrolling);
    let current = async |named: &[&str]| {
        node.begin_naming(&anybody, "boot", named).await.map(|session| session.begun.enrollment)
    };
    // The node has both on its disk, and is told which counts; a stranger learns no id.
    assert_eq!(current(&["second", "first"]).await.unwrap().as_deref(), Some("first"));
    assert_eq!(current(&[]).await.unwrap(), None);
    assert_eq!(current(&["second", "third"]).await.unwrap(), None);
    assert_eq!(refused(current(&["x"; 17]).await), Reason::Malformed);
    assert_eq!(refused(current(&[&"x".repeat(65)]).await), Reason::Malformed);
    let (session, verdict) = node.attest(&anybody, "boot").await.unwrap();
    let old = node.open("boot", &session, &verdict).c_v;
    assert_ne!(old, enroll.c_v);
    let (_, verdict) = node.attest(&anybody, "enroll").await.unwrap();
    assert_eq!(said(&verdict), "released");
    node.prove(&anybody, &halves).await.unwrap();
    assert_eq!(current(&["second", "first"]).await.unwrap().as_deref(), Some("second"));
    let (session, verdict) = node.attest(&anybody, "boot").await.unwrap();
    assert_eq!(node.open("boot", &session, &verdict).c_v, enroll.c_v);
    let again = post::<NodeRecord>(&operator, &path(node.id, "/enrollment"), &enroll).await;
    assert_eq!(refused(again), Reason::Sequence, "a document is handed in once");
    let (again, _) = node.enrollment(&operator, "second").await;
    let again = post::<NodeRecord>(&operator, &path(node.id, "/enrollment"), &again).await;
    assert_eq!(refused(again), Reason::Conflict, "an enrollment id is used once");
}

#[tokio::test]
async fn a_cleared_tpm_needs_a_new_enrollment() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let mut node = Node::new();
    node.register(&anybody).await.unwrap();
    node.enroll(&anybody, &operator, "first").await;
    node.reboot();
    node.allow(&operator).await;
    assert_eq!(said(&node.boot(&anybody).await), "released");

    // The clock starts again as well. Before it registers, that is all that can be told.
    node.clear_tpm();
    let verdict = node.boot(&anybody).await;
    assert_eq!(said(&verdict), "pending counter_rollback");
    assert_eq!(refused(node.approve(&operator).await), Reason::Conflict);

    let before = node.take_new_keys();
    assert_eq!((&node.register.ak_public, &node.register.ek_public), (&before.ak_public, &before.ek_public));
    assert_ne!(node.register.srk_public, before.srk_public);
    node.register(&anybody).await.unwrap();
    assert_eq!(refused(node.begin(&anybody, "boot").await), Reason::SrkChanged);
    node.enroll(&anybody, &operator, "second").await;
    assert_eq!(said(&node.boot(&anybody).await), "released");
}

#[tokio::test]
async fn another_attestation_key_for_a_known_ek_is_refused_and_recorded() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = Node::new();
    node.register(&anybody).await.unwrap();

    // A second TPM's AK and SRK with the first one's EK.
    let other = Node::new();
    let mut forged = other.register.clone();
    forged.ek_public = node.register.ek_public.clone();
    forged.ek_certificate = node.register.ek_certificate.clone();
    for _ in 0..3 {
        let answer = post::<serde_json::Value>(&anybody, "/v1/register", &forged).await;
        assert_eq!(refused(answer), Reason::AkChanged);
    }
    let trail: AuditList = get(&operator, &format!("/v1/operator/audit?node={}", node.id)).await.unwrap();
    let refusals = trail.entries.iter().filter(|entry| entry.action == "refuse").count();
    assert_eq!(refusals, 1, "repetitions don't fill the trail");

    // Before the first activation nobody's AK is bound; the wrong TPM can't activate it either.
    let server = Server::start();
    let anybody = server.anybody();
    let registered: halfkey_protocol::wire::Registered =
        post(&anybody, "/v1/register", &forged).await.unwrap();
    assert!(other.tpm.try_with_ek(&registered.credential).is_err());
    assert_eq!(
        refused(node.activate(&anybody, &registered.state, CHALLENGE, &[0; 32]).await),
        Reason::Activation
    );
    node.register(&anybody).await.expect("what a stranger began is not in the way");
}

#[tokio::test]
async fn an_enrollment_has_to_be_coherent() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = Node::new();
    let (other, other_node) = (Server::start(), Node::new());
    node.register(&anybody).await.unwrap();
    other_node.register(&anybody).await.unwrap();
    let (good, _) = node.enrollment(&operator, "first").await;
    let (swapped, _) = other_node.enrollment(&operator, "first").await;
    let mut unsigned = good.clone();
    unsigned.signed.signatures[0].signature.0[3] ^= 1;
    let mut another_v = good.clone();
    another_v.c_v = swapped.c_v.clone();
    let mut another_u = good.clone();
    another_u.c_u = swapped.c_u.clone();
    node.register(&other.anybody()).await.unwrap();
    let line = line_at(&operator).await;
    let (mut another_release_key, _) = node.enrollment(&other.operator(), "first").await;
    let elsewhere = another_release_key.clone();
    let theirs: Document = serde_json::from_slice(&elsewhere.signed.document).unwrap();
    another_release_key.signed = node.sign(&Document { deployment: line.deployment.to_string(), ..theirs });
    for bad in [unsigned, another_v, another_u, swapped, another_release_key] {
        let answer = post::<NodeRecord>(&operator, &path(node.id, "/enrollment"), &bad).await;
        assert_eq!(refused(answer), Reason::EnrollmentSignature);
    }
    let answer = post::<NodeRecord>(&operator, &path(node.id, "/enrollment"), &elsewhere).await;
    assert_eq!(refused(answer), Reason::Deployment);
    let mut future = good.clone();
    let mut document: Document = serde_json::from_slice(&good.signed.document).unwrap();
    document.created = halfkey_verifier::unix_now() + 2 * 86_400;
    future.signed = node.sign(&document);
    let answer = post::<NodeRecord>(&operator, &path(node.id, "/enrollment"), &future).await;
    let problem = answer.expect_err("a refusal");
    assert!(problem.code == "conflict" && problem.message.contains("and here it is"), "{problem:?}");
    let record: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
    assert_eq!(record.summary.state, NodeState::Registered, "nothing was stored");
    let _: NodeRecord = post(&operator, &path(node.id, "/enrollment"), &good).await.unwrap();
}

#[tokio::test]
async fn one_quote_releases_once() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    node.allow(&operator).await;
    let session = node.begin(&anybody, "boot").await.unwrap();
    let evidence = node.evidence("boot", &session);
    let all: Vec<_> = (0..8)
        .map(|_| {
            let (client, evidence) = (server.anybody(), evidence.clone());
            tokio::spawn(async move { post::<Verdict>(&client, "/v1/finish", &evidence).await.unwrap() })
        })
        .collect();
    let mut outcomes = Vec::new();
    for verdict in all {
        outcomes.push(said(&verdict.await.unwrap()));
    }
    outcomes.sort();
    assert_eq!(outcomes.iter().filter(|said| *said == "released").count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|said| *said == "denied stale").count(), 7, "{outcomes:?}");
}

#[tokio::test]
async fn a_registrar_with_roots_wants_a_chain() {
    let (node, stranger) = (Node::new(), Node::new());
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    Server::init(&state);
    let roots = node.tpm.path("ca");
    let server = Server::on(dir, &state, &["--ek-roots", roots.to_str().unwrap()]);
    node.register(&server.anybody()).await.unwrap();
    assert_eq!(refused(stranger.register(&server.anybody()).await), Reason::EkUntrusted);
    let mut bare = node.register.clone();
    bare.ek_certificate = None;
    let answer = post::<serde_json::Value>(&server.anybody(), "/v1/register", &bare).await;
    assert_eq!(refused(answer), Reason::EkCertificateMissing);
}
