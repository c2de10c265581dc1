//! Fingerprints that people compare, and the node id.

use crate::keys::label;
use sha2::{Digest, Sha256};
use std::fmt;

/// What two people compare: `sha256:` and 64 hex digits over `bytes` (the
/// `TPMT_PUBLIC` of an EK, the 32 bytes of a tenant key).
pub fn fingerprint(bytes: &[u8]) -> String {
    fingerprint_of(&sha256(bytes))
}

/// The digest that a fingerprint shows.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The fingerprint with this digest.
pub fn fingerprint_of(sha256: &[u8; 32]) -> String {
    let mut text = String::from("sha256:");
    for byte in sha256 {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The digest of a typed fingerprint; `None` if it is none. The prefix may be missing;
/// colons, dashes, spaces and case do not matter.
pub fn read_fingerprint(typed: &str) -> Option<[u8; 32]> {
    let lower = typed.trim().to_ascii_lowercase();
    let digits = lower.strip_prefix("sha256:").unwrap_or(&lower);
    let mut digits = digits.chars().filter(|c| !matches!(c, ':' | '-' | ' '));
    let mut sha256 = [0; 32];
    for byte in &mut sha256 {
        let (high, low) = (digits.next()?.to_digit(16)?, digits.next()?.to_digit(16)?);
        *byte = (high * 16 + low) as u8;
    }
    digits.next().is_none().then_some(sha256)
}

/// Whether a typed fingerprint names these bytes.
pub fn fingerprint_matches(typed: &str, bytes: &[u8]) -> bool {
    read_fingerprint(typed) == Some(sha256(bytes))
}

/// A node's id: a UUID (version 8) cut from SHA-256(label || EK name). It can't be chosen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    /// The id of the node with this EK name.
    pub fn from_ek_name(name: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(label::NODE_ID.as_bytes());
        hash.update(name);
        let digest = hash.finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        id[6] = id[6] & 0x0f | 0x80;
        id[8] = id[8] & 0x3f | 0x80;
        Self(id)
    }

    /// Reads the canonical text form: lower case, with dashes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        let mut digits = text.bytes().filter(|b| *b != b'-');
        for byte in &mut id {
            let (high, low) = (digits.next()?, digits.next()?);
            *byte = char::from(high).to_digit(16)? as u8 * 16 + char::from(low).to_digit(16)? as u8;
        }
        let id = Self(id);
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One write: rows are found by it.
        let mut text = [b'-'; 36];
        let mut places = text.iter_mut().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23));
        for digit in self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
            let digit = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
            if let Some((_, place)) = places.next() {
                *place = digit;
            }
        }
        f.write_str(str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn node_ids_survive_their_text_form(name: Vec<u8>) {
            let id = NodeId::from_ek_name(&name);
            prop_assert_eq!(NodeId::parse(&id.to_string()), Some(id));
        }

        #[test]
        fn any_text_is_refused_or_canonical(text in "[0-9a-fA-F-]{0,40}") {
            if let Some(id) = NodeId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn fingerprints_match_as_people_type_them() {
        let typed = fingerprint(b"key").to_uppercase().replace("SHA256:", " ");
        assert!(fingerprint_matches(&typed, b"key"));
        assert!(!fingerprint_matches(&typed, b"yek"));
        assert!(!fingerprint_matches("", b"key"));
        assert!(!fingerprint_matches(&format!("{typed}0"), b"key"));
        let sha256 = read_fingerprint(&typed).unwrap();
        assert_eq!(fingerprint_of(&sha256), fingerprint(b"key"));
    }
}
