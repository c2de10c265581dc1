//! What the kernel and the boot loader hand to the agent: command line, crypttab, mounts, uevents, routes.
#![no_main]
use halfkey_agent::boot::cmdline::Settings;
use halfkey_agent::boot::{mountinfo, uevent};
use halfkey_agent::net::{resolv, wait};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = uevent::parse(bytes);
    let _ = wait::says_new(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Settings::parse(text, text);
        let _ = mountinfo::parse(text);
        let _ = ["DNS=", "nameserver "].map(|word| resolv::name_servers(text, word));
    }
});
