//! The trace of a request: what a machine calls the boot in which it asks. It comes from who asks, who may say what they like: it
//! stands in the log, in one form and length, and nothing else goes by it.

use axum::http::HeaderMap;
use std::fmt;
use tracing::{Span, error_span};

/// Where it is (W3C Trace Context, 3.2).
const HEADER: &str = "traceparent";

/// The `trace-id` of a `traceparent`: 16 bytes, not all of them zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// Of a request; none if there is no such header, several, or another form than that of version 00.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(HEADER).iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::parse(value.as_bytes())
    }

    /// `00-` trace-id `-` parent-id `-` trace-flags, in lower case.
    fn parse(value: &[u8]) -> Option<Self> {
        let value: &[u8; 55] = value.try_into().ok()?;
        let (version, rest) = value.split_at(3);
        let (trace, rest) = rest.split_at(32);
        let (parent, flags) = rest.split_at(17);
        let dashes = version == b"00-" && parent.first() == Some(&b'-') && flags.first() == Some(&b'-');
        let parent: [u8; 8] = bytes(parent.get(1..)?)?;
        let [_] = bytes::<1>(flags.get(1..)?)?;
        let trace = bytes(trace)?;
        (dashes && trace != [0; 16] && parent != [0; 8]).then_some(Self(trace))
    }
}

/// Lower-case hex digits of just so many bytes.
fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

tokio::task_local! {
    /// Of the request that is being answered.
    static CURRENT: Option<TraceId>;
}

/// Answers a request whose trace is known to what it calls.
pub async fn within<T>(trace: Option<TraceId>, answer: impl Future<Output = T>) -> T {
    CURRENT.scope(trace, answer).await
}

/// The trace of the request that is being answered here, if it has one.
pub fn current() -> Option<TraceId> {
    CURRENT.try_with(|trace| *trace).ok().flatten()
}

/// That of a request, and in which the lines of its log stand.
pub fn of(headers: &HeaderMap) -> (Option<TraceId>, Span) {
    let trace = TraceId::of(headers);
    let span = match trace {
        // Whatever level is logged.
        Some(trace) => error_span!("request", %trace),
        None => Span::none(),
    };
    (trace, span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(value: &str) -> Option<String> {
        TraceId::parse(value.as_bytes()).map(|trace| trace.to_string())
    }

    #[test]
    fn one_form_is_taken() {
        assert_eq!(parse(EXAMPLE).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        for other in [
            "",
            &EXAMPLE[..54],
            &format!("{EXAMPLE}-"),
            &format!(" {EXAMPLE}"),
            &EXAMPLE.to_uppercase(),
            &EXAMPLE.replace("00-4", "01-4"),
            &EXAMPLE.replace("00-4", "ff-4"),
            &EXAMPLE.replace("-01", "-0x"),
            &EXAMPLE.replace("36-00", "36 00"),
            &EXAMPLE.replace("4bf92f35", "4bf92f3\n"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
        let mut headers = HeaderMap::new();
        headers.append(HEADER, EXAMPLE.parse().unwrap());
        assert!(TraceId::of(&headers).is_some());
        headers.append(HEADER, EXAMPLE.parse().unwrap());
        assert!(TraceId::of(&headers).is_none(), "which of two is not for us to say");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_hex_whatever_comes(value: Vec<u8>, like in "00-[0-9a-g]{32}-[0-9a-g]{16}-[0-9a-g]{2}") {
            for value in [&value[..], like.as_bytes()] {
                if let Some(trace) = TraceId::parse(value) {
                    let shown = trace.to_string();
                    prop_assert!(shown.len() == 32 && shown.bytes().all(|digit| digit.is_ascii_hexdigit()));
                }
            }
        }
    }
}
