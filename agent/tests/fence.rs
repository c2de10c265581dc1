//! The fence on a real TPM (swtpm).

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

mod common;

use common::swtpm::Swtpm;
use halfkey_agent::boot::state::State;
use halfkey_agent::error::Kind;
use halfkey_agent::fence::{self, Meaning};
use halfkey_agent::tpm::Tpm;
use halfkey_protocol::kdf::Hash;
use halfkey_protocol::label;

#[test]
fn r_goes_into_an_open_fence_only() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    fence::close(&mut tpm).unwrap();
    let closed = tpm.fence_state().unwrap().values;
    let refused = fence::window(&mut tpm).err().unwrap();
    assert_eq!(refused.kind, Kind::Fence);
    assert_eq!(tpm.fence_state().unwrap().values, closed);
}

#[test]
fn an_open_fence_takes_r_and_then_a_passphrase() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let window = fence::window(&mut tpm).unwrap();
    let opened = fence::extend_open(&mut tpm, window, &[7; 32]).unwrap();
    assert!(opened.is_closed());
    assert!(fence::window(&mut tpm).is_err());
    assert!(fence::extend(&mut tpm, label::FENCE_PASSPHRASE).unwrap().values != opened.values);
}

#[test]
fn a_tpm_of_one_bank_tells_what_became_of_its_boot() {
    let state = |r: &[u8]| State {
        version: 1,
        node: "80808080-8080-8080-8080-808080808080".into(),
        evidence_id: None,
        fence: fence::opened_with(r),
        server: "https://10.0.2.2:8443".into(),
        opening: false,
        volumes: Vec::new(),
    };
    for (banks, only) in [("sha256:none+sha384:all", Hash::Sha384), ("sha256:all+sha384:none", Hash::Sha256)]
    {
        let mut swtpm = Swtpm::start();
        swtpm.told(&format!("tpm2_pcrallocate sha1:none+{banks}"));
        swtpm.reboot();
        let mut tpm = swtpm.open();
        let means =
            |tpm: &mut Tpm, r: &[u8]| fence::meaning(&tpm.fence_state().unwrap(), Some(&state(r)), b"");
        assert_eq!(means(&mut tpm, &[7; 32]), Meaning::Open);
        let window = fence::window(&mut tpm).unwrap();
        let opened = fence::extend_open(&mut tpm, window, &[7; 32]).unwrap();
        assert_eq!(opened.known().map(|(bank, _)| bank).collect::<Vec<_>>(), [only]);
        assert_eq!(means(&mut tpm, &[7; 32]), Meaning::Opened);
        assert_eq!(means(&mut tpm, &[8; 32]), Meaning::Unknown);
        fence::extend(&mut tpm, label::FENCE_SHELL).unwrap();
        assert_eq!(means(&mut tpm, &[7; 32]), Meaning::Shell);
    }
}

#[test]
fn a_window_that_was_closed_meanwhile_takes_nothing_back() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let window = fence::window(&mut tpm).unwrap();
    fence::close(&mut tpm).unwrap();
    let refused = fence::extend_open(&mut tpm, window, &[7; 32]).err().unwrap();
    assert_eq!(refused.kind, Kind::Fence);
    assert!(fence::window(&mut tpm).is_err());
}
