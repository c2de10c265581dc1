//! Response codes in words (TPM 2.0 Part 2, section 6.6).

use std::fmt::Write;
use tpm2_protocol::data::{TpmRc, TpmRcFmt1, TpmRcIndex};

pub(super) const SUCCESS: u32 = 0;
pub(super) const INITIALIZE: u32 = 0x100;
pub(super) const DISABLED: u32 = 0x120;
pub(super) const PCR_CHANGED: u32 = 0x128;
pub(super) const AUTH_UNAVAILABLE: u32 = 0x12f;
pub(super) const OBJECT_MEMORY: u32 = 0x902;
pub(super) const YIELDED: u32 = 0x908;
pub(super) const TESTING: u32 = 0x90a;
pub(super) const NV_RATE: u32 = 0x920;
pub(super) const LOCKOUT: u32 = 0x921;
pub(super) const RETRY: u32 = 0x922;
// Format 1, without the number of the parameter, handle or session.
pub(super) const VALUE: u32 = 0x84;
pub(super) const HIERARCHY: u32 = 0x85;
pub(super) const HANDLE: u32 = 0x8b;
pub(super) const AUTH_FAIL: u32 = 0x8e;
pub(super) const SIGNATURE: u32 = 0x9b;
pub(super) const POLICY_FAIL: u32 = 0x9d;
pub(super) const INTEGRITY: u32 = 0x9f;
pub(super) const BAD_AUTH: u32 = 0xa2;
pub(super) const FAILURE: u32 = 0x101;

/// The code without the number of what it complains about.
pub(super) fn base(code: u32) -> u32 {
    if code & 0x80 != 0 { code & 0xbf } else { code }
}

/// Whether the same command may do better in a moment.
pub(super) fn is_transient(code: u32) -> bool {
    matches!(code, RETRY | YIELDED | TESTING | NV_RATE)
}

/// For example `TPM_RC_POLICY_FAIL (0x99d), session 1: a policy check failed`.
pub(super) fn in_words(code: u32) -> String {
    let mut text = String::new();
    // Layers above the TPM (the kernel's resource manager is 0x000b0000) use the upper half.
    let (layer, code_of_tpm) = (code >> 16, code & 0xffff);
    let parsed = TpmRc::try_from(code_of_tpm);
    let result = match parsed {
        Ok(rc) => write!(text, "{} (0x{code:03x})", rc.base()),
        Err(_) => write!(text, "response code 0x{code:03x}"),
    };
    result.expect("writing to a String can't fail");
    if let Ok(TpmRc::Fmt1(TpmRcFmt1 { index: Some(index), .. })) = parsed {
        let (what, number) = match index {
            TpmRcIndex::Parameter(number) => ("parameter", number),
            TpmRcIndex::Handle(number) => ("handle", number),
            TpmRcIndex::Session(number) => ("session", number),
        };
        write!(text, ", {what} {number}").expect("writing to a String can't fail");
    }
    if layer == 0x0b {
        text.push_str(" from the kernel's resource manager");
    }
    if let Some(meaning) = meaning(base(code_of_tpm)) {
        text.push_str(": ");
        text.push_str(meaning);
    }
    text
}

/// What the codes mean that a Halfkey node can meet.
fn meaning(base: u32) -> Option<&'static str> {
    Some(match base {
        INITIALIZE => "the TPM has not been started",
        FAILURE => "the TPM is in failure mode",
        DISABLED => "the command is disabled",
        PCR_CHANGED => "a PCR changed since the policy was checked",
        AUTH_UNAVAILABLE => "the authorization value can't be used",
        0x143 => "the TPM does not know this command",
        OBJECT_MEMORY => "no room for another object",
        0x903 => "no room for another session",
        0x905 => "no handle left for another session",
        LOCKOUT => "locked after failed authorizations",
        NV_RATE => "too many writes, the TPM slows down",
        0x923 => "the TPM can't write its memory now",
        0x81 => "asymmetric algorithm not supported",
        0x82 => "attributes don't fit",
        0x83 => "hash algorithm not supported",
        VALUE => "value out of range or not as expected",
        HIERARCHY => "hierarchy disabled or not right for this use",
        HANDLE => "no such object",
        AUTH_FAIL => "wrong authorization value, counted as a failed try",
        0x95 => "size not as expected",
        SIGNATURE => "wrong signature",
        POLICY_FAIL => "a policy check failed",
        INTEGRITY => "made by another TPM or parent key, or damaged",
        BAD_AUTH => "wrong authorization value",
        0xa6 => "curve not supported",
        0xa7 => "point not on the curve",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_say_what_they_complain_about() {
        assert_eq!(in_words(0x99d), "TPM_RC_POLICY_FAIL (0x99d), session 1: a policy check failed");
        assert_eq!(
            in_words(0x1c4),
            "TPM_RC_VALUE (0x1c4), parameter 1: value out of range or not as expected"
        );
        assert_eq!(in_words(0x18b), "TPM_RC_HANDLE (0x18b), handle 1: no such object");
        assert_eq!(in_words(0x921), "TPM_RC_LOCKOUT (0x921): locked after failed authorizations");
        assert_eq!(in_words(0x100), "TPM_RC_INITIALIZE (0x100): the TPM has not been started");
        assert!(in_words(0xb0143).contains("resource manager"));
    }

    proptest! {
        #[test]
        fn any_code_has_words(code: u32) {
            prop_assert!(!in_words(code).is_empty());
        }
    }
}
