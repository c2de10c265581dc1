//! What webhooks are to tell.

use crate::{change, each, look, open};
use halfkey_testkit::postgres::Postgres as Server;
use halfkey_verifier::store::{Changes, NoticeRow, Store as _, Then};

fn notice(endpoint: &str, at: u64) -> NoticeRow {
    NoticeRow {
        id: 0,
        endpoint: endpoint.into(),
        message: format!("msg_{at}"),
        at,
        body: "{\"a\":\"ä\"}".into(),
        attempts: 0,
        due: at,
    }
}

#[test]
fn what_is_due_is_taken_oldest_first_and_once() {
    each(|store| {
        change(store, |tx| {
            for (endpoint, at) in [("a", 1), ("b", 2), ("a", 3), ("a", 4), ("a", 90)] {
                tx.insert_notice(&notice(endpoint, at)).unwrap();
            }
        });
        assert_eq!(look(store, |tx| tx.count_notices("a", 10).unwrap()), (4, 3));
        assert_eq!(look(store, |tx| tx.count_notices("nobody", 10).unwrap()), (0, 0));
        let take = |now, until, limit| change(store, |tx| tx.take_notices("a", now, until, limit).unwrap());
        let taken = take(10, 50, 2);
        assert_eq!(
            taken.iter().map(|row| (row.at, row.attempts, row.due)).collect::<Vec<_>>(),
            [(1, 1, 50), (3, 1, 50)]
        );
        assert_eq!(taken[0], NoticeRow { id: taken[0].id, attempts: 1, due: 50, ..notice("a", 1) });
        let at = |taken: Vec<NoticeRow>| taken.into_iter().map(|row| row.at).collect::<Vec<_>>();
        assert_eq!(at(take(10, 50, 9)), [4]);
        assert!(take(49, 99, 9).is_empty(), "somebody is at it");
        change(store, |tx| {
            tx.delete_notice(taken[0].id).unwrap();
            tx.delete_notice(taken[0].id).unwrap();
            tx.put_off_notice(taken[1].id, 20).unwrap();
            tx.put_off_notice(taken[0].id, 20).unwrap();
        });
        let again = take(20, 70, 9);
        assert_eq!((again.len(), again[0].id, again[0].attempts), (1, taken[1].id, 2));
        assert_eq!(at(take(50, 60, 9)), [4], "who took it was gone");
        assert_eq!(look(store, |tx| tx.count_notices("a", 10).unwrap()), (3, 0));
    });
}

#[test]
fn the_oldest_go_first() {
    each(|store| {
        change(store, |tx| {
            for (endpoint, at) in [("b", 1), ("a", 2), ("a", 3), ("b", 4), ("a", 5)] {
                tx.insert_notice(&notice(endpoint, at)).unwrap();
            }
        });
        let trim = |keep| change(store, |tx| tx.trim_notices("a", keep).unwrap());
        assert_eq!([trim(3), trim(2), trim(2)], [0, 1, 0]);
        assert_eq!(change(store, |tx| tx.delete_notices_before(4).unwrap()), 2, "of each endpoint");
        let left = |endpoint| look(store, |tx| tx.count_notices(endpoint, 9).unwrap().0);
        assert_eq!((left("a"), left("b")), (1, 1));
        assert_eq!(trim(0), 1);
    });
}

/// Two servers that look at the same time.
#[test]
fn what_one_is_taking_the_other_leaves() {
    let url = Server::shared().database();
    let (one, other) = (open(&url), open(&url));
    change(&one, |tx| {
        tx.insert_notice(&notice("a", 1)).unwrap();
        tx.insert_notice(&notice("a", 2)).unwrap();
    });
    one.write(Changes::Rows, &mut |tx| {
        assert_eq!(tx.take_notices("a", 9, 20, 1).unwrap()[0].at, 1);
        // It does not wait for the first, either.
        let theirs = change(&other, |tx| tx.take_notices("a", 9, 20, 9).unwrap());
        assert_eq!(theirs.iter().map(|row| row.at).collect::<Vec<_>>(), [2]);
        Then::Commit
    })
    .unwrap();
    assert!(change(&other, |tx| tx.take_notices("a", 9, 20, 9).unwrap()).is_empty());
}
