//! The signatures of a document, in one column.

use halfkey_protocol::wire::{DocumentSignature, SignedDocument};

/// Key and signature of one signer.
const SIGNATURE: usize = 32 + 64;

/// One after the other.
pub fn pack(signed: &SignedDocument) -> Vec<u8> {
    let parts = signed.signatures.iter().flat_map(|s| [s.key.as_ref(), s.signature.as_ref()]);
    parts.collect::<Vec<_>>().concat()
}

/// The way back.
pub fn unpack(signatures: &[u8]) -> Vec<DocumentSignature> {
    let signature = |bytes: &[u8]| {
        let (key, signature) = bytes.split_at(bytes.len().min(32));
        DocumentSignature { key: key.into(), signature: signature.into() }
    };
    signatures.chunks(SIGNATURE).map(signature).collect()
}
