//! What only a database of several servers can get wrong.

use crate::{NODE, OTHER, Server, append, enrollment, look, node, open, postgres};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::AuditEntry;
use halfkey_testkit::pki::Pki;
use halfkey_testkit::port::HeldPort;
use halfkey_verifier::store::postgres::{Address, Postgres};
use halfkey_verifier::store::{
    Changes, EnrollmentState, RegistrationRow, Store, StoreError, Then, Tx, Which,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex, mpsc};
use std::time::Duration;

const THREADS: u8 = 8;
const REQUESTS: u8 = 10;

fn write(store: &dyn Store, changes: Changes, mut work: impl FnMut(&dyn Tx)) {
    let done = store.write(changes, &mut |tx| {
        work(tx);
        Then::Commit
    });
    done.unwrap();
}

/// As the domain does it: each entry names the hash of the one before.
pub fn audit(tx: &dyn Tx, detail: &str) {
    tx.hold_trail().unwrap();
    let (last, hash) = tx.audit_end().unwrap().unwrap_or_default();
    let entry = AuditEntry {
        seq: last + 1,
        at: 1,
        actor: "verifier".into(),
        action: "verdict".into(),
        node_id: None,
        detail: format!("{detail} after {:?}", hash.map(|hash| hash[0])),
    };
    tx.insert_audit(&entry, &[(last % 251) as u8; 32]).unwrap();
}

/// A barrier that is not waited for without end.
struct Meeting {
    of: usize,
    came: Mutex<usize>,
    changed: Condvar,
}

impl Meeting {
    fn of(of: usize) -> Self {
        Self { of, came: Mutex::new(0), changed: Condvar::new() }
    }

    fn wait(&self) {
        let mut came = self.came.lock().unwrap();
        *came += 1;
        let all = came.div_ceil(self.of) * self.of;
        self.changed.notify_all();
        let waits = |came: &mut usize| *came < all;
        let (_came, late) = self.changed.wait_timeout_while(came, Duration::from_secs(60), waits).unwrap();
        assert!(!late.timed_out(), "the others are kept out");
    }
}

/// They are all inside their requests at the same time, on two servers, before any of them goes on; the trail is one, whole.
#[test]
fn requests_of_different_nodes_go_on_side_by_side_and_no_entry_is_lost() {
    let url = Server::shared().database();
    let stores = [open(&url), open(&url)];
    let inside = Meeting::of(usize::from(THREADS));
    let all = usize::from(THREADS) * usize::from(REQUESTS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, inside) = (&stores[usize::from(thread % 2)], &inside);
            scope.spawn(move || {
                let id = NodeId([thread + 1; 16]);
                for request in 0..REQUESTS {
                    write(store, Changes::Rows, |tx| {
                        let row = tx.node(id).unwrap().unwrap_or_else(|| node(id, "web"));
                        inside.wait();
                        tx.put_node(&row).unwrap();
                        audit(tx, &format!("{thread} {request}"));
                    });
                }
            });
        }
    });
    let entries = look(&stores[0], |tx| tx.audit_entries(Some(0), None, 10_000).unwrap());
    assert_eq!(
        entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        (1..=all as u64).collect::<Vec<_>>()
    );
    for (index, entry) in entries.iter().enumerate().skip(1) {
        let before = ((index - 1) % 251) as u8;
        assert!(entry.detail.ends_with(&format!("after Some({before})")), "{entry:?}");
    }
    let ours = |thread, request| {
        entries.iter().filter(move |entry| entry.detail.starts_with(&format!("{thread} {request} ")))
    };
    let each = (0..THREADS).flat_map(|thread| (0..REQUESTS).map(move |request| (thread, request)));
    assert!({ each }.all(|(thread, request)| ours(thread, request).count() == 1));
}

#[test]
fn requests_of_one_node_find_what_the_one_before_left() {
    let url = Server::shared().database();
    let stores = [open(&url), open(&url)];
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &stores[usize::from(thread % 2)];
            scope.spawn(move || {
                for _ in 0..REQUESTS {
                    write(store, Changes::Rows, |tx| {
                        let mut row = tx.node(NODE).unwrap().unwrap_or_else(|| node(NODE, "web1"));
                        row.last_seen += 1;
                        tx.put_node(&row).unwrap();
                    });
                }
            });
        }
    });
    let seen = look(&stores[0], |tx| tx.node(NODE).unwrap().unwrap().last_seen);
    assert_eq!(seen, 1 + u64::from(THREADS) * u64::from(REQUESTS));
}

