//! The tenant key: Ed25519, signs enrollments and policies.

use crate::error::{Error, Result};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64ct::{Base64, Encoding};
use halfkey_protocol::wire::policies::{PolicyEnvelope, SignedPolicy, policy_signed_bytes};
use halfkey_protocol::wire::{self, Enrollment, SignedEnrollment};
use halfkey_protocol::{Bytes, identity};
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

    /// Signs an enrollment.
    pub fn sign(&self, enrollment: &Enrollment) -> SignedEnrollment {
        let document = serde_json::to_vec(enrollment).expect("strings and numbers have a JSON form");
        let signature = self.0.sign(&wire::signed_bytes(&document));
        SignedEnrollment {
            signature: Bytes::from(signature.as_ref()),
            document: document.into(),
            tenant_key: Bytes::from(self.public()),
        }
    }

    /// Signs a policy.
    pub fn sign_policy(&self, envelope: &PolicyEnvelope) -> SignedPolicy {
        let document = serde_json::to_vec(envelope).expect("strings and numbers have a JSON form");
        let signature = self.0.sign(&policy_signed_bytes(&document));
        SignedPolicy {
            signature: Bytes::from(signature.as_ref()),
            document: document.into(),
            tenant_key: Bytes::from(self.public()),
        }
    }
}

/// Why a signed policy has no envelope to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEnvelope {
    /// The signature is not valid.
    Signature,
    /// It is signed, and not in a form that this version knows.
    Form,
}

/// The envelope of a policy, if the key inside it signed it. Whose key that is, the caller must
/// compare.
///
/// # Errors
/// When it was altered, or is of another version.
pub fn verified_envelope(signed: &SignedPolicy) -> std::result::Result<PolicyEnvelope, BadEnvelope> {
    UnparsedPublicKey::new(&ED25519, signed.tenant_key.as_ref())
        .verify(&policy_signed_bytes(&signed.document), &signed.signature)
        .map_err(|_| BadEnvelope::Signature)?;
    serde_json::from_slice(&signed.document).map_err(|_| BadEnvelope::Form)
}

/// The document of an enrollment, if the key inside it signed it. Whose key that is, the caller
/// must compare.
pub fn verified_document(signed: &SignedEnrollment) -> Option<Enrollment> {
    UnparsedPublicKey::new(&ED25519, signed.tenant_key.as_ref())
        .verify(&wire::signed_bytes(&signed.document), &signed.signature)
        .ok()?;
    serde_json::from_slice(&signed.document).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn enrollment() -> Enrollment {
        Enrollment {
            version: 1,
            node_id: "n".into(),
            enrollment_id: "e".into(),
            ek_name: Bytes(vec![1]),
            ak_name: Bytes(vec![2]),
            srk_name: Bytes(vec![3]),
            c_u_sha256: Bytes(vec![4]),
            c_v_sha256: Bytes(vec![5]),
            release_public: Bytes(vec![6]),
            bank: "sha256".into(),
            proof_sha256: Bytes(vec![7]),
            ca: "ca".into(),
            servers: vec!["https://a".into()],
            label: "l".into(),
            created: 1,
        }
    }

    #[test]
    fn a_key_survives_its_file_and_signs_what_verifies() {
        let key = TenantKey::generate().unwrap();
        let again = TenantKey::from_pem(&key.to_pem().unwrap()).unwrap();
        assert_eq!(key.public(), again.public());
        let mut signed = again.sign(&enrollment());
        assert_eq!(verified_document(&signed), Some(enrollment()));
        signed.document.0[20] ^= 1;
        assert_eq!(verified_document(&signed), None);
    }

    #[test]
    fn a_policy_verifies_as_a_policy_only() {
        let key = TenantKey::generate().unwrap();
        let envelope = PolicyEnvelope {
            format: 1,
            scope: "group:web".into(),
            version: 1,
            created: 1,
            policy: "format = 1".into(),
            withdrawn: false,
        };
        let mut signed = key.sign_policy(&envelope);
        assert_eq!(verified_envelope(&signed), Ok(envelope));
        let SignedPolicy { document, tenant_key, signature } = signed.clone();
        assert_eq!(verified_document(&SignedEnrollment { document, tenant_key, signature }), None);
        signed.document.0[20] ^= 1;
        assert_eq!(verified_envelope(&signed), Err(BadEnvelope::Signature));
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
