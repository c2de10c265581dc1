//! Reads a LUKS2 header (LUKS2 On-Disk Format Specification 1.1, section 2): two copies of a
//! binary header and a JSON area, each with a checksum.
//!
//! Everything here is hostile. Nothing of it reaches cryptsetup as it is: see [`super::check`].

use super::json::At;
use super::token::Token;
use crate::error::{Error, Result};
use halfkey_protocol::tpm::kdf::Hash;
use miniserde::json::{Object, Value};
use std::fs::File;
use std::os::unix::fs::FileExt;

pub use super::names::{MAX_SLOTS, is_uuid};

/// Size of the binary header.
pub const BINARY: usize = 4096;
/// Sizes that a header area may have (section 2.1), and so the places of the second copy. The format
/// goes up to 4 MiB; cryptsetup makes 16 KiB, and no more than 256 KiB of somebody's JSON are read here.
const SIZES: [u64; 5] = [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000];
/// Sizes that are as right, and larger.
const LARGER: [u64; 4] = [0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];

const PRIMARY: &[u8; 6] = b"LUKS\xba\xbe";
const SECONDARY: &[u8; 6] = b"SKUL\xba\xbe";

/// A header whose checksum is right. Says nothing about whether it is harmless.
pub struct Header {
    /// UUID: lower-case text with dashes.
    pub uuid: String,
    /// Grows with each change.
    pub seqid: u64,
    /// Size of binary header and JSON area together, in bytes.
    pub size: u64,
    /// The binary header, for what is copied as it is.
    pub binary: Vec<u8>,
    /// Length of the JSON text, in bytes.
    pub(super) json_len: usize,
    pub(super) json: Object,
}

/// What stands at the beginning of a device.
pub enum Found {
    /// No LUKS.
    Nothing,
    /// LUKS version 1, which has no tokens.
    Luks1,
    /// LUKS2.
    Luks2(Box<Header>),
}

impl Header {
    /// Reads the newer of the two intact copies on a device or in a file.
    ///
    /// # Errors
    /// When there is a LUKS2 header and no intact copy of it.
    pub fn read(device: &File) -> Result<Found> {
        let mut start = [0; 16];
        if device.read_exact_at(&mut start, 0).is_err() || !start.starts_with(PRIMARY) {
            return Ok(Found::Nothing);
        }
        match start[6..8] {
            [0, 1] => return Ok(Found::Luks1),
            [0, 2] => {}
            _ => return Err(Error::volume("expected LUKS version 1 or 2, found another")),
        }
        let first = Self::read_copy(device, 0);
        // The size in an intact first copy says where the second is; else it is searched.
        let places = match &first {
            Ok(header) => vec![header.size],
            Err(_) => SIZES.to_vec(),
        };
        let second = places.into_iter().find_map(|at| Self::read_copy(device, at).ok());
        match (first, second) {
            (Ok(first), Some(second)) if second.seqid > first.seqid => Ok(Found::Luks2(Box::new(second))),
            (Ok(first), _) => Ok(Found::Luks2(Box::new(first))),
            (Err(_), Some(second)) => Ok(Found::Luks2(Box::new(second))),
            (Err(error), None) if error.hint.is_some() => Err(error),
            (Err(error), None) => Err(error.hint("cryptsetup repair, or restore a backup of the header")),
        }
    }

    /// The UUID that stands where both versions of LUKS have it, whatever else is damaged.
    pub fn claimed_uuid(device: &File) -> Option<String> {
        let mut field = [0; 40];
        device.read_exact_at(&mut field, 168).ok()?;
        c_string(&field).filter(|uuid| is_uuid(uuid)).map(str::to_owned)
    }

    fn read_copy(device: &File, at: u64) -> Result<Self> {
        let io = |e| Error::volume(format!("LUKS2 header at {at}: {e}"));
        let mut area = vec![0; BINARY];
        device.read_exact_at(&mut area, at).map_err(io)?;
        let size = be64(&area, 8);
        if !SIZES.contains(&size) {
            let wrong = Error::volume(format!(
                "LUKS2 header at {at}: expected a size of 16 to 256 KiB (a power of 2), found {size} bytes"
            ));
            return Err(if LARGER.contains(&size) {
                wrong.hint("a volume that was made with a larger --luks2-metadata-size can't be enrolled; nothing is wrong with it")
            } else {
                wrong
            });
        }
        area.resize(size as usize, 0);
        device.read_exact_at(&mut area[BINARY..], at + BINARY as u64).map_err(io)?;
        Self::parse(&area, at)
    }

