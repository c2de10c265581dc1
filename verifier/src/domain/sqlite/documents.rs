//! The sequence of documents: only ever appended to.

use super::{broken, damaged, number};
use crate::domain::{By, Result, StoreError};
use halfkey_protocol::document::{self, Opened, Place};
use halfkey_protocol::wire::{DocumentSignature, SignedDocument};
use halfkey_protocol::{Bytes, Reason};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

/// Key and signature of one signer.
const SIGNATURE: usize = 32 + 64;
/// Most bytes of documents in one answer, but for the last of them.
const PART: usize = 2 << 20;

/// Where it ends.
pub fn head(c: &Connection) -> Result<Place> {
    let found = c
        .prepare_cached("SELECT number, sha256 FROM documents ORDER BY number DESC LIMIT 1")
        .and_then(|mut query| query.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?))).optional())
        .map_err(broken)?;
    Ok(found.map_or_else(Place::default, |(number, sha256)| Place { number: super::as_u64(number), sha256 }))
}

/// Compare and set: a document has its place right after the newest one.
pub fn append(tx: &Transaction<'_>, opened: &Opened, signed: &SignedDocument, by: By<'_>) -> Result<()> {
    document::follows(opened, &head(tx)?).map_err(|what| StoreError::Refused(Reason::Sequence, what))?;
    tx.prepare_cached(
        "INSERT INTO documents (number, scope, sha256, handed_in_at, handed_in_by, signatures, document)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .and_then(|mut insert| {
        insert.execute(params![
            number(opened.place.number),
            opened.scope.to_string(),
            opened.place.sha256,
            number(by.now),
            by.actor,
            packed(signed),
            signed.document.0,
        ])
    })
    .map(|_| ())
    .map_err(broken)
}

/// One.
pub fn one(c: &Connection, at: u64) -> Result<Option<SignedDocument>> {
    c.prepare_cached("SELECT signatures, document FROM documents WHERE number = ?1")
        .and_then(|mut query| query.query_row([number(at)], |row| signed(row, 0)).optional())
        .map_err(broken)
}

/// Those after a number, oldest first, up to a bound of bytes.
pub fn after(c: &Connection, after: u64) -> Result<Vec<SignedDocument>> {
    let mut query = c
        .prepare_cached("SELECT signatures, document FROM documents WHERE number > ?1 ORDER BY number")
        .map_err(broken)?;
    let rows = query.query_map([number(after)], |row| signed(row, 0)).map_err(broken)?;
    let (mut part, mut bytes) = (Vec::new(), 0);
    for row in rows {
        let document = row.map_err(broken)?;
        bytes += document.document.len() + 256;
        part.push(document);
        if bytes > PART {
            break;
        }
    }
    Ok(part)
}

/// Each of them, from the first on.
pub fn each(c: &Connection, mut work: impl FnMut(SignedDocument) -> Result<()>) -> Result<()> {
    let mut query =
        c.prepare_cached("SELECT signatures, document FROM documents ORDER BY number").map_err(broken)?;
    let rows = query.query_map([], |row| signed(row, 0)).map_err(broken)?;
    for row in rows {
        work(row.map_err(broken)?)?;
    }
    Ok(())
}

/// Two columns of a row: signatures and document.
pub fn signed(row: &Row<'_>, first: usize) -> rusqlite::Result<SignedDocument> {
    let signatures: Vec<u8> = row.get(first)?;
    let signature = |bytes: &[u8]| {
        let (key, signature) = bytes.split_at(bytes.len().min(32));
        DocumentSignature { key: key.into(), signature: signature.into() }
    };
    Ok(SignedDocument {
        document: Bytes(row.get(first + 1)?),
        signatures: signatures.chunks(SIGNATURE).map(signature).collect(),
    })
}

fn packed(signed: &SignedDocument) -> Vec<u8> {
    let parts = signed.signatures.iter().flat_map(|s| [s.key.as_ref(), s.signature.as_ref()]);
    parts.collect::<Vec<_>>().concat()
}

/// A row without its document.
pub fn missing(at: u64) -> StoreError {
    damaged(&format!("document {at} is gone"))
}
