//! All that a node sends when it registers.

use crate::Rejection;
use crate::attest;
use crate::ek::certificate;
use crate::public::{AkPublic, EkPublic, SrkPublic};
use crate::quote::hex;
use crate::rejection::refuse;
use crate::signature;
use crate::tpm::id;
use halfkey_protocol::kdf::Hash;
use halfkey_protocol::wire::Register;
use halfkey_protocol::{NodeId, Reason};

/// Proof: the three keys are of the exact templates, the AK certified the SRK, and
/// the EK certificate, if there is one, is for this EK.
///
/// It does not say that the EK is genuine ([`crate::ek`]) or that the AK is in the
/// same TPM: that takes an activated credential ([`crate::credential`]).
#[derive(Clone, Debug)]
pub struct CheckedRegistration {
    node_id: NodeId,
    ek: EkPublic,
    ak: AkPublic,
    srk: SrkPublic,
}

/// Checks a registration.
///
/// # Errors
/// In this order: `TooLarge`, `EkTemplate`, `EkCertificateMalformed`, `EkCertificateMismatch`,
/// `AkTemplate`, `SrkTemplate`, `Certification`.
pub fn check(register: &Register) -> Result<CheckedRegistration, Rejection> {
    require_sizes(register)?;
    let ek = EkPublic::parse(&register.ek_public)?;
    if let Some(der) = &register.ek_certificate {
        certificate::require_key(der, &ek)?;
    }
    let ak = AkPublic::parse(&register.ak_public)?;
    let srk = SrkPublic::parse(&register.srk_public)?;
    require_certification(register, &ak, &srk)?;
    Ok(CheckedRegistration { node_id: NodeId::from_ek_name(ek.name()), ek, ak, srk })
}

/// An EK certificate, or one above it, in bytes. NV indices of TPMs hold 2 KiB.
pub const MAX_CERTIFICATE: usize = 16 << 10;
/// Certificates between an EK's and a root.
pub const MAX_CHAIN: usize = 8;
/// A suggested label, in bytes: the longest host name, with room.
pub const MAX_LABEL: usize = 256;

/// Structures of the TPM have their bounds where they are parsed.
fn require_sizes(register: &Register) -> Result<(), Rejection> {
    let certificates = register.ek_chain.iter().chain(&register.ek_certificate);
    if let Some(large) = certificates.map(|der| der.len()).find(|length| *length > MAX_CERTIFICATE) {
        return refuse!(TooLarge, "expected certificates of at most {MAX_CERTIFICATE} bytes, found {large}");
    }
    if register.ek_chain.len() > MAX_CHAIN {
        return refuse!(
            TooLarge,
            "expected at most {MAX_CHAIN} certificates, found {}",
            register.ek_chain.len()
        );
    }
    if register.label.len() > MAX_LABEL {
        return refuse!(
            TooLarge,
            "expected a label of at most {MAX_LABEL} bytes, found {}",
            register.label.len()
        );
    }
    Ok(())
}

/// TPM2_Certify of the SRK by the AK: the SRK is in the same TPM as the AK, and each
/// is in its hierarchy. In any but the endorsement hierarchy the counters of a quote
/// would be obfuscated.
fn require_certification(register: &Register, ak: &AkPublic, srk: &SrkPublic) -> Result<(), Rejection> {
    signature::verify(ak, &register.certify_info, &register.certify_signature, Reason::Certification)?;
    let attest = attest::certify(&register.certify_info)
        .map_err(|detail| Rejection::new(Reason::Certification, detail))?;
    if !attest.extra_data.is_empty() {
        return refuse!(
            Certification,
            "expected empty qualifying data, found {} bytes",
            attest.extra_data.len()
        );
    }
    for (what, expected, found) in [
        ("the name of the srk", srk.name(), &attest.attested.name),
        (
            "the srk in the owner hierarchy",
            &primary_qualified_name(id::RH_OWNER, srk.name()),
            &attest.attested.qualified_name,
        ),
        (
            "the ak in the endorsement hierarchy",
            &primary_qualified_name(id::RH_ENDORSEMENT, ak.name()),
            &attest.qualified_signer,
        ),
    ] {
        if expected != found {
            return refuse!(Certification, "expected {what}: {}, found {}", hex(expected), hex(found));
        }
    }
    Ok(())
}

/// nameAlg || H(handle of the hierarchy || name) (TPM 2.0 Part 1, section 26.5).
fn primary_qualified_name(hierarchy: u32, name: &[u8]) -> Vec<u8> {
    let mut qualified = Hash::Sha256.alg().to_be_bytes().to_vec();
    qualified.extend(Hash::Sha256.digest(&[&hierarchy.to_be_bytes(), name]));
    qualified
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
