//! Nodes, their enrollments, boots, evidence and proposals.

use crate::{NODE, OTHER, append, change, each, enrollment, look, node};
use halfkey_protocol::NodeId;
use halfkey_verifier::store::{
    BootRow, EnrollmentRow, EnrollmentState, EvidenceHead, EvidenceRow, NodeRow, ProposalChange, ProposalRow,
    QuoteRow, ReleasedRow, Tx, Which,
};

#[test]
fn a_node_is_put_whole_and_listed_with_what_belongs_to_it() {
    each(|store| {
        let full = NodeRow {
            revoked_because: Some("stolen".into()),
            group_name: Some("web".into()),
            group_number: Some(1),
            held_by: Some("ada".into()),
            held_because: Some("it hums".into()),
            tpm_firmware: Some("0x1".into()),
            tpm_firmware_before: Some("0x0".into()),
            tpm_firmware_since: Some(3),
            last_outcome: Some("denied".into()),
            last_code: Some("held".into()),
            ..node(NODE, "web1")
        };
        change(store, |tx| {
            append(tx, 1);
            tx.put_node(&full).unwrap();
            tx.put_node(&node(OTHER, "web2")).unwrap();
            assert!(tx.insert_enrollment(&enrollment("e", EnrollmentState::Open)).unwrap());
            tx.put_boot(&boot("t", 4, 100)).unwrap();
        });
        look(store, |tx| {
            assert_eq!(tx.node(NODE).unwrap().as_ref(), Some(&full));
            let lines = tx.node_lines(&Which::After(None), 9, 50).unwrap();
            assert_eq!(lines.len(), 2);
            let line = &lines[0];
            assert!(line.revoked && line.held && line.open && !line.current && line.pending && !line.cloned);
            assert!(!tx.node_lines(&Which::One(NODE), 9, 100).unwrap()[0].pending, "it is over");
        });
        change(store, |tx| {
            tx.put_node(&node(NODE, "web1")).unwrap();
            tx.set_seen(NODE, 9, "released", None).unwrap();
            let row = tx.node(NODE).unwrap().unwrap();
            assert_eq!((row.last_seen, row.last_outcome.as_deref()), (9, Some("released")));
            assert_eq!((row.held_by, row.group_name, row.last_code), (None, None, None));
        });
    });
}

#[test]
fn one_enrollment_is_open_and_one_current() {
    each(|store| {
        change(store, |tx| {
            append(tx, 1);
            tx.put_node(&node(NODE, "web1")).unwrap();
            assert!(tx.insert_enrollment(&enrollment("first", EnrollmentState::Open)).unwrap());
            assert!(!tx.insert_enrollment(&enrollment("first", EnrollmentState::Replaced)).unwrap());
            let released = ReleasedRow {
                evidence: 3,
                reset: 1,
                restart: 2,
                fence: [4; 32],
                boot: Some("6.1".into()),
                proposal: Some(5),
                base: Some("6.0".into()),
                twin: Some(2),
                tag: Some(vec![6; 32]),
            };
            // A TPM's clock has 64 bits, and its root sets it.
            let quote = QuoteRow { reset: Some(1), restart: Some(u32::MAX), clock: Some(u64::MAX) };
            tx.set_fetched("first", "ticket", Some(&[9; 3])).unwrap();
            tx.set_quoted("first", &quote).unwrap();
            tx.set_released("first", &released).unwrap();
            let found = tx.enrollment(NODE, EnrollmentState::Open).unwrap().unwrap();
            let fetched_by = Some("ticket".into());
            let whole = EnrollmentRow {
                fetched_by,
                c_u: Some(vec![9; 3]),
                quote,
                released: Some(released),
                ..enrollment("first", EnrollmentState::Open)
            };
            assert_eq!(found, whole);
            assert_eq!(tx.enrollment_state(NODE, "first").unwrap(), Some((EnrollmentState::Open, 1)));
            assert_eq!(tx.enrollment_state(OTHER, "first").unwrap(), None);
            tx.prove_enrollment("first", 9).unwrap();
            assert_eq!(tx.enrollment(NODE, EnrollmentState::Open).unwrap(), None);
            let current = tx.enrollment(NODE, EnrollmentState::Current).unwrap().unwrap();
            assert_eq!((current.c_u, current.c_v), (None, whole.c_v));
            assert!(tx.node_lines(&Which::One(NODE), 1, 0).unwrap()[0].cloned);

            assert!(tx.insert_enrollment(&enrollment("second", EnrollmentState::Open)).unwrap());
            tx.delete_every_c_u().unwrap();
            assert_eq!(tx.enrollment(NODE, EnrollmentState::Open).unwrap().unwrap().c_u, None);
            tx.replace_enrollment(NODE, EnrollmentState::Current).unwrap();
            assert_eq!(tx.enrollment(NODE, EnrollmentState::Current).unwrap(), None);
            let replaced = tx.enrollment(NODE, EnrollmentState::Replaced).unwrap().unwrap();
            assert_eq!((replaced.id.as_str(), replaced.c_v), ("first", (None, None)));
            assert!(tx.insert_tenant_key("ada", &[1], 1).unwrap());
            assert!(!tx.insert_tenant_key("ada", &[1], 2).unwrap());
            assert!(tx.insert_tenant_key("eve", &[1], 2).unwrap());
        });
    });
}

