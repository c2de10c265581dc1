//! Evidence of a node, from its JSON text on, up to what needs a database.
#![no_main]
use halfkey_evidence::appraise::Evidence;
use halfkey_protocol::wire::Finish;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(finish) = serde_json::from_slice::<Finish>(bytes) {
        let _ = Evidence::read(&finish);
    }
});
