//! Documents and their signatures. [`crate::document`] opens them.

use super::declare::wire;
use crate::Bytes;

wire! {
    /// A document with its signatures.
    pub struct SignedDocument {
        /// [`Document`] as JSON text: exactly the signed bytes.
        pub document: Bytes,
        /// One today; none for what an operator says without a tenant key.
        pub signatures: Vec<DocumentSignature>,
    }

    /// A signature over [`crate::document::signed_bytes`].
    pub struct DocumentSignature {
        /// Ed25519 public key, 32 bytes. The fingerprint of a tenant key is what an operator gives the node.
        pub key: Bytes,
        /// Ed25519 signature, 64 bytes.
        pub signature: Bytes,
    }
}

impl SignedDocument {
    /// The key that signed first: the tenant key. Empty if nobody signed. Says nothing before [`crate::document::open`].
    pub fn tenant_key(&self) -> &[u8] {
        self.signatures.first().map_or(&[], |signature| &signature.key)
    }
}

/// What is signed, as JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "miniserde", derive(miniserde::Serialize, miniserde::Deserialize))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
// A server that does not know a field can't do what the tenant meant by it. The agent has no such check: it goes by `format`.
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Document {
    /// Version of the envelope: 1.
    pub format: u32,
    /// [`crate::document::Kind`].
    pub kind: String,
    /// [`crate::document::Scope`].
    pub scope: String,
    /// Id of the deployment: a UUID.
    pub deployment: String,
    /// Place in the deployment's one sequence, from 1.
    pub number: u64,
    /// SHA-256 of the document before, 32 bytes; zeros for the first.
    pub previous: Bytes,
    /// Seconds since 1970, UTC.
    pub created: u64,
    /// A text, as the kind says.
    pub body: String,
}
