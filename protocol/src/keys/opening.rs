//! What opens the fence. Its value must say that this boot opened the volumes of the enrollment that the verifier knows, and no others:
//!
//! - the quote commits to SHA-256(r), r being random and of this boot;
//! - a secret that belongs to this r comes in one box with V: whoever answers the agent in the verifier's place does not know it;
//! - the proof of K, whose digest the tenant signed: who has V, but not the owner's K, can make a volume that fits some other K.
//!
//! The verifier can make the same of what it has, and nobody else.

use super::half::proof_digest;
use super::label;
use crate::Key;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of the secret in bytes.
pub const OPENING_LEN: usize = 32;

/// The secret of one opening.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct OpeningSecret([u8; OPENING_LEN]);

impl OpeningSecret {
    /// From these bytes, which whoever has them wipes. `None` on another length.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut secret = Self([0; OPENING_LEN]);
        if bytes.len() != OPENING_LEN {
            return None;
        }
        secret.0.copy_from_slice(bytes);
        Some(secret)
    }

    /// The bytes, for the box of a release and nothing else.
    pub(super) fn expose(&self) -> &[u8; OPENING_LEN] {
        &self.0
    }

    /// Data of the event that opens the fence of a machine that holds this K.
    pub fn event(&self, r_sha256: &[u8; 32], key: &Key) -> Zeroizing<[u8; 32]> {
        self.event_by(r_sha256, &proof_digest(&*Zeroizing::new(key.proof())))
    }

    /// The same for who does not know K: HMAC-SHA256(secret, label || SHA-256(r) || SHA-256(proof of K)).
    pub fn event_by(&self, r_sha256: &[u8; 32], proof_sha256: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(label::FENCE_OPENED);
        mac.update(r_sha256);
        mac.update(proof_sha256);
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}
