//! The fields of a header that the agent understood: written for cryptsetup, and given to the seal.

use std::fmt::Write as _;

/// Stripes of the anti-forensic splitter; LUKS2 knows no other number.
pub const STRIPES: u64 = 4000;

/// All of one header that a copy of it has.
pub struct Fields {
    pub(super) segment: Segment,
    pub(super) keyslot: Keyslot,
    pub(super) digest: Digest,
}

/// The data.
pub struct Segment {
    pub(super) offset: u64,
    pub(super) cipher: &'static str,
    pub(super) sector_size: u64,
}

/// The one keyslot: PBKDF2, and LUKS1's splitter.
pub struct Keyslot {
    pub(super) key_size: u64,
    pub(super) kdf_hash: &'static str,
    pub(super) kdf_iterations: u64,
    pub(super) kdf_salt: String,
    pub(super) af_hash: &'static str,
    pub(super) area_cipher: &'static str,
    pub(super) area_key_size: u64,
    pub(super) area_offset: u64,
    pub(super) area_size: u64,
}

/// The volume key's digest: PBKDF2.
pub struct Digest {
    pub(super) hash: &'static str,
    pub(super) iterations: u64,
    pub(super) salt: String,
    pub(super) value: String,
}

impl Fields {
    /// The JSON of a header with this keyslot, this segment, this digest and nothing else.
    pub(super) fn json(&self, slot: u32, json_size: u64, keyslots_size: u64, flags: &[&str]) -> String {
        let Self { segment, keyslot, digest } = self;
        let mut out = String::new();
        let _ = write!(
            out,
            r#"{{"keyslots":{{"{slot}":{{"type":"luks2","key_size":{},"af":{{"type":"luks1","stripes":{STRIPES},"hash":"{}"}},"#,
            keyslot.key_size, keyslot.af_hash
        );
        let _ = write!(
            out,
            r#""area":{{"type":"raw","offset":"{}","size":"{}","encryption":"{}","key_size":{}}},"#,
            keyslot.area_offset, keyslot.area_size, keyslot.area_cipher, keyslot.area_key_size
        );
        let _ = write!(
            out,
            r#""kdf":{{"type":"pbkdf2","hash":"{}","iterations":{},"salt":"{}"}}}}}},"#,
            keyslot.kdf_hash, keyslot.kdf_iterations, keyslot.kdf_salt
        );
        let _ = write!(
            out,
            r#""tokens":{{}},"segments":{{"0":{{"type":"crypt","offset":"{}","size":"dynamic","iv_tweak":"0","encryption":"{}","sector_size":{}}}}},"#,
            segment.offset, segment.cipher, segment.sector_size
        );
        let _ = write!(
            out,
            r#""digests":{{"0":{{"type":"pbkdf2","keyslots":["{slot}"],"segments":["0"],"hash":"{}","iterations":{},"salt":"{}","digest":"{}"}}}},"#,
            digest.hash, digest.iterations, digest.salt, digest.value
        );
        let _ = write!(out, r#""config":{{"json_size":"{json_size}","keyslots_size":"{keyslots_size}""#);
        if !flags.is_empty() {
            let _ = write!(out, r#","flags":["{}"]"#, flags.join(r#"",""#));
        }
        out.push_str("}}");
        out
    }
}
