//! Keys whose signatures on files are good: a keyring.

use super::entry::FileDigest;
use super::signature::{ImaSignature, SignatureFault, Signed};
use crate::digest::Bank;
use crate::policy::rules;
use crate::quote::clip;
use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, VerificationAlgorithm,
};
use halfkey_protocol::tpm::bank::PcrBank;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use std::collections::HashMap;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

/// A key that signs files.
#[derive(Debug)]
pub struct Signer {
    name: String,
    /// With SHA-256, SHA-384, SHA-512.
    keys: [ParsedPublicKey; 3],
    /// What signatures may call it.
    ids: Vec<u32>,
    fingerprint: rules::Digest,
}

/// Keys, by what signatures call them.
#[derive(Debug, Default)]
pub struct Signers {
    signers: Vec<Signer>,
    by_id: HashMap<u32, Vec<usize>>,
}

/// How many signatures may still be tried for a list: each costs as much as thousands of look-ups, and who sends a list may have
/// made up all of them. One for all parts of a list.
#[derive(Debug)]
pub struct Budget {
    left: u32,
}

/// So many for a list: about two seconds of a core, with keys on P-256. A machine has as many files that are used only after a long
/// time, and then they come a few at once.
pub const MAX_SIGNATURES: u32 = 25_000;

impl Default for Budget {
    fn default() -> Self {
        Self::new(MAX_SIGNATURES)
    }
}

impl Budget {
    /// For so many signatures.
    pub fn new(most: u32) -> Self {
        Self { left: most }
    }

    fn take(&mut self) -> Result<(), SignatureFault> {
        self.left = self.left.checked_sub(1).ok_or(SignatureFault::NotTried)?;
        Ok(())
    }
}

impl Signer {
    /// From a file with one certificate or public key (`SubjectPublicKeyInfo`), PEM or DER. RSA of 2048 to 8192 bits, ECDSA on P-256,
    /// P-384 or P-521. A certificate's times and issuer are not looked at: who puts it on the keyring trusts the key.
    ///
    /// # Errors
    /// What is wrong.
    pub fn from_pem_or_der(name: &str, file: &[u8]) -> Result<Self, String> {
        if file.first() == Some(&0x30) {
            return Self::from_certificate(name, file).or_else(|_| Self::from_public_key(name, file));
        }
        match (CertificateDer::from_pem_slice(file), SubjectPublicKeyInfoDer::from_pem_slice(file)) {
            (Ok(der), _) => Self::from_certificate(name, &der),
            (_, Ok(der)) => Self::from_public_key(name, &der),
            _ => Err("expected a certificate or a public key, pem or der, found neither".to_owned()),
        }
    }

