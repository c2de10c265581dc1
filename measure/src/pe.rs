//! PE images as firmware and systemd-stub see them: the digest that is measured, and sections.
//!
//! Microsoft PE Format; Windows Authenticode Portable Executable Signature Format, "Calculating the PE Image Hash".
//! Where the texts leave a choice, this does what EDK2 does when it measures (`MeasurePeImageAndExtend`): that value is in
//! the event log. In particular it hashes the file as it is, where signing tools first pad it to 8 bytes: sign, then measure.

use halfkey_protocol::tpm::kdf::Hash;
use std::fmt;
use std::ops::Range;

/// Sections of an image; a UKI has about fifteen, one with many profiles some hundreds.
const MAX_SECTIONS: usize = 4096;
/// Zeros that a section may have in memory beyond its bytes in the file: more than any kernel wants to be unpacked.
const MAX_ZEROS: usize = 256 << 20;
/// Index of the certificate table among the data directories, and how many directories there may be.
const SECURITY: usize = 4;
const MAX_DIRECTORIES: usize = 16;

/// Zeros are hashed in pieces of this; it is part of the agent's file.
static ZEROS: [u8; 4096] = [0; 4096];

/// Why a file is not an image that could be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeError {
    /// It does not begin as a PE image does; says what was expected.
    NotPe(&'static str),
    /// A part lies outside of the file or of its place; says which.
    OutOfBounds(&'static str),
    /// A part is larger than this reader accepts; says which.
    TooLarge(&'static str),
    /// Several sections have this name, or lie on it in memory: loaders differ in which one they take.
    Ambiguous(String),
}

impl fmt::Display for PeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPe(expected) => write!(f, "expected a PE image, found no {expected}"),
            Self::OutOfBounds(part) => write!(f, "damaged PE image: {part} does not lie where it must"),
            Self::TooLarge(part) => write!(f, "PE image with {part} beyond what is supported"),
            Self::Ambiguous(name) => {
                write!(f, "PE image whose section {name} is there twice or overlaps another one")
            }
        }
    }
}

impl std::error::Error for PeError {}

/// Bytes of a file, and zeros after them that are only in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent<'a> {
    /// What is in the file.
    pub data: &'a [u8],
    /// How many zero bytes follow.
    pub zeros: usize,
}

impl<'a> Extent<'a> {
    /// Length in memory, in bytes.
    pub fn len(&self) -> usize {
        self.data.len() + self.zeros
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The digest of data and zeros.
    pub fn digest(&self, hash: Hash) -> Vec<u8> {
        let mut parts = Vec::new();
        self.push(0, self.len(), &mut parts);
        hash.digest(&parts)
    }

    /// Adds `start..end`, which must lie within, to what will be hashed.
    pub(crate) fn push(&self, start: usize, end: usize, parts: &mut Vec<&'a [u8]>) {
        let split = self.data.len();
        parts.push(&self.data[start.min(split)..end.min(split)]);
        let mut zeros = end.saturating_sub(split) - start.saturating_sub(split);
        while zeros > 0 {
            let some = zeros.min(ZEROS.len());
            parts.push(&ZEROS[..some]);
            zeros -= some;
        }
    }
}

/// A section's header.
#[derive(Clone, Copy, Debug)]
struct Section {
    name: [u8; 8],
    virtual_size: usize,
    virtual_address: usize,
    raw_size: usize,
    raw_offset: usize,
}

/// A PE32 or PE32+ image whose parts all lie within the file.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    whole: Extent<'a>,
    /// Offset of the checksum, 4 bytes.
    checksum: usize,
    /// Offset of the certificate table's entry in the data directory, 8 bytes.
    security: Option<usize>,
    /// Size of the headers.
    headers: usize,
    /// Size of the certificate table.
    certificates: usize,
    /// In the order of the file's table.
    sections: Vec<Section>,
}

impl<'a> Image<'a> {
    /// Reads the headers of a file.
    ///
    /// # Errors
    /// [`PeError`]: whatever firmware would refuse to measure, and what this reader does not support.
    pub fn parse(file: &'a [u8]) -> Result<Self, PeError> {
        Self::within(Extent { data: file, zeros: 0 })
    }

