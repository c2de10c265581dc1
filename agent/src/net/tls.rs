//! TLS settings: 1.3 only, one pinned CA, a clock that can't stand in 1970.

use crate::error::{Error, Kind, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::SigningKey;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;
use std::time::Duration;

/// No certificate of a server can be older than this program: seconds since 1970.
/// Reproducible builds set SOURCE_DATE_EPOCH; the other number is the day of this protocol's first version.
const BUILD_TIME: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => seconds(text.as_bytes()),
    None => 1_793_491_200,
};

/// Settings that trust the certificates of `ca` (PEM) and nothing else. Certificate times
/// are checked against the latest of the machine's clock, the build time and `enrolled_at`, or any later time.
///
/// # Errors
/// When there is no certificate in `ca`.
pub fn config(ca: &str, enrolled_at: u64) -> Result<Arc<ClientConfig>> {
    let bad = |what: String| {
        Error::new(Kind::NotEnrolled, format!("expected the verifier's CA as PEM, found {what}"))
            .hint("the file is ca.pem in the state folder of halfkey-verifier")
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        let certificate = certificate.map_err(|e| bad(format!("damaged PEM: {e}")))?;
        roots.add(certificate).map_err(|e| bad(format!("a certificate that can't be a CA: {e}")))?;
    }
    if roots.is_empty() {
        return Err(bad("no certificate".into()));
    }
    let (provider, failed) = (Arc::new(provider()), "tls settings");
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| Error::system(failed, e))?;
    let config = ClientConfig::builder_with_details(provider, Arc::new(Clock(enrolled_at)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::system(failed, e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NotBefore(verifier)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// rustls's own checks, at a time that is a lower bound of the real one: a certificate that begins later (a renewed one, where the
/// battery of the clock is empty) is good if there is a time at which the whole chain is.
#[derive(Debug)]
struct NotBefore(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for NotBefore {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        mut now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        // A chain has as many beginnings as certificates.
        for _ in 0..=intermediates.len() {
            match self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
                    not_before,
                    ..
                })) => now = now.max(not_before),
                done => return done,
            }
        }
        self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// ring, without what a client that has no certificate never needs: its ready-made provider
/// brings private keys of every kind into the binary.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1],
        signature_verification_algorithms: ALGORITHMS,
        secure_random: &Kernel,
        key_provider: &Kernel,
    }
}

/// What the verifier's CA uses (ECDSA P-256), and what a CA that somebody brings along commonly uses.
const ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        webpki::ring::ECDSA_P256_SHA256,
        webpki::ring::ECDSA_P256_SHA384,
        webpki::ring::ECDSA_P384_SHA256,
        webpki::ring::ECDSA_P384_SHA384,
        webpki::ring::ED25519,
        webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        webpki::ring::RSA_PKCS1_2048_8192_SHA256,
        webpki::ring::RSA_PKCS1_2048_8192_SHA384,
    ],
    // TLS 1.3 binds each scheme to one curve; PKCS #1 is for certificates only.
    mapping: &[
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[webpki::ring::ECDSA_P256_SHA256]),
        (SignatureScheme::ECDSA_NISTP384_SHA384, &[webpki::ring::ECDSA_P384_SHA384]),
        (SignatureScheme::ED25519, &[webpki::ring::ED25519]),
        (SignatureScheme::RSA_PSS_SHA256, &[webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
        (SignatureScheme::RSA_PKCS1_SHA256, &[webpki::ring::RSA_PKCS1_2048_8192_SHA256]),
        (SignatureScheme::RSA_PKCS1_SHA384, &[webpki::ring::RSA_PKCS1_2048_8192_SHA384]),
    ],
};

/// The kernel's randomness, and no private keys.
#[derive(Debug)]
struct Kernel;

impl SecureRandom for Kernel {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::fill(buf).map_err(|_| GetRandomFailed)
    }
}

impl KeyProvider for Kernel {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General("nodes have no certificate: their TPM speaks for them".into()))
    }
}

/// The latest of clock, build time and enrollment time: a lower bound of the real time
/// that no battery can lose. Capped, so that a token can't set it to the year 10000.
#[derive(Debug)]
struct Clock(u64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let machine =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(latest(machine, self.0))))
    }
}

fn latest(machine: u64, enrolled_at: u64) -> u64 {
    const YEAR_2200: u64 = 7_258_118_400;
    machine.max(BUILD_TIME).max(enrolled_at.min(YEAR_2200))
}

const fn seconds(text: &[u8]) -> u64 {
    let mut value = 0;
    let mut i = 0;
    while i < text.len() {
        assert!(text[i].is_ascii_digit(), "SOURCE_DATE_EPOCH is a number of seconds");
        value = value * 10 + (text[i] - b'0') as u64;
        i += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_1970_is_lifted_and_a_good_one_kept() {
        assert_eq!(latest(0, 0), BUILD_TIME);
        assert_eq!(latest(0, BUILD_TIME + 5), BUILD_TIME + 5);
        assert_eq!(latest(BUILD_TIME + 9, BUILD_TIME + 5), BUILD_TIME + 9);
        assert_eq!(seconds(b"1793491200"), 1_793_491_200);
    }

    #[test]
    fn a_ca_that_is_none_is_refused() {
        for ca in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----",
        ] {
            assert!(config(ca, 0).is_err(), "{ca}");
        }
    }
}
