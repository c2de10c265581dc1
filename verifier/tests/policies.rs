//! Policies and groups: what is taken, what it does.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use common::node::{Node, Session, line_at, said, sign, sign_policy};
use common::{Server, get, path, post, refused};
use halfkey_evidence::appraise::BoundedEvidence;
use halfkey_evidence::eventlog;
use halfkey_evidence::policy::{Assured, Claims, learn};
use halfkey_protocol::Reason;
use halfkey_protocol::document::{Kind, Scope, signed_bytes};
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::operator::{AuditList, NodeRecord};
use halfkey_protocol::wire::policies::{GroupList, MAX_POLICY, NodePolicy, PolicyList, PolicyRecord};
use halfkey_protocol::wire::{Document, Evidence, Problem, SignedDocument, Verdict, Wait, Waited};
use halfkey_testkit::software::{Software, policy_head};
use halfkey_verifier::appraisal::{CheckedEvidence, Lifetimes};
use halfkey_verifier::client::Client;
use halfkey_verifier::config::StateDir;
use halfkey_verifier::domain::{By, EvidenceRequest, NewDocument, NewPolicy, Records};
use halfkey_verifier::keys::{ClusterKey, ReleaseKey};
use halfkey_verifier::policies::{Library, apply};
use std::sync::Arc;

async fn enrolled(server: &Server) -> Node {
    enroll(server, Node::new()).await
}

async fn enroll(server: &Server, node: Node) -> Node {
    node.register(&server.anybody()).await.unwrap();
    node.enroll(&server.anybody(), &server.operator(), &node.id.to_string()).await;
    node
}

async fn hand_in(operator: &Client, scope: &str, signed: &SignedDocument) -> Result<PolicyRecord, Problem> {
    post(operator, &format!("/v1/operator/policies/{scope}"), signed).await
}

fn old() -> Software {
    Software::default()
}

fn new() -> Software {
    Software::version("6.1.0-56")
}

