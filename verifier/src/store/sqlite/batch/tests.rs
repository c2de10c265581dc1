use super::*;
use crate::store::NextTurn;
use std::sync::Mutex;

fn batch() -> Batch {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "PRAGMA foreign_keys = ON;
             CREATE TABLE whole (id INTEGER PRIMARY KEY);
             CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER);
             CREATE TABLE part (whole INTEGER REFERENCES whole DEFERRABLE INITIALLY DEFERRED);
             CREATE TRIGGER bad AFTER INSERT ON meta WHEN NEW.key = 'bad' BEGIN INSERT INTO part VALUES (1); END;",
        )
        .unwrap();
    Batch::new(connection).unwrap()
}

/// Each row is a part of nothing: that is noticed at the commit.
fn fails_at_commit(connection: &Connection) {
    connection.execute_batch("INSERT INTO part VALUES (1)").unwrap();
}

fn put(connection: &Connection, id: i64) {
    connection.execute("INSERT INTO whole VALUES (?1)", [id]).unwrap();
}

fn count(batch: &Batch) -> i64 {
    batch.outside(|connection| {
        connection.query_row("SELECT count(*) FROM whole", [], |row| row.get(0)).unwrap()
    })
}

/// Between its run and the end of its commit a request holds a lock that the others need for theirs.
#[test]
fn a_commit_that_fails_lets_go_of_what_others_wait_for() {
    const EACH: i64 = 200;
    let batch = Arc::new(batch());
    let beside = Arc::new(Mutex::new(()));
    let (done, all) = mpsc::channel();
    for thread in 0..3 {
        let (batch, beside, done) = (batch.clone(), beside.clone(), done.clone());
        std::thread::spawn(move || {
            for number in 0..EACH {
                if thread == 0 {
                    let mut held = None;
                    let failed = batch.run(&mut |connection| {
                        held = None;
                        drop(beside.lock().unwrap());
                        fails_at_commit(connection);
                        held = Some(beside.lock().unwrap());
                        Then::CommitNow
                    });
                    drop(held);
                    assert!(failed.is_err());
                } else {
                    let put = batch.run(&mut |connection| {
                        drop(beside.lock().unwrap());
                        put(connection, thread * EACH + number);
                        Then::Commit
                    });
                    put.unwrap();
                }
            }
            done.send(()).unwrap();
        });
    }
    for _ in 0..3 {
        all.recv_timeout(Duration::from_secs(60)).expect("they wait for each other");
    }
    assert_eq!(count(&batch), 2 * EACH, "what shared a transaction with one that failed ran again");
}

#[test]
fn a_request_that_can_t_be_committed_says_so() {
    let batch = batch();
    for then in [Then::Commit, Then::CommitNow] {
        let failed = batch.run(&mut |connection| {
            fails_at_commit(connection);
            then
        });
        assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    }
    batch
        .run(&mut |connection| {
            put(connection, 1);
            Then::Commit
        })
        .unwrap();
    assert_eq!(count(&batch), 1);
}

/// Requests that wait and such that must not share a connection, and each is answered once what it changed is there.
#[test]
fn turns_and_requests_that_wait_share_transactions() {
    const EACH: i64 = 200;
    let batch = Arc::new(batch());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let turns: Vec<_> = (0..EACH)
        .map(|number| {
            let batch = batch.clone();
            runtime.spawn(async move {
                let durable = batch.turn().await.run(&mut |tx| match number % 3 {
                    0 => Then::RollBack,
                    _ => {
                        tx.set_meta(&number.to_string(), 1).unwrap();
                        Then::Commit
                    }
                });
                durable.expect("nobody else writes").unwrap().await.unwrap();
            })
        })
        .collect();
    for number in 0..EACH {
        batch
            .run(&mut |connection| {
                put(connection, number);
                Then::Commit
            })
            .unwrap();
    }
    turns.into_iter().for_each(|turn| runtime.block_on(turn).unwrap());
    assert_eq!(count(&batch), EACH);
    assert_eq!(kept(&batch), (0..EACH).filter(|number| number % 3 != 0).count() as i64);
}

fn kept(batch: &Batch) -> i64 {
    batch.outside(|c| c.query_row("SELECT count(*) FROM meta", [], |row| row.get(0)).unwrap())
}

/// A turn that does this.
fn put_meta(turn: Box<dyn Turn>, key: &str) -> Durable {
    let put = turn.run(&mut |tx| {
        tx.set_meta(key, 1).unwrap();
        Then::Commit
    });
    put.expect("nobody else writes").unwrap()
}

