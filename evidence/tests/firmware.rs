//! A log as real firmware writes it: Debian's OVMF, a unified kernel image with systemd's stub 252, Linux 6.1, swtpm.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

use halfkey_evidence::eventlog::{Format, parse, replay};
use halfkey_protocol::Reason;
use halfkey_protocol::kdf::Hash;

const LOG: &[u8] = include_bytes!("fixtures/ovmf-uki.bin");

fn quoted() -> Vec<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let lines = include_str!("fixtures/ovmf-uki.pcrs").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

#[test]
fn it_replays_to_what_the_tpm_quoted() {
    assert_eq!(parse(LOG).unwrap().format(), Format::CryptoAgile);
    let log = replay(LOG, Hash::Sha256).unwrap();
    // 11 goes on with what systemd measures in the initramfs, without a log; 10 is IMA's.
    for (pcr, value) in (0u8..).zip(quoted()).filter(|(pcr, _)| !matches!(pcr, 10 | 11 | 15)) {
        assert_eq!(log.pcr(pcr).unwrap(), value, "pcr {pcr}");
    }
}

#[test]
fn cut_anywhere_it_is_refused_or_says_less() {
    let whole = replay(LOG, Hash::Sha256).unwrap().events().len();
    for end in 0..LOG.len() {
        match replay(&LOG[..end], Hash::Sha256) {
            Ok(log) => assert!(log.events().len() < whole, "{end} bytes"),
            Err(rejection) => {
                assert!(matches!(rejection.reason, Reason::LogMalformed | Reason::LogReplay), "{rejection}");
            }
        }
    }
}