#[tokio::test]
async fn a_policy_has_to_be_the_tenants_and_newer_and_well_formed() {
    let server = Server::start();
    let operator = server.operator();
    let node = enrolled(&server).await;
    let scope = format!("node:{}", node.id);
    let good = old().policy("web servers");
    let refusal =
        async |signed: &SignedDocument| hand_in(&operator, &scope, signed).await.expect_err("a refusal");

    let mut unsigned = node.sign_policy(&operator, &scope, &good).await;
    let mut twice = unsigned.clone();
    twice.signatures.push(twice.signatures[0].clone());
    assert_eq!(refusal(&twice).await.code, "policy_signature");
    unsigned.signatures[0].signature.0[5] ^= 1;
    assert_eq!(refusal(&unsigned).await.code, "policy_signature");
    unsigned.signatures.clear();
    assert_eq!(refusal(&unsigned).await.code, "policy_signature");
    let other = Ed25519KeyPair::generate().unwrap();
    let problem = refusal(&sign_policy(&other, &operator, &scope, &good).await).await;
    assert_eq!(problem.code, "policy_signature");
    assert!(problem.message.contains(&fingerprint(node.tenant.public_key().as_ref())), "{problem:?}");
    for foreign in ["group:web", &format!("additions:{}", node.id)] {
        let problem = refusal(&node.sign_policy(&operator, foreign, &good).await).await;
        assert_eq!(problem.code, "policy_signature", "{problem:?}");
        assert!(problem.message.contains(foreign), "{problem:?}");
    }

    // A typo has a place, and so has what is missing.
    let problem =
        refusal(&node.sign_policy(&operator, &scope, &good.replace("forbidden", "forbiden")).await).await;
    assert_eq!(problem.code, "policy_malformed");
    assert!(problem.message.contains("line 15, column 1"), "{problem:?}");
    let problem = refusal(&node.sign_policy(&operator, &scope, &policy_head("no boot")).await).await;
    assert_eq!(problem.code, "policy_floor");
    assert!(problem.message.contains("line "), "{problem:?}");
    let line = line_at(&operator).await;
    let envelope = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut envelope = serde_json::to_value(line.next(Kind::Policy, &scope, &good)).unwrap();
        change(&mut envelope);
        let document = serde_json::to_vec(&envelope).unwrap();
        let mut signed = sign(&node.tenant, &line.next(Kind::Policy, &scope, &good));
        signed.signatures[0].signature = node.tenant.sign(&signed_bytes(&document)).as_ref().into();
        SignedDocument { document: document.into(), ..signed }
    };
    for (field, value) in [
        ("unknown", serde_json::json!(1)),
        ("format", serde_json::json!(2)),
        ("scope", serde_json::json!("group:Web Servers")),
        ("kind", serde_json::json!("poem")),
        ("kind", serde_json::json!("additions")),
        ("number", serde_json::json!(0)),
        ("number", serde_json::json!(u64::MAX)),
        ("previous", serde_json::json!("AAAA")),
        ("body", serde_json::json!("")),
    ] {
        let problem = refusal(&envelope(&|envelope| envelope[field] = value.clone())).await;
        assert_eq!(problem.code, "policy_malformed", "{field} {problem:?}");
    }
    let future = halfkey_verifier::unix_now() + 2 * 86_400;
    let problem = refusal(&envelope(&|envelope| envelope["created"] = future.into())).await;
    assert!(problem.code == "conflict" && problem.hint.is_some(), "{problem:?}");

    let large = format!("{good}#{}", "x".repeat(MAX_POLICY));
    assert_eq!(refusal(&node.sign_policy(&operator, &scope, &large).await).await.code, "too_large");
    let larger = format!("{good}#{}", "x".repeat(4 * MAX_POLICY));
    assert_eq!(refusal(&node.sign_policy(&operator, &scope, &larger).await).await.code, "too_large");
    let signed = node.sign_policy(&operator, "nodes:x", &good).await;
    assert_eq!(refused(hand_in(&operator, "nodes:x", &signed).await), Reason::Malformed);
    assert_eq!(refused(hand_in(&server.anybody(), &scope, &signed).await), Reason::Unauthorized);
    let stranger = Node::new();
    let of_stranger = format!("node:{}", stranger.id);
    let signed = stranger.sign_policy(&operator, &of_stranger, &good).await;
    assert_eq!(refused(hand_in(&operator, &of_stranger, &signed).await), Reason::NotEnrolled);

    // Nothing of that was stored.
    let list: PolicyList = get(&operator, "/v1/operator/policies").await.unwrap();
    assert!(list.policies.is_empty(), "{list:?}");
    let missing = get::<PolicyRecord>(&operator, &format!("/v1/operator/policies/{scope}")).await;
    assert_eq!(refused(missing), Reason::NotFound);

    // Compare and set: a place in the sequence is used once, and each comes right after the one before.
    let signed = node.sign_policy(&operator, &scope, &good).await;
    let record = hand_in(&operator, &scope, &signed).await.unwrap();
    let summary = &record.summary;
    assert_eq!((summary.name.as_str(), summary.nodes), ("web servers", 1));
    assert_eq!((summary.version, summary.applied_by.as_str()), (line.head.number + 1, "ada"));
    assert_eq!(refusal(&signed).await.code, "sequence");
    let here = line_at(&operator).await;
    let after = |change: &dyn Fn(&mut Document)| {
        let mut document = here.next(Kind::Policy, &scope, &good);
        change(&mut document);
        sign(&node.tenant, &document)
    };
    assert_eq!(refusal(&after(&|d| d.number += 1)).await.code, "sequence");
    assert_eq!(refusal(&after(&|d| d.previous = vec![0; 32].into())).await.code, "sequence");
    node.apply(&operator, &scope, &new().policy("newer")).await.unwrap();
    let at = |version: &str| format!("/v1/operator/policies/{scope}{version}");
    let first = at(&format!("?version={}", record.summary.version));
    assert_eq!(get::<PolicyRecord>(&operator, &first).await.unwrap(), record);
    let newest: PolicyRecord = get(&operator, &at("")).await.unwrap();
    let document: Document = serde_json::from_slice(&newest.signed.document).unwrap();
    assert_eq!((document.number, document.body), (record.summary.version + 1, new().policy("newer")));
    let list: PolicyList = get(&operator, "/v1/operator/policies").await.unwrap();
    assert_eq!(list.policies, std::slice::from_ref(&newest.summary));
    let record: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
    assert_eq!(record.policy, Some(newest.summary));
    let trail: AuditList = get(&operator, &format!("/v1/operator/audit?node={}", node.id)).await.unwrap();
    assert_eq!(trail.entries.iter().filter(|entry| entry.action == "policy_apply").count(), 2);
}

