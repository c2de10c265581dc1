//! A file of the folder of EK roots: DER or PEM.
#![no_main]
use halfkey_evidence::ek::Roots;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Roots::from_pem_or_der(bytes);
});
