//! A kernel image, before it is measured: on the node, or at the workstation from a package.
#![no_main]
use halfkey_measure::pe::Image;
use halfkey_measure::predict::{Circumstances, from_kernel, from_uki};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;

/// A UKI whose `.linux` is the input, so that mutations reach the image within the image.
fn around(content: &[u8]) -> Vec<u8> {
    let magic = b"systemd-stub 252";
    let (optional, headers) = (0x58, 0x400);
    let mut file = vec![0; headers];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x46, &2u16.to_le_bytes());
    put(0x54, &112u16.to_le_bytes());
    put(optional, &0x20bu16.to_le_bytes());
    put(optional + 60, &(headers as u32).to_le_bytes());
    let linux = (headers + magic.len()) as u32;
    let size = content.len() as u32;
    for (i, (name, size, address, raw)) in
        [(&b".sdmagic"[..], magic.len() as u32, 1, headers as u32), (b".linux", size, 0x100, linux)]
            .into_iter()
            .enumerate()
    {
        let at = optional + 112 + 40 * i;
        put(at, name);
        for (i, field) in [size, address, size, raw].into_iter().enumerate() {
            put(at + 8 + 4 * i, &field.to_le_bytes());
        }
    }
    [&file[..], magic, content].concat()
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let about = Circumstances { name: "", bank: PcrBank::Sha256, secure_boot: false };
    if let Ok(image) = Image::parse(bytes) {
        image.authenticode(Hash::Sha384);
    }
    let _ = from_uki(bytes, "", &about);
    let _ = from_uki(&around(bytes), "", &about);
    let _ = from_kernel(bytes, "", &[bytes], None, &about);
});