#[tokio::test]
async fn a_group_shares_its_policy_and_its_nodes_may_have_more() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    assert_eq!(said(&node.boot(&anybody).await), "pending no_policy");

    // The policy first or the group first: both ways.
    let record = node.apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    assert_eq!(record.summary.nodes, 0);
    let record_of_web = record.summary.version;
    let record = node.group(&operator, Some("web")).await.unwrap();
    assert_eq!(
        record.policy.as_ref().map(|policy| (policy.scope.as_str(), policy.nodes)),
        Some(("group:web", 1))
    );
    assert!(record.pending.is_none(), "it is what the group may boot");
    assert_eq!(said(&node.boot(&anybody).await), "released");
    for bad in ["Web", "a b", &"x".repeat(65)] {
        assert_eq!(refused(node.group(&operator, Some(bad)).await), Reason::PolicyMalformed);
    }

    node.reboot_into(&new());
    let verdict = node.boot(&anybody).await;
    assert_eq!(said(&verdict), "denied policy_mismatch");
    assert!(verdict.message.contains("\\vmlinuz-6.1.0-56"), "it names the kernel: {verdict:?}");
    let additions = format!("format = 1\nname = \"more\"\n\n{}", new().boot());
    let scope = format!("additions:{}", node.id);
    let full = node.apply(&operator, &scope, &new().policy("not additions")).await;
    assert_eq!(refused(full), Reason::PolicyMalformed);
    node.apply(&operator, &scope, &additions).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");
    let policy: NodePolicy = get(&operator, &path(node.id, "/policy")).await.unwrap();
    assert_eq!(policy.group.as_deref(), Some("web"));
    assert_eq!(policy.policy.map(|policy| policy.summary.scope), Some("group:web".to_owned()));
    assert_eq!(policy.additions.map(|policy| policy.summary.scope), Some(scope));

    // Its own policy comes before that of the group, and additions go with either.
    node.apply(&operator, &format!("node:{}", node.id), &old().policy("own")).await.unwrap();
    let verdict = node.boot(&anybody).await;
    assert!(said(&verdict) == "released" && verdict.message.contains("node:"), "{verdict:?}");

    // A second node: only the group's.
    let second = enroll(&server, node.sibling()).await;
    second.group(&operator, Some("db")).await.unwrap();
    let verdict = second.boot(&anybody).await;
    assert_eq!(said(&verdict), "pending no_policy");
    assert!(verdict.message.contains("group db"), "{verdict:?}");
    let groups: GroupList = get(&operator, "/v1/operator/groups").await.unwrap();
    let groups: Vec<_> =
        groups.groups.iter().map(|group| (group.name.as_str(), group.version, group.nodes.len())).collect();
    assert_eq!(groups, [("db", None, 1), ("web", Some(record_of_web), 1)]);
    let list: PolicyList = get(&operator, "/v1/operator/policies").await.unwrap();
    let web = list.policies.iter().find(|policy| policy.scope == "group:web").unwrap();
    assert_eq!(web.nodes, 0, "the one node of it has its own");

    second.group(&operator, None).await.unwrap();
    let verdict = second.boot(&anybody).await;
    assert!(verdict.message.contains("in no group"), "{verdict:?}");
    let trail: AuditList = get(&operator, &format!("/v1/operator/audit?node={}", second.id)).await.unwrap();
    assert_eq!(trail.entries.iter().filter(|entry| entry.action == "group_set").count(), 2);
}

