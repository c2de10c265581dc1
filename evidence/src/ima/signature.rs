//! The extended attribute `security.ima` as a signature (`struct signature_v2_hdr`), which a field `sig` carries.
//!
//! | byte | what |
//! | --- | --- |
//! | 0 | 3: of a file; 5: EVM's, of attributes; 6: of what fs-verity says of a file |
//! | 1 | version: 2 signs the digest, 3 the digest of type, algorithm and digest (`struct ima_file_id`) |
//! | 2 | algorithm of the digest (`enum hash_algo`) |
//! | 3 to 6 | the end of the key's identifier, big-endian |
//! | 7 to 8 | length of the signature, big-endian |
//! | 9 on | PKCS #1 version 1.5, or ECDSA in ASN.1 |

use super::entry::{DigestKind, FileDigest};
use crate::digest::Bank;
use std::fmt;

/// What a signature is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureKind {
    /// `EVM_IMA_XATTR_DIGSIG`: the digest of a file.
    File,
    /// `EVM_XATTR_PORTABLE_DIGSIG`: the attributes of a file.
    Portable,
    /// `IMA_VERITY_DIGSIG`: the digest of what fs-verity says of a file.
    Verity,
}

impl SignatureKind {
    /// All of them.
    const ALL: [Self; 3] = [Self::File, Self::Portable, Self::Verity];

    /// `enum evm_ima_xattr_type`
    pub fn code(self) -> u8 {
        match self {
            Self::File => 3,
            Self::Portable => 5,
            Self::Verity => 6,
        }
    }
}

/// A signature as a file has it. Nothing of it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImaSignature<'a> {
    /// What it is of.
    pub kind: SignatureKind,
    /// 2 or 3.
    pub version: u8,
    /// The algorithm of the digest that it is over.
    pub hash: Bank,
    /// The last four bytes of the key's identifier: a hint.
    pub key_id: u32,
    /// The signature itself.
    pub bytes: &'a [u8],
}

/// Why a signature counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureFault {
    /// It is no signature, or of an older format.
    Malformed,
    /// Of an algorithm that is not taken (number in `enum hash_algo`): among them SHA-1.
    Algorithm(u8),
    /// Of attributes, not of content.
    Portable,
    /// Over a digest of another kind or algorithm than the entry has.
    OtherDigest,
    /// By a key that is not on the keyring.
    UnknownKey(u32),
    /// It is not that key's signature over this digest.
    Wrong(u32),
    /// As many as a [`Budget`](super::Budget) has were tried before.
    NotTried,
}

impl fmt::Display for SignatureFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("a signature of no known format"),
            Self::Algorithm(code) => write!(f, "a signature over hash algorithm {code}"),
            Self::Portable => f.write_str("a portable signature of evm, which is not over the content"),
            Self::OtherDigest => f.write_str("a signature over another kind of digest"),
            Self::UnknownKey(id) => write!(f, "a signature by key {id:08x}, which is not on the keyring"),
            Self::Wrong(id) => write!(f, "a signature that names key {id:08x} and is not by it"),
            Self::NotTried => f.write_str("a signature that was not tried: this list has too many"),
        }
    }
}

/// `enum hash_algo`
fn hash_code(hash: Bank) -> u8 {
    match hash {
        Bank::Sha1 => 2,
        Bank::Sha256 => 4,
        Bank::Sha384 => 5,
        Bank::Sha512 => 6,
    }
}

/// Whether a kernel may have written this into a field `sig`: it looks at the first byte only.
pub(super) fn may_be(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| SignatureKind::ALL.iter().any(|kind| kind.code() == *first))
}

impl<'a> ImaSignature<'a> {
    /// From a field `sig`.
    ///
    /// # Errors
    /// `Malformed`, `Algorithm`.
    pub fn parse(field: &'a [u8]) -> Result<Self, SignatureFault> {
        let malformed = SignatureFault::Malformed;
        let (head, bytes) = field.split_first_chunk::<9>().ok_or(malformed)?;
        let [kind, version, hash, k0, k1, k2, k3, l0, l1] = *head;
        let kind = SignatureKind::ALL.into_iter().find(|known| known.code() == kind).ok_or(malformed)?;
        // Before version 3 there was nothing to tell a verity digest from that of a file.
        let known = matches!((kind, version), (_, 3) | (SignatureKind::File | SignatureKind::Portable, 2));
        if !known || bytes.is_empty() || bytes.len() != usize::from(u16::from_be_bytes([l0, l1])) {
            return Err(malformed);
        }
        let hashes = [Bank::Sha256, Bank::Sha384, Bank::Sha512];
        let known = hashes.into_iter().find(|known| hash_code(*known) == hash);
        let hash = known.ok_or(SignatureFault::Algorithm(hash))?;
        Ok(Self { kind, version, hash, key_id: u32::from_be_bytes([k0, k1, k2, k3]), bytes })
    }

    /// What is signed for this digest.
    ///
    /// # Errors
    /// `Portable`, `OtherDigest`.
    pub(super) fn signed<'d>(&self, digest: &FileDigest<'d>) -> Result<Signed<'d>, SignatureFault> {
        let of = match self.kind {
            SignatureKind::File => DigestKind::File,
            SignatureKind::Verity => DigestKind::Verity,
            SignatureKind::Portable => return Err(SignatureFault::Portable),
        };
        if digest.kind != of || digest.hash() != Some(self.hash) {
            return Err(SignatureFault::OtherDigest);
        }
        Ok(match self.version {
            2 => Signed::Digest(digest.bytes),
            _ => Signed::Message([&[self.kind.code(), hash_code(self.hash)], digest.bytes].concat()),
        })
    }
}

/// What a signature has to be over.
pub(super) enum Signed<'d> {
    /// This digest.
    Digest(&'d [u8]),
    /// The digest of this.
    Message(Vec<u8>),
}
