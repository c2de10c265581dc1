//! Enrollment: what the tenant signs and the node verifies before it uses it.

use super::declare::wire;
use super::sealed::Credential;
use crate::Bytes;

wire! {
    /// Body of a document of kind `enrollment`, as JSON text. The envelope names node, deployment and time.
    pub struct Enrollment {
        /// A UUID that names this enrollment.
        pub enrollment_id: String,
        /// The node's challenge, 32 bytes: the newest that its TPM activated.
        pub challenge: Bytes,
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

/// SHA-256 over a credential's two fields, each with its length before it.
pub fn credential_digest(credential: &Credential) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for field in [&credential.id_object, &credential.secret] {
        hash.update((field.len() as u16).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}
