//! Public areas of a node's keys (`TPMT_PUBLIC`, TPM 2.0 Part 2, section 12.2.4).
//!
//! A name is a hash of a public area, so a public area that is exactly right and
//! a name that matches say all there is to say about a key.

use crate::Rejection;
use crate::rejection::refuse;
use crate::tpm::{exact, id};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::tpm::name::object_name;
use halfkey_protocol::tpm::template;
use tpm2_protocol::data::{TpmtPublic, TpmuPublicId};

/// The key of an EK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EkKey {
    /// RSA-2048, exponent 65537: the modulus, big-endian.
    Rsa2048(Box<[u8; 256]>),
    /// A point on P-256: x and y.
    EccP256([u8; 32], [u8; 32]),
    /// A point on P-384: x and y.
    EccP384([u8; 48], [u8; 48]),
}

/// A supported endorsement key: one of the templates L-1, L-2, H-1, H-2 and H-3 of
/// "TCG EK Credential Profile for TPM Family 2.0", sections B.3 and B.4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EkPublic {
    key: EkKey,
    name_alg: Hash,
    name: Vec<u8>,
    bytes: Vec<u8>,
}

impl EkPublic {
    /// Parses a marshalled `TPMT_PUBLIC`.
    ///
    /// # Errors
    /// `EkTemplate`: not one of the templates, to the byte, or not a valid key.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        let public: TpmtPublic = match exact(bytes) {
            Ok(public) => public,
            Err(detail) => return refuse!(EkTemplate, "{detail}"),
        };
        let key = match &public.unique {
            TpmuPublicId::Rsa(modulus) => rsa(modulus)?,
            TpmuPublicId::Ecc(point) => ecc(&point.x, &point.y)?,
            _ => return refuse!(EkTemplate, "expected an rsa or ecc key, found {:?}", public.object_type),
        };
        let name_alg = key.name_alg();
        require_attributes(public.object_attributes.bits())?;
        require_policy(name_alg, &public.auth_policy)?;
        // Attributes and policy are the only variable parts. All the rest follows from
        // the key: build it and compare, so that no field is left unlooked at.
        if key.public(public.object_attributes.bits(), &public.auth_policy) != bytes {
            return refuse!(
                EkTemplate,
                "expected the name hash, symmetric algorithm, scheme and exponent of the tcg template for {}, found others",
                key.kind()
            );
        }
        let Some(name) = object_name(bytes) else {
            return refuse!(EkTemplate, "expected a name with sha256 or sha384, found another");
        };
        Ok(Self { key, name_alg, name, bytes: bytes.to_vec() })
    }

    /// The key.
    pub fn key(&self) -> &EkKey {
        &self.key
    }

    /// Hash of its name, and of every derivation with it.
    pub fn name_alg(&self) -> Hash {
        self.name_alg
    }

    /// Its name: nameAlg and digest.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// `TPMT_PUBLIC`, as parsed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// `sha256:...` over the public area: what two people compare.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.bytes)
    }

    /// `RSA-2048`, `ECC P-256` or `ECC P-384`.
    pub fn kind(&self) -> &'static str {
        self.key.kind()
    }
}

impl EkKey {
    fn kind(&self) -> &'static str {
        match self {
            Self::Rsa2048(_) => "RSA-2048",
            Self::EccP256(..) => "ECC P-256",
            Self::EccP384(..) => "ECC P-384",
        }
    }

    fn name_alg(&self) -> Hash {
        match self {
            Self::Rsa2048(_) | Self::EccP256(..) => Hash::Sha256,
            Self::EccP384(..) => Hash::Sha384,
        }
    }

    /// Bits of the AES key that wraps what the EK protects.
    pub(crate) fn symmetric_bits(&self) -> u16 {
        match self {
            Self::Rsa2048(_) | Self::EccP256(..) => 128,
            Self::EccP384(..) => 256,
        }
    }

    /// The TCG template with this key.
    fn public(&self, attributes: u32, policy: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(384);
        let word = |out: &mut Vec<u8>, value: u16| out.extend(value.to_be_bytes());
        let sized = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend((bytes.len() as u16).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        word(&mut out, if matches!(self, Self::Rsa2048(_)) { id::RSA } else { id::ECC });
        word(&mut out, self.name_alg().alg());
        out.extend(attributes.to_be_bytes());
        sized(&mut out, policy);
        for value in [id::AES, self.symmetric_bits(), id::CFB, id::NULL] {
            word(&mut out, value);
        }
        match self {
            Self::Rsa2048(modulus) => {
                word(&mut out, 2048);
                out.extend([0; 4]); // exponent: 0 is 65537
                sized(&mut out, &modulus[..]);
            }
            Self::EccP256(x, y) => {
                word(&mut out, id::NIST_P256);
                word(&mut out, id::NULL); // KDF
                sized(&mut out, x);
                sized(&mut out, y);
            }
            Self::EccP384(x, y) => {
                word(&mut out, id::NIST_P384);
                word(&mut out, id::NULL);
                sized(&mut out, x);
                sized(&mut out, y);
            }
        }
        out
    }
}