/// Whose word it is that puts a node which only registered into a group, is known when it is enrolled: what others said is not in the
/// way, in whatever order.
#[tokio::test]
async fn the_group_of_a_new_node_is_what_the_tenant_said_that_enrolls_it() {
    let mut server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let mut node = Node::new();
    node.register(&anybody).await.unwrap();
    let ours = node.tenant.clone();
    node.group(&operator, Some("before")).await.unwrap();
    node.group(&operator, Some("web")).await.unwrap();
    let web = line_at(&operator).await.head.number;
    node.tenant = Arc::new(Ed25519KeyPair::generate().unwrap());
    node.group(&operator, Some("other")).await.unwrap();
    node.tenant = ours;
    node.enroll(&anybody, &operator, "first").await;
    node.apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    let released = async |server: &Server| {
        node.reboot();
        let verdict = node.boot(&server.anybody()).await;
        assert_eq!(said(&verdict), "released", "{verdict:?}");
        let governed: NodePolicy = get(&server.operator(), &path(node.id, "/policy")).await.unwrap();
        assert_eq!(governed.group.as_deref(), Some("web"));
    };
    released(&server).await;
    let membership: i64 =
        server.database().query_row("SELECT group_number FROM nodes", [], |row| row.get(0)).unwrap();
    assert_eq!(u64::try_from(membership).unwrap(), web);
    server.stop();
    server.serve();
    released(&server).await;

    // One that said nothing has it in none.
    let (anybody, operator) = (server.anybody(), server.operator());
    let mut second = Node::new();
    second.register(&anybody).await.unwrap();
    second.group(&operator, Some("web")).await.unwrap();
    second.tenant = node.tenant.clone();
    second.enroll(&anybody, &operator, "second").await;
    let verdict = second.boot(&anybody).await;
    assert_eq!(said(&verdict), "pending no_policy");
    assert!(verdict.message.contains("in no group"), "{verdict:?}");
}

#[tokio::test]
async fn a_node_that_has_no_policy_any_more_is_its_groups() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    let scope = format!("node:{}", node.id);
    let refusal = async |signed: &SignedDocument, scope: &str| {
        hand_in(&operator, scope, signed).await.expect_err("a refusal").code
    };
    assert_eq!(
        refusal(&node.sign_policy(&operator, &scope, "").await, &scope).await,
        "conflict",
        "there is none"
    );
    node.apply(&operator, &scope, &old().policy("own")).await.unwrap();
    node.apply(&operator, "group:web", &new().policy("web")).await.unwrap();
    node.group(&operator, Some("web")).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");

    // By its tenant, by a later version, and a group always has one.
    let early = node.sign_policy(&operator, &scope, "").await;
    node.apply(&operator, "group:web", &new().policy("web")).await.unwrap();
    assert_eq!(refusal(&early, &scope).await, "sequence");
    assert_eq!(
        refusal(&node.sign_policy(&operator, "group:web", "").await, "group:web").await,
        "policy_malformed"
    );
    let other = Ed25519KeyPair::generate().unwrap();
    assert_eq!(refusal(&sign_policy(&other, &operator, &scope, "").await, &scope).await, "policy_signature");
    let record = node.apply(&operator, &scope, "").await.unwrap();
    assert_eq!((record.summary.name.as_str(), record.summary.nodes), ("", 0));
    let governed: NodePolicy = get(&operator, &path(node.id, "/policy")).await.unwrap();
    assert_eq!(
        governed.policy.map(|policy| (policy.summary.scope, policy.summary.nodes)),
        Some(("group:web".into(), 1))
    );
    assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
    assert_eq!(
        refusal(&node.sign_policy(&operator, &scope, "").await, &scope).await,
        "conflict",
        "once is enough"
    );
    node.apply(&operator, &scope, &old().policy("own again")).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");
    let trail: AuditList = get(&operator, &format!("/v1/operator/audit?node={}", node.id)).await.unwrap();
    assert_eq!(trail.entries.iter().filter(|entry| entry.action == "policy_withdraw").count(), 1);
}

