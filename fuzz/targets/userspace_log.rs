//! systemd's log of its own measurements, as verifier and agent read it.
#![no_main]
use halfkey_evidence::eventlog::userspace;
use halfkey_protocol::tpm::kdf::Hash;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for hash in [Hash::Sha256, Hash::Sha384] {
        let _ = userspace::parse(bytes, hash);
        let _ = halfkey_agent::userspace_log::digests(bytes, 15, hash);
    }
});
