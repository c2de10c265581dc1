//! The strict allow-list for LUKS2 headers.
//!
//! A header can be an attack: a null cipher that shows plaintext of the attacker's choice, a
//! reencryption that never was, several segments, a second digest whose key the attacker knows
//! (CVE-2021-4122, CVE-2025-59054). And it can change between two reads.
//!
//! So a header is not checked and then opened. It is taken apart, what the agent understands
//! is put into a **new** header with one keyslot, one segment, one digest and nothing else,
//! and that one, in sealed memory, is all that cryptsetup sees, at the test and at the opening. Two
//! JSON parsers can't disagree about text that one of them wrote.

use super::fields::{Digest, Fields, Keyslot, STRIPES, Segment};
use super::header::{BINARY, Header, free};
use super::json::{At, Wrong};
use super::names::MAX_SLOTS;
use crate::error::{Error, Result};

pub use super::names::is_flag;

/// Ciphers of data and of keyslot areas: authenticated against nothing, but real.
const CIPHERS: &[&str] =
    &["aes-xts-plain64", "xchacha12,aes-adiantum-plain64", "xchacha20,aes-adiantum-plain64"];
/// Hashes of the anti-forensic splitter, of PBKDF2 and of the volume key's digest.
const HASHES: &[&str] = &["sha256", "sha384", "sha512"];
/// Sector sizes of dm-crypt.
const SECTORS: &[u64] = &[512, 1024, 2048, 4096];
/// PBKDF2 of our keyslot has 1000; much more would only serve to make the boot wait.
const MAX_ITERATIONS: u64 = 1_000_000;
/// That of the digest is what cryptsetup does in an eighth of a second when the volume is made: 4 million with
/// a key of 256 bits on today's processors.
const MAX_DIGEST_ITERATIONS: u64 = 10_000_000;
/// LUKS2's own bound on the area of keyslots.
const MAX_KEYSLOTS_AREA: u64 = 128 << 20;
/// The area of a keyslot: a key of 64 bytes in 4000 stripes, rounded up.
const MAX_AREA: u64 = 1 << 20;
/// What cryptsetup's description of one more keyslot takes, with room to spare.
const KEYSLOT_JSON: usize = 700;

/// A header that passed. The only way to a [`HeaderCopy`](super::HeaderCopy).
pub struct Checked {
    /// UUID of the volume.
    pub uuid: String,
    /// The keyslot that the copy will hold.
    pub slot: u32,
    /// Activation flags that the header has and the agent knows, in ascending order.
    pub flags: Vec<String>,
    pub(super) fields: Fields,
    pub(super) size: u64,
    pub(super) binary: Vec<u8>,
    pub(super) keyslots_size: u64,
}

impl Header {
    /// Checks all that matters for opening with this keyslot on a device of `device_size` bytes.
    ///
    /// # Errors
    /// Names the first field that is not on the allow-list.
    pub fn check(&self, slot: u32, device_size: u64) -> Result<Checked> {
        self.check_fields(slot, device_size).map_err(outside)
    }

    /// Checks all that does not depend on a keyslot: whether this volume can be enrolled at all.
    ///
    /// # Errors
    /// Names the first field that is not on the allow-list.
    pub fn check_volume(&self, device_size: u64) -> Result<()> {
        self.check_shared_fields(device_size).map_err(outside)
    }

    fn check_shared_fields(&self, device_size: u64) -> Result<(), Wrong> {
        let root = At::root(&self.json);
        let (end_of_keyslots, ..) = self.config(&root)?;
        self.segment(&root, end_of_keyslots, device_size)?;
        let digest = the_digest(&root)?;
        digest_fields(&digest)?;
        // A keyslot that is added holds the same volume key.
        for slot in digest.texts("keyslots")? {
            key_size(&root.object("keyslots")?.object(slot)?)?;
        }
        Ok(())
    }

