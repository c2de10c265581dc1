//! What the verifier does not refuse and an operator should see.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, enrolled, said};
use common::{Server, get, path, post, refused};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::Verdict;
use halfkey_protocol::wire::operator::{AuditList, EvidenceList, EvidenceRecord, NodeList, NodeRecord};
use halfkey_testkit::postgres::Postgres;
use halfkey_testkit::software::Software;
use halfkey_verifier::client::Client;
use rusqlite::Connection;

async fn entries(operator: &Client, node: &Node, action: &str) -> Vec<String> {
    let trail: AuditList = get(operator, &format!("/v1/operator/audit?node={}", node.id)).await.unwrap();
    trail.entries.into_iter().filter(|entry| entry.action == action).map(|entry| entry.detail).collect()
}

async fn shown_as_cloned(operator: &Client, node: &Node) -> bool {
    let list: NodeList = get(operator, "/v1/operator/nodes").await.unwrap();
    let record: NodeRecord = get(operator, &path(node.id, "")).await.unwrap();
    assert_eq!(list.nodes[0].cloned, record.summary.cloned);
    record.summary.cloned
}

#[tokio::test]
async fn two_releases_of_one_boot_with_different_r_are_shown() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    node.allow(&operator).await;
    node.reboot();
    let first = node.boot(&anybody).await;
    assert_eq!(said(&first), "released");
    assert!(!shown_as_cloned(&operator, &node).await);
    // The same r again would become the same fence.
    let again = node.boot(&anybody).await;
    assert_eq!(said(&again), "released");
    assert!(!shown_as_cloned(&operator, &node).await);

    // What a second machine with a copy of this TPM's state would send.
    let mut session = node.begin(&anybody, "boot").await.unwrap();
    session.purpose_data = vec![9; 32];
    let twin: Verdict = post(&anybody, "/v1/finish", &node.evidence("boot", &session)).await.unwrap();
    assert_eq!(said(&twin), "released");
    assert!(shown_as_cloned(&operator, &node).await);
    let list: EvidenceList = get(&operator, &path(node.id, "/evidence")).await.unwrap();
    let marked: Vec<_> = list.evidence.iter().filter_map(|e| e.cloned.map(|twin| (e.id, twin))).collect();
    assert_eq!(marked, [(twin.evidence_id.unwrap(), again.evidence_id.unwrap())]);
    let said_so = entries(&operator, &node, "cloned").await;
    assert!(said_so.len() == 1 && said_so[0].contains("another r"), "{said_so:?}");

    // Each boot has a resetCount of its own: the next one is as before.
    node.reboot();
    assert_eq!(said(&node.boot(&anybody).await), "released");
    assert!(!shown_as_cloned(&operator, &node).await);
    assert_eq!(entries(&operator, &node, "cloned").await.len(), 1);
}

/// resetCount stays and restartCount grows: the TPM went on.
#[tokio::test]
async fn a_power_cut_while_the_machine_was_suspended_is_no_clone() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    node.allow(&operator).await;
    node.reboot();
    let before = released_with(&anybody, &node, 1).await.evidence_id.unwrap();
    for (r, restarts) in [(2, 1), (3, 2)] {
        node.tpm.restart();
        Software::default().measure(&node.tpm);
        let verdict = released_with(&anybody, &node, r).await;
        assert!(!shown_as_cloned(&operator, &node).await);
        let list: EvidenceList = get(&operator, &path(node.id, "/evidence")).await.unwrap();
        let summary = list.evidence.iter().find(|e| Some(e.id) == verdict.evidence_id).unwrap();
        assert_eq!(summary.cloned, None);
        let said_so = entries(&operator, &node, "restarted").await;
        assert_eq!(said_so.len(), restarts, "{said_so:?}");
    }
    let said_so = entries(&operator, &node, "restarted").await;
    assert!(said_so.iter().any(|said| said.contains(&format!("of evidence {before} and a higher"))));
    assert_eq!(entries(&operator, &node, "cloned").await.len(), 0);
    // A second opening of the same restart is one of two machines, or of an agent that was started again.
    released_with(&anybody, &node, 4).await;
    assert!(shown_as_cloned(&operator, &node).await);
    assert_eq!(entries(&operator, &node, "cloned").await.len(), 1);
    assert_eq!(entries(&operator, &node, "restarted").await.len(), 2);
}

/// Boots with an r of its own, once its TPM's clock is past what the verifier saw.
async fn released_with(server: &Client, node: &Node, r: u8) -> Verdict {
    loop {
        let mut session = node.begin(server, "boot").await.unwrap();
        session.purpose_data = vec![r; 32];
        let verdict: Verdict = post(server, "/v1/finish", &node.evidence("boot", &session)).await.unwrap();
        match said(&verdict).as_str() {
            "denied stale" => {}
            "released" => return verdict,
            other => panic!("{other}: {verdict:?}"),
        }
    }
}

#[tokio::test]
async fn two_machines_with_one_tpm_are_shown_at_each_boot() {
    let server = Server::with_settings("evidence_per_minute = 1000\n");
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    node.allow(&operator).await;
    node.reboot();
    released_with(&anybody, &node, 1).await;

    // Somebody copied the state of a virtual TPM. From then on both go through the same numbers.
    let copy = node.copied();
    node.reboot();
    for (boot, times) in [(1, 1), (2, 2)] {
        released_with(&anybody, &node, 10 * boot).await;
        let twin = released_with(&anybody, &copy, 10 * boot + 1).await;
        assert!(shown_as_cloned(&operator, &node).await);
        let said_so = entries(&operator, &node, "cloned").await;
        assert_eq!(said_so.len(), times, "{said_so:?}");
        assert!(said_so.iter().any(|said| said.contains(&format!("evidence {}", twin.evidence_id.unwrap()))));
        node.reboot();
        copy.reboot();
    }
}