/// Whoever appends a document is alone: what others write is before it or after it.
#[test]
fn a_document_has_the_place_that_its_writer_saw() {
    let url = Server::shared().database();
    let stores = [open(&url), open(&url)];
    let alone = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, alone) = (&stores[usize::from(thread % 2)], &alone);
            scope.spawn(move || {
                for _ in 0..REQUESTS {
                    if thread < 2 {
                        write(store, Changes::Documents, |tx| {
                            let number = tx.head().unwrap().number + 1;
                            assert_eq!(alone.fetch_add(1, Ordering::SeqCst), 0);
                            append(tx, number);
                            assert_eq!(tx.head().unwrap().number, number);
                            assert_eq!(alone.fetch_sub(1, Ordering::SeqCst), 1);
                        });
                    } else {
                        write(store, Changes::Rows, |tx| {
                            let before = tx.head().unwrap();
                            assert_eq!(alone.load(Ordering::SeqCst), 0);
                            tx.put_node(&node(NodeId([thread; 16]), "web")).unwrap();
                            assert_eq!(tx.head().unwrap(), before);
                        });
                    }
                }
            });
        }
    });
    assert_eq!(look(&stores[0], |tx| tx.head().unwrap().number), 2 * u64::from(REQUESTS));
}

/// Two requests that wait for each other: the database ends one of them, and it runs again.
#[test]
fn a_request_that_is_in_the_way_of_another_runs_again() {
    let store = postgres();
    let (crossed, runs) = (Barrier::new(2), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (first, second) in [(NODE, OTHER), (OTHER, NODE)] {
            let (store, crossed, runs) = (&store, &crossed, &runs);
            scope.spawn(move || {
                let mut again = false;
                let put = store.write(Changes::Rows, &mut |tx| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    // What is changed goes with the next question: it is looked at, so that it is held.
                    let mut put = tx.node(first).and_then(|_| tx.put_node(&node(first, "first")));
                    if !std::mem::replace(&mut again, true) {
                        crossed.wait();
                    }
                    put = put.and_then(|()| tx.put_node(&node(second, "second")));
                    if put.is_ok() { Then::Commit } else { Then::RollBack }
                });
                put.unwrap();
            });
        }
    });
    assert_eq!(runs.into_inner(), 3);
    assert_eq!(look(&store, |tx| tx.node_lines(&Which::After(None), 9, 0).unwrap().len()), 2);
}

/// What a request asked as it began is not told to it once it may be otherwise.
#[test]
fn what_was_asked_ahead_is_not_older_than_what_is_asked_then() {
    let url = Server::shared().database();
    let stores = [open(&url), open(&url)];
    write(&stores[0], Changes::Rows, |tx| {
        audit(tx, "first");
        tx.put_node(&node(NODE, "before")).unwrap();
    });
    let first = |tx: &dyn Tx| {
        assert_eq!(tx.node(NODE).unwrap(), None, "it is told of nothing");
        let _ = (tx.audit_end(), tx.audit_entry(1));
    };
    let end = |tx: &dyn Tx| tx.audit_end().unwrap().map(|(end, _)| end);
    let done = stores[0].write_asking(Changes::Rows, &first, &mut |tx| {
        write(&stores[1], Changes::Rows, |tx| audit(tx, "second"));
        assert!(tx.audit_entry(1).unwrap().is_some());
        // By this it is known that there is a second.
        assert!(tx.audit_entry(2).unwrap().is_some());
        assert_eq!(end(tx), Some(2));
        assert_eq!(tx.node(NODE).unwrap().unwrap().label, "before");
        tx.put_node(&node(NODE, "then")).unwrap();
        assert_eq!(tx.node(NODE).unwrap().unwrap().label, "then");
        Then::Commit
    });
    done.unwrap();
    // Who waited for the trail finds what was appended meanwhile.
    let done = stores[0].write_asking(Changes::Rows, &first, &mut |tx| {
        write(&stores[1], Changes::Rows, |tx| audit(tx, "third"));
        tx.hold_trail().unwrap();
        assert_eq!(end(tx), Some(3));
        Then::Commit
    });
    done.unwrap();
    let mut found = (None, None);
    let read = stores[0].read_asking(&first, &mut |tx| {
        write(&stores[1], Changes::Rows, |tx| audit(tx, "fourth"));
        found = (end(tx), tx.audit_entry(4).unwrap().map(|(entry, _)| entry.seq));
    });
    read.unwrap();
    assert_eq!(found, (Some(3), None), "a request that reads sees one state");
}

