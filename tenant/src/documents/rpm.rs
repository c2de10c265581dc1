//! What the header of an RPM package says of its files. The payload is not looked at: the digests are in front of it.
//!
//! A lead of 96 bytes, the header of signatures, filled up to eight bytes, and the header itself. A header has a head of 16 bytes, an
//! entry of 16 for each tag, and the store that these point into. Integers are big-endian (rpm.org, "Package file format").

use std::io::Read;

/// A regular file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackagedFile {
    /// Where the package puts it.
    pub path: Vec<u8>,
    /// `sha256:<hex>`
    pub digest: String,
}

const LEAD: usize = 96;
const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
const MAGIC: [u8; 4] = [0x8e, 0xad, 0xe8, 0x01];
/// Most tags of a header; rpm takes no more.
const MAX_TAGS: usize = 0xffff;
/// Longest store, in bytes: names and digests of a million files.
const MAX_STORE: usize = 256 << 20;

/// Tags, and the types that they have.
const FILE_DIGESTS: Tag = Tag(1035, STRINGS);
const FILE_FLAGS: Tag = Tag(1037, INT32);
const DIR_INDEXES: Tag = Tag(1116, INT32);
const BASE_NAMES: Tag = Tag(1117, STRINGS);
const DIR_NAMES: Tag = Tag(1118, STRINGS);
const DIGEST_ALGORITHM: Tag = Tag(5011, INT32);
const INT32: u32 = 4;
const STRINGS: u32 = 8;
/// In no payload (`%ghost`).
const GHOST: u32 = 1 << 6;

#[derive(Clone, Copy)]
struct Tag(u32, u32);

/// A header: its entries, and what they point into.
struct Header {
    index: Vec<u8>,
    store: Vec<u8>,
}

/// The files of a package that have a digest: not folders, links and ghosts. Reads no further than its header.
///
/// # Errors
/// What is wrong with it.
pub fn files(package: &mut impl Read) -> Result<Vec<PackagedFile>, String> {
    let lead = take(package, LEAD)?;
    if lead[..4] != LEAD_MAGIC {
        return Err("expected an rpm package, found something else".to_owned());
    }
    let signatures = Header::read(package)?;
    take(package, (8 - signatures.store.len() % 8) % 8)?;
    let header = Header::read(package)?;
    let Some(names) = header.strings(BASE_NAMES)? else { return Ok(Vec::new()) };
    let missing = |what: &str| format!("expected {what} of each file, found another number");
    let digests = header.strings(FILE_DIGESTS)?.unwrap_or_default();
    let folders = header.strings(DIR_NAMES)?.unwrap_or_default();
    let (indexes, flags) = (header.numbers(DIR_INDEXES)?, header.numbers(FILE_FLAGS)?);
    if digests.len() != names.len() || indexes.len() != names.len() {
        return Err(missing("digest and folder"));
    }
    let algorithm = match header.numbers(DIGEST_ALGORITHM)?.as_slice() {
        // RFC 4880, section 9.4.
        [2] => "sha1",
        [8] => "sha256",
        [9] => "sha384",
        [10] => "sha512",
        other => return Err(format!("expected digests of sha256, found those of algorithm {other:?}")),
    };
    let mut files = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let ghost = flags.get(at).is_some_and(|flags| flags & GHOST != 0);
        if digests[at].is_empty() || ghost {
            continue;
        }
        let folder = folders.get(indexes[at] as usize).ok_or_else(|| missing("folder"))?;
        let digest = format!("{algorithm}:{}", String::from_utf8_lossy(digests[at]));
        files.push(PackagedFile { path: [folder, *name].concat(), digest });
    }
    Ok(files)
}

impl Header {
    fn read(package: &mut impl Read) -> Result<Self, String> {
        let head = take(package, 16)?;
        if head[..4] != MAGIC {
            return Err("expected the header of an rpm package, found something else".to_owned());
        }
        let (tags, length) = (number(&head, 8)?, number(&head, 12)?);
        let (tags, length) = (tags as usize, length as usize);
        if tags > MAX_TAGS || length > MAX_STORE {
            return Err(format!(
                "expected at most {MAX_TAGS} tags and {MAX_STORE} bytes, found {tags} and {length}"
            ));
        }
        Ok(Self { index: take(package, 16 * tags)?, store: take(package, length)? })
    }

    /// What a tag has: how many, and the store from there on.
    fn find(&self, Tag(tag, kind): Tag) -> Result<Option<(usize, &[u8])>, String> {
        for entry in self.index.chunks_exact(16) {
            if number(entry, 0)? != tag {
                continue;
            }
            let store = self.store.get(number(entry, 8)? as usize..);
            return match (number(entry, 4)? == kind, store) {
                (true, Some(store)) => Ok(Some((number(entry, 12)? as usize, store))),
                _ => Err(format!("expected tag {tag} of type {kind} in the header, found another")),
            };
        }
        Ok(None)
    }

