//! A connection that is cut at the commit, before or after it came, or on which nothing comes any more.

use crate::{NODE, Server, append, change, look, node, open};
use halfkey_protocol::NodeId;
use halfkey_verifier::store::postgres::{Address, Postgres};
use halfkey_verifier::store::{Changes, Store, Then, Tx, Which};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Nothing is cut.
pub const CALM: u8 = 0;
/// The next commit does not come.
pub const BEFORE: u8 = 1;
/// The answer to the next commit does not come.
pub const AFTER: u8 = 2;
/// That one has come.
const CUT: u8 = 3;
/// Nothing comes.
const FROZEN: u8 = 4;

/// What is between client and server.
pub struct Between {
    /// What is cut.
    pub when: Arc<AtomicU8>,
    /// Told when a commit does not come.
    cut: Receiver<()>,
    /// While it is locked, nobody is told that a connection has ended.
    quiet: Arc<Mutex<()>>,
}

/// Between client and server, in a folder with a socket like the server's.
pub fn between(folder: &Path, server: &Path) -> Between {
    const NAME: &str = ".s.PGSQL.5432";
    let listener = UnixListener::bind(folder.join(NAME)).unwrap();
    let (when, server) = (Arc::new(AtomicU8::new(CALM)), server.join(NAME));
    let (asked, (tell, cut), quiet) = (when.clone(), mpsc::channel(), Arc::<Mutex<()>>::default());
    let end = quiet.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = UnixStream::connect(&server).unwrap();
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let (when, tell, quiet) = (asked.clone(), tell.clone(), end.clone());
            std::thread::spawn(move || {
                pass(from, to, &quiet, |bytes| {
                    if when.load(Ordering::SeqCst) == FROZEN {
                        return None;
                    }
                    if !bytes.windows(7).any(|part| part == b"COMMIT\0" || part == b"COMMIT;") {
                        return Some(true);
                    }
                    let _ = when.compare_exchange(AFTER, CUT, Ordering::SeqCst, Ordering::SeqCst);
                    let comes =
                        when.compare_exchange(BEFORE, CALM, Ordering::SeqCst, Ordering::SeqCst).is_err();
                    if !comes {
                        // Most tests don't wait for it.
                        let _ = tell.send(());
                    }
                    Some(comes)
                })
            });
            let (when, quiet) = (asked.clone(), end.clone());
            std::thread::spawn(move || {
                pass(server, client, &quiet, |_| {
                    if when.load(Ordering::SeqCst) == FROZEN {
                        return None;
                    }
                    Some(when.compare_exchange(CUT, CALM, Ordering::SeqCst, Ordering::SeqCst).is_err())
                })
            });
        }
    });
    Between { when, cut, quiet }
}

/// Until one of them ends, or `go_on` says so of these bytes. If it says nothing, they are lost.
fn pass(mut from: UnixStream, mut to: UnixStream, quiet: &Mutex<()>, go_on: impl Fn(&[u8]) -> Option<bool>) {
    let mut bytes = [0; 65536];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        match go_on(&bytes[..length]) {
            Some(true) if to.write_all(&bytes[..length]).is_ok() => {}
            None => {}
            Some(_) => break,
        }
    }
    drop(quiet.lock());
    for end in [from, to] {
        let _ = end.shutdown(std::net::Shutdown::Both);
    }
}

#[test]
fn what_became_of_a_commit_is_found_out_or_said_to_be_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::shared().folder();
    let when = between(dir.path(), server).when;
    let url = Server::shared().database();
    let url = url.replace(server.to_str().unwrap(), dir.path().to_str().unwrap());
    let store = Postgres::open(&Address::parse(&url).unwrap()).unwrap();
    let documents = || look(&store, |tx| tx.head().unwrap().number);
    let mut runs = 0;
    let mut append_at = |at: u8| {
        when.store(at, Ordering::SeqCst);
        runs = 0;
        let done = store.write(Changes::Documents, &mut |tx: &dyn Tx| {
            runs += 1;
            append(tx, tx.head().unwrap().number + 1);
            Then::CommitNow
        });
        assert_eq!(
            (runs, when.load(Ordering::SeqCst)),
            (1, CALM),
            "something beside the database says that it ends here"
        );
        done
    };
    // Of a document it is asked.
    assert!(append_at(BEFORE).is_err());
    assert_eq!(documents(), 0);
    append_at(AFTER).unwrap();
    assert_eq!(documents(), 1);
    append_at(CALM).unwrap();
    assert_eq!(documents(), 2);
    // All else is not answered, and does not run twice.
    for (at, there) in [(BEFORE, 0), (AFTER, 1)] {
        when.store(at, Ordering::SeqCst);
        let mut runs = 0;
        let done = store.write(Changes::Rows, &mut |tx: &dyn Tx| {
            runs += 1;
            tx.put_node(&node(NODE, "web1")).unwrap();
            // So that nothing but the commit is answered last.
            assert!(tx.node(NODE).unwrap().is_some());
            Then::Commit
        });
        let said = done.unwrap_err().to_string();
        assert!(said.contains("what became of it is not known"), "{said}");
        assert_eq!((runs, when.load(Ordering::SeqCst)), (1, CALM));
        assert_eq!(look(&store, |tx| tx.node_lines(&Which::After(None), 9, 0).unwrap().len()), there);
    }
}

