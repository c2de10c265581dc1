//! AES-256-XTS as dm-crypt has it (`aes-xts-plain64`), in user space: the disk is encrypted without root and without
//! device-mapper (IEEE 1619; tweak = number of the 512-byte sector, little-endian).

use aes::Aes256;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

/// Bytes of the two keys together.
pub const KEY_LEN: usize = 64;

/// Encrypts whole sectors in place. `first` is the number of the first 512-byte sector of `data`, counted from the
/// start of the encrypted segment; `sector_size` is LUKS2's.
///
/// # Panics
/// If `data` is not a whole number of sectors.
pub fn encrypt(key: &[u8; KEY_LEN], first: u64, sector_size: usize, data: &mut [u8]) {
    assert!(sector_size.is_multiple_of(512) && data.len().is_multiple_of(sector_size), "whole sectors");
    let (data_key, tweak_key) = key.split_at(32);
    let data_cipher = Aes256::new_from_slice(data_key).expect("half of the key is 32 bytes");
    let tweak_cipher = Aes256::new_from_slice(tweak_key).expect("half of the key is 32 bytes");
    let mut tweaks = vec![0u128; sector_size / 16];
    let mut blocks = vec![Array::from([0u8; 16]); sector_size / 16];
    for (index, sector) in data.chunks_exact_mut(sector_size).enumerate() {
        let number = first + (index * (sector_size / 512)) as u64;
        let mut block = Array::from(u128::from(number).to_le_bytes());
        tweak_cipher.encrypt_block(&mut block);
        let mut tweak = u128::from_le_bytes(block.into());
        for (i, chunk) in sector.as_chunks::<16>().0.iter().enumerate() {
            tweaks[i] = tweak;
            blocks[i] = Array::from((u128::from_le_bytes(*chunk) ^ tweak).to_le_bytes());
            // Times alpha in GF(2^128).
            tweak = (tweak << 1) ^ ((tweak >> 127) * 0x87);
        }
        data_cipher.encrypt_blocks(&mut blocks);
        for (i, chunk) in sector.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let block: [u8; 16] = blocks[i].into();
            *chunk = (u128::from_le_bytes(block) ^ tweaks[i]).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IEEE 1619-2007, vector 10 (XTS-AES-256, data unit 0xff).
    #[test]
    fn matches_the_standard() {
        let mut key = [0; 64];
        let text = "2718281828459045235360287471352662497757247093699959574966967627\
                    3141592653589793238462643383279502884197169399375105820974944592";
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        }
        let mut data: Vec<u8> = (0..512u32).map(|i| i as u8).collect();
        encrypt(&key, 0xff, 512, &mut data);
        assert_eq!(
            data[..16],
            [0x1c, 0x3b, 0x3a, 0x10, 0x2f, 0x77, 0x03, 0x86, 0xe4, 0x83, 0x6c, 0x99, 0xe3, 0x70, 0xcf, 0x9b]
        );
        assert_eq!(
            data[496..],
            [0xc4, 0xf3, 0x6f, 0xfd, 0xa9, 0xfc, 0xea, 0x70, 0xb9, 0xc6, 0xe6, 0x93, 0xe1, 0x48, 0xc1, 0x51]
        );
    }
}
