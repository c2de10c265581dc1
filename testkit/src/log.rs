//! Writes firmware event logs.

use halfkey_protocol::Bytes;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;

/// Event types of the TCG's firmware profile.
pub mod kind {
    /// The end of the firmware's part of a PCR.
    pub const SEPARATOR: u32 = 0x4;
    /// What the kernel's EFI stub measures.
    pub const EVENT_TAG: u32 = 0x6;
    /// The version of the firmware's first code.
    pub const S_CRTM_VERSION: u32 = 0x8;
    /// A variable of Secure Boot.
    pub const VARIABLE: u32 = 0x8000_0001;
    /// A boot application: its Authenticode digest.
    pub const APPLICATION: u32 = 0x8000_0003;
    /// A driver of an option ROM.
    pub const DRIVER: u32 = 0x8000_0004;
    /// A string that says what happened.
    pub const ACTION: u32 = 0x8000_0007;
    /// A part of the firmware.
    pub const FIRMWARE_BLOB: u32 = 0x8000_0008;
    /// The certificate that vouched for an image.
    pub const AUTHORITY: u32 = 0x8000_00e0;
}

/// Tags of what the kernel's EFI stub measures.
pub mod tag {
    /// The command line.
    pub const LOAD_OPTIONS: u32 = 0x8f3b_22ed;
    /// The initrd.
    pub const INITRD: u32 = 0x8f3b_22ec;
}

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
    for bank in PcrBank::ALL {
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

/// A record of systemd's measurement log, with its SHA-256 digest and the text that was measured, by its word.
pub fn systemd_record(pcr: u8, digest: &[u8], text: &str) -> Vec<u8> {
    let digest = crate::hex(digest);
    format!(
        "\x1e{{\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{digest}\"}}],\"content_type\":\"systemd\",\"content\":{{\"string\":\"{text}\"}}}}\n"
    )
    .into_bytes()
}

/// An event that can be changed, with its SHA-256 digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The PCR that it extends.
    pub pcr: u32,
    /// `EV_..`
    pub kind: u32,
    /// SHA-256 of what was measured; empty for one that extends nothing.
    pub digest: Vec<u8>,
    /// The event data.
    pub data: Vec<u8>,
}

impl Record {
    /// An event whose digest is that of its data.
    pub fn of(pcr: u32, kind: u32, data: &[u8]) -> Self {
        Self { pcr, kind, digest: Hash::Sha256.digest(&[data]), data: data.to_vec() }
    }

    /// What this bank is extended with; nothing if the event extends nothing. Where more was measured than the event data holds,
    /// the digest of its SHA-256 digest stands for it.
    pub fn digest_in(&self, bank: PcrBank) -> Option<Vec<u8>> {
        if self.kind == NO_ACTION {
            None
        } else if bank == PcrBank::Sha256 {
            Some(self.digest.clone())
        } else if self.digest == Hash::Sha256.digest(&[&self.data]) {
            Some(bank.digest(&[&self.data]))
        } else {
            Some(bank.digest(&[&self.digest]))
        }
    }
}

/// `EV_NO_ACTION`
pub const NO_ACTION: u32 = 3;

/// A crypto-agile log with SHA-256 only.
pub fn log_of(records: &[Record]) -> Vec<u8> {
    write(records, &[PcrBank::Sha256])
}

/// A crypto-agile log with these banks.
pub fn write(records: &[Record], banks: &[PcrBank]) -> Vec<u8> {
    let sizes: Vec<_> = banks.iter().map(|bank| (bank.alg(), bank.digest_len() as u16)).collect();
    let mut log = head(&sizes);
    for record in records {
        log.extend(record.pcr.to_le_bytes());
        log.extend(record.kind.to_le_bytes());
        log.extend((banks.len() as u32).to_le_bytes());
        for bank in banks {
            log.extend(bank.alg().to_le_bytes());
            log.extend(record.digest_in(*bank).unwrap_or_else(|| vec![0; bank.digest_len()]));
        }
        log.extend((record.data.len() as u32).to_le_bytes());
        log.extend(&record.data);
    }
    log
}

/// The events of a crypto-agile log with a SHA-256 bank, without the first, which says that it is a log.
///
/// # Panics
/// If it is something else.
pub fn read(log: &[u8]) -> Vec<Record> {
    let mut rest = log;
    let mut take = |count: usize| {
        let (taken, after) = rest.split_at(count);
        rest = after;
        (taken.to_vec(), after.is_empty())
    };
    let number =
        |bytes: Vec<u8>| bytes.iter().rev().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    // The header event has the form of TPM 1.2: PCR, type, SHA-1 digest, size.
    take(28);
    let size = number(take(4).0) as usize;
    let spec_id = take(size).0;
    assert!(spec_id.starts_with(b"Spec ID Event03\0"), "expected a crypto-agile log");
    let banks: Vec<(Vec<u8>, usize)> = spec_id[28..]
        .chunks_exact(4)
        .take(usize::from(spec_id[24]))
        .map(|bank| (bank[..2].to_vec(), usize::from(bank[2])))
        .collect();
    let mut records = Vec::new();
    let mut at_end = size + 32 == log.len();
    while !at_end {
        let (pcr, kind) = (number(take(4).0), number(take(4).0));
        let mut digest = Vec::new();
        for _ in 0..number(take(4).0) {
            let alg = take(2).0;
            let length = banks.iter().find(|(bank, _)| *bank == alg).expect("a bank of the header").1;
            let value = take(length).0;
            if alg == Hash::Sha256.alg().to_le_bytes() && kind != NO_ACTION {
                digest = value;
            }
        }
        let size = number(take(4).0) as usize;
        let (data, end) = take(size);
        records.push(Record { pcr, kind, digest, data });
        at_end = end;
    }
    records
}

/// PCR 0 to 15 after these events.
pub fn pcrs(records: &[Record], bank: PcrBank) -> Vec<Bytes> {
    let mut pcrs = vec![vec![0; bank.digest_len()]; 16];
    for record in records {
        if let Some(digest) = record.digest_in(bank) {
            let pcr = &mut pcrs[record.pcr as usize];
            *pcr = bank.digest(&[pcr, &digest]);
        }
    }
    pcrs.into_iter().map(Bytes).collect()
}
