//! Digests of files that may be used, in one list for as many machines as have them.
//!
//! As text: a line for each, in any order.
//!
//! ```text
//! sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae /usr/bin/true
//! verity:sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9 *
//! ```
//!
//! The path is as the kernel knows it, to the end of the line; `*` is any path that begins with `/`. What the kernel measures for a
//! file with fs-verity, if its policy asks for that, is `verity:`. A list is named by the SHA-256 of its lines in order
//! ([`DigestList::id`]), so two that say the same are one.
//!
//! In memory: the digests of an algorithm one behind the other and sorted, with an index over their first bits, so that a look-up is
//! about one access; 36 bytes for an entry of SHA-256, and each path once.

use super::entry::{DigestKind, FileDigest};
use crate::digest::{Bank, Digest};
use crate::quote::hex;
use aws_lc_rs::digest::{Context, SHA256};
use std::borrow::Cow;
use std::ops::Range;

/// Longest text of a list, in bytes.
pub const MAX_TEXT: usize = 512 << 20;
/// Longest path, in bytes (`PATH_MAX` without its NUL).
pub const MAX_PATH: usize = 4095;

/// Digests, sorted.
#[derive(Clone, Debug)]
pub struct DigestList {
    id: [u8; 32],
    /// By what the digests are of, and by their algorithm.
    tables: Vec<Table>,
    paths: Paths,
}

/// A line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'t> {
    /// What the digest is of.
    pub kind: DigestKind,
    /// Its algorithm.
    pub hash: Bank,
    /// The digest.
    pub digest: Digest,
    /// The path; none for any.
    pub path: Option<Cow<'t, [u8]>>,
}

/// Those of one algorithm.
#[derive(Clone, Debug)]
struct Table {
    kind: DigestKind,
    hash: Bank,
    /// One behind the other.
    digests: Vec<u8>,
    /// Of each digest: a number in [`Paths`], or [`ANY`].
    paths: Vec<u32>,
    /// Of each value of the first [`Table::bits`] bits: the first digest that has it, or a greater one.
    starts: Vec<u32>,
}

/// Each path once, sorted.
#[derive(Clone, Debug)]
struct Paths {
    bytes: Vec<u8>,
    /// Where each begins, and where the last ends.
    starts: Vec<u32>,
}

/// Any path. It is behind all others.
const ANY: u32 = u32::MAX;
/// Most bits of an index: four megabytes.
const MAX_BITS: u32 = 20;

