//! What people see of policies and proposals, at a fixed time.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::golden;
use halfkey::commands::policy::{explain, list, show, test};
use halfkey::commands::{group, proposal};
use halfkey::documents::trial::{self, Trial, Tried};
use halfkey::render::{self, Style};
use halfkey_evidence::policy::{Change, ExplainedEvent, Explanation};
use halfkey_protocol::wire::policies::*;
use halfkey_protocol::wire::{Proposal, ProposedImage, ProposedSection};

const NOW: u64 = 1_795_298_459;
const A: &str = "3f2a0000-0000-8000-8000-000000000001";
const B: &str = "77777777-0000-8000-8000-000000000003";
const EVIL: &str = "evil\u{1b}[2J\u{202e}";

fn summary(scope: &str, version: u64) -> PolicySummary {
    PolicySummary {
        scope: scope.into(),
        version,
        name: "web servers".into(),
        tenant_key: "sha256:aa".into(),
        sha256: "bb".repeat(32),
        applied_at: NOW - 4000,
        applied_by: "alice".into(),
        nodes: 12,
    }
}

fn finding() -> Finding {
    Finding {
        pcr: Some(4),
        event: Some(31),
        what: "boot application \\EFI\\Linux\\linux.efi".into(),
        rule: "boot \"6.1.0-55\" image 1 (uki)".into(),
        expected: "authenticode sha256:0101".into(),
        found: EVIL.into(),
        hint: None,
    }
}

fn label(id: &str) -> String {
    format!("web ({})", &id[..8])
}

#[test]
fn policies_and_groups() {
    let mut evil = summary(&format!("node:{A}"), 1);
    (evil.name, evil.applied_by) = (EVIL.into(), EVIL.into());
    let list = PolicyList { policies: vec![summary("group:web", 3), evil] };
    let style = Style::default();
    let groups = GroupList {
        groups: vec![
            Group { name: "web".into(), version: Some(3), nodes: vec![A.into(), B.into()] },
            Group { name: "db".into(), version: None, nodes: vec![] },
        ],
    };
    let parts = [
        list::shown(&list, &style, NOW),
        show::summary(&summary("group:web", 3), "signed by this workstation's tenant key sha256:aa", NOW),
        group::shown(&groups, &style, label),
        list::shown(&PolicyList { policies: vec![] }, &style, NOW),
        group::shown(&GroupList { groups: vec![] }, &style, label),
    ];
    golden::check("policies.txt", &parts.join("\n\n"));
}

#[test]
fn changes_and_trials() {
    let change = |path: &str, before: Option<&str>, after: Option<&str>| Change {
        path: path.into(),
        before: before.map(Into::into),
        after: after.map(Into::into),
    };
    let changes = [
        change("name", Some("web"), Some("web servers")),
        change("boot \"6.2\"", None, Some("image kernel sha256:02\ninitrd sha256:03")),
        change("command_line.allowed", Some("quiet"), None),
        change(EVIL, None, Some(EVIL)),
    ];
    let trial = |id: Option<&str>, label: &str, result| Trial {
        node_id: id.map(Into::into),
        label: label.into(),
        evidence_id: Some(7),
        result,
        message: None,
        findings: vec![],
    };
    let mut denied = trial(Some(B), EVIL, Tried::Denied);
    denied.findings = vec![finding(), finding()];
    let mut unusable = trial(Some(A), "mail", Tried::Unusable);
    unusable.message = Some("evidence 7 did not pass".into());
    let trials = [
        trial(Some(A), "web1", Tried::Allowed),
        denied.clone(),
        Trial { evidence_id: None, ..trial(Some(A), "new", Tried::NoBoot) },
        unusable,
        trial(None, "/tmp/log.bin", Tried::Allowed),
    ];
    let parts = [
        render::changes(&changes),
        render::changes(&[]),
        test::shown(&trials, &Style::default()),
        trial::denied_lines(&[&denied]),
    ];
    golden::check("trials.txt", &parts.join("\n\n"));
}

#[test]
fn proposals() {
    let proposal = Proposal {
        version: 1,
        name: "6.1.0-57".into(),
        bank: "sha256".into(),
        images: vec![ProposedImage {
            release: None,
            role: "uki".into(),
            path: format!("/boot/efi/{EVIL}"),
            authenticode: vec![1; 32].into(),
        }],
        sections: vec![ProposedSection { name: ".linux".into(), digest: vec![2; 32].into() }],
        initrd: Some(vec![3; 32].into()),
        command_line: Some("root=/dev/a quiet".into()),
        loader: None,
        written_by_update: false,
    };
    let record = |id, state, message: &str| ProposalRecord {
        id,
        node_id: A.into(),
        at: NOW - 200,
        state,
        message: message.into(),
        proposal: proposal.clone(),
        from_evidence: 7,
    };
    let waiting = record(9, ProposalState::Waiting, "group:web version 3: no boot has this kernel");
    let mut bare = waiting.clone();
    (bare.proposal.initrd, bare.proposal.command_line) = (None, None);
    let list = ProposalList {
        proposals: vec![
            waiting.clone(),
            record(8, ProposalState::Denied, EVIL),
            record(7, ProposalState::Booted, ""),
        ],
        next: None,
    };
    let parts = [
        proposal::list_shown(&list, &Style::default(), label, NOW),
        proposal::shown(&waiting, &label(A), NOW),
        proposal::shown(&bare, &label(A), NOW),
        proposal::list_shown(&ProposalList { proposals: vec![], next: None }, &Style::default(), label, NOW),
    ];
    golden::check("proposals.txt", &parts.join("\n\n"));
}

#[test]
fn explanations() {
    let event = |event: Option<u32>, pcr, what: &str, digest: &str, rule: Option<&str>| ExplainedEvent {
        pcr,
        event,
        what: what.into(),
        standing: if digest.is_empty() { "informational" } else { "verified" },
        digest: digest.into(),
        rule: rule.map(Into::into),
        finding: rule.is_none().then(finding),
    };
    let digest = format!("sha256:{}", "ab".repeat(32));
    let mut explanation = Explanation {
        boot: Some("6.1.0-55".into()),
        accepted: false,
        events: vec![
            event(Some(0), 0, "startup locality 3", "", Some("informational")),
            event(Some(30), 7, "variable SecureBoot: on", &digest, Some("secure_boot.required")),
            event(Some(31), 4, EVIL, &digest, None),
            event(None, 11, "phase enter-initrd", &digest, Some("built in")),
        ],
        findings: vec![finding()],
    };
    let denied = explain::shown(&explanation, &Style::default());
    explanation.accepted = true;
    explanation.findings.clear();
    explanation.events.remove(2);
    let allowed = explain::shown(&explanation, &Style::default());
    golden::check("explanations.txt", &[denied, allowed].join("\n\n"));
}