/// Servers that start at the same time don't all forget the same.
#[test]
fn one_server_forgets_what_is_over() {
    let url = Server::shared().database();
    let stores = [open(&url), open(&url)];
    write(&stores[0], Changes::Rows, |tx| {
        assert!(tx.hold_sweep().unwrap());
        write(&stores[1], Changes::Rows, |tx| assert!(!tx.hold_sweep().unwrap()));
    });
    write(&stores[1], Changes::Rows, |tx| assert!(tx.hold_sweep().unwrap()));
}

#[test]
fn what_postgresql_has_no_value_for_is_an_error() {
    let store = postgres();
    for bad in
        [node(NODE, "a\0b"), halfkey_verifier::store::NodeRow { last_seen: u64::MAX, ..node(NODE, "web1") }]
    {
        let mut put = Ok(());
        let written = store.write(Changes::Rows, &mut |tx| {
            put = tx.put_node(&bad);
            Then::Commit
        });
        // At once, or by the commit.
        let put = put.and(written);
        assert!(matches!(put, Err(StoreError::Unavailable(_))), "{put:?}");
        assert_eq!(look(&store, |tx| tx.node(NODE).unwrap()), None);
    }
    // What is looked for may be anything.
    look(&store, |tx| {
        assert_eq!(tx.evidence(u64::MAX).unwrap(), None);
        assert_eq!(tx.policy("node:x", Some(u64::MAX)).unwrap(), None);
        assert_eq!(tx.documents_after(u64::MAX, 9).unwrap(), []);
        assert_eq!(tx.audit_entries(Some(u64::MAX), None, u64::MAX).unwrap(), []);
    });
    write(&store, Changes::Rows, |tx| tx.put_node(&node(NODE, "web1")).unwrap());
}

/// A statement that fails ends the transaction, whatever the request makes of it.
#[test]
fn a_request_is_not_committed_by_half() {
    let store = postgres();
    let written = store.write(Changes::Rows, &mut |tx| {
        tx.put_node(&node(NODE, "web1")).unwrap();
        let _ = tx.put_node(&node(OTHER, "a\0b"));
        Then::Commit
    });
    assert!(matches!(written, Err(StoreError::Unavailable(_))), "{written:?}");
    assert_eq!(look(&store, |tx| tx.node_lines(&Which::After(None), 9, 0).unwrap().len()), 0);
}

#[test]
fn servers_that_start_together_make_the_schema_once() {
    let url = Server::shared().database();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| open(&url));
        }
    });
    assert_eq!(Server::shared().sql(&url, "SELECT version FROM halfkey_schema"), "4\n");
    Server::shared().sql(&url, "UPDATE halfkey_schema SET version = 99");
    let refused = Postgres::open(&Address::parse(&url).unwrap()).err().unwrap().to_string();
    assert!(refused.contains("found 99") && refused.contains("newer"), "{refused}");
}