    /// The same for an image that lies in a section of another one, as a kernel in a UKI does.
    ///
    /// # Errors
    /// As [`Image::parse`].
    pub fn within(whole: Extent<'a>) -> Result<Self, PeError> {
        let file = whole.data;
        if u16_at(file, 0) != Some(0x5a4d) {
            return Err(PeError::NotPe("MZ header"));
        }
        let pe = u32_at(file, 0x3c).ok_or(PeError::NotPe("MZ header"))?;
        if file.get(pe..).and_then(|rest| rest.get(..4)) != Some(b"PE\0\0") {
            return Err(PeError::NotPe("PE signature"));
        }
        let short = PeError::OutOfBounds("its header");
        let coff = pe + 4;
        let count = u16_at(file, coff + 2).ok_or(short.clone())?;
        let optional_size = u16_at(file, coff + 16).ok_or(short.clone())?;
        let optional = coff + 20;
        let directories_at = match u16_at(file, optional) {
            Some(0x10b) => 96,
            Some(0x20b) => 112,
            _ => return Err(PeError::NotPe("optional header of PE32 or PE32+")),
        };
        let headers = u32_at(file, optional + 60).ok_or(short.clone())?;
        let directories = u32_at(file, optional + directories_at - 4).ok_or(short.clone())?;
        if directories > MAX_DIRECTORIES || optional_size != directories_at + 8 * directories {
            return Err(PeError::OutOfBounds("its data directory"));
        }
        let table = optional + optional_size;
        if count > MAX_SECTIONS {
            return Err(PeError::TooLarge("sections"));
        }
        if headers > file.len() || table + 40 * count > headers {
            return Err(short);
        }
        let security = (directories > SECURITY).then_some(optional + directories_at + 8 * SECURITY);
        let certificates = security.and_then(|at| u32_at(file, at + 4)).unwrap_or(0);
        let sections: Vec<Section> = (0..count).filter_map(|i| section_at(file, table + 40 * i)).collect();
        let image = Self { whole, checksum: optional + 64, security, headers, certificates, sections };
        image.check()?;
        Ok(image)
    }

    /// Everything that [`Image::authenticode`] hashes lies within, and is at most the file once.
    fn check(&self) -> Result<(), PeError> {
        let outside = |section: &Section| section.raw_offset + section.raw_size > self.whole.len();
        if self.sections.iter().any(|section| section.raw_size != 0 && outside(section)) {
            return Err(PeError::OutOfBounds("a section"));
        }
        if self.hashed() + self.certificates > self.whole.len() {
            return Err(PeError::OutOfBounds("what its header and sections count up to"));
        }
        Ok(())
    }

    /// Bytes of headers and sections.
    fn hashed(&self) -> usize {
        self.headers + self.sections.iter().map(|section| section.raw_size).sum::<usize>()
    }

