//! Credentials made here are opened by a real TPM.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::{P384_EK, RSA_EK, Swtpm};
use halfkey_evidence::credential::{make_for_ek, make_for_srk};
use halfkey_evidence::registration::check;
use halfkey_protocol::Reason;

#[test]
fn a_tpm_opens_credentials_for_each_kind_of_key() {
    let tpm = Swtpm::start();
    tpm.make_keys();
    tpm.tool("tpm2_createek", &["-G", "ecc", "-c", "ek256.ctx"]);
    let secret = *b"32 bytes that only one tpm opens";

    // The high-range P-384 EK has userWithAuth; the others want PolicySecret.
    for (ek, policy) in [(RSA_EK.0, true), ("ek256.ctx", true), (P384_EK.0, false)] {
        let checked = check(&tpm.register(ek, None)).unwrap();
        let name = checked.ak_name();
        for length in [1, 16, 32] {
            let credential = make_for_ek(checked.ek(), name, &secret[..length]).unwrap();
            assert_eq!(tpm.activate(&credential, ek, policy).as_deref(), Some(&secret[..length]), "{ek}");
        }

        let credential = make_for_ek(checked.ek(), name, &secret).unwrap();
        let again = make_for_ek(checked.ek(), name, &secret).unwrap();
        assert_ne!(credential, again);
        let for_another = make_for_ek(checked.ek(), checked.srk_name(), &secret).unwrap();
        assert_eq!(tpm.activate(&for_another, ek, policy), None, "{ek}: another object's name");
        let mut damaged = credential.clone();
        *damaged.id_object.0.last_mut().unwrap() ^= 1;
        assert_eq!(tpm.activate(&damaged, ek, policy), None, "{ek}: damaged");

        for bad in [&secret[..0], &[0; 49]] {
            assert_eq!(make_for_ek(checked.ek(), name, bad).unwrap_err().reason, Reason::Malformed);
        }
        assert_eq!(make_for_ek(checked.ek(), b"name", &secret).unwrap_err().reason, Reason::Malformed);
    }

    let checked = check(&tpm.register(RSA_EK.0, None)).unwrap();
    let credential = make_for_srk(&checked, checked.ak_name(), &secret).unwrap();
    assert_eq!(tpm.activate(&credential, "srk.ctx", false).as_deref(), Some(&secret[..]));
    let for_another = make_for_srk(&checked, checked.srk_name(), &secret).unwrap();
    assert_eq!(tpm.activate(&for_another, "srk.ctx", false), None);
    assert!(make_for_srk(&checked, checked.ak_name(), &[0; 33]).is_err());
}
