//! What every back end of the store answers, asked of each of them.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use halfkey_protocol::NodeId;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::operator::AuditEntry;
use halfkey_protocol::wire::{DocumentSignature, SignedDocument};
use halfkey_verifier::store::memory::Memory;
use halfkey_verifier::store::sqlite::Sqlite;
use halfkey_verifier::store::{
    BootRow, ClientRow, DocumentRow, EnrollmentRow, EnrollmentState, EvidenceHead, EvidenceRow, NodeRow,
    PolicyRow, ProposalChange, ProposalRow, QuoteRow, RegistrationRow, ReleasedRow, Store, Then, Tx, Which,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

const NODE: NodeId = NodeId([0x17; 16]);
const OTHER: NodeId = NodeId([0x18; 16]);

/// Runs a test with a new database of each kind.
fn each(test: impl Fn(&dyn Store)) {
    test(&Memory::default());
    let dir = tempfile::tempdir().unwrap();
    test(&Sqlite::open(&dir.path().join("db")).unwrap());
}

fn change<T>(store: &dyn Store, mut work: impl FnMut(&dyn Tx) -> T) -> T {
    let mut done = None;
    store
        .write(&mut |tx| {
            done = Some(work(tx));
            Then::Commit
        })
        .unwrap();
    done.unwrap()
}

fn look<T>(store: &dyn Store, work: impl Fn(&dyn Tx) -> T) -> T {
    let mut done = None;
    store.read(&mut |tx| done = Some(work(tx))).unwrap();
    done.unwrap()
}

fn node(id: NodeId, label: &str) -> NodeRow {
    NodeRow { label: label.into(), ..NodeRow::blank(id, 1) }
}

fn signed(document: &[u8]) -> SignedDocument {
    let signature = DocumentSignature { key: vec![7; 32].into(), signature: vec![8; 64].into() };
    SignedDocument { document: document.into(), signatures: vec![signature.clone(), signature] }
}

fn append(tx: &dyn Tx, number: u64) -> Place {
    let place = Place { number, sha256: [number as u8; 32] };
    let signed = signed(format!("document {number}").as_bytes());
    tx.insert_document(&DocumentRow { place, scope: "node:x", at: 9, by: "ada", signed: &signed }).unwrap();
    place
}

fn enrollment(id: &str, state: EnrollmentState) -> EnrollmentRow {
    EnrollmentRow {
        id: id.into(),
        node: NODE,
        state,
        number: 1,
        tenant_key: vec![7; 32],
        registration: "{}".into(),
        bank: "sha256".into(),
        c_v: (Some(vec![1]), Some(vec![2])),
        c_u: Some(vec![3]),
        enrolled_at: 5,
        enrolled_by: "ada".into(),
        fetched_by: None,
        quote: QuoteRow::default(),
        released: None,
    }
}

#[test]
fn a_request_is_whole_or_not_at_all_and_seen_when_it_is_over() {
    each(|store| {
        let put = |then| {
            move |tx: &dyn Tx| {
                tx.put_node(&node(NODE, "web1")).unwrap();
                assert_eq!(tx.node(NODE).unwrap().unwrap().label, "web1", "it sees what it changed");
                then
            }
        };
        store.write(&mut put(Then::RollBack)).unwrap();
        assert_eq!(look(store, |tx| tx.node(NODE).unwrap()), None);
        for then in [Then::Commit, Then::CommitNow] {
            store.write(&mut put(then)).unwrap();
            assert_eq!(look(store, |tx| tx.node(NODE).unwrap()), Some(node(NODE, "web1")));
        }
        store.purge();
    });
}

/// Requests that come at the same time. One in three is undone, and takes no other with it.
#[test]
fn requests_at_the_same_time_do_not_undo_each_other() {
    const THREADS: u8 = 12;
    const REQUESTS: u8 = 20;
    each(|store| {
        let begin = Barrier::new(usize::from(THREADS));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let begin = &begin;
                scope.spawn(move || {
                    begin.wait();
                    for request in 0..REQUESTS {
                        let id = NodeId([thread, request, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                        let then = match request % 3 {
                            0 => Then::RollBack,
                            1 => Then::Commit,
                            _ => Then::CommitNow,
                        };
                        store
                            .write(&mut |tx| {
                                tx.put_node(&node(id, "web")).unwrap();
                                then
                            })
                            .unwrap();
                        let found = look(store, |tx| tx.node(id).unwrap().is_some());
                        assert_eq!(found, then != Then::RollBack, "what is answered is committed");
                    }
                });
            }
        });
        let all = look(store, |tx| tx.node_lines(&Which::After(None), 10_000, 0).unwrap().len());
        let undone = usize::from(REQUESTS.div_ceil(3));
        assert_eq!(all, usize::from(THREADS) * (usize::from(REQUESTS) - undone));
    });
}

