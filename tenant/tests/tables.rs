//! What people see, at a fixed time.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::golden;
use halfkey::show::{self, Style};
use halfkey_protocol::Bytes;
use halfkey_protocol::wire::operator::*;
use halfkey_protocol::wire::{Finish, Register};

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
        last_seen: NOW - 200,
        last_outcome: None,
        last_code: None,
    }
}

fn node_list() -> NodeList {
    let mut db = summary(A, "db", NodeState::Enrolled);
    db.last_outcome = Some("released".into());
    let mut web = summary(B, "Zürich 東京", NodeState::Enrolled);
    web.pending = true;
    web.last_seen = NOW - 100_000;
    web.last_outcome = Some("pending".into());
    web.last_code = Some("policy_mismatch".into());
    let mut lost = summary(C, "evil\u{1b}[2J\u{202e}label", NodeState::Revoked);
    lost.last_outcome = Some("denied".into());
    lost.last_code = Some("revoked".into());
    NodeList { nodes: vec![db, web, lost] }
}

fn pending() -> PendingBoot {
    PendingBoot {
        ticket: "t".into(),
        evidence_id: 12,
        code: "policy_mismatch".into(),
        message: "PCR 4 and 12 are not as approved".into(),
        approvable: true,
        differing: vec![
            PcrDifference { pcr: 4, expected: Some(vec![1; 32].into()), found: vec![2; 32].into() },
            PcrDifference { pcr: 12, expected: None, found: vec![3; 32].into() },
        ],
        since: NOW - 40,
        expires: NOW + 860,
    }
}

fn record() -> NodeRecord {
    let empty = Bytes(vec![]);
    NodeRecord {
        summary: summary(A, "db", NodeState::Enrolled),
        registration: Register {
            versions: vec![1],
            ek_public: empty.clone(),
            ek_certificate: None,
            ek_chain: vec![],
            ak_public: empty.clone(),
            srk_public: empty.clone(),
            certify_info: empty.clone(),
            certify_signature: empty,
            label: "db".into(),
        },
        registered_at: NOW - 400_000,
        enrollment: None,
        pending: Some(pending()),
        reference: Some(Reference {
            bank: "sha256".into(),
            pcrs: vec![],
            evidence_id: 3,
            learned_at: NOW - 300_000,
            learned_by: "alice".into(),
        }),
        revoked_because: None,
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
        message: "PCR 4 and 12 are not as approved".into(),
    }
}

#[test]
fn nodes() {
    let plain = show::nodes(&node_list(), &Style::default(), NOW);
    assert!(plain.lines().all(|line| line == line.trim_end()));
    golden::check("nodes.txt", &plain);
    assert_eq!(show::nodes(&NodeList { nodes: vec![] }, &Style::default(), NOW), "no nodes");
}

#[test]
fn colours_only_when_wanted() {
    let color = Style { terminal: false, color: true };
    assert!(show::nodes(&node_list(), &color, NOW).contains('\u{1b}'));
    for terminal in [false, true] {
        let plain = show::nodes(&node_list(), &Style { terminal, color: false }, NOW);
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
    }
}

#[test]
fn a_node_with_a_pending_boot() {
    let shown = show::node(&record(), None, &Style::default(), NOW);
    // The evidence crate's wording after the reason is its own affair.
    let shown: String =
        shown.lines().map(|line| line.split(": expected").next().unwrap_or(line).to_owned() + "\n").collect();
    golden::check("node.txt", &shown);
    let mut first = record();
    first.reference = None;
    let boot = PendingBoot { code: "no_reference".into(), differing: vec![], ..pending() };
    golden::check("pending-first.txt", &show::pending(&first, &boot, NOW));
}

#[test]
fn evidence_lists_and_records() {
    let mut list = EvidenceList { evidence: vec![evidence(), evidence()] };
    list.evidence[1] = EvidenceSummary {
        id: 11,
        outcome: "released".into(),
        code: None,
        message: "as approved".into(),
        at: NOW - 90_000,
        ..evidence()
    };
    golden::check("evidence-list.txt", &show::evidence_list(&list, &Style::default(), NOW));
    let empty = Bytes(vec![]);
    let record = EvidenceRecord {
        summary: evidence(),
        finish: Finish {
            version: 1,
            node_id: A.into(),
            purpose: "boot".into(),
            nonce: empty.clone(),
            hpke_public: empty.clone(),
            nonce_tpm: empty.clone(),
            r_sha256: empty.clone(),
            quote: empty.clone(),
            signature: empty,
            bank: "sha256".into(),
            pcrs: (0..16).map(|pcr| vec![pcr; 32].into()).collect(),
            event_log: Some(vec![0; 41_000].into()),
            userspace_log: None,
            ima_log: None,
            command_line: None,
            agent: "halfkey-agent 0.1.0".into(),
        },
        reset_count: Some(7),
        restart_count: Some(0),
        clock: Some(12_345),
        expected_fence: Some(vec![9; 32].into()),
        differing: pending().differing,
    };
    golden::check("evidence.txt", &show::evidence(&record, &Style::default(), NOW));
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
    .map(|entry| show::audit_entry(entry, &Style::default()))
    .collect();
    golden::check("audit.txt", &lines.join("\n"));
}
