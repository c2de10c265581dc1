//! Evidence of a node, from its JSON text on, up to what needs a database.
#![no_main]
use halfkey_evidence::appraise::BoundedEvidence;
use halfkey_protocol::wire::Evidence;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(sent) = serde_json::from_slice::<Evidence>(bytes) {
        let _ = BoundedEvidence::read(&sent);
    }
});
