//! A CA, a server and an operator, as `halfkey-verifier init` makes them.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    pub ca_pem: String,
    pub ca_der: CertificateDer<'static>,
}

pub struct Leaf {
    pub pem: String,
    pub der: CertificateDer<'static>,
    key: KeyPair,
}

impl Leaf {
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

impl Pki {
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

    pub fn server(&self, address: &str) -> Leaf {
        let san = match address.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(address.try_into().unwrap()),
        };
        self.leaf("server", vec![san], ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub fn operator(&self, name: &str) -> Leaf {
        self.leaf(name, vec![], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn leaf(&self, name: &str, sans: Vec<SanType>, usage: ExtendedKeyUsagePurpose) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = sans;
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { pem: certificate.pem(), der: certificate.der().clone(), key }
    }

    /// The operator bundle of `alice`.
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
