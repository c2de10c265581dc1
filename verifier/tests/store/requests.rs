//! Requests: whole or not at all, side by side, on a full disk.

use crate::{NODE, OTHER, change, each, look, node};
use halfkey_protocol::NodeId;
use halfkey_verifier::store::sqlite::Sqlite;
use halfkey_verifier::store::{Changes, Store, Then, Tx, Which};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

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
        store.write(Changes::Rows, &mut put(Then::RollBack)).unwrap();
        assert_eq!(look(store, |tx| tx.node(NODE).unwrap()), None);
        for then in [Then::Commit, Then::CommitNow] {
            store.write(Changes::Rows, &mut put(then)).unwrap();
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
                            .write(Changes::Rows, &mut |tx| {
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
            store.write(Changes::Rows, &mut |tx| {
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
                    .write(Changes::Rows, &mut |tx| {
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
