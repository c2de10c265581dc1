//! The key derivation functions of the TPM (TPM 2.0 Part 1, sections 11.4.10.2 and .3).

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384};

/// A hash that a TPM object or session uses; for a PCR bank see [`super::bank::PcrBank`]. SHA-1 is not among them on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// `TPM_ALG_SHA256`
    Sha256,
    /// `TPM_ALG_SHA384`
    Sha384,
}

impl Hash {
    /// From a `TPM_ALG_ID`.
    pub fn from_alg(alg: u16) -> Option<Self> {
        match alg {
            0x000b => Some(Self::Sha256),
            0x000c => Some(Self::Sha384),
            _ => None,
        }
    }

    /// The `TPM_ALG_ID`.
    pub fn alg(self) -> u16 {
        match self {
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
        }
    }

    /// Digest length in bytes.
    pub fn digest_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }

    /// The digest of the concatenation of `parts`.
    pub fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        fn run<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
            let mut hash = D::new();
            for part in parts {
                hash.update(part);
            }
            hash.finalize().to_vec()
        }
        match self {
            Self::Sha256 => run::<Sha256>(parts),
            Self::Sha384 => run::<Sha384>(parts),
        }
    }

    /// HMAC over the concatenation of `parts`.
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        macro_rules! run {
            ($hash:ty) => {{
                let mut mac = Hmac::<$hash>::new_from_slice(key).expect("HMAC takes a key of any length");
                for part in parts {
                    mac.update(part);
                }
                mac.finalize().into_bytes().to_vec()
            }};
        }
        match self {
            Self::Sha256 => run!(Sha256),
            Self::Sha384 => run!(Sha384),
        }
    }
}

/// KDFa: `bits` of key material from `key`, `label` (without its NUL) and two contexts.
/// `bits` is a multiple of 8.
pub fn kdfa(hash: Hash, key: &[u8], label: &str, u: &[u8], v: &[u8], bits: u32) -> Vec<u8> {
    counter_mode(hash, bits, |counter| {
        hash.hmac(key, &[counter, label.as_bytes(), &[0], u, v, &bits.to_be_bytes()])
    })
}

/// KDFe: `bits` of key material from the shared secret `z` of an ECDH exchange;
/// `u` and `v` are the x coordinates of the two parties. `bits` is a multiple of 8.
pub fn kdfe(hash: Hash, z: &[u8], label: &str, u: &[u8], v: &[u8], bits: u32) -> Vec<u8> {
    counter_mode(hash, bits, |counter| hash.digest(&[counter, z, label.as_bytes(), &[0], u, v]))
}

fn counter_mode(hash: Hash, bits: u32, block: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let bytes = bits as usize / 8;
    let mut out = Vec::with_capacity(bytes.next_multiple_of(hash.digest_len()));
    let mut counter = 0u32;
    while out.len() < bytes {
        counter += 1;
        let mut next = block(&counter.to_be_bytes());
        out.extend_from_slice(&next);
        zeroize::Zeroize::zeroize(&mut next);
    }
    zeroize::Zeroize::zeroize(&mut out[bytes..]);
    out.truncate(bytes);
    out
}
