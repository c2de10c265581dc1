//! What people see, at a fixed time.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::golden;
use halfkey::commands::{audit, evidence, node};
use halfkey::render::Style;
use halfkey_protocol::Bytes;
use halfkey_protocol::wire::operator::*;
use halfkey_protocol::wire::policies::*;
use halfkey_protocol::wire::{Evidence, SignedDocument};

const NOW: u64 = 1_795_298_459;
const A: &str = "3f2a0000-0000-8000-8000-000000000001";
const B: &str = "3f2a0000-1000-8000-8000-000000000002";
const C: &str = "77777777-0000-8000-8000-000000000003";

fn summary(id: &str, label: &str, state: NodeState) -> NodeSummary {
    NodeSummary {
        id: id.into(),
        label: label.into(),
        state,
        pending: false,
        held: false,
        cloned: false,
        last_seen: NOW - 200,
        last_outcome: None,
        last_code: None,
    }
}

fn node_list() -> NodeList {
    let mut db = summary(A, "db", NodeState::Enrolled);
    db.last_outcome = Some("released".into());
    db.cloned = true;
    let mut mail = summary("55550000-0000-8000-8000-000000000004", "mail", NodeState::Enrolled);
    mail.held = true;
    mail.last_outcome = Some("denied".into());
    mail.last_code = Some("held".into());
    let mut web = summary(B, "Zürich 東京", NodeState::Enrolled);
    web.pending = true;
    web.last_seen = NOW - 100_000;
    web.last_outcome = Some("pending".into());
    web.last_code = Some("policy_mismatch".into());
    let mut lost = summary(C, "evil\u{1b}[2J\u{202e}label", NodeState::Revoked);
    lost.last_outcome = Some("denied".into());
    lost.last_code = Some("revoked".into());
    NodeList { nodes: vec![db, web, mail, lost], next: None }
}

fn findings() -> Vec<Finding> {
    let kernel = Finding {
        pcr: Some(4),
        event: Some(31),
        what: "boot application \\EFI\\Linux\\linux.efi".into(),
        rule: "boot \"6.1.0-55\" image 1 (uki)".into(),
        expected: "authenticode sha256:0101".into(),
        found: "sha256:0202".into(),
        hint: None,
    };
    let missing = Finding {
        pcr: None,
        event: None,
        what: "kernel command line".into(),
        rule: "command_line.required".into(),
        expected: "systemd.import_credentials=no".into(),
        found: "evil\u{1b}[2J".into(),
        hint: None,
    };
    vec![kernel, missing]
}

fn policy(scope: &str) -> PolicySummary {
    PolicySummary {
        scope: scope.into(),
        version: 3,
        name: "databases".into(),
        tenant_key: "sha256:aa".into(),
        sha256: "bb".repeat(32),
        applied_at: NOW - 300_000,
        applied_by: "alice".into(),
        nodes: 2,
    }
}

fn policy_record(scope: &str) -> PolicyRecord {
    let empty = Bytes(vec![]);
    let signed = SignedDocument { document: empty, signatures: vec![] };
    PolicyRecord { summary: policy(scope), signed }
}

fn pending() -> PendingBoot {
    PendingBoot {
        ticket: "t".into(),
        evidence_id: 12,
        code: "policy_mismatch".into(),
        message: format!("{} (and 1 more)", findings()[0]),
        approvable: true,
        findings: findings(),
        since: NOW - 40,
        expires: NOW + 860,
    }
}

fn record() -> NodeRecord {
    let made = common::record::node(A, "db");
    NodeRecord {
        summary: NodeSummary { held: true, cloned: true, ..summary(A, "db", NodeState::Enrolled) },
        registered_at: NOW - 400_000,
        pending: Some(pending()),
        policy: Some(policy("group:db")),
        held: Some(Held { by: "alice".into(), because: "the root file system is damaged".into() }),
        tpm_firmware: Some(TpmFirmware {
            version: "0x0007005500000010".into(),
            before: Some("0x000700550000000e".into()),
            since: NOW - 100,
        }),
        ..made
    }
}