    /// The digest that firmware measures and that a signature is over: all but checksum, certificates, and where these are.
    pub fn authenticode(&self, hash: Hash) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut add = |start: usize, end: usize| self.whole.push(start, end.max(start), &mut parts);
        add(0, self.checksum);
        match self.security {
            Some(entry) => {
                add(self.checksum + 4, entry);
                add(entry + 8, self.headers);
            }
            None => add(self.checksum + 4, self.headers),
        }
        let mut sections: Vec<&Section> =
            self.sections.iter().filter(|section| section.raw_size != 0).collect();
        sections.sort_by_key(|section| section.raw_offset);
        for section in sections {
            add(section.raw_offset, section.raw_offset + section.raw_size);
        }
        // Counted, not where the last section ends: with gaps between sections these differ, and firmware counts.
        add(self.hashed(), self.whole.len() - self.certificates);
        hash.digest(&parts)
    }

    /// Whether there is a table of certificates: whose they are, and whether they verify, is not looked at.
    pub fn is_signed(&self) -> bool {
        self.certificates != 0
    }

    /// A section as it will lie in memory, which is what systemd-stub reads and measures: VirtualSize bytes. `None` if there is
    /// no such section, or an empty one.
    ///
    /// # Errors
    /// [`PeError::Ambiguous`], [`PeError::TooLarge`]
    pub fn section(&self, name: &str) -> Result<Option<Extent<'a>>, PeError> {
        let Some(section) = self.one_section(name)? else { return Ok(None) };
        let range = section.in_file();
        let zeros = section.virtual_size - range.len();
        if zeros > MAX_ZEROS {
            return Err(PeError::TooLarge("zeros in a section"));
        }
        let data = self.whole.data.get(range).ok_or(PeError::OutOfBounds("a section"))?;
        Ok(Some(Extent { data, zeros }))
    }

    /// Where the bytes of that section are in the file: for an image of which only the beginning was read.
    ///
    /// # Errors
    /// [`PeError::Ambiguous`]
    pub fn range_of(&self, name: &str) -> Result<Option<Range<usize>>, PeError> {
        Ok(self.one_section(name)?.map(Section::in_file))
    }

    fn one_section(&self, name: &str) -> Result<Option<&Section>, PeError> {
        let named = |section: &&Section| section.virtual_size != 0 && section.is_named(name);
        let mut found = self.sections.iter().filter(named);
        let Some(section) = found.next() else { return Ok(None) };
        let overlaps = |other: &Section| {
            !std::ptr::eq(other, section)
                && other.virtual_address < section.virtual_address + section.virtual_size
                && section.virtual_address < other.virtual_address + other.virtual_size
        };
        if found.next().is_some() || self.sections.iter().any(overlaps) {
            return Err(PeError::Ambiguous(name.into()));
        }
        Ok(Some(section))
    }
}

impl Section {
    /// What of it is in the file.
    fn in_file(&self) -> Range<usize> {
        self.raw_offset..self.raw_offset + self.virtual_size.min(self.raw_size)
    }

    fn is_named(&self, name: &str) -> bool {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        self.name[..end] == *name.as_bytes()
    }
}

fn section_at(file: &[u8], at: usize) -> Option<Section> {
    Some(Section {
        name: file.get(at..at + 8)?.try_into().ok()?,
        virtual_size: u32_at(file, at + 8)?,
        virtual_address: u32_at(file, at + 12)?,
        raw_size: u32_at(file, at + 16)?,
        raw_offset: u32_at(file, at + 20)?,
    })
}

fn u16_at(file: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(file.get(at..at.checked_add(2)?)?.try_into().ok()?).into())
}