    /// Checks that one more keyslot and a token of this many bytes have room: cryptsetup would find out only
    /// when something has been written.
    ///
    /// # Errors
    /// Says what there is no room for.
    pub fn check_room(&self, token: usize) -> Result<()> {
        let full = |what: &str| {
            Err(Error::volume(format!("no room in the LUKS2 header: {what}")).hint(
                "remove a keyslot or token that is not needed (cryptsetup luksDump, luksKillSlot, token remove)",
            ))
        };
        let mut taken = self.keyslots();
        taken.extend(self.slots_of_tokens(&[]));
        if free(&taken).is_none() {
            return full("all keyslots are taken");
        }
        if free(&self.token_numbers()).is_none() {
            return full("all tokens are taken");
        }
        let room = (self.size as usize - BINARY).saturating_sub(self.json_len + 1);
        if room < token + KEYSLOT_JSON {
            return full(&format!("expected {} bytes for its JSON, found {room}", token + KEYSLOT_JSON));
        }
        match self.largest_gap() {
            Ok((gap, needed)) if gap < needed => {
                full(&format!("expected {needed} bytes in a row for the material of a keyslot, found {gap}"))
            }
            Ok(_) => Ok(()),
            Err(wrong) => Err(outside(wrong)),
        }
    }

    /// The largest hole between the areas of keyslots, and what one more takes.
    fn largest_gap(&self) -> Result<(u64, u64), Wrong> {
        let root = At::root(&self.json);
        let (end, ..) = self.config(&root)?;
        let keyslots = root.object("keyslots")?;
        let mut areas = Vec::new();
        let mut needed = 0;
        for name in keyslots.object.keys() {
            let keyslot = keyslots.object(name)?;
            let area = keyslot.object("area")?;
            areas.push((area.wide("offset")?, area.wide("size")?));
            needed = needed.max((key_size(&keyslot)? * STRIPES).next_multiple_of(4096));
        }
        areas.sort_unstable();
        let (mut gap, mut at) = (0, 2 * self.size);
        for (offset, size) in areas {
            gap = gap.max(offset.saturating_sub(at));
            at = at.max(offset.saturating_add(size));
        }
        Ok((gap.max(end.saturating_sub(at)), needed))
    }

    /// Activation flags that are known, in ascending order.
    pub fn flags(&self) -> Vec<String> {
        self.config(&At::root(&self.json)).map(|(_, _, flags)| flags).unwrap_or_default()
    }

    /// Activation flags that are not.
    pub fn unknown_flags(&self) -> Vec<&str> {
        let flags = At::root(&self.json).object("config").and_then(|config| config.texts("flags"));
        flags.unwrap_or_default().into_iter().filter(|flag| !is_flag(flag)).collect()
    }

    /// Whether a keyslot has the parameters that the agent gives to its own: nobody's typed
    /// passphrase is stretched that little. A token that names another slot does not get it removed.
    pub fn is_unstretched(&self, slot: u32) -> bool {
        let kdf = At::root(&self.json).object("keyslots").and_then(|slots| slots.object(&slot.to_string()));
        let kdf = kdf.and_then(|slot| slot.object("kdf"));
        kdf.is_ok_and(|kdf| kdf.text("type") == Ok("pbkdf2") && kdf.number("iterations") == Ok(1000))
    }

    fn check_fields(&self, slot: u32, device_size: u64) -> Result<Checked, Wrong> {
        let root = At::root(&self.json);
        let (end_of_keyslots, keyslots_size, flags) = self.config(&root)?;
        let segment = self.segment(&root, end_of_keyslots, device_size)?;
        let keyslot = self.keyslot(&root, slot, end_of_keyslots)?;
        let digest = the_digest(&root)?;
        // With a second digest the segment could have a key that the attacker knows, while our keyslot still opens.
        if !digest.texts("keyslots")?.contains(&slot.to_string().as_str()) {
            return Err(format!("digests: expected it to bind keyslot {slot} to segment 0"));
        }
        let fields = Fields { segment, keyslot, digest: digest_fields(&digest)? };
        Ok(Checked {
            uuid: self.uuid.clone(),
            slot,
            flags,
            fields,
            size: self.size,
            binary: self.binary.clone(),
            keyslots_size,
        })
    }

