//! Byte strings that travel as base64url without padding (RFC 4648, section 5).

use base64ct::{Base64UrlUnpadded, Encoding};

/// Bytes on the wire. Not for secrets: it prints and it does not wipe.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// The text form.
    pub fn encode(&self) -> String {
        Base64UrlUnpadded::encode_string(&self.0)
    }

    /// Reads the text form; `None` if it is not canonical base64url.
    pub fn decode(text: &str) -> Option<Self> {
        Base64UrlUnpadded::decode_vec(text).ok().map(Self)
    }

    /// As an array, if the length is exactly `N`.
    pub fn array<const N: usize>(&self) -> Option<[u8; N]> {
        self.0.as_slice().try_into().ok()
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl<const N: usize> From<[u8; N]> for Bytes {
    fn from(bytes: [u8; N]) -> Self {
        Self(bytes.to_vec())
    }
}

#[cfg(feature = "serde")]
mod with_serde {
    use super::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error, de::Visitor};
    use std::fmt;

    impl Serialize for Bytes {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(&self.encode())
        }
    }

    impl<'de> Deserialize<'de> for Bytes {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_str(Text)
        }
    }

    /// Reads the text form where it stands: a log has a megabyte of it.
    struct Text;

    impl Visitor<'_> for Text {
        type Value = Bytes;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("base64url without padding")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
            decode(text).ok_or_else(|| E::custom("expected base64url without padding"))
        }
    }

    /// As [`Bytes::decode`], many bytes at a time: a server reads the logs of all machines.
    pub(super) fn decode(text: &str) -> Option<Bytes> {
        base64_simd::URL_SAFE_NO_PAD.decode_to_vec(text).ok().map(Bytes)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "Byte string, base64url without padding.",
            "contentEncoding": "base64url",
            "pattern": "^[A-Za-z0-9_-]*$",
        })
    }
}

#[cfg(feature = "miniserde")]
mod with_miniserde {
    use super::Bytes;
    use miniserde::de::{Deserialize, Visitor};
    use miniserde::ser::{Fragment, Serialize};
    use miniserde::{Error, Result, make_place};
    use std::borrow::Cow;

    make_place!(Place);

    impl Visitor for Place<Bytes> {
        fn string(&mut self, text: &str) -> Result<()> {
            self.out = Some(Bytes::decode(text).ok_or(Error)?);
            Ok(())
        }
    }

    impl Deserialize for Bytes {
        fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
            Place::new(out)
        }
    }

    impl Serialize for Bytes {
        fn begin(&self) -> Fragment<'_> {
            Fragment::Str(Cow::Owned(self.encode()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_survive_the_text_form(bytes: Vec<u8>) {
            let bytes = Bytes(bytes);
            prop_assert_eq!(Bytes::decode(&bytes.encode()), Some(bytes));
        }

        #[test]
        fn any_text_is_refused_or_canonical(text in ".{0,64}") {
            if let Some(bytes) = Bytes::decode(&text) {
                prop_assert_eq!(bytes.encode(), text);
            }
        }

        #[cfg(feature = "serde")]
        #[test]
        fn servers_and_machines_take_the_same_texts(text in ".{0,64}|[A-Za-z0-9_-]{0,200}[=\\n+/]?") {
            prop_assert_eq!(super::with_serde::decode(&text), Bytes::decode(&text));
        }
    }
}