/// Two turns in the order in which they have it, and the first does not have it yet.
fn two(batch: &Batch) -> [NextTurn; 2] {
    let held = wait(batch.shared.writer.clone().lock_owned());
    let mut turns: [NextTurn; 2] = [Box::pin(batch.turn()), Box::pin(batch.turn())];
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    turns.iter_mut().for_each(|turn| assert!(turn.as_mut().poll(&mut context).is_pending()));
    drop(held);
    turns
}

/// For who goes away while it waits, the one before has left the transaction open.
#[test]
fn who_goes_away_before_its_turn_leaves_nobody_waiting() {
    let batch = batch();
    let [first, gone] = two(&batch);
    let durable = put_meta(wait(first), "first");
    drop(gone);
    wait(durable).unwrap();
    // It has its turn already, and does nothing with it.
    let [first, gone] = two(&batch);
    let durable = put_meta(wait(first), "second");
    drop(wait(gone));
    wait(durable).unwrap();
    assert_eq!(kept(&batch), 2);
}

#[test]
fn nobody_waits_for_ever_while_others_come_and_go() {
    let batch = Arc::new(batch());
    let (done, all) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).build().unwrap();
    for number in 0..600 {
        let (batch, done) = (batch.clone(), done.clone());
        runtime.spawn(async move {
            match number % 3 {
                0 => {
                    let mut turn = Box::pin(batch.turn());
                    let gone = std::future::poll_fn(|context| {
                        std::task::Poll::Ready(turn.as_mut().poll(context).is_pending())
                    });
                    gone.await;
                }
                1 => drop(batch.turn().await),
                _ => put_meta(batch.turn().await, &number.to_string()).await.unwrap(),
            }
            done.send(()).unwrap();
        });
    }
    for _ in 0..600 {
        all.recv_timeout(Duration::from_secs(60)).expect("somebody waits for a commit");
    }
    assert_eq!(kept(&batch), 200);
}

#[test]
fn a_commit_that_fails_fails_for_all_that_share_it() {
    let batch = batch();
    let [first, second] = two(&batch);
    let durable = [put_meta(wait(first), "bad"), put_meta(wait(second), "good")].map(wait);
    assert!(durable.iter().all(|durable| matches!(durable, Err(StoreError::Unavailable(_)))), "{durable:?}");
    assert_eq!(kept(&batch), 0);
    wait(put_meta(wait(batch.turn()), "good")).unwrap();
    assert_eq!(kept(&batch), 1);
}

#[test]
fn a_turn_that_panics_is_undone_and_takes_no_other_with_it() {
    let batch = batch();
    let panics = |turn: Box<dyn Turn>| {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            turn.run(&mut |tx| {
                tx.set_meta("undone", 1).unwrap();
                panic!("on purpose")
            })
        }));
        assert!(ran.is_err());
    };
    let [first, second] = two(&batch);
    panics(wait(first));
    wait(put_meta(wait(second), "second")).unwrap();
    let [third, fourth] = two(&batch);
    let durable = put_meta(wait(third), "third");
    panics(wait(fourth));
    wait(durable).unwrap();
    assert_eq!(kept(&batch), 2);
}

/// Nothing waits for another process on a thread that must not block, and who may wait does so as before.
#[test]
fn a_turn_while_another_process_writes_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let open = || Connection::open(&path).unwrap();
    let (batch, other) = (Batch::new(open()).unwrap(), open());
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ran = wait(batch.turn()).run(&mut |_| unreachable!("the database is another's"));
    assert!(ran.is_none());
    let patience: i64 = batch.outside(|c| c.query_row("PRAGMA busy_timeout", [], |row| row.get(0)).unwrap());
    assert_eq!(patience, BUSY.as_millis() as i64);
    other.execute_batch("ROLLBACK").unwrap();
    let durable = wait(batch.turn()).run(&mut |_| Then::Commit);
    wait(durable.unwrap().unwrap()).unwrap();
}

/// What can't begin for another reason is left to who may wait, whose answer says it.
#[test]
fn a_turn_that_can_t_begin_leaves_the_answer_to_who_may_wait() {
    let batch = batch();
    batch.outside(|connection| connection.execute_batch("BEGIN").unwrap());
    assert!(wait(batch.turn()).run(&mut |_| unreachable!("it has not begun")).is_none());
    let said = batch.run(&mut |_| unreachable!("it has not begun"));
    assert!(matches!(said, Err(StoreError::Unavailable(_))), "{said:?}");
    batch.outside(|connection| connection.execute_batch("ROLLBACK").unwrap());
    let durable = wait(batch.turn()).run(&mut |_| Then::Commit);
    wait(durable.unwrap().unwrap()).unwrap();
}