    /// Where the area of keyslots ends, its size, and the flags that are known. One that is not is not refused: what is opened
    /// has those that were sealed.
    fn config(&self, root: &At) -> Result<(u64, u64, Vec<String>), Wrong> {
        root.only(&["keyslots", "tokens", "segments", "digests", "config"])?;
        let config = root.object("config")?;
        config.only(&["json_size", "keyslots_size", "flags", "requirements"])?;
        let keyslots_size = config.wide("keyslots_size")?;
        if config.wide("json_size")? != self.size - BINARY as u64 {
            return Err("config.json_size: expected the size of the JSON area, found another".into());
        }
        if keyslots_size > MAX_KEYSLOTS_AREA {
            return Err(format!(
                "config.keyslots_size: expected at most {MAX_KEYSLOTS_AREA}, found {keyslots_size}"
            ));
        }
        if config.object.contains_key("requirements") {
            let requirements = config.object("requirements")?;
            requirements.only(&["mandatory"])?;
            if let Some(first) = requirements.texts("mandatory")?.first() {
                return Err(format!("config.requirements: expected none, found '{}'", first.escape_debug()));
            }
        }
        let mut flags: Vec<_> = config.texts("flags")?.into_iter().filter(|flag| is_flag(flag)).collect();
        flags.sort_unstable();
        flags.dedup();
        let flags = flags.into_iter().map(str::to_owned).collect();
        for name in root.object("keyslots")?.object.keys() {
            root.object("keyslots")?.object(name)?.one_of("type", &["luks2"])?;
        }
        Ok((2 * self.size + keyslots_size, keyslots_size, flags))
    }

    /// The one data segment.
    fn segment(&self, root: &At, end_of_keyslots: u64, device_size: u64) -> Result<Segment, Wrong> {
        let segments = root.object("segments")?;
        if segments.object.len() != 1 {
            return Err(format!("segments: expected exactly one, found {}", segments.object.len()));
        }
        let segment = segments.object("0")?;
        segment.only(&["type", "offset", "size", "iv_tweak", "encryption", "sector_size", "flags"])?;
        segment.one_of("type", &["crypt"])?;
        segment.one_of("size", &["dynamic"])?;
        segment.one_of("iv_tweak", &["0"])?;
        if !segment.texts("flags")?.is_empty() {
            return Err("segments.0.flags: expected none".into());
        }
        let cipher = segment.one_of("encryption", CIPHERS)?;
        let sector_size = segment.number("sector_size")?;
        if !SECTORS.contains(&sector_size) {
            return Err(format!("segments.0.sector_size: expected 512 to 4096, found {sector_size}"));
        }
        let offset = segment.wide("offset")?;
        if offset < end_of_keyslots || offset % 4096 != 0 || offset >= device_size {
            return Err(format!(
                "segments.0.offset: expected a multiple of 4096 from {end_of_keyslots} to {device_size}, found {offset}"
            ));
        }
        // dm-crypt refuses such a mapping, and that must not be found out after the fence says `opened`.
        if !(device_size - offset).is_multiple_of(sector_size) {
            return Err(format!(
                "segments.0.sector_size: expected one that divides the {} bytes of data, found {sector_size}",
                device_size - offset
            ));
        }
        Ok(Segment { offset, cipher, sector_size })
    }

