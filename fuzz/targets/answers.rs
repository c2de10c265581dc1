//! Answers of a server, as the agent reads them: HTTP, then JSON.
#![no_main]
use halfkey_agent::net::client::read_answer;
use halfkey_agent::net::http;
use halfkey_protocol::wire::{Begun, Registered, Verdict};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = http::read(&mut &bytes[..], 4096);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for status in [200, 403] {
        let _ = read_answer::<Verdict>(status, text);
        let _ = read_answer::<Begun>(status, text);
        let _ = read_answer::<Registered>(status, text);
    }
});
