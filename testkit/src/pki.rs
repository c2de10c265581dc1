//! The certificates of servers and operators, as `halfkey-verifier init` makes them. Those of TPMs are their manufacturer's.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::ops::Range;
use std::path::Path;

/// Seconds since 1970, behind every certificate made here.
pub const AFTER_ALL_CERTIFICATES: u64 = 7_000_000_000;

/// A CA.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub ca_pem: String,
    /// The same.
    pub ca_der: CertificateDer<'static>,
}

/// A certificate with its key.
pub struct Leaf {
    /// The certificate.
    pub pem: String,
    /// The same.
    pub der: CertificateDer<'static>,
    key: KeyPair,
}

impl Leaf {
    /// PKCS #8.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The same.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    /// With a key of its own.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        // The same name every time: an impostor's CA would copy it.
        params.distinguished_name.push(DnType::CommonName, "Halfkey verifier CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap();
        Self {
            ca_pem: certificate.pem(),
            ca_der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// That of a state folder.
    pub fn of(state: &Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(state.join(name)).unwrap();
        let (ca_pem, key) = (read("ca.pem"), KeyPair::from_pem(&read("ca.key")).unwrap());
        let ca_der = CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap();
        Self { issuer: Issuer::from_ca_cert_pem(&ca_pem, key).unwrap(), ca_der, ca_pem }
    }

    /// For a server with this IP address or DNS name.
    pub fn server(&self, address: &str) -> Leaf {
        self.server_in(address, 2000..2150)
    }

    /// The same, good from the first day of one year until that of another.
    pub fn server_in(&self, address: &str, years: Range<i32>) -> Leaf {
        let san = match address.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(address.try_into().unwrap()),
        };
        self.leaf("server", vec![san], ExtendedKeyUsagePurpose::ServerAuth, years)
    }

    /// For an operator of this name.
    pub fn operator(&self, name: &str) -> Leaf {
        self.operator_in(name, 2000..2150)
    }

    /// The same, good from the first day of one year until that of another.
    pub fn operator_in(&self, name: &str, years: Range<i32>) -> Leaf {
        self.leaf(name, vec![], ExtendedKeyUsagePurpose::ClientAuth, years)
    }

    fn leaf(
        &self,
        name: &str,
        sans: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        years: Range<i32>,
    ) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = sans;
        params.extended_key_usages = vec![usage];
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { pem: certificate.pem(), der: certificate.der().clone(), key }
    }

    /// The bundle of operator `alice`.
    pub fn bundle(&self, servers: &[String]) -> String {
        let alice = self.operator("alice");
        serde_json::json!({
            "version": 1,
            "name": "alice",
            "servers": servers,
            "ca": self.ca_pem,
            "certificate": alice.pem,
            "key": alice.key_pem(),
        })
        .to_string()
    }
}
