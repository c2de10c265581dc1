//! The header seal: what K authenticates of a LUKS2 volume, which authenticates nothing of its header itself.
//!
//! Not in it: what may change without the volume being another one. Numbers of keyslot and token, the label, priorities, other
//! keyslots and tokens.

use crate::Key;
use sha2::{Digest, Sha256};

/// What a volume is to the system that boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The root file system is on it.
    Root,
    /// Anything else.
    Data,
}

impl Role {
    /// The name in the token and in the seal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Data => "data",
        }
    }

    /// From the name in the token.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Root, Self::Data].into_iter().find(|role| role.as_str() == text)
    }
}

/// Every field that is sealed. Texts are as they stand in the header: base64 is not decoded.
#[derive(Clone, Copy, Debug)]
pub struct SealedHeader<'a> {
    /// Version of the token's layout.
    pub version: u32,
    /// Enrollment id.
    pub enrollment: &'a str,
    /// LUKS UUIDs of all volumes of the enrollment, in ascending order.
    pub volumes: &'a [String],
    /// LUKS UUID of this one.
    pub uuid: &'a str,
    /// Name of its mapping.
    pub mapping: &'a str,
    /// What it is to the system.
    pub role: Role,
    /// Activation flags that it is opened with, in ascending order.
    pub flags: &'a [String],
    /// Where the data begin, in bytes.
    pub offset: u64,
    /// Cipher of the data.
    pub cipher: &'a str,
    /// Sector size of the data, in bytes.
    pub sector_size: u64,
    /// Size of the volume key, in bytes.
    pub key_size: u64,
    /// The keyslot that the volume key of K opens.
    pub keyslot: SealedKeyslot<'a>,
    /// Value of the volume key's digest, base64.
    pub digest: &'a str,
}

/// The sealed fields of the keyslot.
#[derive(Clone, Copy, Debug)]
pub struct SealedKeyslot<'a> {
    /// Type of the KDF: `pbkdf2`.
    pub kdf: &'a str,
    /// Its hash.
    pub kdf_hash: &'a str,
    /// Its iterations.
    pub kdf_iterations: u64,
    /// Its salt, base64.
    pub kdf_salt: &'a str,
    /// Type of the anti-forensic splitter: `luks1`.
    pub af: &'a str,
    /// Its stripes.
    pub af_stripes: u64,
    /// Its hash.
    pub af_hash: &'a str,
    /// Cipher of the area.
    pub area_cipher: &'a str,
    /// Size of that cipher's key, in bytes.
    pub area_key_size: u64,
    /// Where the area begins, in bytes.
    pub area_offset: u64,
    /// Its size, in bytes.
    pub area_size: u64,
    /// SHA-256 of its content.
    pub area_sha256: &'a [u8; 32],
}

impl SealedHeader<'_> {
    /// The one encoding: each field with its length (four bytes, big-endian) before it, numbers as eight bytes, big-endian, and a list
    /// as its length, which is a number, and its items. docs/protocol.md has the order.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(Vec::with_capacity(1024));
        out.number(u64::from(self.version));
        out.text(self.enrollment);
        out.list(self.volumes);
        out.text(self.uuid);
        out.text(self.mapping);
        out.text(self.role.as_str());
        out.list(self.flags);
        out.number(self.offset);
        out.text(self.cipher);
        out.number(self.sector_size);
        out.number(self.key_size);
        let slot = &self.keyslot;
        out.text(slot.kdf);
        out.text(slot.kdf_hash);
        out.number(slot.kdf_iterations);
        out.text(slot.kdf_salt);
        out.text(slot.af);
        out.number(slot.af_stripes);
        out.text(slot.af_hash);
        out.text(slot.area_cipher);
        out.number(slot.area_key_size);
        out.number(slot.area_offset);
        out.number(slot.area_size);
        out.field(slot.area_sha256);
        out.text(self.digest);
        out.0
    }

    /// The seal under this key. Compare with [`crate::keys::half::equal`].
    pub fn seal(&self, key: &Key) -> [u8; 32] {
        key.header_seal(&self.encode())
    }

    /// SHA-256 of the same: whoever has no K sees a change by it, and nobody is convinced by it.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.encode()).into()
    }
}

struct Encoder(Vec<u8>);

impl Encoder {
    fn field(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.field(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.field(&number.to_be_bytes());
    }

    fn list(&mut self, items: &[String]) {
        self.number(items.len() as u64);
        items.iter().for_each(|item| self.text(item));
    }
}
