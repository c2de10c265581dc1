//! What an agent finds inside HPKE.
#![no_main]
use halfkey_protocol::keys::hpke::Released;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(released) = Released::decode(bytes) {
        assert_eq!(&*released.encode(), bytes);
    }
});
