//! What is checked before a policy is stored, and again when it is read from the database.

use super::Content;
use crate::{CLOCK_TOLERANCE, utc};
use halfkey_evidence::policy::{Additions, Policy, Problem};
use halfkey_evidence::{Rejection, signed_document};
use halfkey_protocol::Reason;
use halfkey_protocol::document::{Deployment, Kind, Opened as Envelope, Scope};
use halfkey_protocol::wire::SignedDocument;
use halfkey_protocol::wire::policies::MAX_POLICY;

/// A document whose signature was verified and that was parsed.
pub struct Opened {
    /// Its envelope.
    pub envelope: Envelope,
    pub(super) content: Content,
}

impl Opened {
    /// The name that it gives itself; none if it says that there is no policy any more.
    pub fn name(&self) -> &str {
        match &self.content {
            Content::Withdrawn | Content::Member => "",
            Content::Policy(policy) => policy.name(),
            Content::Additions(additions) => additions.name(),
        }
    }
}

/// Verifies a policy, or what says which group a node is in, that was stored, and parses it. Whose key it is, is another question.
///
/// # Errors
/// Those of [`check`].
pub fn open(signed: &SignedDocument) -> Result<Opened, Rejection> {
    let envelope = signed_document::open(signed).map_err(|flaw| signed_document::rejection(&flaw))?;
    parse(envelope)
}

/// Verifies what comes in now, for this scope of this deployment.
///
/// # Errors
/// In this order: `TooLarge`, `PolicySignature`, `PolicyMalformed` (envelope), `Deployment`, `PolicySignature` (it
/// is for another scope), `Conflict` (of the future), `TooLarge` (text), `PolicyMalformed` or `PolicyFloor` with line and column of the
/// first problem.
pub fn check(
    scope: &Scope,
    signed: &SignedDocument,
    deployment: Deployment,
    now: u64,
) -> Result<Opened, Rejection> {
    parse(envelope(scope, signed, deployment, now)?)
}

/// Verifies what a tenant says about a node in one word and one line: this kind of document, for this scope of this deployment. Whose
/// key it is, is another question.
///
/// # Errors
/// As [`check`]; `PolicySignature` for another kind.
pub fn decision(
    kind: Kind,
    scope: &Scope,
    signed: &SignedDocument,
    deployment: Deployment,
    now: u64,
) -> Result<Envelope, Rejection> {
    let envelope = envelope(scope, signed, deployment, now)?;
    if envelope.kind == kind {
        return Ok(envelope);
    }
    let what = format!("expected {}, found {}", kind.with_article(), envelope.kind.with_article());
    Err(Rejection::new(Reason::PolicySignature, what))
}

fn envelope(
    scope: &Scope,
    signed: &SignedDocument,
    deployment: Deployment,
    now: u64,
) -> Result<Envelope, Rejection> {
    let envelope = signed_document::open(signed).map_err(|flaw| signed_document::rejection(&flaw))?;
    require_here(&envelope, deployment)?;
    if envelope.scope != *scope {
        let what = format!("expected a document for {scope}, found one for {}", envelope.scope);
        return Err(Rejection::new(Reason::PolicySignature, what));
    }
    if envelope.created > now.saturating_add(CLOCK_TOLERANCE) {
        let (found, here) = (utc(envelope.created), utc(now));
        let what = format!("the {} was signed at {found}, and here it is {here}", envelope.kind.as_str());
        return Err(Rejection::new(Reason::Conflict, what).hint("set the clock of the operator's machine"));
    }
    Ok(envelope)
}

/// Whether it is for this deployment.
///
/// # Errors
/// `Deployment`.
pub fn require_here(envelope: &Envelope, deployment: Deployment) -> Result<(), Rejection> {
    if envelope.deployment == deployment {
        return Ok(());
    }
    let what = format!("expected a document for {deployment}, found one for {}", envelope.deployment);
    Err(Rejection::new(Reason::Deployment, what))
}

fn parse(envelope: Envelope) -> Result<Opened, Rejection> {
    let text = &envelope.body;
    if text.len() > MAX_POLICY {
        let what = format!("expected a policy of at most {MAX_POLICY} bytes, found {}", text.len());
        return Err(Rejection::new(Reason::TooLarge, what));
    }
    let content = match envelope.kind {
        Kind::Policy => Policy::parse(text).map(Content::Policy),
        Kind::Additions => Additions::parse(text).map(Content::Additions),
        Kind::Withdrawal => Ok(Content::Withdrawn),
        Kind::Membership => Ok(Content::Member),
        Kind::Enrollment
        | Kind::Proof
        | Kind::Revocation
        | Kind::Restoration
        | Kind::Hold
        | Kind::Release
        | Kind::Approval => {
            let what = format!("expected a policy, found {}", envelope.kind.with_article());
            return Err(Rejection::new(Reason::PolicySignature, what));
        }
    };
    let content = content.map_err(|problems| first(&problems))?;
    Ok(Opened { envelope, content })
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
    let rejection = Rejection::new(reason, format!("{problem}{more}"));
    match &problem.hint {
        Some(hint) => rejection.hint(hint),
        None => rejection,
    }
}
