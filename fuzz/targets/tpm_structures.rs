//! TPM structures that a node sends: public areas, attestations, signatures.
#![no_main]
use halfkey_evidence::public::{AkPublic, EkPublic, SrkPublic};
use halfkey_evidence::{quote, signature};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = EkPublic::parse(bytes);
    let _ = AkPublic::parse(bytes);
    let _ = SrkPublic::parse(bytes);
    let _ = quote::parse_attest(bytes);
    let _ = signature::parse(bytes);
});
