//! What opens the fence. The quote commits to a random r of the agent; with V, in the same box, comes a secret that belongs to
//! that r. The fence is extended with what both make, so its value says that the halves of *this* verifier were used: whoever answers
//! the agent in the verifier's place, with halves and signatures of their own, does not know it.

use super::label;
use crate::tpm::kdf::Hash;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of the secret in bytes.
pub const OPENING_LEN: usize = 32;

/// The secret of one opening.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct OpeningSecret([u8; OPENING_LEN]);

impl OpeningSecret {
    /// From these bytes, which whoever has them wipes.
    pub fn new(bytes: [u8; OPENING_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the box of a release and nothing else.
    pub(super) fn expose(&self) -> &[u8; OPENING_LEN] {
        &self.0
    }

    /// Data of the event that opens the fence: HMAC-SHA256(secret, label || SHA-256(r)).
    pub fn event(&self, r_sha256: &[u8; 32]) -> [u8; 32] {
        let mut data = [0; 32];
        data.copy_from_slice(&Hash::Sha256.hmac(&self.0, &[label::FENCE_OPENED, r_sha256]));
        data
    }
}
