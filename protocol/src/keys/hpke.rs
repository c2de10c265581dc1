//! HPKE (RFC 9180, base mode): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
//! ChaCha20-Poly1305. Seals what a verdict releases to the ephemeral key that
//! the quote commits to: no relay, proxy or replica in between can read it.
//! Here is the machine's side; the verifier seals by the library that it has for TLS.

use crate::keys::label;
use crate::keys::opening::OpeningSecret;
use crate::wire::{Credential, Sealed};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, Serializable};
use zeroize::Zeroizing;

/// Room for what is in a box, in bytes: two credentials for the largest keys.
const MAX_RELEASED: usize = 2048;

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type EncappedKey = <X25519HkdfSha256 as Kem>::EncappedKey;

/// A key for one attestation.
pub struct Ephemeral {
    private: PrivateKey,
    /// X25519 public key, 32 bytes.
    pub public: [u8; 32],
}

impl Ephemeral {
    /// A fresh key from the kernel's randomness.
    pub fn generate() -> Self {
        let (private, public) = X25519HkdfSha256::gen_keypair();
        Self { private, public: public.to_bytes().into() }
    }

    /// Opens what was sealed to this key. `aad` is the qualifying data of the quote.
    /// `None` if it was sealed to another key or for another quote, or is damaged.
    pub fn open(&self, sealed: &Sealed, aad: &[u8; 32]) -> Option<Released> {
        let enc = EncappedKey::from_bytes(&sealed.enc).ok()?;
        let plain = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.private,
            &enc,
            label::RELEASE.as_bytes(),
            &sealed.ciphertext,
            aad,
        )
        .ok()?;
        Released::decode(&Zeroizing::new(plain))
    }
}

/// What is in the box of a release. The credentials open only in the TPM they were made for.
#[derive(Clone)]
pub struct Released {
    /// What opens the fence; only with purpose `boot`.
    pub opening: Option<OpeningSecret>,
    /// V for the SRK.
    pub c_v: Credential,
    /// U for the EK; only with purpose `enroll`.
    pub c_u: Option<Credential>,
}

impl Released {
    /// Fields in the order secret of the opening (empty if there is none), id object and secret of C_V, then the same of C_U if
    /// present, each with a length of two bytes, big-endian, before it.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Where it grew it would leave the secret behind.
        let mut out = Zeroizing::new(Vec::with_capacity(MAX_RELEASED));
        let opening = self.opening.as_ref().map(|opening| &opening.expose()[..]).unwrap_or_default();
        out.extend((opening.len() as u16).to_be_bytes());
        out.extend_from_slice(opening);
        for credential in [Some(&self.c_v), self.c_u.as_ref()].into_iter().flatten() {
            for field in [&credential.id_object, &credential.secret] {
                let len = u16::try_from(field.len()).expect("a TPM2B fits in 16 bits");
                out.extend(len.to_be_bytes());
                out.extend_from_slice(field);
            }
        }
        out
    }

    /// Reverses [`Released::encode`]; `None` if bytes are missing or left over.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let opening = match take_field(&mut bytes)? {
            [] => None,
            secret => Some(OpeningSecret::new(secret)?),
        };
        let c_v = take_credential(&mut bytes)?;
        let c_u = if bytes.is_empty() { None } else { Some(take_credential(&mut bytes)?) };
        if !bytes.is_empty() {
            return None;
        }
        Some(Self { opening, c_v, c_u })
    }
}

fn take_credential(bytes: &mut &[u8]) -> Option<Credential> {
    let mut field = || take_field(bytes).map(|field| field.to_vec().into());
    Some(Credential { id_object: field()?, secret: field()? })
}

fn take_field<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    let (field, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    *bytes = rest;
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::opening::OPENING_LEN;
    use hpke::OpModeS;
    use proptest::prelude::*;

    type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;

    fn seal(public: &[u8], released: &Released, aad: &[u8; 32]) -> Sealed {
        let (enc, ciphertext) = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &PublicKey::from_bytes(public).unwrap(),
            label::RELEASE.as_bytes(),
            &released.encode(),
            aad,
        )
        .unwrap();
        Sealed { enc: enc.to_bytes().to_vec().into(), ciphertext: ciphertext.into() }
    }

    fn credential(tag: u8) -> Credential {
        Credential { id_object: vec![tag; 60].into(), secret: vec![!tag; 70].into() }
    }

    fn released(opening: bool, c_u: bool) -> Released {
        Released {
            opening: opening.then(|| OpeningSecret::new(&[9; OPENING_LEN]).unwrap()),
            c_v: credential(1),
            c_u: c_u.then(|| credential(2)),
        }
    }

    #[test]
    fn only_the_quoted_key_opens_and_only_for_that_quote() {
        let released = released(true, true);
        let (mine, other) = (Ephemeral::generate(), Ephemeral::generate());
        let sealed = seal(&mine.public, &released, &[7; 32]);
        assert_eq!(mine.open(&sealed, &[7; 32]).unwrap().encode(), released.encode());
        assert!(mine.open(&sealed, &[8; 32]).is_none());
        assert!(other.open(&sealed, &[7; 32]).is_none());
    }

    #[test]
    fn opens_what_another_implementation_sealed() {
        let v: serde_json::Value =
            serde_json::from_str(include_str!("../../vectors/derivations.json")).unwrap();
        let hex = |name: &str| -> Vec<u8> {
            let text = v["hpke"][name].as_str().unwrap();
            (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
        };
        let private = PrivateKey::from_bytes(&hex("private")).unwrap();
        let ephemeral = Ephemeral { private, public: hex("public").try_into().unwrap() };
        let sealed = Sealed { enc: hex("enc").into(), ciphertext: hex("ciphertext").into() };
        let credential =
            |id: &str, secret: &str| Credential { id_object: hex(id).into(), secret: hex(secret).into() };
        let released = Released {
            opening: OpeningSecret::new(&hex("opening")),
            c_v: credential("c_v_id_object", "c_v_secret"),
            c_u: Some(credential("c_u_id_object", "c_u_secret")),
        };
        let opened = ephemeral.open(&sealed, &hex("aad").try_into().unwrap()).unwrap();
        assert_eq!(opened.encode(), released.encode());
    }

    #[test]
    fn half_a_credential_is_refused() {
        let whole = released(true, true).encode();
        let first = released(true, false).encode().len();
        for end in (0..whole.len()).filter(|end| *end != first) {
            assert!(Released::decode(&whole[..end]).is_none(), "{end} bytes");
        }
    }

    #[test]
    fn a_secret_of_an_opening_has_its_length() {
        let mut bytes = released(true, false).encode();
        bytes[1] -= 1;
        bytes.remove(2);
        assert!(Released::decode(&bytes).is_none());
        let none = released(false, true).encode();
        assert!(Released::decode(&none).unwrap().opening.is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_canonical(bytes: Vec<u8>) {
            if let Some(released) = Released::decode(&bytes) {
                prop_assert_eq!(&*released.encode(), &bytes);
            }
        }
    }
}
