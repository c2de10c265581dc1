//! HPKE (RFC 9180, base mode) by the library that TLS is by, which is faster than the one that machines open with.

use halfkey_protocol::keys::hpke::Released;
use halfkey_protocol::keys::label;
use halfkey_protocol::wire::Sealed;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_CHACHA20_POLY1305 as SUITE;
use rustls::crypto::hpke::{Hpke as _, HpkePublicKey};

/// Seals `released` to the agent's key; `aad` is the qualifying data of the quote. `None` if `public` is no X25519 point.
pub fn seal(public: &[u8], released: &Released, aad: &[u8; 32]) -> Option<Sealed> {
    let public = HpkePublicKey(public.to_vec());
    let (enc, ciphertext) = SUITE.seal(label::RELEASE.as_bytes(), aad, &released.encode(), &public).ok()?;
    Some(Sealed { enc: enc.0.into(), ciphertext: ciphertext.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfkey_protocol::keys::hpke::Ephemeral;
    use halfkey_protocol::keys::opening::{OPENING_LEN, OpeningSecret};
    use halfkey_protocol::wire::Credential;

    fn released() -> Released {
        let credential =
            |tag: u8| Credential { id_object: vec![tag; 60].into(), secret: vec![!tag; 70].into() };
        Released {
            opening: OpeningSecret::new(&[9; OPENING_LEN]),
            c_v: credential(1),
            c_u: Some(credential(2)),
        }
    }

    #[test]
    fn the_machine_s_library_opens_it_with_the_quoted_key_and_for_that_quote() {
        let (mine, other) = (Ephemeral::generate(), Ephemeral::generate());
        let sealed = seal(&mine.public, &released(), &[7; 32]).unwrap();
        assert_eq!(mine.open(&sealed, &[7; 32]).unwrap().encode(), released().encode());
        assert!(mine.open(&sealed, &[8; 32]).is_none());
        assert!(other.open(&sealed, &[7; 32]).is_none());
    }

    #[test]
    fn a_key_that_is_none_or_of_small_order_is_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        for public in [&[][..], &[9; 31], &[9; 33], &[0; 32], &one] {
            assert!(seal(public, &released(), &[0; 32]).is_none(), "{public:?}");
        }
    }
}
