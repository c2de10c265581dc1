//! The private CA of a verifier: ECDSA P-256, one level.
//!
//! Nodes and operators pin this CA and nothing else. Client certificates are
//! accepted by their fingerprint in the database, not for being signed: that is
//! what makes removing an operator immediate.

use crate::Failure;
use crate::keys::{read_secret, write_new, write_secret};
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::path::Path;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

const DAY: Duration = Duration::from_secs(86_400);
/// A CA that nodes pin in their tokens: it has to outlive the machines.
const CA_DAYS: u32 = 30 * 365;
/// An expired server certificate would keep every machine locked: long, and `serve` warns in time.
const LEAF_DAYS: u32 = 10 * 365;

/// A certificate and its private key.
pub struct Issued {
    /// PEM.
    pub certificate: String,
    /// DER.
    pub der: CertificateDer<'static>,
    /// PKCS#8, PEM.
    pub key: Zeroizing<String>,
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key` into a folder.
    ///
    /// # Errors
    /// When a file exists already or can't be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<(), Failure> {
        write_secret(&dir.join(format!("{name}.key")), self.key.as_bytes())?;
        write_new(&dir.join(format!("{name}.pem")), self.certificate.as_bytes(), 0o644)
    }

    /// SHA-256 over the DER, as the database lists it.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.der)
    }
}

/// What a client certificate is listed by: 64 hex digits of SHA-256 over the DER.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    digest(&SHA256, certificate).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes the CA: `ca.pem` and `ca.key`.
///
/// # Errors
/// When a file exists already or can't be written.
pub fn create_ca(dir: &Path) -> Result<Ca, Failure> {
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    let mut unique = [0; 4];
    crate::keys::fill_random(&mut unique)?;
    let unique: String = unique.iter().map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("Halfkey verifier CA {unique}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, CA_DAYS)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let issued = Issued {
        certificate: certificate.pem(),
        der: certificate.der().clone(),
        key: Zeroizing::new(key.serialize_pem()),
    };
    issued.write(dir, "ca")?;
    Ok(Ca { issuer: Issuer::new(params, key) })
}

/// Signs certificates.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Reads `ca.pem` and `ca.key`.
    ///
    /// # Errors
    /// When a file can't be read. `ca.key` may have been moved away on purpose.
    pub fn load(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join("ca.pem");
        let pem =
            std::fs::read_to_string(&path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
        let key = read_secret(&dir.join("ca.key"))
            .map_err(|e| e.hint("certificates are made where ca.key is: on the host of `init`"))?;
        let key = std::str::from_utf8(&key).map_err(|_| Failure::new("ca.key: expected PEM"))?;
        let key = KeyPair::from_pem(key).map_err(failed)?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&pem, key).map_err(failed)? })
    }

    /// For a TLS server at these names and addresses.
    ///
    /// # Errors
    /// When a name is none.
    pub fn server(&self, sans: &[String]) -> Result<Issued, Failure> {
        let mut params = CertificateParams::default();
        let common_name = sans.first().map_or("halfkey-verifier", String::as_str);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = sans.iter().map(|san| subject_name(san)).collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// For a client with this name.
    ///
    /// # Errors
    /// When the certificate can't be made.
    pub fn client(&self, name: &str) -> Result<Issued, Failure> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Issued, Failure> {
        let key = KeyPair::generate().map_err(failed)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, LEAF_DAYS)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Issued {
            certificate: certificate.pem(),
            der: certificate.der().clone(),
            key: Zeroizing::new(key.serialize_pem()),
        })
    }
}

/// When the first certificate in a PEM file ends, in seconds since 1970; `None` if it can't be told.
pub fn not_after(pem: &[u8]) -> Option<i64> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Days until a certificate in a PEM file ends; `None` if it can't be told.
pub fn days_left(pem: &[u8], now: u64) -> Option<i64> {
    Some((not_after(pem)? - i64::try_from(now).ok()?) / 86_400)
}

fn subject_name(san: &str) -> Result<SanType, Failure> {
    let bare = san.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '*' | '_');
    if san.is_empty() || san.len() > 253 || !san.chars().all(plain) {
        return Err(Failure::new(format!("expected a host name or an address, found {san:?}")));
    }
    Ok(SanType::DnsName(san.try_into().map_err(failed)?))
}

fn validity(params: &mut CertificateParams, days: u32) -> Result<(), Failure> {
    let mut serial = [0; 16];
    crate::keys::fill_random(&mut serial)?;
    // Positive and not empty (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    // A day back: clocks of machines that were just installed.
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + DAY * days).into();
    Ok(())
}

fn failed(e: rcgen::Error) -> Failure {
    Failure::new(format!("certificate: {e}"))
}