pub fn boot(ticket: &str, evidence_id: u64, expires: u64) -> BootRow {
    BootRow {
        node: NODE,
        ticket: ticket.into(),
        evidence_id,
        code: "no_policy".into(),
        message: "none".into(),
        approvable: true,
        findings: "[]".into(),
        since: 1,
        expires,
        decision: None,
        decided_by: None,
        because: None,
        approved_until: None,
        used_at: None,
        approval_tag: None,
    }
}

#[test]
fn the_newest_boots_are_kept_until_they_are_over() {
    each(|store| {
        let approved = BootRow {
            decision: Some("approved".into()),
            decided_by: Some("ada".into()),
            because: Some("so".into()),
            approved_until: Some(8),
            used_at: Some(7),
            approval_tag: Some(vec![1; 32]),
            ..boot("c", 3, 30)
        };
        change(store, |tx| {
            tx.put_node(&node(NODE, "web1")).unwrap();
            for row in [&boot("a", 1, 10), &boot("b", 2, 20), &approved, &boot("d", 4, 40)] {
                tx.put_boot(row).unwrap();
            }
        });
        let undecided = |tx: &dyn Tx| -> Vec<String> {
            let rows = tx.undecided_boots(NODE).unwrap();
            rows.into_iter().map(|row| row.unwrap().ticket).collect()
        };
        look(store, |tx| {
            assert_eq!(tx.boot(NODE, "c").unwrap().as_ref(), Some(&approved));
            assert_eq!(tx.boot(OTHER, "c").unwrap(), None);
            assert_eq!(undecided(tx), ["d", "b", "a"]);
        });
        change(store, |tx| {
            tx.trim_boots(NODE, 4).unwrap();
            assert_eq!(undecided(tx).len(), 3);
            tx.trim_boots(NODE, 3).unwrap();
            assert_eq!(undecided(tx), ["d", "b"]);
            tx.delete_expired_boots(20).unwrap();
            assert_eq!(undecided(tx), ["d"]);
            let mut evidence = tx.evidence_of_boots(NODE).unwrap();
            evidence.sort_unstable();
            assert_eq!(evidence, [3, 4]);
            tx.put_boot(&BootRow { evidence_id: 9, ..boot("d", 4, 40) }).unwrap();
            assert_eq!(tx.boot(NODE, "d").unwrap().unwrap().evidence_id, 9);
            tx.delete_boot(NODE, "d").unwrap();
            assert_eq!(undecided(tx), [""; 0]);
            tx.delete_boots(NODE).unwrap();
            assert_eq!(tx.boot(NODE, "c").unwrap(), None);
        });
    });
}