#[tokio::test]
async fn only_the_key_that_enrolled_a_node_governs_it() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let (node, other) = (enrolled(&server).await, enrolled(&server).await);
    other.apply(&operator, "group:web", &old().policy("of another tenant")).await.unwrap();
    node.group(&operator, Some("web")).await.unwrap();
    let verdict = node.boot(&anybody).await;
    assert_eq!(said(&verdict), "pending no_policy");
    for key in [&node.tenant, &other.tenant] {
        assert!(verdict.message.contains(&fingerprint(key.public_key().as_ref())), "{verdict:?}");
    }
    other.group(&operator, Some("web")).await.unwrap();
    assert_eq!(said(&other.boot(&anybody).await), "released");
    // Enrolled again, by the other: what the first one signed for this node is gone, with its versions.
    let mut node = node;
    node.allow(&operator).await;
    assert_eq!(said(&node.boot(&anybody).await), "released");
    let first = std::mem::replace(&mut node.tenant, other.tenant.clone());
    node.enroll(&anybody, &operator, "second").await;
    assert_eq!(
        said(&node.boot(&anybody).await),
        "pending no_policy",
        "whose word the group was counts as well"
    );
    node.group(&operator, Some("web")).await.unwrap();
    let verdict = node.boot(&anybody).await;
    assert!(said(&verdict) == "released" && verdict.message.contains("group:web"), "{verdict:?}");
    let scope = format!("node:{}", node.id);
    node.apply(&operator, &scope, &old().policy("mine now")).await.unwrap();
    let verdict = node.boot(&anybody).await;
    assert!(said(&verdict) == "released" && verdict.message.contains("node:"), "{verdict:?}");
    node.tenant = first;
    assert_eq!(refused(node.apply(&operator, &scope, &old().policy("x")).await), Reason::PolicySignature);
    // A key that enrolls nothing takes no group's name.
    let taken = node.apply(&operator, "group:free", &old().policy("mine")).await;
    assert_eq!(refused(taken), Reason::PolicySignature);
    // And the group stays with its key as long as a node of it does.
    let taken = node.apply(&operator, "group:web", &old().policy("mine now")).await;
    assert_eq!(refused(taken), Reason::PolicySignature);
}

/// Else another operator could take the name, and the nodes of the group would be left without a policy: before the first of them is in
/// it, or by a row.
#[tokio::test]
async fn the_name_of_a_group_is_its_tenants_before_it_has_nodes_and_whatever_rows_say() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let (node, other) = (enrolled(&server).await, enrolled(&server).await);
    node.apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    let taken = other.apply(&operator, "group:web", &new().policy("mine")).await;
    assert_eq!(refused(taken), Reason::PolicySignature);
    node.group(&operator, Some("web")).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");
    let rows = "UPDATE enrollments SET tenant_key = x'00' WHERE node_id = ?1";
    server.database().execute(rows, [node.id.to_string()]).unwrap();
    server.database().execute("UPDATE policies SET tenant_key = x'00'", []).unwrap();
    let taken = other.apply(&operator, "group:web", &new().policy("mine")).await;
    assert_eq!(refused(taken), Reason::PolicySignature);
    // Taken when none of the tenant's nodes was left, it is still the tenant's for those that are back.
    let decide = async |what: &str| {
        node.decide(&operator, what, "retired").await.unwrap();
    };
    decide("/revoke").await;
    other.apply(&operator, "group:web", &new().policy("mine")).await.unwrap();
    other.group(&operator, Some("web")).await.unwrap();
    assert_eq!(said(&other.boot(&anybody).await), "denied policy_mismatch");
    decide("/restore").await;
    let key = node.tenant.public_key().as_ref().to_vec();
    let rows = "UPDATE policies SET tenant_key = ?1 WHERE version = (SELECT min(version) FROM policies)";
    server.database().execute(rows, [key]).unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");
}

#[tokio::test]
async fn a_new_version_releases_what_waits() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let first = enrolled(&server).await;
    let second = enroll(&server, first.sibling()).await;
    let nodes = [first, second];
    for node in &nodes {
        node.group(&operator, Some("web")).await.unwrap();
    }
    nodes[0].apply(&operator, "group:web", &old().policy("web")).await.unwrap();
    let mut waits = Vec::new();
    for node in &nodes {
        node.reboot_into(&new());
        assert_eq!(said(&node.boot(&anybody).await), "denied policy_mismatch");
        let record: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
        let wait = Wait { node_id: node.id.to_string(), ticket: record.pending.map(|boot| boot.ticket) };
        let client = server.anybody();
        waits.push(tokio::spawn(async move { post::<Waited>(&client, "/v1/wait", &wait).await.unwrap() }));
    }
    // One that does not allow it leaves it waiting.
    let shell = old().policy("web").replace("\"quiet\"", "\"quiet\", \"splash\"");
    nodes[0].apply(&operator, "group:web", &shell).await.unwrap();
    for node in &nodes {
        let record: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
        assert!(record.pending.is_some());
    }
    let both = old().policy("web") + &new().boot();
    nodes[0].apply(&operator, "group:web", &both).await.unwrap();
    for wait in waits {
        assert!(wait.await.unwrap().changed);
    }
    for node in &nodes {
        let record: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
        assert!(record.pending.is_none());
        assert_eq!(said(&node.boot(&anybody).await), "released");
    }
    let trail: AuditList = get(&operator, "/v1/operator/audit").await.unwrap();
    let applied = trail.entries.iter().rfind(|entry| entry.action == "policy_apply").unwrap();
    assert!(
        applied.detail.contains(", 2 nodes; ") && applied.detail.contains("2 boots wait no longer"),
        "{applied:?}"
    );
}