    /// Parses one copy: binary header and JSON area, as read at offset `at`.
    ///
    /// # Errors
    /// When a field is not what the format says or the checksum is wrong.
    pub fn parse(area: &[u8], at: u64) -> Result<Self> {
        let wrong = |what: &str| Error::volume(format!("LUKS2 header at {at}: {what}"));
        if area.len() < 2 * BINARY {
            return Err(wrong("shorter than a header"));
        }
        let magic = if at == 0 { PRIMARY } else { SECONDARY };
        if !area.starts_with(magic) || area[6..8] != [0, 2] {
            return Err(wrong("expected the magic of LUKS2, found something else"));
        }
        let size = be64(area, 8);
        if !SIZES.contains(&size) || size != area.len() as u64 {
            return Err(wrong("expected a size of 16 to 256 KiB, and as many bytes"));
        }
        if be64(area, 256) != at || (at != 0 && at != size) {
            return Err(wrong("it says that it stands elsewhere"));
        }
        if c_string(&area[72..104]) != Some("sha256") {
            return Err(wrong("expected checksum algorithm sha256, found another"));
        }
        // The checksum covers the area with its own field zeroed.
        let computed = Hash::Sha256.digest(&[&area[..448], &[0; 64], &area[512..]]);
        if computed != area[448..480] {
            return Err(wrong("the checksum is wrong"));
        }
        let uuid =
            c_string(&area[168..208]).filter(|uuid| is_uuid(uuid)).ok_or_else(|| wrong("expected a UUID"))?;
        let text = area[BINARY..].split(|byte| *byte == 0).next().unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| wrong("JSON area: not UTF-8"))?;
        let json = match miniserde::json::from_str(text) {
            Ok(Value::Object(json)) => json,
            _ => return Err(wrong("JSON area: not a JSON object")),
        };
        Ok(Self {
            uuid: uuid.to_owned(),
            seqid: be64(area, 16),
            size,
            binary: area[..BINARY].to_vec(),
            json_len: text.len(),
            json,
        })
    }

    /// The label of the volume; may be empty.
    pub fn label(&self) -> &str {
        c_string(&self.binary[24..72]).unwrap_or_default()
    }

    /// Keyslots that exist.
    pub fn keyslots(&self) -> Vec<u32> {
        self.numbers("keyslots")
    }

    /// Keyslots that open data: a digest binds them to a segment. `luksAddKey --unbound` makes others.
    pub fn bound_keyslots(&self) -> Vec<u32> {
        let Ok(digests) = At::root(&self.json).object("digests") else { return Vec::new() };
        let bound: Vec<u32> = (digests.object.keys())
            .filter_map(|key| digests.object(key).ok())
            .filter(|digest| digest.texts("segments").is_ok_and(|segments| !segments.is_empty()))
            .filter_map(|digest| digest.texts("keyslots").ok())
            .flatten()
            .filter_map(number)
            .collect();
        self.keyslots().into_iter().filter(|slot| bound.contains(slot)).collect()
    }

    /// Numbers of all tokens.
    pub fn token_numbers(&self) -> Vec<u32> {
        self.numbers("tokens")
    }

    fn numbers(&self, field: &str) -> Vec<u32> {
        let Ok(slots) = At::root(&self.json).object(field) else { return Vec::new() };
        let mut numbers: Vec<u32> = slots.object.keys().filter_map(|key| number(key)).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Tokens of type `halfkey`, with their numbers. A damaged one is an error of its own.
    pub fn halfkey_tokens(&self) -> Vec<(u32, Result<Token>)> {
        let Ok(tokens) = At::root(&self.json).object("tokens") else { return Vec::new() };
        let ours = self.token_numbers().into_iter().filter_map(|number| {
            let value = tokens.object.get(&number.to_string())?;
            let Value::Object(token) = value else { return None };
            (At::root(token).text("type") == Ok(super::token::TYPE))
                .then(|| (number, Token::parse(&miniserde::json::to_string(value))))
        });
        ours.collect()
    }

    /// Tokens by which another program opens the data: a number and the type of each. A recovery key is typed, like a passphrase.
    pub fn other_tokens(&self) -> Vec<(u32, String)> {
        let Ok(tokens) = At::root(&self.json).object("tokens") else { return Vec::new() };
        let bound = self.bound_keyslots();
        let others = self.token_numbers().into_iter().filter_map(|number| {
            let Value::Object(token) = tokens.object.get(&number.to_string())? else { return None };
            let kind = At::root(token).text("type").ok()?;
            let opens = self.slots_of_token(number).iter().any(|slot| bound.contains(slot));
            (opens && ![super::token::TYPE, "systemd-recovery"].contains(&kind))
                .then(|| (number, kind.escape_default().to_string()))
        });
        others.collect()
    }

    /// Keyslots that a token other than `except` names in `keyslots`.
    pub fn slots_of_tokens(&self, except: &[u32]) -> Vec<u32> {
        self.slots_named(|token| !except.iter().any(|except| except.to_string() == token))
    }

    /// Keyslots that this token names in `keyslots`, however damaged the rest of it is.
    pub fn slots_of_token(&self, number: u32) -> Vec<u32> {
        self.slots_named(|token| token == number.to_string())
    }

    fn slots_named(&self, by: impl Fn(&str) -> bool) -> Vec<u32> {
        let Ok(tokens) = At::root(&self.json).object("tokens") else { return Vec::new() };
        let tokens = tokens.object.iter().filter(|(key, _)| by(key));
        tokens
            .filter_map(|(_, value)| match value {
                Value::Object(token) => At::root(token).texts("keyslots").ok(),
                _ => None,
            })
            .flatten()
            .filter_map(number)
            .collect()
    }
}

/// A number of a keyslot or token, written as cryptsetup writes it: "01" and "+1" would be a second
/// name of the same thing. There are less than [`MAX_SLOTS`], so each list of them is short.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| *number < MAX_SLOTS && number.to_string() == text)
}

/// The lowest number that is not taken.
pub fn free(taken: &[u32]) -> Option<u32> {
    (0..MAX_SLOTS).find(|number| !taken.contains(number))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk::<8>().map_or(0, |chunk| u64::from_be_bytes(*chunk))
}

/// Text up to the first NUL; `None` if there is no NUL or it is not plain ASCII.
fn c_string(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&bytes[..end]).ok().filter(|text| text.bytes().all(|b| (b' '..=b'~').contains(&b)))
}
