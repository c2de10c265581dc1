//! systemd's log of its own measurements, as verifier and agent read it.
#![no_main]
use halfkey_evidence::eventlog::userspace;
use halfkey_protocol::tpm::bank::PcrBank;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for hash in PcrBank::ALL {
        let _ = userspace::parse(bytes, hash);
        let _ = halfkey_agent::userspace_log::digests(bytes, 15, hash);
    }
});
