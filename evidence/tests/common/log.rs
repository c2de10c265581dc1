//! Writes firmware event logs.

use halfkey_protocol::kdf::Hash;

/// PCR, event type, what is measured, event data.
pub type Measured<'a> = (u32, u32, &'a [u8], &'a [u8]);

/// A crypto-agile log with a SHA-1 (always zero), a SHA-256 and a SHA-384 bank.
pub fn crypto_agile(events: &[Measured<'_>]) -> Vec<u8> {
    let mut log = head(&[(4, 20), (0x0b, 32), (0x0c, 48)]);
    for (pcr, kind, measured, data) in events {
        log.extend(event(*pcr, *kind, measured, data));
    }
    log
}

/// The Spec ID event with these banks.
pub fn head(algorithms: &[(u16, u16)]) -> Vec<u8> {
    let mut spec_id = b"Spec ID Event03\0\0\0\0\0\0\x02\x00\x02".to_vec();
    spec_id.extend((algorithms.len() as u32).to_le_bytes());
    for (alg, length) in algorithms {
        spec_id.extend(alg.to_le_bytes());
        spec_id.extend(length.to_le_bytes());
    }
    spec_id.push(0);
    let mut log = vec![0, 0, 0, 0, 3, 0, 0, 0];
    log.extend([0; 20]);
    log.extend((spec_id.len() as u32).to_le_bytes());
    log.extend(spec_id);
    log
}

/// One event of such a log.
pub fn event(pcr: u32, kind: u32, measured: &[u8], data: &[u8]) -> Vec<u8> {
    let mut log = pcr.to_le_bytes().to_vec();
    log.extend(kind.to_le_bytes());
    log.extend(3u32.to_le_bytes());
    log.extend(4u16.to_le_bytes());
    log.extend([0; 20]);
    for bank in [Hash::Sha256, Hash::Sha384] {
        log.extend(bank.alg().to_le_bytes());
        // Information extends nothing: its digests are zero.
        log.extend(if kind == 3 { vec![0; bank.digest_len()] } else { bank.digest(&[measured]) });
    }
    log.extend((data.len() as u32).to_le_bytes());
    log.extend(data);
    log
}

/// A TPM 1.2 log.
pub fn sha1(events: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut log = Vec::new();
    for (pcr, kind, data) in events {
        log.extend(pcr.to_le_bytes());
        log.extend(kind.to_le_bytes());
        log.extend([0xaa; 20]);
        log.extend((data.len() as u32).to_le_bytes());
        log.extend(*data);
    }
    log
}
