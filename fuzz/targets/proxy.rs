//! Headers of the PROXY protocol.
#![no_main]
use halfkey_verifier::proxy;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((fixed, rest)) = bytes.split_first_chunk() else { return };
    let Ok(length) = proxy::parse_fixed(fixed) else { return };
    let Some(rest) = rest.get(..length) else { return };
    let _ = proxy::parse_rest(fixed, rest);
});
