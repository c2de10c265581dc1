//! What requests say in their path, their query and their text.

use super::refusal::Refusal;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use halfkey_protocol::{NodeId, Reason};

/// The one part of a path that is not fixed.
pub struct InPath(pub String);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let part = Path::<String>::from_request_parts(parts, state).await;
        part.map(|Path(part)| Self(part)).map_err(|e| Refusal::new(Reason::Malformed, e.body_text()))
    }
}

/// The protocol version to use with a peer that speaks these.
///
/// # Errors
/// `Version` if there is none in common.
pub fn common_version(theirs: &[u32]) -> Result<u32, Refusal> {
    let ours = halfkey_protocol::VERSIONS;
    theirs.iter().copied().find(|version| ours.contains(version)).ok_or_else(|| {
        let theirs = &theirs[..theirs.len().min(8)];
        Refusal::new(Reason::Version, format!("expected one of {ours:?}, found {theirs:?}"))
    })
}

/// A node id from a message or a path.
///
/// # Errors
/// `Malformed`.
pub fn node_id(text: &str) -> Result<NodeId, Refusal> {
    NodeId::parse(text).ok_or_else(|| {
        Refusal::new(Reason::Malformed, "expected a node id: a UUID in lower case, with dashes")
    })
}

/// The ticket of a boot, from a message.
///
/// # Errors
/// `Malformed`.
pub fn ticket(text: &str) -> Result<&str, Refusal> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 32 || !text.bytes().all(digit) {
        return Err(Refusal::new(Reason::Malformed, "expected a ticket of 32 digits of 0 to 9 and a to f"));
    }
    Ok(text)
}

/// Text that a person wrote and that ends on somebody's terminal.
///
/// # Errors
/// `Malformed` if it is empty, longer than `max` bytes, or has control characters.
pub fn plain_text<'a>(what: &str, text: &'a str, max: usize) -> Result<&'a str, Refusal> {
    if text.trim().is_empty() || text.len() > max || text.chars().any(char::is_control) {
        let what = format!("expected {what} of 1 to {max} bytes without control characters");
        return Err(Refusal::new(Reason::Malformed, what));
    }
    Ok(text)
}

/// The parameters of a query.
///
/// # Errors
/// `Malformed`.
pub fn parameters<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    query.map(|Query(parameters)| parameters).map_err(|e| Refusal::new(Reason::Malformed, e.body_text()))
}
