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
//! In memory: the digests of an algorithm one behind the other and sorted, each with where its path is, and an index over their first
//! bits. A look-up is three accesses, whatever the length: index, digest, path. An entry of SHA-256 takes 42 bytes, and each path is
//! there once.

use super::entry::{DigestKind, FileDigest};
use crate::digest::{Bank, Digest};
use crate::quote::hex;
use aws_lc_rs::digest::{Context, SHA256};
use std::borrow::Cow;
use std::collections::HashMap;
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
    /// Each path once.
    paths: Vec<u8>,
}

/// A line of a list: what the digest is of, its algorithm, the digest, the path (none for any).
struct Line<'t> {
    kind: DigestKind,
    hash: Bank,
    digest: Digest,
    path: Option<Cow<'t, [u8]>>,
}

/// Those of one algorithm.
#[derive(Clone, Debug)]
struct Table {
    kind: DigestKind,
    hash: Bank,
    /// One behind the other: the digest, where its path begins in [`DigestList::paths`], and how long it is (0 for any), both
    /// little-endian.
    rows: Vec<u8>,
    /// Numbers of rows, by their paths: to say what was expected.
    by_path: Vec<u32>,
    /// Of each value of a digest's first bits: the first row that has it, or a greater one; and the end.
    starts: Vec<u32>,
}

/// Where a path begins, and its length. None is longer than [`MAX_PATH`].
type Place = (u32, u16);