/// Who waits is told, and the connection is not used any more: its answer may come yet.
#[test]
fn a_server_that_says_nothing_is_not_waited_for_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::shared().folder();
    let Between { when, quiet, .. } = between(dir.path(), server);
    let url = Server::shared().database();
    let url = url.replace(server.to_str().unwrap(), dir.path().to_str().unwrap());
    let store = Postgres::open(&Address::parse(&url).unwrap()).unwrap();
    let put = |label: &str| {
        let mut put = Ok(());
        let done = store.write(Changes::Rows, &mut |tx: &dyn Tx| {
            put = tx.put_node(&node(NODE, label));
            if label == "late" {
                when.store(FROZEN, Ordering::SeqCst);
            }
            if put.is_ok() { Then::CommitNow } else { Then::RollBack }
        });
        done.and(put)
    };
    put("first").unwrap();
    // Not even that the server ends it.
    let held = quiet.lock().unwrap();
    let said = put("late").unwrap_err().to_string();
    assert!(said.contains("no answer within"), "{said}");
    when.store(CALM, Ordering::SeqCst);
    drop(held);
    put("again").unwrap();
    assert_eq!(look(&store, |tx| tx.node(NODE).unwrap().unwrap().label), "again");
}

/// The server crashes before the commit comes, and gives the number of the transaction that it has forgotten to another one.
#[test]
fn a_transaction_that_a_server_forgot_is_not_taken_for_another() {
    let mut server = Server::start(&["wal_writer_delay=10000", "wal_writer_flush_after=0"]).unwrap();
    let url = server.database();
    let dir = tempfile::tempdir().unwrap();
    let folder = server.folder().to_owned();
    let Between { when, cut, quiet } = between(dir.path(), &folder);
    let through = url.replace(folder.to_str().unwrap(), dir.path().to_str().unwrap());
    let (store, other) = (open(&through), open(&url));
    std::thread::scope(|scope| {
        let held = quiet.lock().unwrap();
        when.store(BEFORE, Ordering::SeqCst);
        let appends = scope.spawn(|| {
            store.write(Changes::Documents, &mut |tx: &dyn Tx| {
                append(tx, 1);
                Then::CommitNow
            })
        });
        cut.recv_timeout(Duration::from_secs(60)).unwrap();
        server.stop();
        server.resume().unwrap();
        for number in 0..4 {
            change(&other, |tx| tx.put_node(&node(NodeId([number; 16]), "web")).unwrap());
        }
        drop(held);
        let done = appends.join().unwrap();
        assert!(done.is_err(), "it was never committed");
    });
    assert_eq!(look(&other, |tx| tx.head().unwrap().number), 0);
}

/// Nobody else writes meanwhile, so no transaction that has ended is newer than the one that waits.
#[test]
fn a_commit_that_waits_for_a_standby_is_neither_lost_nor_done_again() {
    let mut server = Server::start(&[]).unwrap();
    let url = server.database();
    let store = open(&url);
    server.sql(&url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.stop();
    server.resume().unwrap();
    assert_eq!(look(&store, |tx| tx.head().unwrap().number), 0);
    let mut runs = 0;
    let done = store.write(Changes::Documents, &mut |tx: &dyn Tx| {
        runs += 1;
        append(tx, 1);
        Then::CommitNow
    });
    let said = done.unwrap_err().to_string();
    assert!(said.contains("what became of it is not known"), "{said}");
    assert_eq!(runs, 1);
    // It comes when the standby does, or is not waited for any more.
    assert_eq!(look(&store, |tx| tx.head().unwrap().number), 0);
    server.sql(&url, "ALTER SYSTEM RESET synchronous_standby_names");
    server.sql(&url, "SELECT pg_reload_conf()");
    // Behind it, by the lock that it holds.
    change(&store, |tx| append(tx, 2));
    assert_eq!(look(&store, |tx| tx.head().unwrap().number), 2);
}
