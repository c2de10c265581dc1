//! systemd's log of its own measurements, as verifier and agent read it.
#![no_main]
use halfkey_evidence::eventlog::systemd_log;
use halfkey_protocol::tpm::bank::PcrBank;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for hash in PcrBank::ALL {
        let _ = systemd_log::parse(bytes, hash);
        let _ = halfkey_agent::logs::systemd_digests(bytes, 15, hash);
    }
});
