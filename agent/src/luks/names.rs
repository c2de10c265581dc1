//! Names of volumes, mappings and flags, and numbers of keyslots.

/// More keyslots and tokens no LUKS2 header has.
pub const MAX_SLOTS: u32 = 32;

/// Persistent activation flags: about performance and discards, not about what is read.
const FLAGS: &[&str] = &[
    "allow-discards",
    "same-cpu-crypt",
    "submit-from-crypt-cpus",
    "no-read-workqueue",
    "no-write-workqueue",
];

/// Lower-case hex with dashes in the usual places: it becomes part of device names.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// A name that device-mapper takes and that stays within /dev/mapper.
pub fn is_mapping_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+' | b':' | b'@');
    !name.is_empty() && name.len() < 128 && !name.starts_with(['-', '.']) && name.bytes().all(plain)
}

/// Whether it is an activation flag that the agent knows.
pub fn is_flag(text: &str) -> bool {
    FLAGS.contains(&text)
}