    fn from_certificate(name: &str, der: &[u8]) -> Result<Self, String> {
        let Ok(([], certificate)) = X509Certificate::from_der(der) else {
            return Err("expected a certificate, found something else".to_owned());
        };
        // What the kernel compares, where there is one.
        let named =
            certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => last_four(id.0),
                _ => None,
            });
        Self::new(name, der, certificate.public_key(), named)
    }

    fn from_public_key(name: &str, der: &[u8]) -> Result<Self, String> {
        let Ok(([], key)) = SubjectPublicKeyInfo::from_der(der) else {
            return Err("expected a certificate or a public key, found neither".to_owned());
        };
        Self::new(name, der, &key, None)
    }

    fn new(
        name: &str,
        der: &[u8],
        key: &SubjectPublicKeyInfo<'_>,
        named: Option<u32>,
    ) -> Result<Self, String> {
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let algorithms: [&'static dyn VerificationAlgorithm; 3] = match (&key.algorithm.algorithm, curve) {
            (oid, _) if *oid == OID_PKCS1_RSAENCRYPTION => {
                [&RSA_PKCS1_2048_8192_SHA256, &RSA_PKCS1_2048_8192_SHA384, &RSA_PKCS1_2048_8192_SHA512]
            }
            (oid, Some(curve)) if *oid == OID_KEY_TYPE_EC_PUBLIC_KEY => {
                if curve == OID_EC_P256 {
                    [&ECDSA_P256_SHA256_ASN1, &ECDSA_P256_SHA384_ASN1, &ECDSA_P256_SHA512_ASN1]
                } else if curve == OID_NIST_EC_P384 {
                    [&ECDSA_P384_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1, &ECDSA_P384_SHA512_ASN1]
                } else if curve == OID_NIST_EC_P521 {
                    [&ECDSA_P521_SHA256_ASN1, &ECDSA_P521_SHA384_ASN1, &ECDSA_P521_SHA512_ASN1]
                } else {
                    return Err(format!("expected a key on p-256, p-384 or p-521, found curve {curve}"));
                }
            }
            (oid, _) => return Err(format!("expected an rsa or ecdsa key, found one of algorithm {oid}")),
        };
        let bits = &*key.subject_public_key.data;
        let parse = |algorithm| ParsedPublicKey::new(algorithm, bits).map_err(|error| error.to_string());
        let [sha256, sha384, sha512] = algorithms;
        let keys =
            parse(sha256).and_then(|key| Ok([key, parse(sha384)?, parse(sha512)?])).map_err(|error| {
                format!("expected a usable key (rsa: 2048 bits or more), found another ({error})")
            })?;
        // RFC 5280, section 4.2.1.2, method 1: what evmctl computes for a key without a certificate.
        let computed = last_four(&Bank::Sha1.digest(bits));
        let mut ids: Vec<_> = named.into_iter().chain(computed).collect();
        ids.dedup();
        Ok(Self { name: clip(name), keys, ids, fingerprint: rules::Digest::of(PcrBank::Sha256, der) })
    }

    /// What the policy calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the certificate or public key, in DER.
    pub fn fingerprint(&self) -> rules::Digest {
        self.fingerprint
    }

    /// What signatures may call it: the end of its identifier.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    fn has_signed(&self, signed: &Signed<'_>, signature: &ImaSignature<'_>) -> bool {
        let (key, algorithm) = match signature.hash {
            Bank::Sha256 => (&self.keys[0], &digest::SHA256),
            Bank::Sha384 => (&self.keys[1], &digest::SHA384),
            Bank::Sha512 => (&self.keys[2], &digest::SHA512),
            Bank::Sha1 => return false,
        };
        match signed {
            Signed::Message(message) => key.verify_sig(message, signature.bytes).is_ok(),
            Signed::Digest(bytes) => digest::Digest::import_less_safe(bytes, algorithm)
                .is_ok_and(|digest| key.verify_digest_sig(&digest, signature.bytes).is_ok()),
        }
    }
}

fn last_four(id: &[u8]) -> Option<u32> {
    id.last_chunk().map(|last| u32::from_be_bytes(*last))
}

impl Signers {
    /// A keyring.
    pub fn new(signers: Vec<Signer>) -> Self {
        let mut by_id: HashMap<u32, Vec<usize>> = HashMap::new();
        for (at, signer) in signers.iter().enumerate() {
            for id in &signer.ids {
                by_id.entry(*id).or_default().push(at);
            }
        }
        Self { signers, by_id }
    }

    /// How many keys are on it.
    pub fn len(&self) -> usize {
        self.signers.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.signers.is_empty()
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &Signer> {
        self.signers.iter()
    }

    /// Who has signed this digest, by the field `sig` that came with it.
    ///
    /// # Errors
    /// Why the signature counts for nothing.
    pub fn verify(
        &self,
        digest: &FileDigest<'_>,
        field: &[u8],
        budget: &mut Budget,
    ) -> Result<&Signer, SignatureFault> {
        let signature = ImaSignature::parse(field)?;
        let signed = signature.signed(digest)?;
        // Four bytes are no name: several keys may have them.
        let named = self.by_id.get(&signature.key_id).ok_or(SignatureFault::UnknownKey(signature.key_id))?;
        for signer in named.iter().map(|at| &self.signers[*at]) {
            budget.take()?;
            if signer.has_signed(&signed, &signature) {
                return Ok(signer);
            }
        }
        Err(SignatureFault::Wrong(signature.key_id))
    }
}
