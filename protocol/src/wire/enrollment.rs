//! Enrollment: what the tenant signs and the node verifies before it uses it.

use super::wire;
use crate::{Bytes, label};

wire! {
    /// The document that the tenant key signs, as JSON text.
    pub struct Enrollment {
        /// Version of this document: 1.
        pub version: u32,
        /// Node id.
        pub node_id: String,
        /// A UUID that names this enrollment.
        pub enrollment_id: String,
        /// Name of the EK (nameAlg and digest).
        pub ek_name: Bytes,
        /// Name of the AK.
        pub ak_name: Bytes,
        /// Name of the SRK.
        pub srk_name: Bytes,
        /// SHA-256 over C_U: id object and secret, each with its length (two bytes,
        /// big-endian) before it ([`credential_digest`]).
        pub c_u_sha256: Bytes,
        /// The same over C_V.
        pub c_v_sha256: Bytes,
        /// `TPMT_PUBLIC` of the release key.
        pub release_public: Bytes,
        /// PCR bank: `sha256` or `sha384`.
        pub bank: String,
        /// SHA-256(HKDF(K, "proof")).
        pub proof_sha256: Bytes,
        /// The verifier's CA, PEM.
        pub ca: String,
        /// The verifier's URLs, best first.
        pub servers: Vec<String>,
        /// Label that the tenant gave.
        pub label: String,
        /// Seconds since 1970, UTC.
        pub created: u64,
    }

    /// An enrollment and the tenant's signature.
    pub struct SignedEnrollment {
        /// [`Enrollment`] as JSON text: exactly the signed bytes.
        pub document: Bytes,
        /// Ed25519 public key, 32 bytes. Its fingerprint is what an operator gives the node.
        pub tenant_key: Bytes,
        /// Ed25519 signature, 64 bytes, over [`signed_bytes`].
        pub signature: Bytes,
    }

    /// The node holds K: the enrollment is complete.
    pub struct Prove {
        /// Node id.
        pub node_id: String,
        /// Which enrollment.
        pub enrollment_id: String,
        /// HKDF(K, "proof"), 32 bytes.
        pub proof: Bytes,
    }

    /// From now on the purpose `boot` is open and `enroll` closed.
    pub struct Proved {
        /// Node id.
        pub node_id: String,
    }
}

/// What the tenant key signs: label || document.
pub fn signed_bytes(document: &[u8]) -> Vec<u8> {
    [label::ENROLLMENT.as_bytes(), document].concat()
}

/// SHA-256 over a credential's two fields, each with its length before it.
pub fn credential_digest(credential: &super::Credential) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for field in [&credential.id_object, &credential.secret] {
        hash.update((field.len() as u16).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}
