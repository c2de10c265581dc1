//! Signature databases: what PK, KEK, db and dbx hold (UEFI 2.10, section 32.4.1).

use super::cursor::Cursor;
use super::guid::Guid;
use super::text;
use crate::digest::{Bank, Digest};
use std::fmt::{self, Write};
use x509_parser::prelude::{FromDer, X509Certificate};

/// `EFI_SIGNATURE_LIST` after `EFI_SIGNATURE_LIST`, well formed to the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureLists<'a> {
    bytes: &'a [u8],
}

/// One `EFI_SIGNATURE_DATA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Who put it there: for people, nothing checks it.
    pub owner: Guid,
    /// What it allows or forbids.
    pub signature: Signature<'a>,
}

/// What an entry of a signature database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature<'a> {
    /// An X.509 certificate.
    Certificate(Certificate<'a>),
    /// The Authenticode digest of an image.
    ImageHash(&'a [u8]),
    /// Digest of the signed part of a certificate, and when it was revoked
    /// (`EFI_CERT_X509_SHA256` and others): only in dbx.
    CertificateHash {
        /// The digest.
        digest: &'a [u8],
        /// `EFI_TIME`, 16 bytes; zeros: always.
        revoked: &'a [u8],
    },
    /// Another type.
    Other {
        /// The type.
        kind: Guid,
        /// Its data.
        data: &'a [u8],
    },
}

/// A certificate in DER, not parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// The certificate's bytes.
    pub der: &'a [u8],
}

const X509: Guid = Guid::new(0xa5c0_59a1, 0x94e4, 0x4aa7, 0x87b5_ab15_5c2b_f072);
const X509_SHA256: Guid = Guid::new(0x3bd2_a492, 0x96c0, 0x4079, 0xb420_fcf9_8ef1_03ed);
const X509_SHA384: Guid = Guid::new(0x7076_876e, 0x80c2, 0x4ee6, 0xaad2_28b3_49a6_865b);
const X509_SHA512: Guid = Guid::new(0x446d_bf63, 0x2502, 0x4cda, 0xbcfa_2465_d2b0_fe9d);
const SHA1: Guid = Guid::new(0x826c_a512, 0xcf10, 0x4ac9, 0xb187_be01_4966_31bd);
const SHA224: Guid = Guid::new(0x0b6e_5233, 0xa65c, 0x44c9, 0x9407_d9ab_83bf_c8bd);
const SHA256: Guid = Guid::new(0xc1c4_1626, 0x504c, 0x4092, 0xaca9_41f9_3693_4328);
const SHA384: Guid = Guid::new(0xff3e_5307, 0x9fd0, 0x48c9, 0x85f1_8ad5_6c70_1e01);
const SHA512: Guid = Guid::new(0x093e_0fae, 0xa6c4, 0x4f50, 0x9f1b_d41e_2b89_c19a);
/// Owner of an entry.
const OWNER: usize = 16;

impl<'a> SignatureLists<'a> {
    /// All of `bytes`, which may be none; `None` if anything in it is not a list.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        while !cursor.0.is_empty() {
            List::read(&mut cursor)?;
        }
        Some(Self { bytes })
    }

    /// The entries of all lists.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let mut cursor = Cursor(self.bytes);
        std::iter::from_fn(move || List::read(&mut cursor)).flat_map(|list| list.entries())
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries().next().is_none()
    }
}

struct List<'a> {
    kind: Guid,
    /// Of one entry, owner included; not zero.
    size: usize,
    entries: &'a [u8],
}

impl<'a> List<'a> {
    /// `EFI_SIGNATURE_LIST`: type, sizes of list, header and entry, header, entries.
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let kind = cursor.guid()?;
        let (list, header, size) = (cursor.u32()?, cursor.u32()?, cursor.u32()? as usize);
        let mut body = Cursor(cursor.take((list as usize).checked_sub(28)?)?);
        body.take(header as usize)?;
        // A type of a fixed size must have it, or where does an entry end?
        let fixed = fixed_size(&kind).is_none_or(|fixed| size == OWNER + fixed);
        (size >= OWNER && fixed && body.0.len().is_multiple_of(size)).then_some(Self {
            kind,
            size,
            entries: body.0,
        })
    }

    fn entries(self) -> impl Iterator<Item = Entry<'a>> {
        self.entries.chunks_exact(self.size).filter_map(move |entry| {
            let mut cursor = Cursor(entry);
            Some(Entry { owner: cursor.guid()?, signature: Signature::new(self.kind, cursor.0) })
        })
    }
}

fn fixed_size(kind: &Guid) -> Option<usize> {
    Some(match *kind {
        SHA1 => 20,
        SHA224 => 28,
        SHA256 => 32,
        SHA384 => 48,
        SHA512 => 64,
        X509_SHA256 => 48,
        X509_SHA384 => 64,
        X509_SHA512 => 80,
        _ => return None,
    })
}

impl<'a> Signature<'a> {
    fn new(kind: Guid, data: &'a [u8]) -> Self {
        match kind {
            X509 => Self::Certificate(Certificate { der: data }),
            SHA1 | SHA224 | SHA256 | SHA384 | SHA512 => Self::ImageHash(data),
            X509_SHA256 | X509_SHA384 | X509_SHA512 => {
                let (digest, revoked) = data.split_at(data.len().saturating_sub(16));
                Self::CertificateHash { digest, revoked }
            }
            kind => Self::Other { kind, data },
        }
    }

    /// What a policy names this entry by: SHA-256 over a certificate's DER; the hash
    /// itself if it is SHA-256 of an image; else `None`. A certificate's hash has none: it could pass for the
    /// hash of an image, which it does not revoke.
    pub fn fingerprint(&self) -> Option<Digest> {
        match self {
            Self::Certificate(certificate) => Some(certificate.fingerprint()),
            Self::ImageHash(hash) if hash.len() == 32 => Digest::from_bytes(hash),
            _ => None,
        }
    }

    /// What it is, for people.
    pub(super) fn describe(&self, f: &mut dyn Write) -> fmt::Result {
        match self {
            Self::Certificate(certificate) => certificate.describe(f),
            Self::ImageHash(hash) => {
                f.write_str("image hash ")?;
                text::hex(f, hash)
            }
            Self::CertificateHash { digest, .. } => {
                f.write_str("certificate hash ")?;
                text::hex(f, digest)
            }
            Self::Other { kind, data } => write!(f, "entry of type {kind}, {} bytes", data.len()),
        }
    }
}

impl<'a> Certificate<'a> {
    /// If the bytes are one DER `SEQUENCE` with nothing after it, as a certificate is.
    pub(super) fn sniff(der: &'a [u8]) -> Option<Self> {
        let [0x30, 0x82, high, low, content @ ..] = der else { return None };
        (content.len() == usize::from(u16::from_be_bytes([*high, *low]))).then_some(Self { der })
    }

    /// SHA-256 over the DER.
    pub fn fingerprint(&self) -> Digest {
        Bank::Sha256.digest(self.der)
    }

    /// The subject, for people; `None` if it does not parse.
    pub fn subject(&self) -> Option<String> {
        let (_, certificate) = X509Certificate::from_der(self.der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        Some(name.map_or_else(|| subject.to_string(), str::to_owned))
    }

    fn describe(&self, f: &mut dyn Write) -> fmt::Result {
        match self.subject() {
            Some(subject) => {
                f.write_str("certificate \"")?;
                text::clean(f, subject.chars())?;
                f.write_str("\"")
            }
            None => write!(f, "certificate {}", self.fingerprint()),
        }
    }
}