    /// Our keyslot.
    fn keyslot(&self, root: &At, slot: u32, end_of_keyslots: u64) -> Result<Keyslot, Wrong> {
        let keyslots = root.object("keyslots")?;
        if slot >= MAX_SLOTS {
            return Err(format!("keyslots: expected a number below {MAX_SLOTS}, found {slot}"));
        }
        let keyslot = keyslots.object(&slot.to_string())?;
        keyslot.only(&["type", "key_size", "af", "area", "kdf", "priority"])?;
        let key_size = key_size(&keyslot)?;

        let af = keyslot.object("af")?;
        af.only(&["type", "stripes", "hash"])?;
        af.one_of("type", &["luks1"])?;
        if af.number("stripes")? != STRIPES {
            return Err("keyslot af.stripes: expected 4000".into());
        }
        let af_hash = af.one_of("hash", HASHES)?;

        let area = keyslot.object("area")?;
        area.only(&["type", "offset", "size", "encryption", "key_size"])?;
        area.one_of("type", &["raw"])?;
        let area_cipher = area.one_of("encryption", CIPHERS)?;
        let area_key_size = self::key_size(&area)?;
        let (offset, size) = (area.wide("offset")?, area.wide("size")?);
        let end = offset.checked_add(size).ok_or("keyslot area: offset and size overflow")?;
        if offset < 2 * self.size || end > end_of_keyslots || size > MAX_AREA || offset % 4096 != 0 {
            return Err(format!(
                "keyslot area: expected it between {} and {end_of_keyslots}, found {offset} to {end}",
                2 * self.size
            ));
        }

        let kdf = keyslot.object("kdf")?;
        kdf.only(&["type", "hash", "iterations", "salt"])?;
        kdf.one_of("type", &["pbkdf2"])?;
        let kdf_hash = kdf.one_of("hash", HASHES)?;
        Ok(Keyslot {
            key_size,
            kdf_hash,
            kdf_iterations: iterations(&kdf, MAX_ITERATIONS)?,
            kdf_salt: kdf.base64("salt")?.to_owned(),
            af_hash,
            area_cipher,
            area_key_size,
            area_offset: offset,
            area_size: size,
        })
    }
}

fn outside(wrong: Wrong) -> Error {
    Error::volume(format!("LUKS2 header outside the allow-list: {wrong}")).hint(
        "halfkey opens plain LUKS2 volumes only: one crypt segment, aes-xts-plain64, no reencryption, no integrity",
    )
}

/// The only digest. A finished reencryption leaves it with another number than 0.
fn the_digest<'a>(root: &At<'a>) -> Result<At<'a>, Wrong> {
    let digests = root.object("digests")?;
    match (digests.object.keys().next(), digests.object.len()) {
        (Some(number), 1) => digests.object(number),
        (_, count) => Err(format!("digests: expected exactly one, found {count}")),
    }
}

/// A digest of segment 0.
fn digest_fields(digest: &At) -> Result<Digest, Wrong> {
    digest.only(&["type", "keyslots", "segments", "hash", "iterations", "salt", "digest"])?;
    digest.one_of("type", &["pbkdf2"])?;
    let hash = digest.one_of("hash", HASHES)?;
    let iterations = iterations(digest, MAX_DIGEST_ITERATIONS)?;
    if digest.texts("segments")? != ["0"] {
        return Err("digests: expected it to bind keyslots to segment 0".into());
    }
    let (salt, value) = (digest.base64("salt")?.to_owned(), digest.base64("digest")?.to_owned());
    Ok(Digest { hash, iterations, salt, value })
}

fn key_size(at: &At) -> Result<u64, Wrong> {
    match at.number("key_size")? {
        size @ (32 | 64) => Ok(size),
        other => Err(format!("{}.key_size: expected 32 or 64, found {other}", at.path)),
    }
}

fn iterations(at: &At, max: u64) -> Result<u64, Wrong> {
    match at.number("iterations")? {
        count if (1000..=max).contains(&count) => Ok(count),
        other => Err(format!("{}.iterations: expected 1000 to {max}, found {other}", at.path)),
    }
}
