//! One entry of a list: what the kernel says that it measured.
//!
//! The PCR proves the **bytes** of an entry's data, not the name of its template, which nothing hashes. So the same bytes can be
//! given another name by whoever hands over the list, and then an attribute that root may write to a file would stand where the
//! file's digest is read. All templates of the kernel begin with digest and name, which the kernel makes itself: [`Entry::digest`]
//! reads the first field only, [`Entry::name`] the second only, whatever a format calls the others. A kernel that was started with
//! `ima_template_fmt=` and other fields in front can't be judged by this.

use super::field::{Field, Layout};
use crate::digest::{Bank, Digest};
use crate::eventlog::cursor::Cursor;

/// Bytes of the digest in an entry's head: SHA-1 of its data, whatever the banks are.
pub const TEMPLATE_HASH: usize = 20;
/// As many bytes the name takes in the hash of the template `ima` (`IMA_EVENT_NAME_LEN_MAX + 1`).
const FIXED_NAME: usize = 256;

/// An entry, borrowed from its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The PCR that was extended; below 24.
    pub pcr: u32,
    /// SHA-1 of the data; zero for a violation.
    pub template_hash: &'a [u8; TEMPLATE_HASH],
    /// Name of the template, or its format: printable ASCII. Nothing proves it.
    pub template: &'a str,
    /// The fields; none if the template is not known.
    pub(super) layout: Option<Layout>,
    /// All of them, as the list has them.
    pub(super) data: &'a [u8],
}

/// What a digest is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DigestKind {
    /// The content of a file.
    File,
    /// The description of a file by fs-verity (`struct fsverity_descriptor`).
    Verity,
}

/// The digest of a file, as an entry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileDigest<'a> {
    /// What it is of.
    pub kind: DigestKind,
    /// `sha256`, as the kernel calls it; UTF-8.
    pub algorithm: &'a str,
    /// As many bytes as the algorithm has, if that is one of [`FileDigest::hash`]; a violation has zeros, and of SHA-1's length.
    pub bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Each field with its bytes; none if the template is not known.
    pub fn fields(&self) -> impl Iterator<Item = (Field, &'a [u8])> + use<'a> {
        let layout = self.layout;
        let mut rest = Cursor(self.data);
        let mut at = 0;
        // The parser has seen that they fill the data.
        std::iter::from_fn(move || {
            let layout = layout.as_ref()?;
            let field = *layout.fields().get(at)?;
            at += 1;
            let length = match layout.is_fixed() && at == 1 {
                true => TEMPLATE_HASH,
                false => rest.u32()? as usize,
            };
            Some((field, rest.take(length)?))
        })
    }

    /// A field that stands behind digest and name.
    pub fn field(&self, wanted: Field) -> Option<&'a [u8]> {
        self.fields().skip(2).find(|(field, _)| *field == wanted).map(|(_, bytes)| bytes)
    }

    /// The digest in the first field; none if that is no digest, or none that a kernel writes.
    pub fn digest(&self) -> Option<FileDigest<'a>> {
        let (field, bytes) = self.fields().next()?;
        FileDigest::read(field, bytes)
    }

    /// The name in the second field: a path, with `_` for each blank; or what a buffer is called. Not empty, no NUL. None if
    /// the field is no name.
    pub fn name(&self) -> Option<&'a [u8]> {
        let (field, bytes) = self.fields().nth(1)?;
        let name = match field {
            Field::N | Field::NNg if self.is_fixed() => bytes,
            Field::N | Field::NNg => bytes.strip_suffix(&[0])?,
            _ => return None,
        };
        (!name.is_empty() && !name.contains(&0)).then_some(name)
    }

    /// Whether the kernel could not vouch for what it measured: a file was open for writing and for reading at once. Then the PCR
    /// was extended with ones, and **nothing of the entry is proven**, not even the name.
    pub fn is_violation(&self) -> bool {
        *self.template_hash == [0; TEMPLATE_HASH]
    }

    /// The digest of the data in a bank.
    pub fn template_digest(&self, bank: Bank) -> Digest {
        if !self.is_fixed() {
            return bank.digest(self.data);
        }
        // The digest, then the name in a field of zeros.
        let mut hashed = [0; TEMPLATE_HASH + FIXED_NAME];
        let (digest, name) = self.data.split_at(TEMPLATE_HASH.min(self.data.len()));
        let name = name.get(4..).unwrap_or_default();
        hashed[..digest.len()].copy_from_slice(digest);
        if let Some(room) = hashed.get_mut(TEMPLATE_HASH..TEMPLATE_HASH + name.len()) {
            room.copy_from_slice(name);
        }
        bank.digest(&hashed)
    }

    fn is_fixed(&self) -> bool {
        self.layout.is_some_and(|layout| layout.is_fixed())
    }
}

impl<'a> FileDigest<'a> {
    /// From the bytes of a field.
    fn read(field: Field, bytes: &'a [u8]) -> Option<Self> {
        if field == Field::D {
            return (bytes.len() == TEMPLATE_HASH).then_some(Self {
                kind: DigestKind::File,
                algorithm: "sha1",
                bytes,
            });
        }
        let nul = bytes.iter().position(|byte| *byte == 0)?;
        let (name, digest) = (bytes[..nul].strip_suffix(b":")?, &bytes[nul + 1..]);
        let name = str::from_utf8(name).ok()?;
        let (kind, algorithm) = match field {
            // Kernels before 3.13 leave out the name of SHA-1.
            Field::DNg | Field::DModsig if name.is_empty() => (DigestKind::File, "sha1"),
            Field::DNg | Field::DModsig => (DigestKind::File, name),
            Field::DNgV2 => match name.split_once(':')? {
                ("ima", algorithm) => (DigestKind::File, algorithm),
                ("verity", algorithm) => (DigestKind::Verity, algorithm),
                _ => return None,
            },
            _ => return None,
        };
        (!digest.is_empty()).then_some(Self { kind, algorithm, bytes: digest })
    }

    /// The algorithm, if it is one that can be computed here and the digest has its length.
    pub fn hash(&self) -> Option<Bank> {
        let bank = Bank::from_name(self.algorithm)?;
        (bank.digest_len() == self.bytes.len()).then_some(bank)
    }

    /// Whether it says nothing: of a violation, or of a file that could not be read.
    pub fn is_zero(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }
}
