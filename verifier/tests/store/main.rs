//! What every back end of the store answers, asked of each of them.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod cut;
mod documents;
mod groups;
mod nodes;
mod notices;
mod postgres;
mod registrar;
mod requests;

use halfkey_protocol::NodeId;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::{DocumentSignature, SignedDocument};
use halfkey_testkit::postgres::Postgres as Server;
use halfkey_verifier::store::memory::Memory;
use halfkey_verifier::store::postgres::{Address, Postgres};
use halfkey_verifier::store::sqlite::Sqlite;
use halfkey_verifier::store::{
    Changes, DocumentRow, EnrollmentRow, EnrollmentState, NodeRow, QuoteRow, Store, Then, Tx,
};

const NODE: NodeId = NodeId([0x17; 16]);
const OTHER: NodeId = NodeId([0x18; 16]);

/// Runs a test with a new database of each kind.
fn each(test: impl Fn(&dyn Store)) {
    test(&Memory::default());
    let dir = tempfile::tempdir().unwrap();
    test(&Sqlite::open(&dir.path().join("db")).unwrap());
    test(&postgres());
}

/// A database of its own.
fn postgres() -> Postgres {
    open(&Server::shared().database())
}

fn open(url: &str) -> Postgres {
    Postgres::open(&Address::parse(url).unwrap()).unwrap()
}

fn change<T>(store: &dyn Store, mut work: impl FnMut(&dyn Tx) -> T) -> T {
    let mut done = None;
    store
        .write(Changes::Rows, &mut |tx| {
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
    let tag = [number as u8 + 100; 32];
    tx.insert_document(&DocumentRow { place, scope: "node:x", at: 9, by: "ada", signed: &signed, tag })
        .unwrap();
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
