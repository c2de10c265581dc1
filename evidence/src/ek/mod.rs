//! Trust in an EK: its certificate leads to a root, or a person compared its fingerprint.

pub mod certificate;
pub mod roca;

use crate::Rejection;
use crate::public::{EkKey, EkPublic};
use crate::quote::clip;
use crate::registration::CheckedRegistration;
use crate::rejection::refuse;
use halfkey_protocol::identity::fingerprint_matches;
use halfkey_protocol::wire::Register;
use halfkey_protocol::{NodeId, Reason};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::time::Duration;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// Proof: this EK is trusted, by a chain or by a person.
///
/// A chain proves *a* TPM of that manufacturer, not *yours*: show the fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedEk {
    node_id: NodeId,
    trust: Trust,
}

/// What the trust in an EK rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its certificate leads to a root: the certificate's issuer, for people.
    Chain {
        /// Distinguished name.
        issuer: String,
    },
    /// A person compared the fingerprint.
    Pinned,
}

impl TrustedEk {
    /// Whose EK.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Why it is trusted.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }
}

/// The private half of the EK can't be computed from its public one.
///
/// # Errors
/// `EkWeak`.
pub fn require_sound(ek: &EkPublic) -> Result<(), Rejection> {
    match ek.key() {
        EkKey::Rsa2048(modulus) if roca::is_marked(&modulus[..]) => refuse!(
            EkWeak,
            "expected an rsa ek whose factors are secret, found one of CVE-2017-15361 (ROCA): {}",
            ek.fingerprint()
        ),
        EkKey::Rsa2048(_) | EkKey::EccP256(..) | EkKey::EccP384(..) => Ok(()),
    }
}

/// Trusts the EK because a person typed its fingerprint: clouds whose virtual TPM has
/// no certificate, and machines that an operator has before him.
///
/// # Errors
/// `EkUntrusted`.
pub fn pin(checked: &CheckedRegistration, typed_fingerprint: &str) -> Result<TrustedEk, Rejection> {
    if fingerprint_matches(typed_fingerprint, checked.ek().bytes()) {
        return Ok(TrustedEk { node_id: checked.node_id(), trust: Trust::Pinned });
    }
    refuse!(
        EkUntrusted,
        "expected an ek with fingerprint {}, found {}",
        clip(typed_fingerprint.trim()),
        checked.ek_fingerprint()
    )
}

/// Certificates that EK chains may end at.
///
/// Each is an anchor, also those that others signed: of the CAs that TPM vendors
/// publish, a third can't be used as an intermediate because of critical
/// extensions, and who trusts a folder trusts what is in it. So their own validity
/// times and signatures are not looked at.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
}

impl Roots {
    /// Takes DER certificates; the second value counts those that could not be read.
    pub fn from_der(certificates: impl IntoIterator<Item = Vec<u8>>) -> (Self, usize) {
        let mut roots = Self::default();
        let mut skipped = 0;
        for der in certificates {
            match anchor_from_trusted_cert(&CertificateDer::from(der)) {
                Ok(anchor) => roots.anchors.push(anchor.to_owned()),
                Err(_) => skipped += 1,
            }
        }
        (roots, skipped)
    }

    /// The certificates of one file: PEM (any number) or DER (one). The second value
    /// counts what could not be read; it is 1 for a file that has none.
    pub fn from_pem_or_der(file: &[u8]) -> (Self, usize) {
        // A DER certificate is a SEQUENCE; 0x30 in PEM would be a line that begins with "0".
        if file.first() == Some(&0x30) {
            return Self::from_der([file.to_vec()]);
        }
        let mut damaged = 0;
        let mut readable = Vec::new();
        for section in CertificateDer::pem_slice_iter(file) {
            match section {
                Ok(der) => readable.push(der.to_vec()),
                Err(_) => damaged += 1,
            }
        }
        if readable.is_empty() {
            return (Self::default(), damaged.max(1));
        }
        let (roots, skipped) = Self::from_der(readable);
        (roots, skipped + damaged)
    }

    /// Adds another file's certificates.
    pub fn extend(&mut self, other: Self) {
        self.anchors.extend(other.anchors);
    }

    /// How many certificates are trusted.
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Checks the chain of the EK certificate at a time (seconds since 1970, UTC).
    /// Revocation lists are not consulted.
    ///
    /// # Errors
    /// `EkCertificateMissing`, `EkCertificateMalformed`, `EkCertificateMismatch` (`register`
    /// is not what was checked), `EkUntrusted`.
    pub fn verify(
        &self,
        checked: &CheckedRegistration,
        register: &Register,
        unix_seconds: u64,
    ) -> Result<TrustedEk, Rejection> {
        let Some(der) = &register.ek_certificate else {
            return refuse!(
                EkCertificateMissing,
                "expected an ek certificate, found none for the ek {}",
                checked.ek_fingerprint()
            );
        };
        // The proof is about one registration; another one may have come along with it.
        certificate::require_key(der, checked.ek())?;
        let names = certificate::names(der)?;
        let der = CertificateDer::from(&der[..]);
        let malformed = |error| {
            Rejection::new(
                Reason::EkCertificateMalformed,
                format!("expected an x.509 version 3 certificate, found another ({error})"),
            )
        };
        let end_entity = EndEntityCert::try_from(&der).map_err(malformed)?;
        let intermediates: Vec<_> =
            register.ek_chain.iter().map(|der| CertificateDer::from(&der[..])).collect();
        end_entity
            .verify_for_usage(
                ALL_VERIFICATION_ALGS,
                &self.anchors,
                &intermediates,
                UnixTime::since_unix_epoch(Duration::from_secs(unix_seconds)),
                KeyUsage::required_if_present(TCG_KP_EK_CERTIFICATE),
                None,
                None,
            )
            .map_err(|error| untrusted(&names.issuer, self.len(), &error))?;
        Ok(TrustedEk { node_id: checked.node_id(), trust: Trust::Chain { issuer: names.issuer } })
    }
}

/// 2.23.133.8.1: tcg-kp-EKCertificate, the contents of the DER object identifier.
const TCG_KP_EK_CERTIFICATE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];

fn untrusted(issuer: &str, roots: usize, error: &webpki::Error) -> Rejection {
    Rejection::new(
        Reason::EkUntrusted,
        format!(
            "expected a chain to one of {roots} trusted certificates, found a certificate by \"{issuer}\" ({error})"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_without_certificates_is_counted() {
        assert_eq!(Roots::from_pem_or_der(b"").1, 1);
        assert_eq!(Roots::from_pem_or_der(b"0").1, 1);
        assert_eq!(
            Roots::from_pem_or_der(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").1,
            1
        );
    }

    proptest! {
        #[test]
        fn any_file_is_counted(file: Vec<u8>, pem in "(-----(BEGIN|END) CERTIFICATE-----\n|[A-Za-z=\n]{0,20}){0,8}") {
            for file in [file.as_slice(), pem.as_bytes()] {
                let (roots, skipped) = Roots::from_pem_or_der(file);
                prop_assert!(roots.is_empty() && skipped > 0);
            }
        }
    }
}
