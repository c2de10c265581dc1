//! Public areas of a node's keys (`TPMT_PUBLIC`, TPM 2.0 Part 2, section 12.2.4).
use crate::Rejection;
use crate::rejection::refuse;
use halfkey_protocol::kdf::Hash;

/// The key of an EK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EkKey {
    /// RSA-2048, exponent 65537: the modulus, big-endian.
    Rsa2048(Box<[u8; 256]>),
    /// A point on P-256.
    EccP256([u8; 32], [u8; 32]),
    /// A point on P-384.
    EccP384([u8; 48], [u8; 48]),
}

/// A supported endorsement key.
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
    /// `EkTemplate`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        refuse!(EkTemplate, "not yet: {}", bytes.len())
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
    /// `sha256:...`: what two people compare.
    pub fn fingerprint(&self) -> String {
        halfkey_protocol::identity::fingerprint(&self.bytes)
    }
    /// `RSA-2048`, `ECC P-256` or `ECC P-384`.
    pub fn kind(&self) -> &'static str {
        match self.key {
            EkKey::Rsa2048(_) => "RSA-2048",
            EkKey::EccP256(..) => "ECC P-256",
            EkKey::EccP384(..) => "ECC P-384",
        }
    }
}

/// An attestation key of the exact template.
#[derive(Debug, Clone)]
pub struct AkPublic {
    name: Vec<u8>,
}

impl AkPublic {
    /// Parses a marshalled `TPMT_PUBLIC`.
    ///
    /// # Errors
    /// `AkTemplate`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        refuse!(AkTemplate, "not yet: {}", bytes.len())
    }
    /// Its name: nameAlg and digest.
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

/// A storage key of the exact template.
#[derive(Debug, Clone)]
pub struct SrkPublic {
    name: Vec<u8>,
    point: ([u8; 32], [u8; 32]),
}

impl SrkPublic {
    /// Parses a marshalled `TPMT_PUBLIC`.
    ///
    /// # Errors
    /// `SrkTemplate`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        refuse!(SrkTemplate, "not yet: {}", bytes.len())
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
