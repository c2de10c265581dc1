//! Qualifying data of a quote: what the signature of the AK covers besides the PCRs.

use crate::label;
use crate::wire::Purpose;
use sha2::{Digest, Sha256};

/// All that a quote commits to. Every field is hashed with its length before
/// it, so no two different sets of fields give the same digest.
#[derive(Clone, Copy, Debug)]
pub struct Qualifier<'a> {
    /// Protocol version, negotiated at `begin`.
    pub version: u32,
    /// Node id, 16 bytes.
    pub node: &'a [u8; 16],
    /// What for.
    pub purpose: Purpose,
    /// The verifier's nonce.
    pub nonce: &'a [u8],
    /// The agent's ephemeral X25519 public key, 32 bytes.
    pub hpke_public: &'a [u8],
    /// nonceTPM of the session that will unseal U; empty for purposes that unseal nothing.
    pub nonce_tpm: &'a [u8],
    /// Name of the SRK.
    pub srk_name: &'a [u8],
    /// SHA-256(r): what the fence will be extended with.
    pub r_sha256: &'a [u8],
}

impl Qualifier<'_> {
    /// The 32 bytes for TPM2_Quote's qualifyingData.
    pub fn digest(&self) -> [u8; 32] {
        let version = self.version.to_be_bytes();
        let fields: [&[u8]; 9] = [
            label::QUOTE.as_bytes(),
            &version,
            self.node,
            self.purpose.as_str().as_bytes(),
            self.nonce,
            self.hpke_public,
            self.nonce_tpm,
            self.srk_name,
            self.r_sha256,
        ];
        let mut hash = Sha256::new();
        for field in fields {
            hash.update((field.len() as u32).to_be_bytes());
            hash.update(field);
        }
        hash.finalize().into()
    }
}
