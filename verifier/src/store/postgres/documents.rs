//! The sequence of documents.

use super::row::Found;
use super::{PgTx, bound, stored};
use crate::store::{DocumentRow, Documents, Result, signatures};
use halfkey_protocol::Bytes;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::SignedDocument;

/// Documents that are fetched at once.
const AT_ONCE: i64 = 64;

impl Documents for PgTx<'_> {
    fn head(&self) -> Result<Place> {
        const SQL: &str = "SELECT number, sha256 FROM documents ORDER BY number DESC LIMIT 1";
        let place = |row: &Found| Ok(Place { number: row.u64(0)?, sha256: row.sum(1)? });
        Ok(self.first(SQL, &[], place)?.unwrap_or_default())
    }

    fn insert_document(&self, row: &DocumentRow<'_>) -> Result<()> {
        const SQL: &str = "INSERT INTO documents
                (number, scope, sha256, handed_in_at, handed_in_by, signatures, document, tag)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let DocumentRow { place, scope, at, by, signed, tag } = row;
        let change = self.change(
            SQL,
            &[
                &stored(place.number)?,
                scope,
                &place.sha256.as_slice(),
                &stored(*at)?,
                by,
                &signatures::pack(signed),
                &signed.document.0,
                &tag.as_slice(),
            ],
        );
        change.map(drop)
    }

    fn document(&self, at: u64) -> Result<Option<SignedDocument>> {
        self.first("SELECT signatures, document FROM documents WHERE number = $1", &[&bound(at)], read)
    }

    fn document_sha256(&self, at: u64) -> Result<Option<[u8; 32]>> {
        self.first("SELECT sha256 FROM documents WHERE number = $1", &[&bound(at)], |row| row.sum(0))
    }

    fn document_tag(&self, at: u64) -> Result<Option<Vec<u8>>> {
        let tag =
            self.first("SELECT tag FROM documents WHERE number = $1", &[&bound(at)], |row| row.get(0))?;
        Ok(tag.flatten())
    }

    fn set_document_tag(&self, at: u64, tag: &[u8; 32]) -> Result<()> {
        const SQL: &str = "UPDATE documents SET tag = $2 WHERE number = $1";
        self.change(SQL, &[&bound(at), &tag.as_slice()]).map(drop)
    }

    fn documents_after(&self, after: u64, bytes: usize) -> Result<Vec<SignedDocument>> {
        const SQL: &str = "SELECT signatures, document, number FROM documents WHERE number > $1
                           ORDER BY number LIMIT $2";
        let (mut part, mut found, mut after) = (Vec::new(), 0, bound(after));
        loop {
            let rows = self.rows(SQL, &[&after, &AT_ONCE])?;
            for row in rows.iter() {
                let document = read(row)?;
                found += document.document.len() + 256;
                part.push(document);
                after = row.get(2)?;
                if found > bytes {
                    return Ok(part);
                }
            }
            if rows.is_empty() {
                return Ok(part);
            }
        }
    }
}

fn read(row: &Found) -> Result<SignedDocument> {
    let signatures: Vec<u8> = row.get(0)?;
    Ok(SignedDocument { document: Bytes(row.get(1)?), signatures: signatures::unpack(&signatures) })
}