/// Bytes of a [`Place`] in a row.
const PLACE: usize = 6;
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

    /// What is there twice counts once. Blanks in paths become `_`, as the kernel has them.
    fn new(mut lines: Vec<Line<'_>>) -> Self {
        for path in lines.iter_mut().filter_map(|line| line.path.as_mut()) {
            if path.contains(&b' ') {
                path.to_mut().iter_mut().filter(|byte| **byte == b' ').for_each(|byte| *byte = b'_');
            }
        }
        let (paths, places) = place_paths(&lines);
        let mut rows: Vec<_> = lines
            .iter()
            .map(|line| {
                let path = line.path.as_deref();
                let place = path.and_then(|path| places.get(path).copied()).unwrap_or_default();
                (line.kind, line.hash.alg(), line.digest, path, place, line.hash)
            })
            .collect();
        // Any path stands before all others.
        rows.sort_unstable_by(|a, b| (a.0, a.1, &*a.2, a.3).cmp(&(b.0, b.1, &*b.2, b.3)));
        rows.dedup();
        let tables = rows
            .chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
            .map(|rows| Table::new(rows[0].0, rows[0].5, rows.iter().map(|row| (row.2, row.4))))
            .collect();
        let mut list = Self { id: [0; 32], tables, paths };
        list.index_paths();
        let mut hash = Context::new(&SHA256);
        list.each_line(|line| hash.update(line));
        list.id.copy_from_slice(hash.finish().as_ref());
        list
    }

    fn index_paths(&mut self) {
        let mut tables = std::mem::take(&mut self.tables);
        for table in &mut tables {
            let mut by_path: Vec<u32> = (0..table.len() as u32).collect();
            by_path.sort_unstable_by_key(|row| (self.path(table, *row as usize), *row));
            table.by_path = by_path;
        }
        self.tables = tables;
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
        let tables =
            self.tables.iter().map(|table| table.rows.len() + 4 * (table.by_path.len() + table.starts.len()));
        tables.sum::<usize>() + self.paths.len()
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
        let mut rows = table.find(digest.bytes);
        if rows.is_empty() {
            return false;
        }
        // Any path is the first of them.
        if table.place(rows.start).1 == 0 {
            if path.starts_with(b"/") {
                return true;
            }
            rows.start += 1;
        }
        let end = rows.end;
        let at = partition(rows, |row| self.path(table, row) < path);
        at < end && self.path(table, at) == path
    }

    /// Paths that have this digest, at most so many; for people.
    pub fn paths_of(&self, digest: &FileDigest<'_>, most: usize) -> Vec<&[u8]> {
        let Some(table) = digest.hash().and_then(|hash| self.table(digest.kind, hash)) else {
            return Vec::new();
        };
        let paths = table.find(digest.bytes).map(|row| self.path(table, row));
        paths.filter(|path| !path.is_empty()).take(most).collect()
    }

    /// Digests that this path may have, at most so many; for people.
    pub fn expected(&self, path: &[u8], most: usize) -> Vec<String> {
        let of_table = |table: &Table| {
            let row = |at: usize| table.by_path[at] as usize;
            let first = partition(0..table.len(), |at| self.path(table, row(at)) < path);
            (first..table.len())
                .map(row)
                .take_while(|row| self.path(table, *row) == path)
                .take(most)
                .map(|row| format!("{}{}", table.prefix(), hex(table.digest(row))))
                .collect::<Vec<_>>()
        };
        match path {
            [] => Vec::new(),
            _ => self.tables.iter().flat_map(of_table).take(most).collect(),
        }
    }

    /// Each of its lines, sorted: the digest as text, and the path, `*` for any.
    pub fn each(&self, mut line: impl FnMut(&str, &[u8])) {
        for table in &self.tables {
            for row in 0..table.len() {
                let path = match self.path(table, row) {
                    [] => b"*",
                    path => path,
                };
                line(&format!("{}{}", table.prefix(), hex(table.digest(row))), path);
            }
        }
    }

    /// The path of a row; empty for any.
    fn path(&self, table: &Table, row: usize) -> &[u8] {
        let (start, length) = table.place(row);
        &self.paths[start as usize..][..usize::from(length)]
    }

    fn table(&self, kind: DigestKind, hash: Bank) -> Option<&Table> {
        self.tables.iter().find(|table| table.kind == kind && table.hash == hash)
    }

    fn each_line(&self, mut line: impl FnMut(&[u8])) {
        self.each(|digest, path| {
            line(digest.as_bytes());
            line(b" ");
            line(path);
            line(b"\n");
        });
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
    /// Of sorted digests with the places of their paths.
    fn new(kind: DigestKind, hash: Bank, sorted: impl ExactSizeIterator<Item = (Digest, Place)>) -> Self {
        let count = sorted.len();
        // About one digest for each.
        let bits = count.max(2).ilog2().min(MAX_BITS);
        let mut starts = vec![0u32; (1 << bits) + 1];
        let mut rows = Vec::with_capacity(count * (hash.digest_len() + PLACE));
        for (digest, (start, length)) in sorted {
            starts[beginning(&digest, bits) + 1] += 1;
            rows.extend_from_slice(&digest);
            rows.extend(start.to_le_bytes());
            rows.extend(length.to_le_bytes());
        }
        (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
        Self { kind, hash, rows, by_path: Vec::new(), starts }
    }

    fn len(&self) -> usize {
        self.rows.len() / self.row_len()
    }

    fn row_len(&self) -> usize {
        self.hash.digest_len() + PLACE
    }

    fn digest(&self, row: usize) -> &[u8] {
        &self.rows[row * self.row_len()..][..self.hash.digest_len()]
    }

    fn place(&self, row: usize) -> Place {
        let place = &self.rows[row * self.row_len() + self.hash.digest_len()..];
        let [s0, s1, s2, s3, l0, l1] = place.first_chunk::<PLACE>().copied().unwrap_or_default();
        (u32::from_le_bytes([s0, s1, s2, s3]), u16::from_le_bytes([l0, l1]))
    }

    /// The rows with this digest, which has the table's length.
    fn find(&self, digest: &[u8]) -> Range<usize> {
        let bits = (self.starts.len() - 1).ilog2();
        let at = beginning(digest, bits);
        let (first, end) = (self.starts[at] as usize, self.starts[at + 1] as usize);
        let first = partition(first..end, |row| self.digest(row) < digest);
        first..partition(first..end, |row| self.digest(row) == digest)
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

/// The first of these that is not `before`, where those that are stand in front.
fn partition(rows: Range<usize>, before: impl Fn(usize) -> bool) -> usize {
    let (mut first, mut end) = (rows.start, rows.end);
    while first < end {
        let middle = first + (end - first) / 2;
        match before(middle) {
            true => first = middle + 1,
            false => end = middle,
        }
    }
    first
}

/// Each path once, and where it is.
fn place_paths<'l>(lines: &'l [Line<'_>]) -> (Vec<u8>, HashMap<&'l [u8], Place>) {
    let mut bytes = Vec::new();
    let mut places = HashMap::new();
    for path in lines.iter().filter_map(|line| line.path.as_deref()) {
        places.entry(path).or_insert_with(|| {
            let place = (bytes.len() as u32, path.len() as u16);
            bytes.extend_from_slice(path);
            place
        });
    }
    (bytes, places)
}
