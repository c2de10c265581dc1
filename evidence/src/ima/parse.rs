//! Reading a list (`binary_runtime_measurements`): PCR, SHA-1 of the data, length and name of the template, length and data.
//! Integers are little-endian.
//!
//! One pass over what is read, nothing copied or allocated for an entry. A list may end anywhere: the kernel writes while it is
//! read.

use super::entry::{Entry, TEMPLATE_HASH};
use super::field::Layout;
use crate::Rejection;
use crate::eventlog::PCRS;
use crate::eventlog::cursor::Cursor;
use crate::rejection::refuse;
use halfkey_protocol::Reason;

/// Longest name of a template, in bytes: fifteen fields of sixteen characters, and what stands between them.
pub const MAX_TEMPLATE: usize = 255;
/// Longest data of an entry, in bytes. A path has at most 4 KiB; certificates, command lines and tables of volumes are buffers.
pub const MAX_DATA: usize = 1 << 20;
/// Longest name in the template `ima`, in bytes.
const MAX_FIXED_NAME: usize = 255;

/// Reads entry by entry. After an error there are no more.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    list: &'a [u8],
    rest: &'a [u8],
    failed: bool,
}

impl<'a> Reader<'a> {
    /// Of a list, or of a part that begins with an entry.
    pub fn new(list: &'a [u8]) -> Self {
        Self { list, rest: list, failed: false }
    }

    /// How many bytes were read: the entries that came.
    pub fn consumed(&self) -> usize {
        self.list.len() - self.rest.len()
    }

    /// Bytes behind the last whole entry: one that was cut off, or what is malformed.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Entry<'a>, Rejection>;

    /// # Errors
    /// `LogMalformed`. An entry that was cut off is the end, and no error: it is in [`Reader::rest`].
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match read(self.rest) {
            Ok(None) => None,
            Ok(Some((entry, rest))) => {
                self.rest = rest;
                Some(Ok(entry))
            }
            Err(mut flaw) => {
                self.failed = true;
                flaw.detail.push_str(&format!(", in the entry at byte {} of the ima list", self.consumed()));
                Some(Err(flaw))
            }
        }
    }
}

/// The first entry and what is behind it; none if it is not all there.
fn read(list: &[u8]) -> Result<Option<(Entry<'_>, &[u8])>, Rejection> {
    let mut cursor = Cursor(list);
    let Some(pcr) = cursor.u32() else { return Ok(None) };
    if pcr as usize >= PCRS {
        return Err(wrong_pcr(pcr));
    }
    let (Some(template_hash), Some(length)) = (cursor.take(TEMPLATE_HASH), cursor.u32()) else {
        return Ok(None);
    };
    let template_hash = template_hash.first_chunk().expect("as many were taken");
    if length == 0 || length as usize > MAX_TEMPLATE {
        return refuse!(
            LogMalformed,
            "expected a template's name of 1 to {MAX_TEMPLATE} bytes, found {length}"
        );
    }
    let Some(template) = cursor.take(length as usize) else { return Ok(None) };
    let template = match str::from_utf8(template) {
        Ok(template) if template.bytes().all(|byte| byte.is_ascii_graphic()) => template,
        _ => {
            return refuse!(LogMalformed, "expected a template's name in printable ascii, found other bytes");
        }
    };
    let layout = Layout::of(template);
    let data = match layout {
        Some(layout) if layout.is_fixed() => fixed_data(&mut cursor)?,
        _ => counted_data(&mut cursor)?,
    };
    let Some(data) = data else { return Ok(None) };
    let entry = Entry { pcr, template_hash, template, layout, data };
    if let Some(layout) = layout.filter(|layout| !layout.is_fixed()) {
        require_fields(&layout, data)?;
    }
    Ok(Some((entry, cursor.0)))
}

fn wrong_pcr(pcr: u32) -> Rejection {
    let what = format!("expected pcr 0 to {}, found {pcr}", PCRS - 1);
    match pcr.swap_bytes() as usize {
        0..PCRS => Rejection::new(Reason::LogMalformed, format!("{what}: the list is big-endian"))
            .hint("boot the machine with ima_canonical_fmt, which makes its lists little-endian"),
        _ => Rejection::new(Reason::LogMalformed, what),
    }
}

/// Digest, length of the name, name.
fn fixed_data<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, Rejection> {
    let before = cursor.0;
    let (Some(_), Some(length)) = (cursor.take(TEMPLATE_HASH), cursor.u32()) else { return Ok(None) };
    if length as usize > MAX_FIXED_NAME {
        return refuse!(LogMalformed, "expected a name of at most {MAX_FIXED_NAME} bytes, found {length}");
    }
    Ok(cursor.take(length as usize).map(|_| &before[..before.len() - cursor.0.len()]))
}

fn counted_data<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, Rejection> {
    let Some(length) = cursor.u32() else { return Ok(None) };
    if length as usize > MAX_DATA {
        return refuse!(LogMalformed, "expected at most {MAX_DATA} bytes of data, found {length}");
    }
    Ok(cursor.take(length as usize))
}

/// The fields of a known template fill its data.
fn require_fields(layout: &Layout, data: &[u8]) -> Result<(), Rejection> {
    let mut cursor = Cursor(data);
    for field in layout.fields() {
        let taken = cursor.u32().and_then(|length| cursor.take(length as usize));
        if taken.is_none() {
            return refuse!(LogMalformed, "expected a field {}, found the end of the data", field.id());
        }
    }
    if cursor.0.is_empty() {
        return Ok(());
    }
    refuse!(LogMalformed, "expected the end of the data, found {} more bytes", cursor.0.len())
}
