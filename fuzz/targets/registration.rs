//! A whole registration, from its JSON text on.
#![no_main]
use halfkey_evidence::registration;
use halfkey_protocol::wire::Register;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(register) = serde_json::from_slice::<Register>(bytes) {
        let _ = registration::check(&register);
    }
});
