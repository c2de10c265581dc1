//! What the longest event logs cost that somebody could send, if everything in them is looked at.

use crate::run::Result;
use halfkey_evidence::digest::Bank;
use halfkey_evidence::eventlog::{MAX_FILE, kind, replay_all};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The slowest of several logs of [`MAX_FILE`] bytes: which, and how long it took to replay it and describe each event.
pub fn measure() -> Result<(&'static str, Duration)> {
    let mut worst = ("", Duration::ZERO);
    for (name, log) in [
        ("many small events", repeated(kind::IPL, &[0x2e; 90])),
        ("many command lines", repeated(kind::IPL, &[&b"grub_cmd: "[..], &[b'a'; 100]].concat())),
        ("one command line", repeated(kind::IPL, &[b'a'; MAX_FILE - 200])),
        ("empty signature lists", repeated(kind::EFI_VARIABLE_DRIVER_CONFIG, &dbx(&list(&[])))),
        ("entries of owners only", repeated(kind::EFI_VARIABLE_DRIVER_CONFIG, &dbx(&list(&[0; 16])))),
        ("device paths of empty nodes", repeated(kind::EFI_BOOT_SERVICES_APPLICATION, &image())),
    ] {
        let start = Instant::now();
        for bank in &replay_all(&log)?.banks {
            for event in bank.events() {
                black_box((event.standing(), event.what()));
            }
        }
        if start.elapsed() > worst.1 {
            worst = (name, start.elapsed());
        }
    }
    Ok(worst)
}

/// As many of an event as the longest log has.
fn repeated(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut log = head();
    let mut event = [7, kind, 1].map(u32::to_le_bytes).concat();
    event.extend(Bank::Sha256.alg().to_le_bytes());
    event.extend_from_slice(&Bank::Sha256.digest(data));
    event.extend((data.len() as u32).to_le_bytes());
    event.extend(data);
    while log.len() + event.len() <= MAX_FILE {
        log.extend_from_slice(&event);
    }
    log
}

/// A Spec ID event with SHA-256 alone.
fn head() -> Vec<u8> {
    let mut log = [0, kind::NO_ACTION].map(u32::to_le_bytes).concat();
    log.extend([0; 20]);
    let spec_id = [&b"Spec ID Event03\0\0\0\0\0\0\x02\x00\x02\x01\0\0\0"[..], &[0x0b, 0, 32, 0, 0]].concat();
    log.extend((spec_id.len() as u32).to_le_bytes());
    log.extend(spec_id);
    log
}

/// dbx in `UEFI_VARIABLE_DATA`, full of one signature list.
fn dbx(list: &[u8]) -> Vec<u8> {
    const IMAGE_SECURITY: [u8; 16] =
        [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];
    let value = list.repeat((MAX_FILE - 400) / list.len());
    let lengths = [3, value.len() as u64].map(u64::to_le_bytes).concat();
    [&IMAGE_SECURITY[..], &lengths, b"d\0b\0x\0", &value].concat()
}

/// `EFI_SIGNATURE_LIST` of an unknown type whose entries are as short as can be.
fn list(entries: &[u8]) -> Vec<u8> {
    let sizes = [28 + entries.len(), 0, 16].map(|size| (size as u32).to_le_bytes()).concat();
    [&[9; 16][..], &sizes, entries].concat()
}

/// `UEFI_IMAGE_LOAD_EVENT` whose path has nothing but the heads of nodes.
fn image() -> Vec<u8> {
    let path = [4, 4, 4, 0].repeat((MAX_FILE - 400) / 4);
    [[0; 24].to_vec(), (path.len() as u64).to_le_bytes().to_vec(), path].concat()
}