    fn strings(&self, tag: Tag) -> Result<Option<Vec<&[u8]>>, String> {
        let Some((count, store)) = self.find(tag)? else { return Ok(None) };
        // Each has its NUL, so there are as many bytes at least.
        let strings: Vec<_> = store.split(|byte| *byte == 0).take(count.min(store.len())).collect();
        match strings.len() == count {
            true => Ok(Some(strings)),
            false => Err(format!("expected {count} texts of tag {}, found fewer", tag.0)),
        }
    }

    /// Empty if there are none.
    fn numbers(&self, tag: Tag) -> Result<Vec<u32>, String> {
        let Some((count, store)) = self.find(tag)? else { return Ok(Vec::new()) };
        let bytes = count.checked_mul(4).and_then(|length| store.get(..length));
        let bytes = bytes.ok_or_else(|| format!("expected {count} numbers of tag {}, found fewer", tag.0))?;
        bytes.chunks_exact(4).map(|chunk| number(chunk, 0)).collect()
    }
}

fn number(bytes: &[u8], at: usize) -> Result<u32, String> {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or_else(|| "expected a number, found the end".to_owned())
}

/// Just so many bytes. What is not there is not allocated.
fn take(package: &mut impl Read, length: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    package.take(length as u64).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err(format!("expected {length} bytes more, found {}", bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header of these tags: number, type, count, bytes.
    fn header(tags: &[(Tag, usize, Vec<u8>)]) -> Vec<u8> {
        let (mut index, mut store) = (Vec::new(), Vec::new());
        for (Tag(tag, kind), count, bytes) in tags {
            store.resize(store.len().next_multiple_of(4), 0);
            index.extend([*tag, *kind, store.len() as u32, *count as u32].map(u32::to_be_bytes).concat());
            store.extend(bytes);
        }
        let lengths = [0, tags.len() as u32, store.len() as u32].map(u32::to_be_bytes).concat();
        [&MAGIC[..], &lengths, &index, &store].concat()
    }

    fn strings(tag: Tag, texts: &[&str]) -> (Tag, usize, Vec<u8>) {
        (tag, texts.len(), texts.iter().flat_map(|text| [text.as_bytes(), &[0]].concat()).collect())
    }

    fn numbers(tag: Tag, numbers: &[u32]) -> (Tag, usize, Vec<u8>) {
        (tag, numbers.len(), numbers.iter().flat_map(|number| number.to_be_bytes()).collect())
    }

    fn package(algorithm: u32) -> Vec<u8> {
        let mut lead = vec![0; LEAD];
        lead[..4].copy_from_slice(&LEAD_MAGIC);
        // Three bytes, so five are between the headers.
        let signatures = header(&[(Tag(1000, 7), 3, vec![1, 2, 3])]);
        let digest = "ab".repeat(32);
        let header = header(&[
            numbers(DIGEST_ALGORITHM, &[algorithm]),
            strings(BASE_NAMES, &["true", "bin", "cache", "a.so"]),
            strings(DIR_NAMES, &["/usr/bin/", "/", "/usr/lib/"]),
            numbers(DIR_INDEXES, &[0, 1, 2, 2]),
            strings(FILE_DIGESTS, &[&digest, "", &digest, &digest]),
            numbers(FILE_FLAGS, &[0, 0, GHOST, 0]),
        ]);
        [lead, signatures, vec![0; 5], header, b"a payload".to_vec()].concat()
    }

    #[test]
    fn files_with_a_digest_are_listed() {
        let found = files(&mut &package(8)[..]).unwrap();
        let digest = format!("sha256:{}", "ab".repeat(32));
        let file = |path: &str| PackagedFile { path: path.as_bytes().to_vec(), digest: digest.clone() };
        assert_eq!(found, [file("/usr/bin/true"), file("/usr/lib/a.so")]);
        assert!(files(&mut &package(1)[..]).unwrap_err().contains("algorithm [1]"));
        let nothing = [vec![0xed, 0xab, 0xee, 0xdb], vec![0; 92], header(&[]), header(&[])].concat();
        assert_eq!(files(&mut &nothing[..]), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn damaged_packages_are_read_or_refused(at in any::<prop::sample::Index>(), put in proptest::collection::vec(any::<u8>(), 0..8), cut in any::<prop::sample::Index>()) {
            let mut bytes = package(8);
            let at = at.index(bytes.len());
            for (byte, new) in bytes[at..].iter_mut().zip(put) {
                *byte = new;
            }
            let _ = files(&mut &bytes[..]);
            let _ = files(&mut &bytes[..cut.index(bytes.len())]);
        }
    }
}
