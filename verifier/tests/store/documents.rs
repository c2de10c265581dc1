//! Policies, the sequence of documents, the audit trail.

use crate::{NODE, OTHER, append, change, each, enrollment, look, node, signed};
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::operator::AuditEntry;
use halfkey_verifier::store::{EnrollmentState, PolicyRow};

#[test]
fn the_newest_version_of_a_scope_is_found() {
    each(|store| {
        let row = |scope: &str, version: u64, key: u8| PolicyRow {
            scope: scope.into(),
            version,
            name: format!("v{version}"),
            tenant_key: vec![key; 32],
            sha256: [version as u8; 32],
            applied_at: 1,
            applied_by: "ada".into(),
        };
        change(store, |tx| {
            for number in 1..=4 {
                append(tx, number);
            }
            for row in [row("node:b", 1, 7), row("group:a", 2, 7), row("node:b", 3, 8), row("node:b", 4, 7)] {
                tx.insert_policy(&row).unwrap();
            }
        });
        look(store, |tx| {
            assert_eq!(tx.policy("node:b", None).unwrap(), Some(row("node:b", 4, 7)));
            assert_eq!(tx.policy("node:b", Some(3)).unwrap().unwrap().version, 3);
            assert_eq!(tx.policy("node:b", Some(2)).unwrap(), None);
            assert_eq!(tx.policy_by("node:b", &[8; 32]).unwrap().unwrap().version, 3);
            assert_eq!(tx.policy_by("node:b", &[9; 32]).unwrap(), None);
        });
        change(store, |tx| {
            tx.delete_policies_but("node:b", &[8; 32]).unwrap();
            assert_eq!(tx.policy("node:b", None).unwrap().unwrap().version, 3);
            assert!(tx.policy("group:a", None).unwrap().is_some());
        });
    });
}

#[test]
fn documents_come_in_parts() {
    each(|store| {
        assert_eq!(look(store, |tx| tx.head().unwrap()), Place::default());
        change(store, |tx| {
            for number in 1..=3 {
                assert_eq!(append(tx, number), tx.head().unwrap());
            }
        });
        look(store, |tx| {
            assert_eq!(tx.document(2).unwrap(), Some(signed(b"document 2")));
            assert_eq!(tx.document(4).unwrap(), None);
            assert_eq!(tx.document_sha256(3).unwrap(), Some([3; 32]));
            assert_eq!(
                (tx.document_tag(3).unwrap(), tx.document_tag(4).unwrap()),
                (Some(vec![103; 32]), None)
            );
            assert_eq!(tx.documents_after(0, 1).unwrap(), [signed(b"document 1")], "one at least");
            assert_eq!(tx.documents_after(1, 10_000).unwrap().len(), 2);
            assert_eq!(tx.documents_after(3, 10_000).unwrap(), []);
        });
    });
}

#[test]
fn the_trail_is_read_from_both_ends_and_counts_beside_it() {
    each(|store| {
        let entry = |seq, node: Option<NodeId>| AuditEntry {
            seq,
            at: seq,
            actor: "ada".into(),
            action: "hold".into(),
            node_id: node.map(|node| node.to_string()),
            detail: "why".into(),
        };
        assert_eq!(look(store, |tx| tx.audit_end().unwrap()), None);
        change(store, |tx| {
            for seq in 1..=5 {
                let node = (seq % 2 == 0).then_some(NODE);
                tx.insert_audit(&entry(seq, node), &[seq as u8; 32]).unwrap();
            }
        });
        look(store, |tx| {
            assert_eq!(tx.audit_end().unwrap(), Some((5, Some([5; 32]))));
            assert_eq!(tx.audit_entry(2).unwrap(), Some((entry(2, Some(NODE)), Some([2; 32]))));
            assert_eq!(tx.audit_entry(6).unwrap(), None);
            let found = |after, node, limit| -> Vec<u64> {
                let entries = tx.audit_entries(after, node, limit).unwrap();
                entries.into_iter().map(|entry| entry.seq).collect()
            };
            assert_eq!(found(Some(1), None, 2), [2, 3]);
            assert_eq!(found(None, None, 2), [4, 5], "the newest");
            assert_eq!(found(None, Some(NODE), 9), [2, 4]);
            assert_eq!(found(Some(2), Some(NODE), 9), [4]);
            assert_eq!(found(None, Some(OTHER), 9), [0; 0]);
        });
        change(store, |tx| {
            assert!(!tx.add_count(1, "refuse", "here").unwrap());
            for (hour, action, source) in
                [(1, "refuse", "here"), (1, "refuse", "there"), (2, "refuse", "here")]
            {
                tx.insert_count(hour, action, source).unwrap();
            }
            assert!(tx.add_count(1, "refuse", "there").unwrap());
            assert_eq!(tx.counted_sources(1, "refuse").unwrap(), 2);
            let counts = tx.counts_before(2).unwrap();
            let counts: Vec<_> = counts.iter().map(|row| (row.source.as_str(), row.count)).collect();
            assert_eq!(counts, [("there", 2), ("here", 1)], "the largest first");
            tx.delete_counts_before(2).unwrap();
            assert_eq!(tx.counts_before(9).unwrap().len(), 1);
            tx.set_meta("probed_at", 1).unwrap();
            tx.set_meta("probed_at", 2).unwrap();
        });
    });
}

/// As when the key is another one that they are by.
#[test]
fn a_tag_and_a_c_u_are_put_anew() {
    each(|store| {
        let (tagged, row) = change(store, |tx| {
            append(tx, 1);
            append(tx, 2);
            tx.set_document_tag(2, &[9; 32]).unwrap();
            tx.put_node(&node(NODE, "web1")).unwrap();
            tx.insert_enrollment(&enrollment("a", EnrollmentState::Open)).unwrap();
            tx.set_c_u("a", &[9]).unwrap();
            let tags = [1, 2].map(|number| tx.document_tag(number).unwrap().unwrap());
            (tags, tx.enrollment(NODE, EnrollmentState::Open).unwrap().unwrap())
        });
        assert_eq!(tagged, [vec![101; 32], vec![9; 32]]);
        assert_eq!((row.c_u, row.fetched_by), (Some(vec![9]), None));
    });
}
