//! Headers of the PROXY protocol.
#![no_main]

// The file, and not the crate: the verifier with all that it links would be half of what a build of the targets instruments.
#[allow(dead_code, reason = "only the parsers are called")]
#[path = "../../verifier/src/proxy.rs"]
mod proxy;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((fixed, rest)) = bytes.split_first_chunk() else { return };
    let Ok(length) = proxy::parse_fixed(fixed) else { return };
    let Some(rest) = rest.get(..length) else { return };
    let _ = proxy::parse_rest(fixed, rest);
});