fn u32_at(file: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(file.get(at..at.checked_add(4)?)?.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfkey_testkit::pe::image;
    use proptest::prelude::*;

    fn digest(file: &[u8]) -> Vec<u8> {
        Image::parse(file).unwrap().authenticode(Hash::Sha256)
    }

    #[test]
    fn a_signature_changes_nothing_and_anything_else_does() {
        let content = [7; 0x321];
        let plain = image(&[(".text", &content, 0x321)], b"");
        let before = digest(&plain);
        let signed = image(&[(".text", &content, 0x321)], &[0x30; 64]);
        assert_eq!(digest(&signed), before);
        let (checksum, directory) = (0x58 + 64..0x58 + 68, 0x58 + 144..0x58 + 152);
        for at in 0..plain.len() {
            let mut changed = plain.clone();
            changed[at] ^= 1;
            let covered = !checksum.contains(&at) && !directory.contains(&at);
            if let Ok(image) = Image::parse(&changed) {
                assert_eq!(image.authenticode(Hash::Sha256) != before, covered, "byte {at:#x}");
            }
        }
        // What firmware hashes of an image without signature is all but these twelve bytes.
        let parts =
            [&plain[..checksum.start], &plain[checksum.end..directory.start], &plain[directory.end..]];
        assert_eq!(before, Hash::Sha256.digest(&parts));
        // Data after the sections counts, and is not padded.
        let appended = [&plain[..], b"abc"].concat();
        assert_eq!(digest(&appended), Hash::Sha256.digest(&[parts[0], parts[1], parts[2], b"abc"]));
    }

    #[test]
    fn sections_are_hashed_in_the_order_of_the_file() {
        let mut file = image(&[(".one", &[1; 0x200], 0x200), (".two", &[2; 0x200], 0x200)], b"");
        let before = Image::parse(&file).unwrap().authenticode(Hash::Sha256);
        // The same bytes of the file, but the table names them the other way round.
        let table = 0x58 + 112 + 16 * 8;
        let (first, second) = (file[table + 20..table + 24].to_vec(), file[table + 60..table + 64].to_vec());
        file[table + 20..table + 24].copy_from_slice(&second);
        file[table + 60..table + 64].copy_from_slice(&first);
        let image = Image::parse(&file).unwrap();
        let mut parts = Vec::new();
        image.whole.push(0, 0x58 + 64, &mut parts);
        image.whole.push(0x58 + 68, 0x58 + 144, &mut parts);
        image.whole.push(0x58 + 152, file.len(), &mut parts);
        assert_eq!(image.authenticode(Hash::Sha256), Hash::Sha256.digest(&parts));
        assert_ne!(image.authenticode(Hash::Sha256), before);
        assert_eq!(image.section(".one").unwrap().unwrap().data, [2; 0x200]);
    }

    #[test]
    fn a_section_has_its_size_in_memory() {
        let file =
            image(&[(".cmdline", b"quiet", 5), (".linux", b"kernel", 0x300), (".empty", b"x", 0)], b"");
        let image = Image::parse(&file).unwrap();
        assert_eq!(image.section(".cmdline"), Ok(Some(Extent { data: b"quiet", zeros: 0 })));
        let linux = image.section(".linux").unwrap().unwrap();
        assert_eq!((linux.data.len(), linux.zeros), (0x200, 0x100));
        let padded = [&b"kernel"[..], &[0; 0x300 - 6]].concat();
        assert_eq!(linux.digest(Hash::Sha384), Hash::Sha384.digest(&[&padded]));
        assert_eq!(image.section(".empty"), Ok(None));
        assert_eq!(image.section(".cmd"), Ok(None));
        // The beginning of the file is enough to say where.
        let beginning = Extent { data: &file[..0x400], zeros: file.len() - 0x400 };
        let range = Image::within(beginning).unwrap().range_of(".linux").unwrap().unwrap();
        assert_eq!(file[range], *linux.data);
        assert_eq!(image.range_of(".none"), Ok(None));
        let twice = halfkey_testkit::pe::image(&[(".linux", b"a", 1), (".linux", b"b", 1)], b"");
        assert_eq!(Image::parse(&twice).unwrap().section(".linux"), Err(PeError::Ambiguous(".linux".into())));
    }

    #[test]
    fn what_is_no_image_says_so() {
        let of = |file: &[u8]| Image::parse(file).unwrap_err();
        assert_eq!(of(b""), PeError::NotPe("MZ header"));
        assert_eq!(of(b"\x7fELF"), PeError::NotPe("MZ header"));
        assert_eq!(of(&[b"MZ".as_slice(), &[0; 70]].concat()), PeError::NotPe("PE signature"));
        let file = image(&[(".text", &[1; 0x400], 0x400)], b"");
        for end in 0..file.len() {
            Image::parse(&file[..end]).expect_err("a part is missing");
        }
        // Many sections that are all the whole file would make a small file expensive.
        let mut greedy = image(&[(".a", &[1; 0x400], 0x400), (".b", &[1; 0x400], 0x400)], b"");
        let table = 0x58 + 112 + 16 * 8;
        let whole = (greedy.len() as u32).to_le_bytes();
        greedy[table + 16..table + 20].copy_from_slice(&whole);
        greedy[table + 20..table + 24].copy_from_slice(&[0; 4]);
        assert!(matches!(of(&greedy), PeError::OutOfBounds(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_image_or_not(
            at in 0usize..0x400, with in proptest::collection::vec(any::<u8>(), 1..64), cut in 0usize..0x900
        ) {
            let mut file = image(&[(".linux", &[3; 0x321], 0x321), (".osrel", b"ID=x", 4)], &[0x30; 16]);
            for (i, byte) in with.iter().enumerate() {
                file[at + i] = *byte;
            }
            file.truncate(file.len().saturating_sub(cut));
            if let Ok(image) = Image::parse(&file) {
                image.authenticode(Hash::Sha256);
                for name in [".linux", ".osrel"] {
                    if let Ok(Some(section)) = image.section(name) {
                        let _ = Image::within(section).map(|inner| inner.authenticode(Hash::Sha384));
                    }
                }
            }
        }
    }
}