/// The policy is evaluated before the transaction that records the verdict: it has to be the same one there.
#[tokio::test]
async fn a_verdict_is_by_the_policy_of_its_moment() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    let line = line_at(&server.operator()).await;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        sessions.push(node.begin(&server.anybody(), "boot").await.unwrap());
    }
    server.kill();

    let records = Records::open_in(&StateDir::new(server.state())).unwrap();
    let cluster = ClusterKey::load(&StateDir::new(server.state())).unwrap();
    let release = ReleaseKey::load(&StateDir::new(server.state())).unwrap();
    let (library, now) = (Library::default(), halfkey_verifier::unix_now());
    let judge = |session: &Session, before_ruling: &dyn Fn()| {
        let sent = node.evidence("boot", session);
        let evidence = BoundedEvidence::read(&sent).unwrap();
        let known = records.node(node.id).unwrap().unwrap();
        let governed = library.governed(&known, &records).unwrap();
        let lifetimes = Lifetimes { nonce: 120, pending: 100 };
        let enrollment = known.current.as_ref().unwrap();
        let checked = CheckedEvidence::of(&evidence, enrollment, &governed, &cluster, lifetimes, now);
        before_ruling();
        let request = EvidenceRequest {
            node: node.id,
            now,
            ticket: checked.ticket(),
            evidence: &sent,
            keep: 9,
            trace: None,
        };
        records.attest(&request, &mut |snapshot| checked.rule(snapshot, &release, &cluster)).unwrap()
    };
    let verdict = judge(&sessions[0], &|| {
        let scope = Scope::Node(node.id);
        let next = line.next(Kind::Policy, &scope.to_string(), &new().policy("another"));
        let signed = sign(&node.tenant, &next);
        let opened = apply::check(&scope, &signed, line.deployment, now).unwrap();
        let document = NewDocument { opened: &opened.envelope, signed: &signed };
        let policy = NewPolicy { name: opened.name(), document };
        records.apply(&policy, &library, By { actor: "ada", now }).unwrap();
    });
    assert_eq!(said(&verdict), "denied stale");
    assert!(verdict.message.contains("the policy changed"), "{verdict:?}");
    assert_eq!(said(&judge(&sessions[1], &|| ())), "denied policy_mismatch");
}

/// A boot of QEMU, OVMF and a UKI, as recorded.
struct Recorded {
    log: &'static [u8],
    command_line: &'static [u8],
}

const SIGNED: Recorded = Recorded {
    log: include_bytes!("../../testkit/boots/uki-secure-boot-own-keys.bin"),
    command_line: include_bytes!("../../testkit/boots/uki-secure-boot-own-keys.cmdline"),
};
const UNSIGNED: Recorded = Recorded {
    log: include_bytes!("../../testkit/boots/uki-no-secure-boot.bin"),
    command_line: include_bytes!("../../testkit/boots/uki-no-secure-boot.cmdline"),
};

impl Recorded {
    async fn boot(&self, server: &Client, node: &Node) -> Verdict {
        node.tpm.reset();
        let replayed = eventlog::replay(self.log, PcrBank::Sha256).unwrap();
        let extending = replayed.events().iter().filter(|event| !event.digest.is_empty());
        for event in extending {
            node.tpm.extend(event.pcr as u8, &[(PcrBank::Sha256, event.digest.to_vec())]);
        }
        let session = node.begin(server, "boot").await.unwrap();
        let evidence = Evidence {
            event_log: Some(self.log.into()),
            command_line: Some(self.command_line.into()),
            ..node.evidence("boot", &session)
        };
        post(server, "/v1/finish", &evidence).await.unwrap()
    }
}