fn evidence() -> EvidenceSummary {
    EvidenceSummary {
        id: 12,
        node_id: A.into(),
        at: NOW - 40,
        purpose: "boot".into(),
        outcome: "pending".into(),
        code: Some("policy_mismatch".into()),
        message: format!("{} (and 1 more)", findings()[0]),
        cloned: None,
    }
}

#[test]
fn nodes() {
    let plain = node::list_shown(&node_list(), &Style::default(), NOW);
    assert!(plain.lines().all(|line| line == line.trim_end()));
    golden::check("nodes.txt", &plain);
    assert_eq!(node::list_shown(&NodeList { nodes: vec![], next: None }, &Style::default(), NOW), "no nodes");
}

#[test]
fn colours_only_when_wanted() {
    let color = Style { terminal: false, color: true };
    assert!(node::list_shown(&node_list(), &color, NOW).contains('\u{1b}'));
    for terminal in [false, true] {
        let plain = node::list_shown(&node_list(), &Style { terminal, color: false }, NOW);
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
    }
}

#[test]
fn a_node_with_a_pending_boot() {
    let judged = NodePolicy {
        group: Some("db".into()),
        membership: None,
        policy: Some(policy_record("group:db")),
        additions: Some(policy_record(&format!("additions:{A}"))),
        trusted: vec![],
    };
    let shown = node::shown(&record(), Some(&judged), None, &Style::default(), NOW);
    // The evidence crate's wording after the reason is its own affair.
    let own = |line: &str| match line.split_once(": expected") {
        Some((ours, _)) if line.starts_with("checked here") => format!("{ours}\n"),
        _ => format!("{line}\n"),
    };
    let shown: String = shown.lines().map(own).collect();
    golden::check("node.txt", &shown);
    let mut first = record();
    first.policy = None;
    let boot = PendingBoot {
        code: "no_policy".into(),
        message: "the node waits for an operator".into(),
        findings: vec![],
        ..pending()
    };
    golden::check("pending-first.txt", &node::pending(&first, &boot, NOW));
}

#[test]
fn evidence_lists_and_records() {
    let mut list = EvidenceList { evidence: vec![evidence(), evidence()] };
    list.evidence[1] = EvidenceSummary {
        id: 11,
        outcome: "released".into(),
        code: None,
        message: "as approved".into(),
        cloned: Some(10),
        at: NOW - 90_000,
        ..evidence()
    };
    golden::check("evidence-list.txt", &evidence::list_shown(&list, &Style::default(), NOW));
    let empty = Bytes(vec![]);
    let record = EvidenceRecord {
        summary: evidence(),
        evidence: Evidence {
            version: 1,
            node_id: A.into(),
            purpose: "boot".into(),
            nonce: empty.clone(),
            hpke_public: empty.clone(),
            nonce_tpm: empty.clone(),
            purpose_data: empty.clone(),
            quote: empty.clone(),
            signature: empty,
            bank: "sha256".into(),
            pcrs: (0..16).map(|pcr| vec![pcr; 32].into()).collect(),
            event_log: Some(vec![0; 41_000].into()),
            systemd_log: None,
            ima_log: None,
            command_line: None,
            agent: "halfkey-agent 0.1.0".into(),
        },
        reset_count: Some(7),
        restart_count: Some(0),
        clock: Some(12_345),
        tpm_firmware: Some("0x0007005500000010".into()),
        expected_fence: Some(vec![9; 32].into()),
        findings: findings(),
    };
    golden::check("evidence.txt", &evidence::shown(&record, &Style::default(), NOW));
}

#[test]
fn audit() {
    let entry = |seq, actor: &str, action: &str, node: Option<&str>, detail: &str| AuditEntry {
        seq,
        at: NOW - 1000 + seq,
        actor: actor.into(),
        action: action.into(),
        node_id: node.map(Into::into),
        detail: detail.into(),
    };
    let lines: Vec<_> = [
        entry(1, "node", "register", Some(A), "web1 with an RSA-2048 EK"),
        entry(2, "alice", "approve", Some(A), "evidence 12"),
        entry(3, "verifier", "refuse", None, "line one\nerror: line two"),
    ]
    .iter()
    .map(|entry| audit::shown(entry, &Style::default()))
    .collect();
    golden::check("audit.txt", &lines.join("\n"));
}