impl DigestList {
    /// Reads a list. Empty lines, and those that begin with `#`, say nothing.
    ///
    /// # Errors
    /// The first line that is wrong, with its number from 1.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("expected a list of at most {MAX_TEXT} bytes, found {}", text.len()));
        }
        let lines = (1..).zip(text.split(|byte| *byte == b'\n'));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"));
        lines
            .map(|(number, line)| Line::parse(line).map_err(|what| format!("line {number}: {what}")))
            .collect::<Result<Vec<_>, _>>()
            .map(Self::new)
    }

    /// Of these lines, in any order; what is there twice counts once. Blanks in paths become `_`, as the kernel has them.
    pub fn new(mut lines: Vec<Line<'_>>) -> Self {
        for path in lines.iter_mut().filter_map(|line| line.path.as_mut()) {
            if path.contains(&b' ') {
                path.to_mut().iter_mut().filter(|byte| **byte == b' ').for_each(|byte| *byte = b'_');
            }
        }
        let paths = Paths::new(&lines);
        let mut rows: Vec<_> = lines
            .iter()
            .map(|line| {
                let path = line.path.as_ref().map_or(ANY, |path| paths.number(path).expect("they have each"));
                (line.kind, line.hash.alg(), line.hash, line.digest, path)
            })
            .collect();
        drop(lines);
        rows.sort_unstable_by(|a, b| (a.0, a.1, &*a.3, a.4).cmp(&(b.0, b.1, &*b.3, b.4)));
        rows.dedup();
        let tables = rows
            .chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
            .map(|rows| Table::new(rows[0].0, rows[0].2, rows.iter().map(|row| (row.3, row.4))))
            .collect();
        let mut list = Self { id: [0; 32], tables, paths };
        let mut hash = Context::new(&SHA256);
        list.each_line(|line| hash.update(line));
        list.id.copy_from_slice(hash.finish().as_ref());
        list
    }

    /// What it says, as a name: SHA-256 of [`DigestList::to_text`].
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// How many lines it has.
    pub fn len(&self) -> usize {
        self.tables.iter().map(Table::len).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// How many bytes of memory it takes.
    pub fn memory(&self) -> usize {
        let tables = self
            .tables
            .iter()
            .map(|table| table.digests.len() + 4 * (table.paths.len() + table.starts.len()));
        tables.sum::<usize>() + self.paths.bytes.len() + 4 * self.paths.starts.len()
    }

    /// Its lines, sorted: what it is named by.
    pub fn to_text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        self.each_line(|line| text.extend(line));
        text
    }

    /// Whether a digest may be found at a path, as the kernel has both.
    ///
    /// A name that does not begin with `/` is that of a buffer, or of a file in no file system that is mounted: no `*` stands for it.
    pub fn contains(&self, digest: &FileDigest<'_>, path: &[u8]) -> bool {
        let Some(table) = digest.hash().and_then(|hash| self.table(digest.kind, hash)) else { return false };
        let of_paths = &table.paths[table.rows(digest.bytes)];
        match of_paths {
            [.., ANY] if path.starts_with(b"/") => true,
            of_paths => {
                let of_paths = of_paths.strip_suffix(&[ANY]).unwrap_or(of_paths);
                of_paths.binary_search_by(|number| self.paths.get(*number).cmp(path)).is_ok()
            }
        }
    }

    /// Paths that have this digest, at most so many; for people.
    pub fn paths_of(&self, digest: &FileDigest<'_>, most: usize) -> Vec<&[u8]> {
        let Some(table) = digest.hash().and_then(|hash| self.table(digest.kind, hash)) else {
            return Vec::new();
        };
        let of_paths = table.paths[table.rows(digest.bytes)].iter();
        of_paths.filter(|number| **number != ANY).take(most).map(|number| self.paths.get(*number)).collect()
    }

    /// Digests that this path may have, at most so many; for people: it looks at the whole list.
    pub fn expected(&self, path: &[u8], most: usize) -> Vec<String> {
        let Some(path) = self.paths.number(path) else { return Vec::new() };
        let rows = self.tables.iter().flat_map(|table| (0..table.len()).map(move |row| (table, row)));
        rows.filter(|(table, row)| table.paths[*row] == path)
            .take(most)
            .map(|(table, row)| format!("{}{}", table.prefix(), hex(table.digest(row))))
            .collect()
    }

    fn table(&self, kind: DigestKind, hash: Bank) -> Option<&Table> {
        self.tables.iter().find(|table| table.kind == kind && table.hash == hash)
    }

    fn each_line(&self, mut line: impl FnMut(&[u8])) {
        for table in &self.tables {
            for row in 0..table.len() {
                let path = match table.paths[row] {
                    ANY => b"*",
                    number => self.paths.get(number),
                };
                let digest = format!("{}{} ", table.prefix(), hex(table.digest(row)));
                line(digest.as_bytes());
                line(path);
                line(b"\n");
            }
        }
    }
}

impl<'t> Line<'t> {
    /// `sha256:<hex> PATH`, without its end.
    fn parse(line: &'t [u8]) -> Result<Self, String> {
        let wrong = || {
            "expected `sha256:<hex digits> PATH`, or sha1, sha384, sha512, or verity: before it".to_owned()
        };
        let blank = line.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let (digest, path) = (str::from_utf8(&line[..blank]).map_err(|_| wrong())?, &line[blank + 1..]);
        let (kind, digest) = match digest.strip_prefix("verity:") {
            Some(rest) => (DigestKind::Verity, rest),
            None => (DigestKind::File, digest),
        };
        let (hash, digits) = digest.split_once(':').ok_or_else(wrong)?;
        let hash = Bank::from_name(hash).ok_or_else(wrong)?;
        let digest = Digest::from_hex(digits).filter(|digest| digest.len() == hash.digest_len());
        let digest = digest.ok_or_else(|| {
            format!("expected {} hex digits in lower case, found {}", 2 * hash.digest_len(), digits.len())
        })?;
        let path = match path {
            b"*" => None,
            [] => return Err("expected a path, or *, behind the digest".to_owned()),
            path if path.len() > MAX_PATH => {
                return Err(format!("expected a path of at most {MAX_PATH} bytes, found {}", path.len()));
            }
            path if path.contains(&0) => return Err("expected a path, found a nul in it".to_owned()),
            path => Some(Cow::Borrowed(path)),
        };
        Ok(Self { kind, hash, digest, path })
    }
}

