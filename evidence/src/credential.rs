//! TPM2_MakeCredential in software (TPM 2.0 Part 1, section 24, and annexes B.10.4
//! and C.6.4): a secret that only one TPM opens, and only beside one object.

use crate::Rejection;
use crate::public::{EkKey, EkPublic, uncompressed};
use crate::registration::CheckedRegistration;
use crate::rejection::refuse;
use aws_lc_rs::agreement::{self, Algorithm, EphemeralPrivateKey, UnparsedPublicKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use halfkey_protocol::Reason;
use halfkey_protocol::tpm::kdf::{Hash, kdfa, kdfe};
use halfkey_protocol::wire::Credential;
use zeroize::Zeroizing;

/// What a seed of a credential is for, in KDFe.
const IDENTITY: &str = "IDENTITY";

/// A credential that the TPM with this EK opens if it holds the object with this name.
///
/// `secret` is 1 byte up to the digest length of the EK's nameAlg (at least 32).
///
/// # Errors
/// `Malformed`: name or secret of another length. `Unavailable`: no randomness.
pub fn make_for_ek(ek: &EkPublic, name: &[u8], secret: &[u8]) -> Result<Credential, Rejection> {
    let hash = ek.name_alg();
    require_lengths(hash, name, secret)?;
    let shared = match ek.key() {
        EkKey::Rsa2048(modulus) => share_by_rsa(&modulus[..]),
        EkKey::EccP256(x, y) => share_by_ecdh(&agreement::ECDH_P256, hash, IDENTITY, x, y),
        EkKey::EccP384(x, y) => share_by_ecdh(&agreement::ECDH_P384, hash, IDENTITY, x, y),
    };
    shared.and_then(|seed| wrap(hash, ek.key().symmetric_bits(), &seed, name, secret)).map_err(library)
}

/// The same to the SRK: a secret for one installation of one TPM (TPM2_Clear ends it).
///
/// # Errors
/// As [`make_for_ek`].
pub fn make_for_srk(
    registration: &CheckedRegistration,
    name: &[u8],
    secret: &[u8],
) -> Result<Credential, Rejection> {
    require_lengths(Hash::Sha256, name, secret)?;
    let (x, y) = registration.srk().point();
    share_by_ecdh(&agreement::ECDH_P256, Hash::Sha256, IDENTITY, x, y)
        .and_then(|seed| wrap(Hash::Sha256, 128, &seed, name, secret))
        .map_err(library)
}

/// A P-256 private key for TPM2_Import below an SRK (Part 1, section 23.3.2.3: the outer wrapper): `id_object` is what a
/// `TPM2B_PRIVATE` holds, `secret` the encrypted seed. `name` is that of the key's public area. It has no authValue.
///
/// # Errors
/// `Malformed`: a name of another length. `Unavailable`: no randomness.
pub fn wrap_key(x: &[u8; 32], y: &[u8; 32], name: &[u8], key: &[u8; 32]) -> Result<Credential, Rejection> {
    require_lengths(Hash::Sha256, name, key)?;
    // TPMT_SENSITIVE: TPM_ALG_ECC, no authValue, no seed, the key.
    let mut sensitive = Zeroizing::new(Vec::with_capacity(8 + key.len()));
    sensitive.extend([0, 0x23, 0, 0, 0, 0, 0, 32]);
    sensitive.extend_from_slice(key);
    share_by_ecdh(&agreement::ECDH_P256, Hash::Sha256, "DUPLICATE", x, y)
        .and_then(|seed| wrap(Hash::Sha256, 128, &seed, name, &sensitive))
        .map_err(library)
}

/// A seed, and the `TPM2B_ENCRYPTED_SECRET` that carries it.
struct Shared {
    seed: Zeroizing<Vec<u8>>,
    encrypted: Vec<u8>,
}

/// RSA-OAEP with nameAlg; the label has its terminating NUL (annex B.10.4). All RSA
/// EKs that are accepted have nameAlg SHA-256.
fn share_by_rsa(modulus: &[u8]) -> Result<Shared, Unspecified> {
    let mut seed = Zeroizing::new(vec![0; Hash::Sha256.digest_len()]);
    rand::fill(&mut seed)?;
    let key: PublicEncryptingKey = PublicKeyComponents { n: modulus, e: &[1, 0, 1] }.try_into()?;
    let key = OaepPublicEncryptingKey::new(key)?;
    let mut encrypted = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, &seed, &mut encrypted, Some(b"IDENTITY\0"))?;
    Ok(Shared { seed, encrypted })
}

