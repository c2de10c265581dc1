//! What is checked before a policy is stored, and again when it is read from the database.

use super::Content;
use crate::{CLOCK_TOLERANCE, utc};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use halfkey_evidence::Rejection;
use halfkey_evidence::policy::{Additions, Policy, Problem};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::policies::{
    MAX_POLICY, PolicyEnvelope, Scope, SignedPolicy, policy_signed_bytes,
};

/// Largest signed document, in bytes: TOML in JSON, where each line's end takes two.
const MAX_DOCUMENT: usize = 2 * MAX_POLICY + 1024;
/// Largest version. Anything reads it as a number, and it leaves room for the next.
const MAX_VERSION: u64 = 1 << 53;

/// A document whose signature was verified and that was parsed.
pub struct Opened {
    /// What it is for.
    pub scope: Scope,
    /// Its version.
    pub version: u64,
    /// SHA-256 of the signed bytes.
    pub sha256: [u8; 32],
    pub(super) content: Content,
}

impl Opened {
    /// The name that it gives itself; none if it says that there is no policy any more.
    pub fn name(&self) -> &str {
        match &self.content {
            Content::Withdrawn => "",
            Content::Policy(policy) => policy.name(),
            Content::Additions(additions) => additions.name(),
        }
    }
}

/// Verifies a policy that was stored, and parses it. Whose key it is, is another question.
///
/// # Errors
/// Those of [`check`].
pub fn open(signed: &SignedPolicy) -> Result<Opened, Rejection> {
    let (envelope, scope) = envelope(signed)?;
    parse(signed, &envelope, scope)
}

/// Verifies a policy that comes in now, for this scope.
///
/// # Errors
/// In this order: `TooLarge`, `PolicySignature`, `PolicyMalformed` (envelope), `TooLarge` (text), `PolicySignature` (it
/// is for another scope), `Conflict` (of the future), `PolicyMalformed` or `PolicyFloor` with line and column of the
/// first problem.
pub fn check(scope: &Scope, signed: &SignedPolicy, now: u64) -> Result<Opened, Rejection> {
    let (envelope, found) = envelope(signed)?;
    if found != *scope {
        let what = format!("expected a policy for {scope}, found one for {found}");
        return Err(Rejection::new(Reason::PolicySignature, what));
    }
    if envelope.created > now.saturating_add(CLOCK_TOLERANCE) {
        let (found, here) = (utc(envelope.created), utc(now));
        let what = format!(
            "the policy was signed at {found}, and here it is {here}\nhint: set the clock of the operator's machine"
        );
        return Err(Rejection::new(Reason::Conflict, what));
    }
    parse(signed, &envelope, found)
}

fn envelope(signed: &SignedPolicy) -> Result<(PolicyEnvelope, Scope), Rejection> {
    let refuse = |reason, what: String| Err(Rejection::new(reason, what));
    if signed.document.len() > MAX_DOCUMENT {
        let found = signed.document.len();
        return refuse(
            Reason::TooLarge,
            format!("expected a document of at most {MAX_DOCUMENT} bytes, found {found}"),
        );
    }
    UnparsedPublicKey::new(&ED25519, &signed.tenant_key)
        .verify(&policy_signed_bytes(&signed.document), &signed.signature)
        .map_err(|_| {
            Rejection::new(Reason::PolicySignature, "expected a signature by the tenant key, found another")
        })?;
    let envelope: PolicyEnvelope = serde_json::from_slice(&signed.document)
        .map_err(|e| Rejection::new(Reason::PolicyMalformed, format!("envelope: {e}")))?;
    if envelope.format != 1 {
        let found = envelope.format;
        return refuse(Reason::PolicyMalformed, format!("envelope: expected format 1, found {found}"));
    }
    let Some(scope) = Scope::parse(&envelope.scope) else {
        let what = "envelope: expected scope node:ID, group:NAME or additions:ID";
        return refuse(Reason::PolicyMalformed, what.to_owned());
    };
    if !(1..=MAX_VERSION).contains(&envelope.version) {
        let found = envelope.version;
        return refuse(
            Reason::PolicyMalformed,
            format!("envelope: expected a version from 1 to {MAX_VERSION}, found {found}"),
        );
    }
    if envelope.policy.len() > MAX_POLICY {
        let found = envelope.policy.len();
        return refuse(
            Reason::TooLarge,
            format!("expected a policy of at most {MAX_POLICY} bytes, found {found}"),
        );
    }
    Ok((envelope, scope))
}

fn parse(signed: &SignedPolicy, envelope: &PolicyEnvelope, scope: Scope) -> Result<Opened, Rejection> {
    let content = match (&scope, envelope.withdrawn) {
        (Scope::Node(_) | Scope::Additions(_), true) if envelope.policy.is_empty() => Ok(Content::Withdrawn),
        (_, true) => {
            let what = "envelope: expected withdrawn without a text, and not of a group";
            return Err(Rejection::new(Reason::PolicyMalformed, what));
        }
        (Scope::Additions(_), _) => Additions::parse(&envelope.policy).map(Content::Additions),
        (Scope::Node(_) | Scope::Group(_), _) => Policy::parse(&envelope.policy).map(Content::Policy),
    };
    let content = content.map_err(|problems| first(&problems))?;
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, &signed.document).as_ref());
    Ok(Opened { scope, version: envelope.version, sha256, content })
}

/// What is wrong counts before what is missing: a policy that can't be read has no floor.
fn first(problems: &[Problem]) -> Rejection {
    let wrong = problems.iter().find(|problem| !problem.floor);
    let Some(problem) = wrong.or(problems.first()) else {
        return Rejection::new(Reason::PolicyMalformed, "it can't be read");
    };
    let reason = if problem.floor { Reason::PolicyFloor } else { Reason::PolicyMalformed };
    let more = match problems.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let text = problem.to_string();
    Rejection::new(
        reason,
        match text.split_once("\nhint: ") {
            Some((text, hint)) => format!("{text}{more}\nhint: {hint}"),
            None => format!("{text}{more}"),
        },
    )
}
