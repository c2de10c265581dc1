//! Certificates and registrations.

use crate::{change, each, look};
use halfkey_protocol::NodeId;
use halfkey_verifier::store::{ClientRow, RegistrationRow, Which};

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
            let seen = |source: &str, limit| -> Vec<u64> {
                tx.oldest_unkept(source, limit).unwrap().into_iter().map(|(seen, _)| seen).collect()
            };
            assert_eq!((seen("a", 9), seen("a", 1), seen("c", 9)), (vec![5, 10], vec![5], vec![]));
            assert_eq!(tx.oldest_unkept("a", 1).unwrap()[0].1, tx.unkept_by_source().unwrap()[0].oldest_row);
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
            assert_eq!(tx.oldest_unkept("b", 9).unwrap(), [(8, of("b"))], "not what is kept");
            tx.delete_unkept(&[of("b")]).unwrap();
            assert_eq!(tx.delete_registrations(11).unwrap(), [id(1).to_string()]);
            assert_eq!(
                tx.registration_lines(&Which::After(None), 9).unwrap().len(),
                2,
                "those that are kept"
            );
        });
        change(store, |tx| {
            for first in 10..16 {
                tx.put_registration(&row(first, "many", "d", u64::from(first))).unwrap();
            }
            assert!(tx.keep_registration(id(11)).unwrap());
            let rows: Vec<_> = tx.oldest_unkept("d", 3).unwrap().into_iter().map(|(_, row)| row).collect();
            tx.delete_unkept(&rows).unwrap();
            let seen: Vec<_> = tx.oldest_unkept("d", 9).unwrap().into_iter().map(|(seen, _)| seen).collect();
            assert_eq!(seen, [14, 15], "10, 12 and 13 went");
            assert!(tx.registration(id(11)).unwrap().is_some(), "it is kept");
            tx.delete_unkept(&[]).unwrap();
            assert_eq!(tx.unkept_registrations().unwrap(), 2);
        });
    });
}
