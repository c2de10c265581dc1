//! All that a node sends when it registers.
use crate::Rejection;
use crate::public::{AkPublic, EkPublic, SrkPublic};
use crate::rejection::refuse;
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::Register;

/// Proof: the three keys are of the exact templates, and the AK certified the SRK.
#[derive(Debug, Clone)]
pub struct CheckedRegistration {
    node_id: NodeId,
    ek: EkPublic,
    ak: AkPublic,
    srk: SrkPublic,
}

/// Checks a registration.
///
/// # Errors
/// `EkTemplate`, `AkTemplate`, `SrkTemplate`, `Certification`, `EkCertificateMalformed`,
/// `EkCertificateMismatch`, `TooLarge`.
pub fn check(register: &Register) -> Result<CheckedRegistration, Rejection> {
    refuse!(Malformed, "not yet: {}", register.label)
}

impl CheckedRegistration {
    /// Derived from the EK's name.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }
    /// The EK.
    pub fn ek(&self) -> &EkPublic {
        &self.ek
    }
    /// The AK.
    pub fn ak(&self) -> &AkPublic {
        &self.ak
    }
    /// The SRK.
    pub fn srk(&self) -> &SrkPublic {
        &self.srk
    }
    /// Name of the EK.
    pub fn ek_name(&self) -> &[u8] {
        self.ek.name()
    }
    /// Name of the AK.
    pub fn ak_name(&self) -> &[u8] {
        self.ak.name()
    }
    /// Name of the SRK.
    pub fn srk_name(&self) -> &[u8] {
        self.srk.name()
    }
    /// `sha256:...` over the EK's public area.
    pub fn ek_fingerprint(&self) -> String {
        self.ek.fingerprint()
    }
}