/// ECDH with a one-time key, then KDFe (annex C.6.4). The secret is the one-time
/// point (`TPMS_ECC_POINT`).
fn share_by_ecdh(
    curve: &'static Algorithm,
    hash: Hash,
    label: &str,
    x: &[u8],
    y: &[u8],
) -> Result<Shared, Unspecified> {
    let ephemeral = EphemeralPrivateKey::generate(curve, &SystemRandom::new())?;
    let point = ephemeral.compute_public_key()?;
    let (ours_x, ours_y) = point.as_ref()[1..].split_at(x.len());
    let mut encrypted = Vec::with_capacity(2 * (2 + x.len()));
    for coordinate in [ours_x, ours_y] {
        encrypted.extend((coordinate.len() as u16).to_be_bytes());
        encrypted.extend_from_slice(coordinate);
    }
    let theirs = UnparsedPublicKey::new(curve, uncompressed(x, y));
    let seed = agreement::agree_ephemeral(ephemeral, &theirs, Unspecified, |z| {
        Ok(Zeroizing::new(kdfe(hash, z, label, ours_x, x, bits(hash))))
    })?;
    Ok(Shared { seed, encrypted })
}

/// Encrypts and authenticates the secret under the seed (Part 1, section 24.4 and .5).
fn wrap(
    hash: Hash,
    key_bits: u16,
    shared: &Shared,
    name: &[u8],
    secret: &[u8],
) -> Result<Credential, Unspecified> {
    // TPM2B_DIGEST, TPM2B_SENSITIVE: encrypted with its size.
    let mut identity = Zeroizing::new(Vec::with_capacity(2 + secret.len()));
    identity.extend((secret.len() as u16).to_be_bytes());
    identity.extend_from_slice(secret);

    let key = Zeroizing::new(kdfa(hash, &shared.seed, "STORAGE", name, &[], key_bits.into()));
    let key = UnboundCipherKey::new(if key_bits == 256 { &AES_256 } else { &AES_128 }, &key)?;
    // The IV is zero by specification: the key is used once.
    let zero_iv = EncryptionContext::Iv128(FixedLength::from([0; 16]));
    EncryptingKey::cfb128(key)?.less_safe_encrypt(&mut identity, zero_iv)?;

    let mac_key = Zeroizing::new(kdfa(hash, &shared.seed, "INTEGRITY", &[], &[], bits(hash)));
    let mac = hash.hmac(&mac_key, &[&identity, name]);
    let mut id_object = (mac.len() as u16).to_be_bytes().to_vec();
    id_object.extend(mac);
    id_object.extend_from_slice(&identity);
    Ok(Credential { id_object: id_object.into(), secret: shared.encrypted.clone().into() })
}

fn bits(hash: Hash) -> u32 {
    hash.digest_len() as u32 * 8
}

fn require_lengths(hash: Hash, name: &[u8], secret: &[u8]) -> Result<(), Rejection> {
    // Only our own keys get credentials, and they have nameAlg SHA-256.
    if name.len() != 34 {
        return refuse!(Malformed, "expected a name of 34 bytes, found {}", name.len());
    }
    if secret.is_empty() || secret.len() > hash.digest_len() {
        return refuse!(
            Malformed,
            "expected 1 to {} secret bytes, found {}",
            hash.digest_len(),
            secret.len()
        );
    }
    Ok(())
}

fn library(_: Unspecified) -> Rejection {
    // Keys were checked when they were parsed, so what is left is randomness and memory.
    Rejection::new(
        Reason::Unavailable,
        "expected the crypto library to make a credential, found that it could not",
    )
}
