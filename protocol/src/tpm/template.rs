//! The public areas that Halfkey creates, to the byte. The registrar compares
//! what a node sends with these; anything else is refused.
//!
//! All are marshalled `TPMT_PUBLIC` (TPM 2.0 Part 2, section 12.2.4).

/// Storage key: ECC P-256 with AES-128-CFB, the SRK of "TCG TPM v2.0 Provisioning
/// Guidance", section 7.5.1 (the key that other software keeps at 0x81000001).
pub const SRK: Ecc = Ecc {
    // fixedTPM | fixedParent | sensitiveDataOrigin | userWithAuth | noDA | restricted | decrypt
    attributes: 0x0003_0472,
    symmetric: Some((0x0006, 128, 0x0043)),
    scheme: None,
};

/// Attestation key, version 1: restricted ECDSA P-256 with SHA-256.
pub const AK: Ecc = Ecc {
    // fixedTPM | fixedParent | sensitiveDataOrigin | userWithAuth | noDA | restricted | sign
    attributes: 0x0005_0472,
    symmetric: None,
    scheme: Some((0x0018, 0x000b)),
};

/// Release key: an external, unrestricted ECDSA P-256 key that only verifies in this TPM.
pub const RELEASE: Ecc = Ecc {
    // userWithAuth | sign
    attributes: 0x0004_0040,
    symmetric: None,
    scheme: Some((0x0018, 0x000b)),
};

/// An ECC P-256 public area with nameAlg SHA-256 and no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecc {
    /// `TPMA_OBJECT`
    pub attributes: u32,
    /// Algorithm, key bits and mode of `TPMT_SYM_DEF_OBJECT`; `None` is `TPM_ALG_NULL`.
    pub symmetric: Option<(u16, u16, u16)>,
    /// Scheme and hash of `TPMT_ECC_SCHEME`; `None` is `TPM_ALG_NULL`.
    pub scheme: Option<(u16, u16)>,
}

const NULL: u16 = 0x0010;

impl Ecc {
    /// Everything before `unique`.
    fn head(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        let word = |out: &mut Vec<u8>, value: u16| out.extend(value.to_be_bytes());
        word(&mut out, 0x0023); // TPM_ALG_ECC
        word(&mut out, 0x000b); // nameAlg SHA-256
        out.extend(self.attributes.to_be_bytes());
        word(&mut out, 0); // authPolicy
        match self.symmetric {
            Some((alg, bits, mode)) => [alg, bits, mode].iter().for_each(|v| word(&mut out, *v)),
            None => word(&mut out, NULL),
        }
        match self.scheme {
            Some((scheme, hash)) => [scheme, hash].iter().for_each(|v| word(&mut out, *v)),
            None => word(&mut out, NULL),
        }
        word(&mut out, 0x0003); // TPM_ECC_NIST_P256
        word(&mut out, NULL); // KDF
        out
    }

    /// The template for TPM2_CreatePrimary: unique is two coordinates of 32 zero
    /// bytes, as the TCG template has it.
    pub fn template(&self) -> Vec<u8> {
        self.public(&[0; 32], &[0; 32])
    }

    /// The public area with this point.
    pub fn public(&self, x: &[u8; 32], y: &[u8; 32]) -> Vec<u8> {
        let mut out = self.head();
        for coordinate in [x, y] {
            out.extend(32u16.to_be_bytes());
            out.extend_from_slice(coordinate);
        }
        out
    }

    /// The point of a public area that is this template to the byte, else `None`.
    pub fn point(&self, public: &[u8]) -> Option<([u8; 32], [u8; 32])> {
        let rest = public.strip_prefix(self.head().as_slice())?;
        let rest = rest.strip_prefix(&32u16.to_be_bytes())?;
        let (x, rest) = rest.split_first_chunk::<32>()?;
        let rest = rest.strip_prefix(&32u16.to_be_bytes())?;
        let y = <[u8; 32]>::try_from(rest).ok()?;
        Some((*x, y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_point_survives_and_another_template_is_refused() {
        let public = SRK.public(&[1; 32], &[2; 32]);
        assert_eq!(SRK.point(&public), Some(([1; 32], [2; 32])));
        assert_eq!(AK.point(&public), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_exact(tail in proptest::collection::vec(any::<u8>(), 60..80)) {
            let mut bytes = AK.head();
            bytes.extend(tail);
            if let Some((x, y)) = AK.point(&bytes) {
                prop_assert_eq!(AK.public(&x, &y), bytes);
            }
        }
    }
}
