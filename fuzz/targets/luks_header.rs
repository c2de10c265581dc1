//! A LUKS2 header and the token in it, as the agent finds them on a disk.
#![no_main]
use halfkey_agent::luks::{Header, Token};
use halfkey_protocol::tpm::kdf::Hash;

/// A header around this JSON text, with a checksum that lets mutations reach it.
fn around(json: &[u8]) -> Option<Vec<u8>> {
    let size = 16384;
    let mut area = vec![0; size];
    area[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    area[8..16].copy_from_slice(&(size as u64).to_be_bytes());
    area[72..78].copy_from_slice(b"sha256");
    area[168..204].copy_from_slice(b"0b5f4c0e-6d1b-4f0a-9f2d-1d0c7a5e0001");
    area[4096..].get_mut(..json.len())?.copy_from_slice(json);
    let checksum = Hash::Sha256.digest(&[&area]);
    area[448..480].copy_from_slice(&checksum);
    Some(area)
}

fn judge(header: &Header) {
    let _ = header.halfkey_tokens();
    let _ = header.check_volume(1 << 30);
    let _ = header.check_room(4096);
    let _ = (header.flags(), header.unknown_flags());
    for slot in header.keyslots() {
        if let Ok(checked) = header.check(slot, 1 << 30) {
            let flags = checked.flags.clone();
            // What the agent writes, it reads.
            assert!(Header::parse(&checked.header(0, &flags), 0).is_ok());
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = Header::parse(bytes, 0) {
        judge(&header);
    }
    if let Some(Ok(header)) = around(bytes).map(|area| Header::parse(&area, 0)) {
        judge(&header);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(token) = Token::parse(text)
    {
        assert_eq!(Token::parse(&token.to_json()).ok().as_ref(), Some(&token));
    }
});
