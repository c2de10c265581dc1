//! Requests that share a transaction of PostgreSQL, or its answers.

use crate::cut::{AFTER, BEFORE, CALM, between};
use crate::nodes::boot;
use crate::postgres::audit;
use crate::{Server, change, look, node, open};
use halfkey_protocol::NodeId;
use halfkey_verifier::store::postgres::Postgres;
use halfkey_verifier::store::{BootRow, Changes, Durable, Store, StoreError, Then, Turn, Tx, Which};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

type NextTurn = halfkey_verifier::store::NextTurn;

fn id(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn asks(tx: &dyn Tx, node: NodeId) {
    let _ = (tx.node(node), tx.audit_end(), tx.expect_evidence(node));
}

/// What a request does: a row, and an entry that names the one before.
fn put(tx: &dyn Tx, number: u8, label: &str) -> Then {
    assert_eq!(tx.node(id(number)).unwrap().map(|row| row.id), None);
    tx.put_node(&node(id(number), label)).unwrap();
    audit(tx, label);
    Then::Commit
}

/// One that has told its server's statements.
fn warm(url: &str) -> Postgres {
    let store = open(url);
    let done = store.write_asking(Changes::Rows, &|tx| asks(tx, id(0)), &mut |tx| put(tx, 0, "warm"));
    done.unwrap();
    store
}

fn turn(store: &Postgres, number: u8) -> NextTurn {
    store.turn(&|tx| asks(tx, id(number))).unwrap()
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let work = async { tokio::time::timeout(std::time::Duration::from_secs(60), work).await };
    runtime.block_on(work).expect("somebody waits for ever")
}

fn run(turn: Box<dyn Turn>, number: u8, label: &str) -> Durable {
    turn.run(&mut |tx| put(tx, number, label)).unwrap().unwrap()
}

/// Turns of one group: they come while another is at the server.
fn group<const N: usize>(store: &Postgres, before: u8, numbers: [u8; N]) -> [NextTurn; N] {
    let first = wait(turn(store, before));
    let turns = numbers.map(|number| turn(store, number));
    wait(run(first, before, "before")).unwrap();
    turns
}

fn there(store: &Postgres) -> Vec<u8> {
    look(store, |tx| {
        let lines = tx.node_lines(&Which::After(None), 99, 0).unwrap();
        lines.iter().map(|line| line.id.0[0]).collect()
    })
}

#[test]
fn requests_of_a_group_share_a_transaction_and_take_no_other_with_them() {
    let url = Server::shared().database();
    let store = warm(&url);
    let [second, rolls, panics, asks_more, gone, last] = group(&store, 1, [2, 3, 4, 5, 6, 7]);
    let second = run(wait(second), 2, "second");
    let rolled = wait(rolls).run(&mut |tx| {
        put(tx, 3, "rolled back");
        Then::RollBack
    });
    let panics = wait(panics);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        panics.run(&mut |tx| {
            put(tx, 4, "panicked");
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    let asked = wait(asks_more).run(&mut |tx| {
        put(tx, 5, "asks more");
        assert!(tx.evidence(1).is_err(), "it would have to be waited for");
        Then::Commit
    });
    assert!(matches!(asked, Some(Err(StoreError::Unavailable(_)))));
    drop(gone);
    let last = run(wait(last), 7, "last");
    wait(async {
        second.await.unwrap();
        rolled.unwrap().unwrap().await.unwrap();
        last.await.unwrap();
    });
    assert_eq!(there(&store), [0, 1, 2, 7]);
    // Numbers without a gap, each of which knows the one before.
    let entries = look(&store, |tx| tx.audit_entries(Some(0), None, 99).unwrap());
    let said: Vec<_> = entries.iter().map(|entry| (entry.seq, entry.detail.as_str())).collect();
    let expected = [
        (1, "warm after None"),
        (2, "before after Some(0)"),
        (3, "second after Some(1)"),
        (4, "last after Some(2)"),
    ];
    assert_eq!(said, expected);
    assert_eq!(Server::shared().sql(&url, "SELECT count(DISTINCT xmin::TEXT) FROM nodes"), "3\n");
}

/// It waits for the next group, and finds what the first one left.
#[test]
fn two_requests_of_one_node_are_in_two_groups() {
    let store = warm(&Server::shared().database());
    let [first, mut second] = group(&store, 1, [2, 2]);
    let first = wait(first);
    assert!(second.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    wait(run(first, 2, "first")).unwrap();
    let mut found = None;
    let second = wait(second).run(&mut |tx| {
        found = tx.node(id(2)).unwrap().map(|row| row.label);
        Then::RollBack
    });
    wait(second.unwrap().unwrap()).unwrap();
    assert_eq!(found.as_deref(), Some("first"));
}

/// A group waits for no node: who holds it may be of a server that was paused.
#[test]
fn one_whose_node_is_held_by_another_keeps_nobody_waiting() {
    let url = Server::shared().database();
    let (store, other) = (warm(&url), open(&url));
    let held = other.write(Changes::Rows, &mut |tx| {
        assert_eq!(tx.node(id(2)).unwrap(), None);
        let [held, free] = group(&store, 1, [2, 3]);
        wait(run(wait(free), 3, "free")).unwrap();
        assert!(wait(held).run(&mut |_| unreachable!("its node is held")).is_none());
        Then::RollBack
    });
    held.unwrap();
    assert_eq!(there(&store), [0, 1, 3]);
}

#[test]
fn what_the_server_refuses_of_one_is_undone_for_all_of_its_group_and_of_no_other() {
    let store = warm(&Server::shared().database());
    let waits = |node| BootRow { node, ..boot("t", 1, 2) };
    change(&store, |tx| tx.put_boot(&waits(id(0))).unwrap());
    let [good, bad, never] = group(&store, 1, [2, 3, 4]);
    let good = run(wait(good), 2, "good");
    let bad = wait(bad).run(&mut |tx| {
        // Of a node that is not there.
        tx.put_boot(&waits(id(3))).unwrap();
        Then::Commit
    });
    let never = wait(never).run(&mut |tx| {
        assert!(tx.put_node(&node(id(4), "a\0b")).is_err());
        Then::Commit
    });
    assert!(matches!(never, Some(Err(StoreError::Unavailable(_)))), "it is not even said");
    for done in [wait(good), wait(bad.unwrap().unwrap())] {
        assert!(matches!(done, Err(StoreError::Unavailable(_))), "{done:?}");
    }
    assert_eq!(there(&store), [0, 1]);
    let [again, other] = group(&store, 4, [2, 5]);
    let (again, other) = (run(wait(again), 2, "good"), run(wait(other), 5, "other"));
    wait(again).unwrap();
    wait(other).unwrap();
    assert_eq!(there(&store), [0, 1, 2, 4, 5]);
}

#[test]
fn what_became_of_a_group_may_be_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::shared().folder();
    let when = between(dir.path(), server).when;
    let url = Server::shared().database();
    let store = warm(&url.replace(server.to_str().unwrap(), dir.path().to_str().unwrap()));
    for (at, before, number) in [(BEFORE, 1, 2), (AFTER, 3, 4)] {
        let beside = number + 10;
        let [first, second] = group(&store, before, [number, beside]);
        when.store(at, Ordering::SeqCst);
        let (first, second) = (run(wait(first), number, "cut"), run(wait(second), beside, "cut"));
        for done in [wait(first), wait(second)] {
            assert!(matches!(done, Err(StoreError::Undecided(_))), "{done:?}");
        }
        assert_eq!(when.load(Ordering::SeqCst), CALM);
        let there = there(&store);
        assert_eq!(there.contains(&number), there.contains(&beside), "all or nothing");
        assert!(at == AFTER || !there.contains(&number));
    }
}

/// Nobody is left waiting by a server that is gone, or comes back.
#[test]
fn who_finds_no_server_is_left_to_itself() {
    let mut server = Server::start(&[]).unwrap();
    let url = server.database();
    let store = warm(&url);
    let [stays] = group(&store, 1, [2]);
    server.stop();
    // The connection of before is no use, and there is no other.
    let stays = wait(stays);
    let none = stays.run(&mut |tx| put(tx, 2, "lost"));
    if let Some(Ok(durable)) = none {
        assert!(wait(durable).is_err());
    }
    for _ in 0..2 {
        assert!(wait(turn(&store, 3)).run(&mut |_| unreachable!("there is no server")).is_none());
        assert!(wait(store.read_together(&|tx| asks(tx, id(3))).unwrap()).run(&mut |_| {}).is_none());
    }
    server.resume().unwrap();
    // Connections of before are found out, one by one.
    let durable = loop {
        if let Some(durable) = wait(turn(&store, 4)).run(&mut |tx| put(tx, 4, "again")) {
            break durable.unwrap();
        }
    };
    wait(durable).unwrap();
    assert_eq!(there(&store), [0, 1, 4]);
}

#[test]
fn those_who_read_together_find_each_what_they_asked() {
    let store = warm(&Server::shared().database());
    let [second, third] = group(&store, 1, [2, 3]);
    let (second, third) = (run(wait(second), 2, "node 2"), run(wait(third), 3, "node 3"));
    wait(second).unwrap();
    wait(third).unwrap();
    // The first one's group is at the server while the others come.
    let reads = [2, 9, 3, 2, 1, 3].map(|number| {
        let read = store.read_together(&|tx| {
            let _ = (tx.node(id(number)), tx.audit_end());
        });
        (number, read.unwrap())
    });
    for (number, read) in reads {
        let mut found = None;
        let done = wait(read).run(&mut |tx| {
            found = tx.node(id(number)).unwrap().map(|row| row.label);
            assert_eq!(tx.audit_end().unwrap().unwrap().0, 4);
        });
        done.unwrap().unwrap();
        let expected = match number {
            1 => Some("before".to_owned()),
            2 | 3 => Some(format!("node {number}")),
            _ => None,
        };
        assert_eq!(found, expected);
    }
    let read = store.read_together(&|tx| drop(tx.node(id(1)))).unwrap();
    assert!(wait(read).run(&mut |tx| assert!(tx.node(id(2)).is_err())).is_none(), "that was not asked");
    assert!(store.read_together(&|tx| drop(tx.clients())).is_none(), "that was never asked before");
}
