//! The tenant key: Ed25519, signs documents.

use crate::error::{Error, Result};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64ct::{Base64, Encoding};
use halfkey_protocol::document::signed_bytes;
use halfkey_protocol::identity;
use halfkey_protocol::wire::{Document, DocumentSignature, SignedDocument};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

/// The key. No `Debug`; the library wipes it when it is dropped.
pub struct TenantKey(Ed25519KeyPair);

impl TenantKey {
    /// A new key.
    ///
    /// # Errors
    /// When the library has no randomness to give.
    pub fn generate() -> Result<Self> {
        Ed25519KeyPair::generate().map(Self).map_err(|_| Error::failed("no randomness for a tenant key"))
    }

    /// Reads PKCS#8 (RFC 5958, with or without the public key) in PEM.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_pem(pem: &[u8]) -> Result<Self> {
        let bad = || {
            Error::failed("expected an Ed25519 private key (PKCS#8, PEM)").hint(
                "put back your copy of tenant.key; without it nodes must be enrolled again with a new one",
            )
        };
        let mut der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| bad())?;
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map_err(|_| bad());
        zeroize::Zeroize::zeroize(&mut der);
        key.map(Self)
    }

    /// PKCS#8 in PEM, version 1: what `openssl pkey` reads everywhere.
    ///
    /// # Errors
    /// Never in practice: when the library can't encode its own key.
    pub fn to_pem(&self) -> Result<Zeroizing<Vec<u8>>> {
        let fail = || Error::failed("the tenant key can't be encoded");
        let der = self.0.to_pkcs8v1().map_err(|_| fail())?;
        let mut base64 = Zeroizing::new([0; 128]);
        let base64 = Base64::encode(der.as_ref(), base64.as_mut()).map_err(|_| fail())?;
        let mut pem = Zeroizing::new(Vec::with_capacity(256));
        // 48 bytes are 64 digits: the one line that PEM allows.
        for line in ["-----BEGIN PRIVATE KEY-----\n", base64, "\n-----END PRIVATE KEY-----\n"] {
            pem.extend_from_slice(line.as_bytes());
        }
        Ok(pem)
    }

    /// The public key, 32 bytes.
    pub fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// What the operator gives to `halfkey-agent enroll --tenant-key`.
    pub fn fingerprint(&self) -> String {
        identity::fingerprint(self.public())
    }

    /// Signs a document.
    pub fn sign(&self, document: &Document) -> SignedDocument {
        let document = serde_json::to_vec(document).expect("strings and numbers have a JSON form");
        let signature = self.0.sign(&signed_bytes(&document));
        let signature = DocumentSignature { key: self.public().into(), signature: signature.as_ref().into() };
        SignedDocument { document: document.into(), signatures: vec![signature] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfkey_evidence::signed_document::open;
    use halfkey_protocol::document::{Deployment, Flaw, Kind, Place, Scope, next};
    use proptest::prelude::*;

    #[test]
    fn a_key_survives_its_file_and_signs_what_verifies() {
        let key = TenantKey::generate().unwrap();
        let again = TenantKey::from_pem(&key.to_pem().unwrap()).unwrap();
        assert_eq!(key.public(), again.public());
        let scope = Scope::Group("web".into());
        let document =
            next(Kind::Policy, &scope, Deployment([5; 16]), &Place::default(), 1, "format = 1".into());
        let mut signed = again.sign(&document);
        let opened = open(&signed).unwrap();
        assert!(opened.is_by(key.public()) && opened.scope == scope);
        signed.document.0[20] ^= 1;
        assert!(matches!(open(&signed), Err(Flaw::Signature(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes: Vec<u8>, digits in "[A-Za-z0-9+/]{0,80}") {
            prop_assert!(TenantKey::from_pem(&bytes).is_err());
            let pem = format!("-----BEGIN PRIVATE KEY-----\n{digits}\n-----END PRIVATE KEY-----\n");
            prop_assert!(TenantKey::from_pem(pem.as_bytes()).is_err());
        }
    }

    #[test]
    fn another_kind_of_key_is_refused() {
        let p256 = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert!(TenantKey::from_pem(p256.as_bytes()).is_err());
        assert!(TenantKey::from_pem(b"").is_err());
    }
}
