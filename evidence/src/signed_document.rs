//! Documents, as servers and the operator's workstation open them.

use crate::Rejection;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use halfkey_protocol::Reason;
use halfkey_protocol::document::{self, Backend, Flaw, Kind, Opened};
use halfkey_protocol::wire::{Document, Enrollment, SignedDocument};

/// Largest text of a policy, in bytes.
const MAX_POLICY: usize = 256 << 10;
/// Largest document, in bytes: TOML in JSON, where each line's end takes two.
pub const MAX_DOCUMENT: usize = 2 * MAX_POLICY + 1024;
/// Largest document of an enrollment, in bytes: it has to fit an answer to the agent.
pub const MAX_ENROLLMENT: usize = 24 << 10;

struct Servers;

impl Backend for Servers {
    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
    }

    fn read(&self, text: &str) -> Result<Document, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }
}

/// Verifies the signatures and reads the envelope. Whose key it is, and whether it is in its place, is for the caller.
///
/// # Errors
/// The first thing that is wrong.
pub fn open(signed: &SignedDocument) -> Result<Opened, Flaw> {
    document::open(signed, MAX_DOCUMENT, &Servers)
}

/// The same, and what an enrollment says.
///
/// # Errors
/// `TooLarge`, `EnrollmentSignature`, `Malformed`.
pub fn open_enrollment(signed: &SignedDocument) -> Result<(Opened, Enrollment), Rejection> {
    let opened = document::open(signed, MAX_ENROLLMENT, &Servers).map_err(|flaw| {
        let reason = match flaw {
            Flaw::TooLarge(_) => Reason::TooLarge,
            Flaw::Signature(_) => Reason::EnrollmentSignature,
            Flaw::Form(_) => Reason::Malformed,
        };
        Rejection::new(reason, flaw.to_string())
    })?;
    if opened.kind != Kind::Enrollment {
        let what = format!("expected an enrollment, found {}", opened.kind.with_article());
        return Err(Rejection::new(Reason::EnrollmentSignature, what));
    }
    let enrollment = serde_json::from_str(&opened.body)
        .map_err(|e| Rejection::new(Reason::Malformed, format!("enrollment: {e}")))?;
    Ok((opened, enrollment))
}

/// Why a policy, additions, a withdrawal or a membership is none.
pub fn rejection(flaw: &Flaw) -> Rejection {
    let reason = match flaw {
        Flaw::TooLarge(_) => Reason::TooLarge,
        Flaw::Signature(_) => Reason::PolicySignature,
        Flaw::Form(_) => Reason::PolicyMalformed,
    };
    Rejection::new(reason, flaw.to_string())
}
