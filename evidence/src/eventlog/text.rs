//! Text of a log: UTF-16 as UEFI has it, and one line of it for people.

use std::fmt::{self, Write};

/// UTF-16LE, maybe with a terminating NUL; borrowed from the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Utf16<'a>(&'a [u8]);

impl<'a> Utf16<'a> {
    /// Any even number of bytes.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.len().is_multiple_of(2).then_some(Self(bytes))
    }

    /// Valid UTF-16 with no NUL but, maybe, at the end; and not empty.
    pub(crate) fn strict(bytes: &'a [u8]) -> Option<Self> {
        let text = Self::new(bytes)?;
        let valid = char::decode_utf16(text.units()).all(|unit| !matches!(unit, Err(_) | Ok('\0')));
        (valid && !text.without_nul().is_empty()).then_some(text)
    }

    /// The bytes, with the terminating NUL if there is one.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The characters before the terminating NUL; U+FFFD for what is not UTF-16.
    pub fn chars(&self) -> impl Iterator<Item = char> + Clone + use<'a> {
        char::decode_utf16(self.units()).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    /// Whether it is exactly this text (and nothing in it was not UTF-16).
    pub fn is(&self, text: &str) -> bool {
        self.units().eq(text.encode_utf16())
    }

    fn without_nul(&self) -> &'a [u8] {
        self.0.strip_suffix(&[0, 0]).unwrap_or(self.0)
    }

    fn units(&self) -> impl Iterator<Item = u16> + Clone + use<'a> {
        self.without_nul().as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit))
    }
}

/// The text as it is; for one line of output use [`Utf16::chars`] with care.
impl fmt::Display for Utf16<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chars().try_for_each(|char| f.write_char(char))
    }
}

impl fmt::Debug for Utf16<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// ASCII without control characters, and not empty.
pub(crate) fn is_ascii_text(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| matches!(byte, 0x20..=0x7e))
}

/// Writes text of a stranger: what does not print, or would move the cursor or turn the
/// direction of writing, as an escape.
pub(crate) fn clean(f: &mut dyn Write, chars: impl Iterator<Item = char>) -> fmt::Result {
    for char in chars {
        if char.is_control() || is_format(char) {
            write!(f, "{}", char.escape_default())?;
        } else {
            f.write_char(char)?;
        }
    }
    Ok(())
}

/// Characters that reorder or hide their neighbours (bidirectional controls, zero-width
/// characters, line separators, tags).
fn is_format(char: char) -> bool {
    matches!(char,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The same for bytes that should be UTF-8; others are written as `\xNN`.
pub(crate) fn clean_bytes(f: &mut dyn Write, bytes: &[u8]) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        clean(f, chunk.valid().chars())?;
        chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
    }
    Ok(())
}

/// Writes bytes as hex.
pub(crate) fn hex(f: &mut dyn Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// One line of at most `max` bytes and an ellipsis; writing stops there, so that what is
/// written about megabytes costs no more than a line.
pub(crate) fn line(max: usize, write: impl FnOnce(&mut dyn Write) -> fmt::Result) -> String {
    let mut line = Line { text: String::new(), max };
    if write(&mut line).is_err() {
        line.text.push('…');
    }
    line.text
}

struct Line {
    text: String,
    max: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.max - self.text.len();
        if text.len() <= room {
            self.text.push_str(text);
            return Ok(());
        }
        self.text.push_str(&text[..text.floor_char_boundary(room)]);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn text_ends_at_its_nul_and_compares_exactly() {
        let bytes = utf16("db\0");
        let text = Utf16::strict(&bytes).expect("text");
        assert!(text.is("db") && !text.is("dbx") && !text.is("d"));
        assert_eq!((text.to_string().as_str(), text.bytes().len()), ("db", 6));
        for bad in [&[1][..], &[0, 0], &[], &[0x00, 0xd8], &utf16("a\0b")] {
            assert!(Utf16::strict(bad).is_none(), "{bad:?}");
        }
        assert!(!Utf16::new(&[0x00, 0xd8]).expect("even").is("\u{fffd}"));
    }

    #[test]
    fn lines_are_short_and_clean() {
        let line_of = |text: &str, max| line(max, |f| clean(f, text.chars()));
        assert_eq!(line_of("a\nb\u{202e}c\u{1b}", 80), "a\\nb\\u{202e}c\\u{1b}");
        assert_eq!(line_of("äöü", 3), "ä…");
        assert_eq!(line(80, |f| clean_bytes(f, b"a\xff\x00b")), "a\\xff\\u{0}b");
    }
}