#[test]
fn old_evidence_goes_by_kind_and_its_logs_by_bytes() {
    each(|store| {
        let row = |authentic, outcome: &str, log: u8| EvidenceRow {
            head: EvidenceHead {
                id: 0,
                node_id: NODE.to_string(),
                at: 1,
                purpose: "boot".into(),
                outcome: outcome.into(),
                code: None,
                message: "m".into(),
                twin: Some(1),
            },
            authentic,
            evidence: "{}".into(),
            event_log: Some(vec![log; 10]),
            systemd_log: None,
            ima_log: Some(vec![log; 1]),
            quote: QuoteRow { reset: Some(1), restart: Some(2), clock: Some(1 << 63) },
            expected_fence: Some(vec![5; 32]),
            findings: "[]".into(),
            tpm_firmware: Some("0x1".into()),
        };
        change(store, |tx| {
            tx.put_node(&node(NODE, "web1")).unwrap();
            let numbers: Vec<_> =
                (1..7).map(|log| tx.insert_evidence(&row(true, "denied", log)).unwrap()).collect();
            assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
            let released = tx.insert_evidence(&row(true, "released", 7)).unwrap();
            let foreign = tx.insert_evidence(&row(false, "denied", 5)).unwrap();
            let mut whole = row(true, "denied", 6);
            whole.head.id = 6;
            assert_eq!(tx.evidence(6).unwrap(), Some(whole));

            tx.trim_evidence(NODE, true, "denied", 3, &[1, 99]).unwrap();
            let left: Vec<_> = tx.evidence_of(NODE, 99).unwrap().iter().map(|head| head.id).collect();
            assert_eq!(left, [foreign, released, 6, 5, 4, 1]);
            assert_eq!(tx.evidence_of(NODE, 2).unwrap().len(), 2);
            // 11 bytes each: the third is one byte too many.
            tx.trim_logs(NODE, true, "denied", 32).unwrap();
            let log = |id| tx.evidence(id).unwrap().unwrap().event_log.is_some();
            assert_eq!([6, 5, 4, 1, released, foreign].map(log), [true, true, false, false, true, true]);
            assert_eq!(tx.insert_evidence(&row(true, "denied", 1)).unwrap(), foreign + 1, "no number twice");
        });
    });
}

#[test]
fn a_log_that_came_before_counts_once_and_stays_as_long_as_evidence_has_it() {
    each(|store| {
        change(store, |tx| {
            for id in [NODE, OTHER] {
                tx.put_node(&node(id, "web1")).unwrap();
            }
            let row = |id: NodeId, outcome: &str| EvidenceRow {
                head: EvidenceHead {
                    id: 0,
                    node_id: id.to_string(),
                    at: 1,
                    purpose: "boot".into(),
                    outcome: outcome.into(),
                    code: None,
                    message: "m".into(),
                    twin: None,
                },
                authentic: true,
                evidence: "{}".into(),
                event_log: Some(vec![1; 10]),
                systemd_log: Some(vec![1; 10]),
                ima_log: None,
                quote: QuoteRow::default(),
                expected_fence: None,
                findings: "[]".into(),
                tpm_firmware: None,
            };
            let log = |id| {
                let row = tx.evidence(id).unwrap().unwrap();
                assert_eq!(row.event_log, row.systemd_log);
                row.event_log.map(|log| log.len())
            };
            let released: Vec<_> =
                (0..9).map(|_| tx.insert_evidence(&row(NODE, "released")).unwrap()).collect();
            let denied = tx.insert_evidence(&row(NODE, "denied")).unwrap();
            let others = tx.insert_evidence(&row(OTHER, "released")).unwrap();
            tx.trim_logs(NODE, true, "released", 10).unwrap();
            assert!(released.iter().all(|id| log(*id) == Some(10)), "it is one log");
            tx.trim_logs(NODE, true, "released", 9).unwrap();
            assert!(released.iter().all(|id| log(*id).is_none()));
            assert_eq!([log(denied), log(others)], [Some(10); 2], "neither is of that kind");
            let again = tx.insert_evidence(&row(NODE, "released")).unwrap();
            tx.trim_evidence(NODE, true, "denied", 0, &[]).unwrap();
            assert_eq!((tx.evidence(denied).unwrap(), log(again)), (None, Some(10)));
            tx.trim_evidence(NODE, true, "released", 0, &[]).unwrap();
            assert!(tx.evidence_of(NODE, 99).unwrap().is_empty());
            let anew = tx.insert_evidence(&row(NODE, "released")).unwrap();
            assert_eq!([log(anew), log(others)], [Some(10); 2]);
        });
    });
}