fn rsa(modulus: &[u8]) -> Result<EkKey, Rejection> {
    let Ok(modulus) = <[u8; 256]>::try_from(modulus) else {
        return refuse!(EkTemplate, "expected an rsa modulus of 256 bytes, found {}", modulus.len());
    };
    // Odd and with its top bit set, or nothing encrypts to it as the TPM would decrypt.
    if modulus[0] & 0x80 == 0 || modulus[255] & 1 == 0 {
        return refuse!(EkTemplate, "expected an odd modulus of 2048 bits, found a smaller or even number");
    }
    Ok(EkKey::Rsa2048(Box::new(modulus)))
}

fn ecc(x: &[u8], y: &[u8]) -> Result<EkKey, Rejection> {
    // Not on the curve: ECDH with it would give part of a secret away.
    let valid = match (x.len(), y.len()) {
        (32, 32) => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed(x, y)).is_ok(),
        (48, 48) => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, uncompressed(x, y)).is_ok(),
        _ => {
            return refuse!(
                EkTemplate,
                "expected coordinates of 32 or 48 bytes, found {} and {}",
                x.len(),
                y.len()
            );
        }
    };
    if !valid {
        return refuse!(EkTemplate, "expected a point on the curve, found another");
    }
    let sized = "both lengths were matched above";
    Ok(match x.len() {
        32 => EkKey::EccP256(x.try_into().expect(sized), y.try_into().expect(sized)),
        _ => EkKey::EccP384(x.try_into().expect(sized), y.try_into().expect(sized)),
    })
}

// fixedTPM | fixedParent | sensitiveDataOrigin | adminWithPolicy | restricted | decrypt
const EK_ATTRIBUTES: u32 = 0x0003_00b2;
const USER_WITH_AUTH: u32 = 0x0000_0040;

/// The high-range templates add userWithAuth, the low-range ones do not have it.
/// Neither lets anybody but the TPM use the private key outside its commands.
fn require_attributes(found: u32) -> Result<(), Rejection> {
    if found & !USER_WITH_AUTH == EK_ATTRIBUTES {
        return Ok(());
    }
    refuse!(
        EkTemplate,
        "expected attributes {EK_ATTRIBUTES:#010x} (userWithAuth may be set), found {found:#010x}"
    )
}

/// PolicyA (PolicySecret of the endorsement hierarchy) and PolicyB (PolicyA or a
/// policy in NV) of the EK Credential Profile, section B.6.
fn require_policy(hash: Hash, found: &[u8]) -> Result<(), Rejection> {
    let known: [&[u8]; 2] = match hash {
        Hash::Sha256 => [&POLICY_A_SHA256, &POLICY_B_SHA256],
        Hash::Sha384 => [&POLICY_A_SHA384, &POLICY_B_SHA384],
    };
    if known.contains(&found) {
        return Ok(());
    }
    refuse!(
        EkTemplate,
        "expected authPolicy PolicyA or PolicyB of the tcg, found another of {} bytes",
        found.len()
    )
}

const POLICY_A_SHA256: [u8; 32] = *b"\x83\x71\x97\x67\x44\x84\xb3\xf8\x1a\x90\xcc\x8d\x46\xa5\xd7\x24\xfd\x52\xd7\x6e\x06\x52\x0b\x64\xf2\xa1\xda\x1b\x33\x14\x69\xaa";
const POLICY_B_SHA256: [u8; 32] = *b"\xca\x3d\x0a\x99\xa2\xb9\x39\x06\xf7\xa3\x34\x24\x14\xef\xcf\xb3\xa3\x85\xd4\x4c\xd1\xfd\x45\x90\x89\xd1\x9b\x50\x71\xc0\xb7\xa0";
const POLICY_A_SHA384: [u8; 48] = *b"\x8b\xbf\x22\x66\x53\x7c\x17\x1c\xb5\x6e\x40\x3c\x4d\xc1\xd4\xb6\x4f\x43\x26\x11\xdc\x38\x6e\x6f\x53\x20\x50\xc3\x27\x8c\x93\x0e\x14\x3e\x8b\xb1\x13\x38\x24\xcc\xb4\x31\x05\x38\x71\xc6\xdb\x53";
const POLICY_B_SHA384: [u8; 48] = *b"\xb2\x6e\x7d\x28\xd1\x1a\x50\xbc\x53\xd8\x82\xbc\xf5\xfd\x3a\x1a\x07\x41\x48\xbb\x35\xd3\xb4\xe4\xcb\x1c\x0a\xd9\xbd\xe4\x19\xca\xcb\x47\xba\x09\x69\x96\x46\x15\x0f\x9f\xc0\x00\xf3\xf8\x0e\x12";

