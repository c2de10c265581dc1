//! systemd's log of its own measurements, as verifier and agent read it.
#![no_main]
use halfkey_evidence::eventlog::userspace;
use halfkey_protocol::kdf::Hash;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = userspace::parse(bytes, Hash::Sha256);
    let _ = halfkey_agent::userspace_log::sha256_digests(bytes, 15);
});
