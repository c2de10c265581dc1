//! The authorization policy of the sealed half U, and what the release key signs.
//!
//! U is sealed under PolicyPCR(fence = 0) and PolicySigned(release key,
//! policyRef = node id), in this order, with userWithAuth clear
//! (TPM 2.0 Part 1, section 19.7; Part 3, PolicyPCR and PolicySigned).

use crate::FENCE_PCR;
use crate::tpm::bank::PcrBank;
use sha2::{Digest, Sha256};

const CC_POLICY_PCR: u32 = 0x0000_017f;
const CC_POLICY_SIGNED: u32 = 0x0000_0160;

/// `TPML_PCR_SELECTION` of one bank, marshalled: `pcrs` is a bit mask, bit 0 = PCR 0.
pub fn pcr_selection(bank: PcrBank, pcrs: u32) -> Vec<u8> {
    let mask = pcrs.to_le_bytes();
    let mut selection = 1u32.to_be_bytes().to_vec();
    selection.extend(bank.alg().to_be_bytes());
    selection.push(3);
    selection.extend(&mask[..3]);
    selection
}

/// authPolicy of the sealed U: a session whose bank `bank` shows PCR 15 = 0 and
/// that the release key signed for this node. The policy session uses SHA-256.
pub fn seal_policy(bank: PcrBank, release_name: &[u8], node: &[u8; 16]) -> [u8; 32] {
    let zero = vec![0; bank.digest_len()];
    // The digest of the selected PCRs uses the session's hash, not the bank's.
    let pcr_digest = Sha256::digest(zero);
    let mut hash = Sha256::new();
    hash.update([0; 32]);
    hash.update(CC_POLICY_PCR.to_be_bytes());
    hash.update(pcr_selection(bank, 1 << FENCE_PCR));
    hash.update(pcr_digest);
    let policy = hash.finalize();

    let mut hash = Sha256::new();
    hash.update(policy);
    hash.update(CC_POLICY_SIGNED.to_be_bytes());
    hash.update(release_name);
    let policy = hash.finalize();

    let mut hash = Sha256::new();
    hash.update(policy);
    hash.update(node);
    hash.finalize().into()
}

/// aHash of PolicySigned: SHA-256 over nonceTPM, expiration = 0, an empty cpHashA
/// and policyRef = node id. The release key signs this digest (ECDSA P-256), so a
/// signature serves the one TPM session that made that nonce.
pub fn release_digest(nonce_tpm: &[u8], node: &[u8; 16]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(nonce_tpm);
    hash.update(0i32.to_be_bytes());
    hash.update(node);
    hash.finalize().into()
}