/// Root of a machine, or who has it, sets its clock to where no signed number goes: it is recorded, and each quote is good once.
#[tokio::test]
async fn a_clock_that_was_set_to_anything_is_a_clock() {
    const CLOCK: u64 = (1 << 63) + 5;
    for server in [Server::start(), Server::over(&Postgres::shared().database())] {
        let (anybody, operator) = (server.anybody(), server.operator());
        let node = enrolled(&server).await;
        node.allow(&operator).await;
        node.tpm.tool("tpm2_setclock", &[&CLOCK.to_string()]);
        let session = node.begin(&anybody, "boot").await.unwrap();
        let evidence = node.evidence("boot", &session);
        let verdict: Verdict = post(&anybody, "/v1/finish", &evidence).await.unwrap();
        assert_eq!(said(&verdict), "released");
        let again: Verdict = post(&anybody, "/v1/finish", &evidence).await.unwrap();
        assert_eq!(said(&again), "denied stale");
        let number = verdict.evidence_id.unwrap();
        let record: EvidenceRecord =
            get(&operator, &format!("/v1/operator/evidence/{number}")).await.unwrap();
        assert!(record.clock.is_some_and(|clock| clock >= CLOCK), "{:?}", record.clock);
        // The next one is newer.
        released_with(&anybody, &node, 1).await;
    }
}

#[tokio::test]
async fn another_firmware_of_the_tpm_is_shown() {
    let mut server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    node.allow(&operator).await;
    let evidence = node.boot(&anybody).await.evidence_id.unwrap();
    let evidence: EvidenceRecord =
        get(&operator, &format!("/v1/operator/evidence/{evidence}")).await.unwrap();
    let record: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
    let firmware = record.tpm_firmware.unwrap();
    assert_eq!((evidence.tpm_firmware.as_ref(), &firmware.before), (Some(&firmware.version), &None));
    assert!(firmware.version.len() == 18 && firmware.version.starts_with("0x"), "{firmware:?}");
    assert_eq!(entries(&operator, &node, "tpm_firmware").await.len(), 0);

    // As if the verifier had known it with an older one.
    server.stop();
    let database = Connection::open(server.state().join("halfkey.db")).unwrap();
    let older = "UPDATE nodes SET tpm_firmware = '0x0000000000000001'";
    assert_eq!(database.execute(older, []).unwrap(), 1);
    drop(database);
    server.serve();
    let (anybody, operator) = (server.anybody(), server.operator());
    for _ in 0..2 {
        assert_eq!(said(&node.boot(&anybody).await), "released");
    }
    let record: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
    let changed = record.tpm_firmware.unwrap();
    assert_eq!((changed.version, changed.before.as_deref()), (firmware.version, Some("0x0000000000000001")));
    let said_so = entries(&operator, &node, "tpm_firmware").await;
    assert!(said_so.len() == 1 && said_so[0].contains("0x0000000000000001 before"), "{said_so:?}");
}

#[tokio::test]
async fn a_policy_may_pin_the_firmware_of_the_tpm() {
    let server = Server::start();
    let (anybody, operator) = (server.anybody(), server.operator());
    let node = enrolled(&server).await;
    let record: NodeRecord = get(&operator, &path(node.id, "")).await.unwrap();
    let version = record.tpm_firmware.expect("from the quote that fetched C_U").version;
    let scope = format!("node:{}", node.id);
    let pinned = |list: &str| {
        Software::default().policy("pinned").replacen("\n[", &format!("\n[tpm]\nfirmware = {list}\n\n["), 1)
    };
    node.apply(&operator, &scope, &pinned(&format!("[\"0x1\", \"{version}\"]"))).await.unwrap();
    assert_eq!(said(&node.boot(&anybody).await), "released");
    node.apply(&operator, &scope, &pinned("[\"0x1\"]")).await.unwrap();
    let verdict = node.boot(&anybody).await;
    assert_eq!(said(&verdict), "denied policy_mismatch");
    let expected = format!("firmware of the TPM: tpm.firmware: expected 0x0000000000000001, found {version}");
    assert!(verdict.message.contains(&expected), "{verdict:?}");
}

#[tokio::test]
async fn an_ek_that_can_be_factored_does_not_register() {
    let server = Server::start();
    let node = Node::new();
    let mut weak = node.register.clone();
    let digits: String = include_str!("../../evidence/tests/fixtures/roca.hex").split_whitespace().collect();
    let from = weak.ek_public.len() - 256;
    for (byte, at) in weak.ek_public.0[from..].iter_mut().zip((0..512).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    }
    weak.ek_certificate = None;
    let answer = post::<serde_json::Value>(&server.anybody(), "/v1/register", &weak).await;
    let problem = answer.as_ref().unwrap_err();
    assert!(problem.hint.as_deref().is_some_and(|hint| hint.contains("firmware")), "{problem:?}");
    assert_eq!(refused(answer), Reason::EkWeak);
}