impl Table {
    /// Of sorted digests with the numbers of their paths.
    fn new(kind: DigestKind, hash: Bank, rows: impl ExactSizeIterator<Item = (Digest, u32)>) -> Self {
        let length = hash.digest_len();
        let mut table = Self {
            kind,
            hash,
            digests: Vec::with_capacity(rows.len() * length),
            paths: Vec::with_capacity(rows.len()),
            starts: Vec::new(),
        };
        for (digest, path) in rows {
            table.digests.extend_from_slice(&digest);
            table.paths.push(path);
        }
        // About one digest for each.
        let bits = table.len().max(2).ilog2().min(MAX_BITS);
        let mut starts = vec![0u32; (1 << bits) + 1];
        table.digests.chunks_exact(length).for_each(|digest| starts[beginning(digest, bits) + 1] += 1);
        (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
        table.starts = starts;
        table
    }

    fn len(&self) -> usize {
        self.paths.len()
    }

    fn digest(&self, row: usize) -> &[u8] {
        let length = self.hash.digest_len();
        &self.digests[row * length..][..length]
    }

    /// The rows with this digest, which has the table's length.
    fn rows(&self, digest: &[u8]) -> Range<usize> {
        let bits = (self.starts.len() - 1).ilog2();
        let at = beginning(digest, bits);
        let (first, end) = (self.starts[at] as usize, self.starts[at + 1] as usize);
        let first = self.partition(first..end, |row| row < digest);
        // Nearly always one.
        if first == end || self.digest(first) != digest {
            return first..first;
        }
        first..self.partition(first..end, |row| row <= digest)
    }

    /// The first row of these that is not `before`.
    fn partition(&self, rows: Range<usize>, before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut first, mut end) = (rows.start, rows.end);
        while first < end {
            let middle = first + (end - first) / 2;
            match before(self.digest(middle)) {
                true => first = middle + 1,
                false => end = middle,
            }
        }
        first
    }

    fn prefix(&self) -> String {
        let kind = match self.kind {
            DigestKind::File => "",
            DigestKind::Verity => "verity:",
        };
        format!("{kind}{}:", self.hash.name())
    }
}

/// The first bits of a digest.
fn beginning(digest: &[u8], bits: u32) -> usize {
    let first = digest.first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
    (first >> (32 - bits)) as usize
}

impl Paths {
    fn new(lines: &[Line<'_>]) -> Self {
        let mut sorted: Vec<&[u8]> = lines.iter().filter_map(|line| line.path.as_deref()).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut paths =
            Self { bytes: Vec::with_capacity(sorted.iter().map(|path| path.len()).sum()), starts: vec![0] };
        for path in sorted {
            paths.bytes.extend_from_slice(path);
            paths.starts.push(paths.bytes.len() as u32);
        }
        paths
    }

    fn get(&self, number: u32) -> &[u8] {
        let at = number as usize;
        &self.bytes[self.starts[at] as usize..self.starts[at + 1] as usize]
    }

    fn number(&self, path: &[u8]) -> Option<u32> {
        let (mut first, mut end) = (0, self.starts.len() as u32 - 1);
        while first < end {
            let middle = first + (end - first) / 2;
            match self.get(middle).cmp(path) {
                std::cmp::Ordering::Less => first = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => end = middle,
            }
        }
        None
    }
}
