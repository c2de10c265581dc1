//! Qualifying data of a quote: what the signature of the AK covers besides the PCRs.

use crate::keys::label;
use crate::wire::Purpose;
use sha2::{Digest, Sha256};

/// All that a quote commits to. Every field is hashed with its length before
/// it, so no two different sets of fields give the same digest.
#[derive(Clone, Copy, Debug)]
pub struct QualifyingData<'a> {
    /// Protocol version, negotiated at `begin`.
    pub version: u32,
    /// Node id, 16 bytes.
    pub node: &'a [u8; 16],
    /// What the node attests for; hashed by its name on the wire.
    pub purpose: Purpose,
    /// The verifier's nonce.
    pub nonce: &'a [u8],
    /// The agent's ephemeral X25519 public key, 32 bytes.
    pub hpke_public: &'a [u8],
    /// nonceTPM of the session that will unseal U; empty for purposes that unseal nothing.
    pub nonce_tpm: &'a [u8],
    /// Name of the SRK.
    pub srk_name: &'a [u8],
    /// What this purpose is about: SHA-256(r) for `boot` (32 bytes; r is what the fence will be extended with), SHA-256 of the proposal for
    /// `propose` (32 bytes), [`Wanted::bytes`] for `enroll` (64 bytes), empty for `runtime`.
    pub purpose_data: &'a [u8],
}

impl QualifyingData<'_> {
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
            self.purpose_data,
        ];
        let mut hash = Sha256::new();
        for field in fields {
            hash.update((field.len() as u32).to_be_bytes());
            hash.update(field);
        }
        hash.finalize().into()
    }
}

/// The enrollment that a node takes. Its quote for `enroll` commits to that, so that no other one counts as fetched by the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// SHA-256 of the tenant key, 32 bytes: what the machine's operator typed.
    pub tenant_key: [u8; 32],
    /// The challenge that the node made for it.
    pub challenge: [u8; 32],
}

impl Wanted {
    /// What the quote commits to in the place of SHA-256(r): both, one after the other.
    pub fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        let (tenant_key, challenge) = bytes.split_at_mut(32);
        tenant_key.copy_from_slice(&self.tenant_key);
        challenge.copy_from_slice(&self.challenge);
        bytes
    }

    /// Reads that; `None` if it does not have 64 bytes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 64] = bytes.try_into().ok()?;
        let (tenant_key, challenge) = bytes.split_at(32);
        Some(Self { tenant_key: tenant_key.try_into().ok()?, challenge: challenge.try_into().ok()? })
    }
}
