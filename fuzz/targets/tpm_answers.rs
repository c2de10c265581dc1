//! Answers of a TPM, or of whoever sits on its bus.
#![no_main]
use halfkey_agent::tpm;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for (handle, auth) in [(false, false), (true, false), (false, true), (true, true)] {
        let _ = tpm::parse_answer(bytes, handle, auth);
    }
    let _ = tpm::quoted_digest(bytes);
    let _ = tpm::split_certificates(bytes);
});