#[test]
fn a_request_that_panics_is_undone_and_the_next_one_is_served() {
    each(|store| {
        let panicking = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            store.write(&mut |tx| {
                tx.put_node(&node(NODE, "web1")).unwrap();
                panic!("on purpose")
            })
        }));
        assert!(panicking.is_err());
        assert_eq!(look(store, |tx| tx.node(NODE).unwrap()), None);
        change(store, |tx| tx.put_node(&node(OTHER, "web2")).unwrap());
        assert_eq!(look(store, |tx| tx.node_lines(&Which::After(None), 9, 0).unwrap().len()), 1);
    });
}

/// The disk is full for one of those that share a transaction: it says so, and the others are committed.
#[test]
fn a_full_disk_takes_only_the_request_that_fills_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Sqlite::open(&dir.path().join("db")).unwrap());
    change(&*store, |tx| tx.set_meta("first", 1).unwrap());
    store.limit_pages(60).unwrap();
    let begin = Barrier::new(8);
    let full = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let (store, begin, full) = (&store, &begin, &full);
            scope.spawn(move || {
                begin.wait();
                let label = if thread == 0 { "x".repeat(1 << 20) } else { "web".to_owned() };
                let mut put = Ok(());
                store
                    .write(&mut |tx| {
                        put = tx.put_node(&node(NodeId([thread; 16]), &label));
                        if put.is_ok() { Then::Commit } else { Then::RollBack }
                    })
                    .unwrap();
                if put.is_err() {
                    full.fetch_add(1, Ordering::SeqCst);
                }
                assert_eq!(put.is_err(), thread == 0, "{put:?}");
            });
        }
    });
    assert_eq!(full.into_inner(), 1);
    let all = look(&*store, |tx| tx.node_lines(&Which::After(None), 99, 0).unwrap().len());
    assert_eq!(all, 7);
}

#[test]
fn clients_have_one_name_of_a_kind() {
    each(|store| {
        let row = |fingerprint: &str, name: &str, kind: &str| ClientRow {
            fingerprint: fingerprint.into(),
            name: name.into(),
            kind: kind.into(),
            added_at: 1,
            tag: Some(vec![9; 32]),
        };
        change(store, |tx| {
            assert!(tx.insert_client(&row("1", "eve", "operator")).unwrap());
            assert!(tx.insert_client(&row("2", "ada", "operator")).unwrap());
            assert!(tx.insert_client(&row("3", "ada", "verifier")).unwrap());
            assert!(!tx.insert_client(&row("4", "ada", "operator")).unwrap(), "the name");
            assert!(!tx.insert_client(&row("1", "bob", "operator")).unwrap(), "the certificate");
        });
        look(store, |tx| {
            assert_eq!(tx.client("3").unwrap(), Some(row("3", "ada", "verifier")));
            assert_eq!(tx.client("4").unwrap(), None);
            let names: Vec<_> = tx.clients().unwrap().into_iter().map(|row| row.fingerprint).collect();
            assert_eq!(names, ["2", "1", "3"]);
        });
        change(store, |tx| {
            assert!(tx.delete_client("ada", "operator").unwrap());
            assert!(!tx.delete_client("ada", "operator").unwrap());
            assert_eq!(tx.clients().unwrap().len(), 2);
        });
    });
}

