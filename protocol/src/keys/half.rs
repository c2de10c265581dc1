//! The disk key and its two halves.

use crate::keys::label;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of K, U and V in bytes.
pub const KEY_LEN: usize = 32;

/// One half of the disk key: U (node) or V (verifier). Alone it is random bytes.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Half([u8; KEY_LEN]);

/// The disk key K = U xor V.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; KEY_LEN]);

/// The passphrase of one LUKS2 keyslot, as 64 lower-case hex digits: text, so
/// that it can also be typed in an emergency and passes through every tool.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct VolumeKey([u8; 2 * KEY_LEN]);

impl Half {
    /// Takes a half from a buffer and wipes that buffer. `None` on another length.
    pub fn take(bytes: &mut [u8]) -> Option<Self> {
        let half = <[u8; KEY_LEN]>::try_from(&*bytes).ok().map(Self);
        bytes.zeroize();
        half
    }

    /// A random half from the kernel.
    ///
    /// # Errors
    /// When the kernel has no randomness to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut half = Self([0; KEY_LEN]);
        getrandom::fill(&mut half.0)?;
        Ok(half)
    }

    /// The bytes, for the TPM (sealing, MakeCredential) and nothing else.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl Key {
    /// K = U xor V.
    pub fn combine(u: &Half, v: &Half) -> Self {
        let mut key = Self([0; KEY_LEN]);
        for ((k, u), v) in key.0.iter_mut().zip(&u.0).zip(&v.0) {
            *k = u ^ v;
        }
        key
    }

    /// The passphrase of the volume with this LUKS UUID (as in the header:
    /// lower-case text with dashes).
    pub fn volume_key(&self, luks_uuid: &str) -> VolumeKey {
        let mut okm = [0; KEY_LEN];
        self.derive(luks_uuid.as_bytes(), label::VOLUME, &mut okm);
        let mut text = VolumeKey([0; 2 * KEY_LEN]);
        for (pair, byte) in text.0.chunks_exact_mut(2).zip(okm) {
            pair[0] = hex_digit(byte >> 4);
            pair[1] = hex_digit(byte & 15);
        }
        okm.zeroize();
        text
    }

    /// What a node shows to prove that it holds K. Says nothing about K.
    pub fn proof(&self) -> [u8; 32] {
        let mut proof = [0; 32];
        self.derive(&[], label::PROOF, &mut proof);
        proof
    }

    /// HMAC-SHA256 over an encoded header ([`crate::keys::header_seal`]).
    pub(crate) fn header_seal(&self, encoded: &[u8]) -> [u8; 32] {
        let mut key = [0; KEY_LEN];
        self.derive(&[], label::HEADER_SEAL, &mut key);
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
        key.zeroize();
        mac.update(encoded);
        mac.finalize().into_bytes().into()
    }

    fn derive(&self, salt: &[u8], info: &str, okm: &mut [u8; 32]) {
        Hkdf::<Sha256>::new(Some(salt), &self.0)
            .expand(info.as_bytes(), okm)
            .expect("32 bytes are within the 255 blocks of HKDF-SHA256");
    }
}

impl VolumeKey {
    /// The passphrase, for the standard input of cryptsetup and nothing else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Without a table: an index that depends on a secret is a timing channel.
fn hex_digit(nibble: u8) -> u8 {
    // 39 is the distance from '9' + 1 to 'a'; the mask is all ones above 9.
    let above_nine = ((9i8 - nibble as i8) >> 7) as u8;
    nibble + b'0' + (above_nine & 39)
}

/// SHA-256 of a proof, as the enrollment records it.
pub fn proof_digest(proof: &[u8]) -> [u8; 32] {
    Sha256::digest(proof).into()
}

/// HMAC(secret, label || node id || challenge): the answer to the credential of a registration, and what the node wants to see
/// in its enrollment. Only its TPM knows the secret, so nobody else can replace the challenge.
pub fn activation_proof(secret: &[u8], node: &[u8; 16], challenge: &[u8; 32]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(label::ACTIVATE.as_bytes());
    mac.update(node);
    mac.update(challenge);
    mac.finalize().into_bytes().into()
}

/// Equality in constant time.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}