/// An attestation key of the exact template ([`template::AK`]).
#[derive(Clone, Debug)]
pub struct AkPublic {
    name: Vec<u8>,
    key: ParsedPublicKey,
}

impl AkPublic {
    /// Parses a marshalled `TPMT_PUBLIC`.
    ///
    /// # Errors
    /// `AkTemplate`: not the template, to the byte, or not a point on P-256.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        let Some((x, y)) = template::AK.point(bytes) else {
            return refuse!(AkTemplate, "expected the ak template, version 1, found another public area");
        };
        let Ok(key) = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed(&x, &y)) else {
            return refuse!(AkTemplate, "expected a point on p-256, found another");
        };
        Ok(Self { name: p256_name(bytes), key })
    }

    /// Its name: nameAlg and digest.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Verifies ECDSA signatures (r || s, 64 bytes) with SHA-256.
    pub(crate) fn key(&self) -> &ParsedPublicKey {
        &self.key
    }
}

/// A storage key of the exact template ([`template::SRK`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrkPublic {
    name: Vec<u8>,
    point: ([u8; 32], [u8; 32]),
}

impl SrkPublic {
    /// Parses a marshalled `TPMT_PUBLIC`.
    ///
    /// # Errors
    /// `SrkTemplate`: not the template, to the byte, or not a point on P-256.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        let Some((x, y)) = template::SRK.point(bytes) else {
            return refuse!(SrkTemplate, "expected the srk template of the tcg, found another public area");
        };
        if ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed(&x, &y)).is_err() {
            return refuse!(SrkTemplate, "expected a point on p-256, found another");
        }
        Ok(Self { name: p256_name(bytes), point: (x, y) })
    }

    /// Its name: nameAlg and digest.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Its point on P-256: x and y.
    pub fn point(&self) -> &([u8; 32], [u8; 32]) {
        &self.point
    }
}

fn p256_name(bytes: &[u8]) -> Vec<u8> {
    object_name(bytes).expect("the templates have nameAlg sha256")
}

/// SEC 1, section 2.3.3: what the crypto library and certificates take.
pub(crate) fn uncompressed(x: &[u8], y: &[u8]) -> Vec<u8> {
    [&[4], x, y].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(EkPublic::parse(&bytes).is_err());
            prop_assert!(AkPublic::parse(&bytes).is_err());
            prop_assert!(SrkPublic::parse(&bytes).is_err());
        }

        /// Any modulus makes an EK; any change of anything but the modulus unmakes it.
        #[test]
        fn an_rsa_ek_is_the_template_or_nothing(seed: [u8; 32], at in 0usize..58, flip in 1u8..) {
            let mut modulus = [0xa5; 256];
            modulus[1..33].copy_from_slice(&seed);
            let key = EkKey::Rsa2048(Box::new(modulus));
            let mut public = key.public(EK_ATTRIBUTES, &POLICY_A_SHA256);
            let parsed = EkPublic::parse(&public).expect("the template");
            prop_assert_eq!(parsed.key(), &key);
            public[at] ^= flip;
            // userWithAuth is the one bit that may differ.
            prop_assert_eq!(EkPublic::parse(&public).is_ok(), at == 7 && flip == 0x40);
        }
    }

    #[test]
    fn a_point_off_the_curve_is_refused() {
        let ek = EkKey::EccP256([1; 32], [2; 32]).public(EK_ATTRIBUTES, &POLICY_A_SHA256);
        let detail = EkPublic::parse(&ek).expect_err("off the curve").detail;
        assert!(detail.contains("on the curve"), "{detail}");
        assert!(AkPublic::parse(&template::AK.public(&[1; 32], &[2; 32])).is_err());
        assert!(SrkPublic::parse(&template::SRK.public(&[1; 32], &[2; 32])).is_err());
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut public = EkKey::Rsa2048(Box::new([0xff; 256])).public(EK_ATTRIBUTES, &POLICY_B_SHA256);
        assert!(EkPublic::parse(&public).is_ok());
        public.push(0);
        assert!(EkPublic::parse(&public).is_err());
    }
}