#[test]
fn registrations_that_are_not_kept_expire_and_make_room() {
    each(|store| {
        let row = |first: u8, label: &str, source: &str, last_seen| RegistrationRow {
            node: NodeId([first; 16]),
            ak_name: vec![1],
            srk_name: vec![2],
            label: label.into(),
            source: source.into(),
            challenge: vec![3; 32],
            issued: 77,
            registered_at: 1,
            last_seen,
            kept: false,
            register: "{}".into(),
        };
        let id = |first: u8| NodeId([first; 16]);
        change(store, |tx| {
            for (first, source, seen) in [(1, "a", 10), (2, "a", 5), (3, "b", 7), (4, "b", 8)] {
                tx.put_registration(&row(first, &format!("web{first}"), source, seen)).unwrap();
            }
            assert!(tx.keep_registration(id(3)).unwrap());
            assert!(!tx.keep_registration(id(9)).unwrap());
        });
        look(store, |tx| {
            assert_eq!(tx.unkept_registrations().unwrap(), 3);
            let sources = tx.unkept_by_source().unwrap();
            let sources: Vec<_> =
                sources.iter().map(|row| (row.source.as_str(), row.count, row.oldest)).collect();
            assert_eq!(sources, [("a", 2, 5), ("b", 1, 8)]);
            let ids = |which: Which, limit| -> Vec<String> {
                let lines = tx.registration_lines(&which, limit).unwrap();
                lines.into_iter().map(|line| line.label).collect()
            };
            assert_eq!(ids(Which::After(None), 2), ["web1", "web2"]);
            assert_eq!(ids(Which::After(Some(id(2))), 9), ["web3", "web4"]);
            assert_eq!(ids(Which::Named("web4".into()), 9), ["web4"]);
            assert_eq!(ids(Which::Named("0404".into()), 9), ["web4"], "the first digits of its id");
            assert_eq!(ids(Which::Named(String::new()), 9), [""; 0]);
            assert_eq!(ids(Which::One(id(1)), 9), ["web1"]);
        });
        change(store, |tx| {
            tx.put_registration(&RegistrationRow { kept: true, ..row(2, "again", "c", 5) }).unwrap();
            assert_eq!(tx.registration(id(2)).unwrap().unwrap().label, "again");
            let sources = tx.unkept_by_source().unwrap();
            let of = |name: &str| sources.iter().find(|row| row.source == name).unwrap().oldest_row;
            tx.delete_unkept(of("b")).unwrap();
            assert_eq!(tx.delete_registrations(11).unwrap(), [id(1).to_string()]);
            assert_eq!(
                tx.registration_lines(&Which::After(None), 9).unwrap().len(),
                2,
                "those that are kept"
            );
        });
    });
}

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
            let quote = QuoteRow { reset: Some(1), restart: Some(2), clock: Some(3) };
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

fn boot(ticket: &str, evidence_id: u64, expires: u64) -> BootRow {
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
        let row = |authentic, outcome: &str, log: usize| EvidenceRow {
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
            event_log: Some(vec![0; log]),
            systemd_log: None,
            ima_log: Some(vec![0; 1]),
            quote: QuoteRow { reset: Some(1), restart: Some(2), clock: Some(3) },
            expected_fence: Some(vec![5; 32]),
            findings: "[]".into(),
            tpm_firmware: Some("0x1".into()),
        };
        change(store, |tx| {
            tx.put_node(&node(NODE, "web1")).unwrap();
            let numbers: Vec<_> =
                (0..6).map(|_| tx.insert_evidence(&row(true, "denied", 10)).unwrap()).collect();
            assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
            let released = tx.insert_evidence(&row(true, "released", 10)).unwrap();
            let foreign = tx.insert_evidence(&row(false, "denied", 10)).unwrap();
            let mut whole = row(true, "denied", 10);
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
