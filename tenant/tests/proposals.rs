//! Proposals of one node, whatever rows, or the nodes of others, say beside it.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use common::node::software;
use common::setup::{CMDLINE, Setup, json, said};
use halfkey_protocol::wire::policies::ProposalList;
use halfkey_testkit::software::Software;

/// web1 runs what its policy allows, and proposes something newer. Its number.
fn proposed() -> (Setup, Software, u64) {
    let setup = Setup::new();
    let (old, new) = (software("6.1", CMDLINE), software("6.2", CMDLINE));
    assert_eq!(setup.boot(&old), "pending no_policy");
    setup.workstation.ok(&["approve", "web1", "--kernel-measures-initrd", "--yes"]);
    assert_eq!(said(&setup.node().ask_again()), "released");
    let answer = setup.node().propose(&new.proposal());
    assert_eq!(answer.outcome, "waiting");
    (setup, new, answer.proposal_id.unwrap())
}

/// The verifier's tag of what came with a quote of the node: HMAC-SHA256 by the cluster key, each field with its length before it.
fn tag_as_made(setup: &Setup, database: &rusqlite::Connection) {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &setup.verifier.cluster_key());
    let mut query = database.prepare("SELECT id, node_id, proposal, from_evidence FROM proposals").unwrap();
    let rows: Vec<(i64, String, String, i64)> = query
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for (id, node, content, evidence) in rows {
        let content = digest(&SHA256, content.as_bytes());
        let mut fields = Vec::new();
        for field in [node.as_bytes(), content.as_ref(), &evidence.to_be_bytes()] {
            fields.extend((field.len() as u64).to_be_bytes());
            fields.extend(field);
        }
        let mut tag = hmac::Context::with_key(&key);
        for field in [&b"halfkey database row"[..], b"proposed", &fields] {
            tag.update(&(field.len() as u32).to_be_bytes());
            tag.update(field);
        }
        let sql = "UPDATE proposals SET made = ?2 WHERE id = ?1";
        database.execute(sql, (id, tag.sign().as_ref())).unwrap();
    }
}

/// Proposals of this size that other nodes made since.
fn others(setup: &Setup, count: usize, size: usize) {
    let mut database = setup.verifier.database();
    database.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    let all = database.transaction().unwrap();
    let line = "\"".repeat(size);
    for index in 0..count {
        let sql = "INSERT INTO proposals (node_id, sha256, at, state, message, from_evidence, by_trust, proposal)
            SELECT ?1, ?2, at, state, message, from_evidence, by_trust, json_set(proposal, '$.command_line', ?3)
            FROM proposals ORDER BY id LIMIT 1";
        let id = format!("3f2a0000-0000-8000-8000-{:012}", index / 16);
        let sha256 = format!("{index:032}").into_bytes();
        all.execute(sql, (id, sha256, &line)).unwrap();
    }
    all.commit().unwrap();
    tag_as_made(setup, &database);
}

/// Sixteen for each node, as a foreign operator's machines may make them: more bytes than an answer may have, and more lines.
#[test]
fn what_others_propose_in_masses_hides_none_and_stops_no_accept() {
    for (count, size) in [(320, 26_000), (1008, 10)] {
        let (setup, new, number) = proposed();
        others(&setup, count, size);
        let list: ProposalList = json(&setup.workstation.ok(&["proposals", "--json"]).stdout);
        let numbers: Vec<_> = list.proposals.iter().map(|record| record.id).collect();
        assert_eq!(numbers.len(), count + 1);
        assert!(numbers.contains(&number) && numbers.is_sorted_by(|a, b| a > b), "each once, newest first");
        let ran = setup.workstation.ok(&["proposal", "accept", &number.to_string(), "--yes"]);
        assert!(ran.stdout.contains(&format!("proposal {number} is accepted")), "{ran:?}");
        assert_eq!(setup.boot(&new), "released");
    }
}

/// A row of a proposal that is larger than any proposal is damage like another.
#[test]
fn a_row_that_is_larger_than_an_answer_stops_no_list() {
    let (setup, _, number) = proposed();
    others(&setup, 1, 20_000_000);
    let list: ProposalList = json(&setup.workstation.ok(&["proposals", "--json"]).stdout);
    assert_eq!(list.proposals.iter().map(|record| record.id).collect::<Vec<_>>(), [number]);
    let ran = setup.workstation.ok(&["proposal", "accept", &number.to_string(), "--yes"]);
    assert!(ran.stdout.contains(&format!("proposal {number} is accepted")), "{ran:?}");
}

/// Booted by trust, and then the boot that it was proposed from is no boot of this enrollment any more: the TPM was cleared or its
/// bank changed since, or who writes the database altered that row.
#[test]
fn a_trusted_proposal_whose_boot_can_not_be_checked_stops_nothing() {
    let setup = Setup::new();
    let (workstation, node) = (&setup.workstation, setup.node());
    let [old, new, third] = ["6.1", "6.2", "6.3"].map(|version| software(version, CMDLINE));
    assert_eq!(setup.boot(&old), "pending no_policy");
    let file = setup.path("own.toml");
    let mut text = workstation.ok(&["policy", "learn", "web1", "--kernel-measures-initrd"]).stdout;
    text.push_str("\n[trust_root_with_next_boot]\nuntil = 2100-01-01T00:00:00Z\ncount = 3\n");
    std::fs::write(&file, text).unwrap();
    workstation.ok(&["policy", "apply", &file, "--node", "web1", "--yes"]);
    assert_eq!(said(&node.ask_again()), "released");
    assert_eq!(node.propose(&new.proposal()).outcome, "accepted");
    assert_eq!(setup.boot(&new), "released");
    let ran = workstation.ok(&["policy", "explain", "web1"]).stdout;
    assert!(ran.contains("(proposal 1)"), "{ran}");

    let change = "UPDATE evidence SET evidence = replace(evidence, '\"signature\":\"', '\"signature\":\"AAAA') WHERE id =
        (SELECT from_evidence FROM proposals WHERE id = 1)";
    assert_eq!(setup.verifier.database().execute(change, []).unwrap(), 1);
    let ran = workstation.ok(&["policy", "explain", "web1"]).stdout;
    assert!(ran.contains("(proposal 1)"), "{ran}");
    assert_ne!(setup.boot(&third), "released");
    workstation.ok(&["approve", "web1", "--learn", "--kernel-measures-initrd", "--yes"]);
    assert_eq!(setup.boot(&third), "released");
    let signed = workstation.ok(&["policy", "show", &format!("node:{}", setup.id)]).stdout;
    let [old, new, third] =
        [&old, &new, &third].map(|boot| signed.contains(&halfkey::render::text::hex(&boot.kernel)));
    assert!(old && third && !new, "what is trusted is not signed: {signed}");
}
