//! The fence on a real TPM (swtpm).

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

mod common;

use common::swtpm::Swtpm;
use halfkey_agent::error::Kind;
use halfkey_agent::fence;
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
fn a_window_that_was_closed_meanwhile_takes_nothing_back() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let window = fence::window(&mut tpm).unwrap();
    fence::close(&mut tpm).unwrap();
    let refused = fence::extend_open(&mut tpm, window, &[7; 32]).err().unwrap();
    assert_eq!(refused.kind, Kind::Fence);
    assert!(fence::window(&mut tpm).is_err());
}