#[tokio::test]
async fn a_policy_learned_from_a_real_boot_allows_just_that() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    assert_eq!(said(&SIGNED.boot(&anybody, &node).await), "pending no_policy");
    let log = eventlog::replay(SIGNED.log, PcrBank::Sha256).unwrap().assume().unwrap();
    let claims = Claims { command_line: Some(SIGNED.command_line) };
    let learned = learn(&log, &claims, Assured::default(), "learned", &[]).unwrap();
    node.apply(&operator, &format!("node:{}", node.id), &learned).await.unwrap();
    let record: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
    assert!(record.pending.is_none(), "{record:?}");
    let verdict = SIGNED.boot(&anybody, &node).await;
    assert_eq!(said(&verdict), "released", "{verdict:?}");

    let verdict = UNSIGNED.boot(&anybody, &node).await;
    assert_eq!(said(&verdict), "denied policy_mismatch");
    let record: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
    let findings = record.pending.unwrap().findings;
    let names =
        |what: &str| findings.iter().any(|finding| finding.what.contains(what) && finding.event.is_some());
    assert!(names("SecureBoot") && names("linux"), "{findings:?}");
    assert!(verdict.message.contains(&findings[0].to_string()), "{verdict:?}");
}

/// A row that says so does not put a node under its group's policy.
#[tokio::test]
async fn what_was_not_withdrawn_by_the_tenant_is_none() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    let scope = format!("node:{}", node.id);
    node.apply(&server.operator(), &scope, &old().policy("own")).await.unwrap();
    node.apply(&server.operator(), "group:web", &old().policy("web")).await.unwrap();
    node.group(&server.operator(), Some("web")).await.unwrap();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    server.kill();
    let database = server.database();
    database.execute("UPDATE policies SET name = '' WHERE scope = ?1", [&scope]).unwrap();
    drop(database);
    server.serve();
    let verdict = node.boot(&server.anybody()).await;
    assert_eq!(said(&verdict), "released");
    assert!(verdict.message.contains(&scope), "{verdict:?}");
}

/// Who can write the database can take policies away, but not make any.
#[tokio::test]
async fn a_document_that_was_changed_in_the_database_stops_everything() {
    let mut server = Server::start();
    let node = enrolled(&server).await;
    node.allow(&server.operator()).await;
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
    let at = line_at(&server.operator()).await.head.number as i64;
    let other = old().policy("what it boots").replace("quiet", "splash");
    let own = format!("node:{}", node.id);
    let forged = sign_policy(&Ed25519KeyPair::generate().unwrap(), &server.operator(), &own, &other).await;
    let key_and_signature = |signed: &SignedDocument| {
        [signed.signatures[0].key.0.clone(), signed.signatures[0].signature.0.clone()].concat()
    };
    let mut database = server.database();
    let before: (Vec<u8>, Vec<u8>) = database
        .query_row("SELECT document, signatures FROM documents WHERE number = ?1", [at], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    for (document, signatures, said_of) in [
        (&forged.document.0, key_and_signature(&forged), "expected number"),
        (&forged.document.0, before.1.clone(), "signature"),
        (&before.0, key_and_signature(&forged), "signature"),
    ] {
        drop(database);
        server.kill();
        database = server.database();
        let set = "UPDATE documents SET document = ?1, signatures = ?2 WHERE number = ?3";
        database.execute(set, rusqlite::params![document, signatures, at]).unwrap();
        drop(database);
        server.serve();
        let problem = node.begin(&server.anybody(), "boot").await.err().expect("nothing is served");
        assert_eq!(problem.code, "rolled_back");
        assert!(problem.message.contains(said_of), "{problem:?}");
        database = server.database();
    }
    database
        .execute(
            "UPDATE documents SET document = ?1, signatures = ?2 WHERE number = ?3",
            rusqlite::params![before.0, before.1, at],
        )
        .unwrap();
    drop(database);
    server.kill();
    server.serve();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}
