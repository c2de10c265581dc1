//! The sequence of documents.

use super::{SqliteTx, broken, number, u64_at};
use crate::store::{DocumentRow, Documents, Result};
use halfkey_protocol::Bytes;
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::{DocumentSignature, SignedDocument};
use rusqlite::{Row, params};

/// Key and signature of one signer.
const SIGNATURE: usize = 32 + 64;

impl Documents for SqliteTx<'_> {
    fn head(&self) -> Result<Place> {
        const SQL: &str = "SELECT number, sha256 FROM documents ORDER BY number DESC LIMIT 1";
        let found = self.first(SQL, [], |row| Ok(Place { number: u64_at(row, 0)?, sha256: row.get(1)? }))?;
        Ok(found.unwrap_or_default())
    }

    fn insert_document(&self, row: &DocumentRow<'_>) -> Result<()> {
        const SQL: &str = "INSERT INTO documents
                (number, scope, sha256, handed_in_at, handed_in_by, signatures, document)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let DocumentRow { place, scope, at, by, signed } = row;
        let (place, at) = ((number(place.number), place.sha256), number(*at));
        self.change(SQL, params![place.0, scope, place.1, at, by, packed(signed), signed.document.0])
            .map(drop)
    }

    fn document(&self, at: u64) -> Result<Option<SignedDocument>> {
        self.first("SELECT signatures, document FROM documents WHERE number = ?1", [number(at)], read)
    }

    fn document_sha256(&self, at: u64) -> Result<Option<[u8; 32]>> {
        self.first("SELECT sha256 FROM documents WHERE number = ?1", [number(at)], |row| row.get(0))
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
    let signature = |bytes: &[u8]| {
        let (key, signature) = bytes.split_at(bytes.len().min(32));
        DocumentSignature { key: key.into(), signature: signature.into() }
    };
    Ok(SignedDocument {
        document: Bytes(row.get(1)?),
        signatures: signatures.chunks(SIGNATURE).map(signature).collect(),
    })
}

fn packed(signed: &SignedDocument) -> Vec<u8> {
    let parts = signed.signatures.iter().flat_map(|s| [s.key.as_ref(), s.signature.as_ref()]);
    parts.collect::<Vec<_>>().concat()
}