#[test]
fn a_database_that_forgets_what_it_commits_is_refused() {
    let url = Server::shared().database();
    let refused = |change: &str| {
        Server::shared().sql(&url, change);
        Postgres::open(&Address::parse(&url).unwrap()).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let name = url.rsplit('/').find(|part| part.contains('?')).unwrap().split('?').next().unwrap().to_owned();
    let why = refused(&format!("ALTER DATABASE {name} SET synchronous_commit = off"));
    assert!(why.contains("synchronous_commit") && why.contains(&format!("database {name} at")), "{why}");
    let why = refused(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
    assert!(why.contains("does not allow writes"), "{why}");
}

/// A request that comes meanwhile waits for it; one for which it is too long says where the database should be.
#[test]
fn a_server_that_is_gone_for_a_moment_is_waited_for() {
    let mut server = Server::start(&[]).unwrap();
    let url = server.database();
    let store = open(&url);
    write(&store, Changes::Rows, |tx| tx.put_node(&node(NODE, "web1")).unwrap());
    server.stop();
    let (tried, waits) = mpsc::channel();
    std::thread::scope(|scope| {
        let store = &store;
        scope.spawn(move || {
            // Its connection is closed, and it is not told.
            tried.send(()).unwrap();
            write(store, Changes::Rows, |tx| tx.put_node(&node(OTHER, "web2")).unwrap());
        });
        waits.recv_timeout(Duration::from_secs(60)).unwrap();
        server.resume().unwrap();
    });
    assert_eq!(look(&store, |tx| tx.node_lines(&Which::After(None), 9, 0).unwrap().len()), 2);
    server.stop();
    let gone = store.read(&mut |_| {}).unwrap_err().to_string();
    assert!(gone.contains(server.folder().to_str().unwrap()), "{gone}");
    server.resume().unwrap();
    assert_eq!(look(&store, |tx| tx.node_lines(&Which::After(None), 9, 0).unwrap().len()), 2);
}

/// A power cut takes what was not flushed. The server's own flushing, which would come later, is far away here.
#[test]
fn what_was_answered_is_on_the_disk() {
    let mut server = Server::start(&["wal_writer_delay=10000", "wal_writer_flush_after=0"]).unwrap();
    let url = server.database();
    let store = open(&url);
    for cut in 1..=3u8 {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let store = &store;
                scope.spawn(move || {
                    for request in 0..REQUESTS {
                        write(store, Changes::Rows, |tx| {
                            tx.put_node(&node(
                                NodeId([cut, thread, request, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                                "w",
                            ))
                            .unwrap();
                            audit(tx, "");
                        });
                    }
                });
            }
        });
        server.stop();
        server.resume().unwrap();
        let all = u64::from(cut) * u64::from(THREADS) * u64::from(REQUESTS);
        assert_eq!(look(&store, |tx| tx.audit_end().unwrap().unwrap().0), all);
        let nodes = look(&store, |tx| tx.node_lines(&Which::After(None), 10_000, 0).unwrap().len());
        assert_eq!(nodes as u64, all);
    }
}

/// Over the network: the password only to the server whose certificate and name are right.
#[test]
fn a_server_is_known_by_its_certificate() {
    let (pki, port, dir) = (Pki::new(), HeldPort::new(), tempfile::tempdir().unwrap());
    let leaf = pki.server("localhost");
    let file = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let mut server = Server::start(&[]).unwrap();
    server.sql("postgres", "CREATE ROLE remote LOGIN PASSWORD 'se:cret'");
    server.sql("postgres", "CREATE DATABASE half OWNER remote");
    server.stop();
    server.listen(port.number(), &leaf.pem, &leaf.key_pem()).unwrap();
    server.resume().unwrap();
    let ca = file("ca.pem", &pki.ca_pem);
    let pass = file("pass", "*:*:half:remote:se\\:cret\n");
    let url = |host: &str, ca: &str, more: &str| {
        format!("postgres://remote@{host}:{}/half?sslrootcert={ca}&passfile={pass}{more}", port.number())
    };
    let opened = |url: &str| Postgres::open(&Address::parse(url).unwrap()).map(drop);
    // The password is bound to this certificate.
    opened(&url("localhost", &ca, "&channel_binding=require")).unwrap();
    let why = opened(&url("127.0.0.1", &ca, "")).unwrap_err().to_string();
    assert!(why.contains("127.0.0.1") && why.to_lowercase().contains("certificate"), "{why}");
    let why = opened(&url("localhost", &file("other.pem", &Pki::new().ca_pem), "")).unwrap_err().to_string();
    assert!(why.contains("localhost") && why.to_lowercase().contains("certificate"), "{why}");
    file("pass", "*:*:*:*:wrong\n");
    let why = opened(&url("localhost", &ca, "")).unwrap_err().to_string();
    assert!(why.contains("password authentication failed") && !why.contains("wrong"), "{why}");
    let plain = format!("postgres://remote:se%3Acret@localhost:{}/half?sslmode=disable", port.number());
    assert!(opened(&plain).unwrap_err().to_string().contains("pg_hba"), "the server takes only TLS");
}

/// What a row of the audit trail, a count, a time says that somebody wrote there: as with SQLite, and the others are read.
#[test]
fn a_negative_number_ends_no_list() {
    let url = Server::shared().database();
    let store = open(&url);
    write(&store, Changes::Documents, |tx| {
        append(tx, 1);
    });
    write(&store, Changes::Rows, |tx| {
        tx.put_node(&node(NODE, "web1")).unwrap();
        tx.insert_enrollment(&enrollment("first", EnrollmentState::Current)).unwrap();
        tx.put_registration(&RegistrationRow {
            node: NODE,
            ak_name: vec![1],
            srk_name: vec![2],
            label: "web1".into(),
            source: "192.0.2.1".into(),
            challenge: vec![3; 32],
            issued: 77,
            registered_at: 1,
            last_seen: 9,
            kept: false,
            register: "{}".into(),
        })
        .unwrap();
        tx.insert_count(1, "register", "192.0.2.1").unwrap();
        tx.set_meta("probed_at", 1).unwrap();
        audit(tx, "");
    });
    let sql = "SELECT format('UPDATE %I SET %I = -1;', table_name, column_name) FROM information_schema.columns
               WHERE table_schema = 'public' AND data_type = 'bigint' AND is_identity = 'NO'
                   AND table_name <> 'halfkey_schema' AND column_name NOT LIKE '%reset%' AND column_name NOT LIKE '%restart%'";
    let updates = Server::shared().sql(&url, sql);
    assert!(updates.lines().count() > 25, "{updates}");
    Server::shared().sql(&url, &updates);
    look(&store, |tx| assert_eq!(tx.node_lines(&Which::After(None), 9, 0).unwrap()[0].last_seen, 0));
    look(&store, |tx| assert_eq!(tx.registration_lines(&Which::After(None), 9).unwrap()[0].last_seen, 0));
    look(&store, |tx| assert_eq!(tx.audit_entries(None, None, 9).unwrap().len(), 0, "no number"));
    look(&store, |tx| assert_eq!(tx.audit_end().unwrap().unwrap().0, 0));
    look(&store, |tx| assert_eq!(tx.head().unwrap().number, 0));
    look(&store, |tx| assert_eq!(tx.node(NODE).unwrap().unwrap().last_seen, 0));
    look(&store, |tx| assert_eq!(tx.registration(NODE).unwrap().unwrap().issued, 0));
    look(&store, |tx| {
        let current = tx.enrollment(NODE, EnrollmentState::Current).unwrap().unwrap();
        assert_eq!((current.number, current.quote.clock), (0, Some(u64::MAX)));
    });
    write(&store, Changes::Rows, |tx| {
        let counts = tx.counts_before(9).unwrap();
        assert_eq!(counts.iter().map(|row| (row.hour, row.count)).collect::<Vec<_>>(), [(0, 0)]);
        tx.delete_counts_before(9).unwrap();
        assert_eq!(tx.counts_before(9).unwrap().len(), 0);
        assert_eq!(tx.unkept_by_source().unwrap()[0].oldest, 0);
        // One more than can be counted.
        tx.insert_count(9, "register", "x").unwrap();
    });
    Server::shared().sql(&url, "UPDATE strangers SET count = 9223372036854775807");
    write(&store, Changes::Rows, |tx| assert!(tx.add_count(9, "register", "x").unwrap()));
}

/// It was paused, or cut off, in the middle of a request: what it holds is taken away before anybody has waited too long for it.
#[test]
fn a_server_that_stops_in_the_middle_of_a_request_keeps_nobody_from_writing() {
    let url = Server::shared().database();
    let (paused, other) = (open(&url), open(&url));
    let (inside, is_inside) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut put = Ok(());
            let _ = paused.write(Changes::Rows, &mut |tx| {
                inside.send(()).unwrap();
                let _ = goes_on.recv();
                put = tx.put_node(&node(NODE, "web1"));
                Then::RollBack
            });
            assert!(put.is_err(), "it goes on as if nothing was");
        });
        is_inside.recv_timeout(Duration::from_secs(60)).unwrap();
        write(&other, Changes::Documents, |tx| {
            append(tx, 1);
        });
        drop(go_on);
    });
    assert_eq!(look(&other, |tx| tx.head().unwrap().number), 1);
}
