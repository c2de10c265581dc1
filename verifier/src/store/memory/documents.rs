//! Documents, in memory.

use super::{MemoryTx, Stored};
use crate::store::{DocumentRow, Documents, Result, StoreError};
use halfkey_protocol::document::Place;
use halfkey_protocol::wire::SignedDocument;

impl Documents for MemoryTx {
    fn head(&self) -> Result<Place> {
        let tables = self.0.borrow();
        let last = tables.documents.last_key_value();
        Ok(last.map_or_else(Place::default, |(number, last)| Place { number: *number, sha256: last.sha256 }))
    }

    fn insert_document(&self, row: &DocumentRow<'_>) -> Result<()> {
        let document = Stored { sha256: row.place.sha256, signed: row.signed.clone(), tag: row.tag };
        match self.0.borrow_mut().documents.insert(row.place.number, document) {
            None => Ok(()),
            Some(_) => Err(StoreError::Unavailable("a document is there already".to_owned())),
        }
    }

    fn document(&self, number: u64) -> Result<Option<SignedDocument>> {
        Ok(self.0.borrow().documents.get(&number).map(|stored| stored.signed.clone()))
    }

    fn document_sha256(&self, number: u64) -> Result<Option<[u8; 32]>> {
        Ok(self.0.borrow().documents.get(&number).map(|stored| stored.sha256))
    }

    fn document_tag(&self, number: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().documents.get(&number).map(|stored| stored.tag.to_vec()))
    }

    fn set_document_tag(&self, number: u64, tag: &[u8; 32]) -> Result<()> {
        if let Some(stored) = self.0.borrow_mut().documents.get_mut(&number) {
            stored.tag = *tag;
        }
        Ok(())
    }

    fn documents_after(&self, number: u64, bytes: usize) -> Result<Vec<SignedDocument>> {
        let tables = self.0.borrow();
        let (mut part, mut found) = (Vec::new(), 0);
        for (_, stored) in tables.documents.range(number.saturating_add(1)..) {
            found += stored.signed.document.len() + 256;
            part.push(stored.signed.clone());
            if found > bytes {
                break;
            }
        }
        Ok(part)
    }
}
