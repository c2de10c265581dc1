//! Names of TPM objects.

use super::kdf::Hash;

/// The name of an object: nameAlg || H(public area) (TPM 2.0 Part 1, section 16).
///
/// `public` is a marshalled `TPMT_PUBLIC`. `None` if it is too short or its
/// nameAlg is neither SHA-256 nor SHA-384.
pub fn object_name(public: &[u8]) -> Option<Vec<u8>> {
    let alg = public.get(2..4)?;
    let hash = Hash::from_alg(u16::from_be_bytes([alg[0], alg[1]]))?;
    let mut name = alg.to_vec();
    name.extend(hash.digest(&[public]));
    Some(name)
}
