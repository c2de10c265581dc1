//! TPM2_MakeCredential.
use crate::Rejection;
use crate::public::EkPublic;
use crate::registration::CheckedRegistration;
use crate::rejection::refuse;
use halfkey_protocol::wire::Credential;

/// A credential that only the TPM with this EK opens, and only for the object with this name.
///
/// # Errors
/// `Malformed`, `Unavailable`.
pub fn make_for_ek(ek: &EkPublic, name: &[u8], secret: &[u8]) -> Result<Credential, Rejection> {
    refuse!(Unavailable, "not yet: {} {} {}", ek.kind(), name.len(), secret.len())
}

/// The same to the SRK.
///
/// # Errors
/// `Malformed`, `Unavailable`.
pub fn make_for_srk(
    registration: &CheckedRegistration,
    name: &[u8],
    secret: &[u8],
) -> Result<Credential, Rejection> {
    refuse!(Unavailable, "not yet: {} {} {}", registration.node_id(), name.len(), secret.len())
}
