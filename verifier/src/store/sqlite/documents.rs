//! The sequence of documents.

use super::{SqliteTx, broken, number, u64_at};
use crate::store::{DocumentRow, Documents, Result, signatures};
use halfkey_protocol::Bytes;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::SignedDocument;
use rusqlite::{Row, params};

impl Documents for SqliteTx<'_> {
    fn head(&self) -> Result<Place> {
        const SQL: &str = "SELECT number, sha256 FROM documents ORDER BY number DESC LIMIT 1";
        let found = self.first(SQL, [], |row| Ok(Place { number: u64_at(row, 0)?, sha256: row.get(1)? }))?;
        Ok(found.unwrap_or_default())
    }

    fn insert_document(&self, row: &DocumentRow<'_>) -> Result<()> {
        const SQL: &str = "INSERT INTO documents
                (number, scope, sha256, handed_in_at, handed_in_by, signatures, document, tag)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let DocumentRow { place, scope, at, by, signed, tag } = row;
        let (place, at, signatures) =
            ((number(place.number), place.sha256), number(*at), signatures::pack(signed));
        self.change(SQL, params![place.0, scope, place.1, at, by, signatures, signed.document.0, tag])
            .map(drop)
    }

    fn document(&self, at: u64) -> Result<Option<SignedDocument>> {
        self.first("SELECT signatures, document FROM documents WHERE number = ?1", [number(at)], read)
    }

    fn document_sha256(&self, at: u64) -> Result<Option<[u8; 32]>> {
        self.first("SELECT sha256 FROM documents WHERE number = ?1", [number(at)], |row| row.get(0))
    }

    fn document_tag(&self, at: u64) -> Result<Option<Vec<u8>>> {
        let tag =
            self.first("SELECT tag FROM documents WHERE number = ?1", [number(at)], |row| row.get(0))?;
        Ok(tag.flatten())
    }

    fn set_document_tag(&self, at: u64, tag: &[u8; 32]) -> Result<()> {
        self.change("UPDATE documents SET tag = ?2 WHERE number = ?1", params![number(at), tag]).map(drop)
    }

    fn documents_after(&self, after: u64, bytes: usize) -> Result<Vec<SignedDocument>> {
        const SQL: &str = "SELECT signatures, document FROM documents WHERE number > ?1 ORDER BY number";
        let mut query = self.0.prepare_cached(SQL).map_err(broken)?;
        let rows = query.query_map([number(after)], read).map_err(broken)?;
        let (mut part, mut found) = (Vec::new(), 0);
        for row in rows {
            let document = row.map_err(broken)?;
            found += document.document.len() + 256;
            part.push(document);
            if found > bytes {
                break;
            }
        }
        Ok(part)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<SignedDocument> {
    let signatures: Vec<u8> = row.get(0)?;
    Ok(SignedDocument { document: Bytes(row.get(1)?), signatures: signatures::unpack(&signatures) })
}
