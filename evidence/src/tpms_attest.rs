//! What a TPM attests (`TPMS_ATTEST`, TPM 2.0 Part 2, section 10.12.12).
//!
//! To be looked at after its signature was verified, not before.

use crate::tpm::exact;
use tpm2_protocol::constant::TPM_GENERATED_VALUE;
use tpm2_protocol::data::{TpmsAttest, TpmuAttest};

/// An attestation; `T` is what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest<T> {
    /// Qualified name of the key that signed.
    pub qualified_signer: Vec<u8>,
    /// qualifyingData of the command.
    pub extra_data: Vec<u8>,
    /// Milliseconds that the TPM was powered since it was last cleared.
    pub clock: u64,
    /// TPM Resets since it was last cleared: boots.
    pub reset_count: u32,
    /// TPM Restarts and Resumes since the last Reset.
    pub restart_count: u32,
    /// Whether no higher clock was ever reported.
    pub safe: bool,
    /// Version of the TPM's firmware, in the manufacturer's terms.
    pub firmware_version: u64,
    /// What is attested.
    pub attested: T,
}

/// `TPMS_QUOTE_INFO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Banks (`TPM_ALG_ID`) and the bit mask of each, as signed.
    pub selection: Vec<(u16, Vec<u8>)>,
    /// Digest of the selected PCRs, with the hash of the signing scheme.
    pub pcr_digest: Vec<u8>,
}

/// `TPMS_CERTIFY_INFO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certify {
    /// Name of the certified object.
    pub name: Vec<u8>,
    /// Its name with those of all its parents: tells the hierarchy.
    pub qualified_name: Vec<u8>,
}

/// Parses the attestation of a quote; the error says what was expected and found.
pub(crate) fn quote(bytes: &[u8]) -> Result<Attest<Quote>, String> {
    let (attest, TpmuAttest::Quote(info)) = parse(bytes)? else {
        return Err("expected a quote, found another attestation".to_owned());
    };
    let selection =
        info.pcr_select.iter().map(|bank| (bank.hash.value(), bank.pcr_select.to_vec())).collect();
    Ok(attest.about(Quote { selection, pcr_digest: info.pcr_digest.to_vec() }))
}

/// Parses the attestation of TPM2_Certify; the error says what was expected and found.
pub(crate) fn certify(bytes: &[u8]) -> Result<Attest<Certify>, String> {
    let (attest, TpmuAttest::Certify(info)) = parse(bytes)? else {
        return Err("expected a certification, found another attestation".to_owned());
    };
    Ok(attest.about(Certify { name: info.name.to_vec(), qualified_name: info.qualified_name.to_vec() }))
}

fn parse(bytes: &[u8]) -> Result<(Attest<()>, TpmuAttest), String> {
    // Without this value a restricted key signs data that is not from the TPM.
    if !bytes.starts_with(&TPM_GENERATED_VALUE.to_be_bytes()) {
        return Err("expected TPM_GENERATED_VALUE at the start, found other bytes".to_owned());
    }
    let attest: TpmsAttest = exact(bytes)?;
    let parsed = Attest {
        qualified_signer: attest.qualified_signer.to_vec(),
        extra_data: attest.extra_data.to_vec(),
        clock: attest.clock_info.clock.value(),
        reset_count: attest.clock_info.reset_count.value(),
        restart_count: attest.clock_info.restart_count.value(),
        safe: bool::from(attest.clock_info.safe),
        firmware_version: attest.firmware_version.value(),
        attested: (),
    };
    Ok((parsed, attest.attested))
}

impl Attest<()> {
    fn about<T>(self, attested: T) -> Attest<T> {
        let Self {
            qualified_signer,
            extra_data,
            clock,
            reset_count,
            restart_count,
            safe,
            firmware_version,
            ..
        } = self;
        Attest {
            qualified_signer,
            extra_data,
            clock,
            reset_count,
            restart_count,
            safe,
            firmware_version,
            attested,
        }
    }
}
