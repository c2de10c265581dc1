//! Signatures by the AK (`TPMT_SIGNATURE`, TPM 2.0 Part 2, section 11.3.4).

use crate::Rejection;
use crate::public::AkPublic;
use crate::tpm::exact;
use halfkey_protocol::Reason;
use tpm2_protocol::data::{TpmAlgId, TpmtSignature, TpmuSignature};

/// r || s, 64 bytes, of an ECDSA signature with SHA-256 and P-256.
///
/// A TPM may leave out leading zeros of r and s; here they are back.
///
/// # Errors
/// `Signature`: another kind of signature, or not one.
pub fn parse(tpmt_signature: &[u8]) -> Result<[u8; 64], Rejection> {
    fixed(tpmt_signature).map_err(|detail| Rejection::new(Reason::Signature, detail))
}

/// Verifies a signature by the AK over `message`; another signature is refused as `reason`.
pub(crate) fn verify(
    ak: &AkPublic,
    message: &[u8],
    tpmt_signature: &[u8],
    reason: Reason,
) -> Result<(), Rejection> {
    let signature = fixed(tpmt_signature).map_err(|detail| Rejection::new(reason, detail))?;
    ak.key().verify_sig(message, &signature).map_err(|_| {
        Rejection::new(reason, "expected a signature by the registered ak over these bytes, found another")
    })
}

fn fixed(tpmt_signature: &[u8]) -> Result<[u8; 64], String> {
    let signature: TpmtSignature = exact(tpmt_signature)?;
    let TpmuSignature::Ecdsa(ecdsa) = &signature.signature else {
        return Err(format!("expected an ecdsa signature, found {:?}", signature.sig_alg));
    };
    if ecdsa.hash != TpmAlgId::Sha256 {
        return Err(format!("expected ecdsa with sha256, found {:?}", ecdsa.hash));
    }
    let mut out = [0; 64];
    let (r, s) = out.split_at_mut(32);
    for (half, value) in [(r, &*ecdsa.signature_r), (s, &*ecdsa.signature_s)] {
        let Some(start) = half.len().checked_sub(value.len()) else {
            return Err(format!("expected r and s of at most 32 bytes, found {}", value.len()));
        };
        half[start..].copy_from_slice(value);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ecdsa(r: &[u8], s: &[u8]) -> Vec<u8> {
        let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
        [vec![0x00, 0x18, 0x00, 0x0b], sized(r), sized(s)].concat()
    }

    #[test]
    fn leading_zeros_come_back() {
        let fixed = parse(&ecdsa(&[1; 31], &[])).expect("short values are valid");
        assert_eq!(fixed[..2], [0, 1]);
        assert_eq!(fixed[32..], [0; 32]);
    }

    #[test]
    fn only_ecdsa_with_sha256_and_p256_is_taken() {
        assert!(parse(&ecdsa(&[1; 33], &[1; 32])).is_err());
        for at in 0..4 {
            let mut bytes = ecdsa(&[1; 32], &[1; 32]);
            bytes[at] ^= 1;
            assert!(parse(&bytes).is_err(), "byte {at}");
        }
        assert!(parse(&[ecdsa(&[1; 32], &[1; 32]), vec![0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_ecdsa(
            head in proptest::sample::select(vec![vec![], vec![0, 0x18, 0, 0x0b], vec![0, 0x14, 0, 0x0b]]),
            tail in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let bytes = [head, tail].concat();
            if parse(&bytes).is_ok() {
                prop_assert!(bytes.starts_with(&[0, 0x18, 0, 0x0b]));
            }
        }
    }
}
