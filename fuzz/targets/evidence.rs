//! Evidence of a node, from its JSON text on, up to what needs a database.
#![no_main]
use halfkey_protocol::wire::Finish;
use halfkey_verifier::attest::Claim;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(finish) = serde_json::from_slice::<Finish>(bytes) {
        let _ = Claim::read(&finish);
    }
});