fn proposal(content: u8, at: u64, state: &str) -> ProposalRow {
    ProposalRow {
        id: 0,
        node_id: NODE.to_string(),
        sha256: [content; 32],
        at,
        state: state.into(),
        message: "m".into(),
        from_evidence: 3,
        base_boot: Some("6.1".into()),
        by_trust: false,
        trusted_scope: None,
        trusted_since: None,
        content: "{}".into(),
        tag: None,
        made: Some(vec![8; 32]),
    }
}

#[test]
fn a_proposal_is_one_by_its_content() {
    each(|store| {
        let by_trust = ProposalRow {
            by_trust: true,
            trusted_scope: Some("node:x".into()),
            trusted_since: Some(4),
            tag: Some(vec![6; 32]),
            ..proposal(2, 5, "trusted")
        };
        let denied = change(store, |tx| {
            tx.put_node(&node(NODE, "web1")).unwrap();
            assert_eq!(tx.put_proposal(&proposal(1, 10, "waiting")).unwrap(), 1);
            assert_eq!(tx.put_proposal(&by_trust).unwrap(), 2);
            assert_eq!(tx.put_proposal(&proposal(1, 20, "accepted")).unwrap(), 1, "the same again");
            tx.put_proposal(&proposal(3, 1, "denied")).unwrap()
        });
        assert!(denied > 2, "{denied}");
        look(store, |tx| {
            assert_eq!(tx.proposal(2).unwrap(), Some(ProposalRow { id: 2, ..by_trust.clone() }));
            assert_eq!(tx.proposal_with(NODE, &[1; 32]).unwrap().unwrap().at, 20);
            assert_eq!(tx.proposal_with(OTHER, &[1; 32]).unwrap(), None);
            let found = |node, states: &[&str], before, limit| -> Vec<u64> {
                tx.proposal_numbers(node, states, before, limit).unwrap()
            };
            let all = &["accepted", "trusted", "denied"][..];
            assert_eq!(found(None, all, None, 2), [denied, 2]);
            assert_eq!(found(None, all, Some(2), 2), [1]);
            assert_eq!(found(None, all, Some(u64::MAX), 1), [denied]);
            assert_eq!(found(None, all, Some(1), 2), [0; 0]);
            assert_eq!(found(Some(NODE), &["accepted"], None, 9), [1]);
            assert_eq!(found(Some(OTHER), &["accepted"], None, 9), [0; 0]);
            let heads = tx.proposal_heads(NODE).unwrap();
            let heads: Vec<_> = heads.iter().map(|head| (head.id, head.at, head.by_trust)).collect();
            assert_eq!(heads, [(denied, 1, false), (2, 5, true), (1, 20, false)]);
        });
        change(store, |tx| {
            assert_eq!(tx.times_trusted(NODE, "node:x", 4).unwrap(), 0);
            for times in 1..=3 {
                tx.add_trusted(NODE, "node:x", 4).unwrap();
                assert_eq!(tx.times_trusted(NODE, "node:x", 4).unwrap(), times);
            }
            for (node, scope, since) in [(NODE, "node:x", 5), (NODE, "node:y", 4), (OTHER, "node:x", 4)] {
                assert_eq!(tx.times_trusted(node, scope, since).unwrap(), 0);
            }
            let change = ProposalChange { state: "booted", message: None, by_trust: true, tag: Some(&[7]) };
            tx.set_proposal(2, &change).unwrap();
            let row = tx.proposal(2).unwrap().unwrap();
            assert_eq!((row.state.as_str(), row.message.as_str(), row.tag), ("booted", "m", Some(vec![7])));
            let message = Some("over");
            tx.set_proposal(2, &ProposalChange { state: "superseded", message, by_trust: false, tag: None })
                .unwrap();
            let row = tx.proposal(2).unwrap().unwrap();
            assert_eq!((row.message.as_str(), row.by_trust, row.tag), ("over", false, None));
            assert_eq!(row.trusted_since, Some(4));
            tx.delete_trust(NODE).unwrap();
            assert_eq!(tx.proposal(2).unwrap().unwrap().trusted_scope, None);
            assert_eq!(tx.times_trusted(NODE, "node:x", 4).unwrap(), 0);
            tx.delete_proposal(denied).unwrap();
            assert_eq!(tx.proposal(denied).unwrap(), None);
            assert!(tx.put_proposal(&proposal(4, 1, "denied")).unwrap() > denied, "no number twice");
        });
    });
}
