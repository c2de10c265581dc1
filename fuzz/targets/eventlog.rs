//! Firmware event logs: parse, and replay in both banks.
#![no_main]
use halfkey_evidence::eventlog;
use halfkey_protocol::kdf::Hash;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = eventlog::parse(bytes);
    let _ = eventlog::replay(bytes, Hash::Sha256);
    let _ = eventlog::replay(bytes, Hash::Sha384);
});
