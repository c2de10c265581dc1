//! What K seals of a header, and whether it did.

use super::copy::HeaderCopy;
use super::fields::{Fields, STRIPES};
use super::token::{Token, VERSION};
use halfkey_protocol::Key;
use halfkey_protocol::keys::half::equal;
use halfkey_protocol::keys::header_seal::{SealedHeader, SealedKeyslot};

impl Token {
    /// Whether K sealed this header, with what this token says of the volume. In constant time.
    pub fn is_sealed_by(&self, key: &Key, copy: &HeaderCopy) -> bool {
        self.seal.as_ref().is_some_and(|seal| equal(&seal.mac, &copy.sealed(self).seal(key)))
    }
}

impl HeaderCopy {
    /// What the seal covers: this header, and what the token says of the volume.
    pub fn sealed<'a>(&'a self, token: &'a Token) -> SealedHeader<'a> {
        let Fields { segment, keyslot, digest } = &self.fields;
        SealedHeader {
            version: VERSION,
            enrollment: &token.enrollment,
            volumes: &token.volumes,
            uuid: &self.uuid,
            mapping: &token.mapping,
            role: token.role,
            flags: &token.flags,
            offset: segment.offset,
            cipher: segment.cipher,
            sector_size: segment.sector_size,
            key_size: keyslot.key_size,
            keyslot: SealedKeyslot {
                kdf: "pbkdf2",
                kdf_hash: keyslot.kdf_hash,
                kdf_iterations: keyslot.kdf_iterations,
                kdf_salt: &keyslot.kdf_salt,
                af: "luks1",
                af_stripes: STRIPES,
                af_hash: keyslot.af_hash,
                area_cipher: keyslot.area_cipher,
                area_key_size: keyslot.area_key_size,
                area_offset: keyslot.area_offset,
                area_size: keyslot.area_size,
                area_sha256: &self.area_sha256,
            },
            digest: &digest.value,
        }
    }
}
