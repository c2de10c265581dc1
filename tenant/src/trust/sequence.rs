//! The one sequence of a deployment's documents, as this workstation sees it: where the next one has its place.

use crate::client::Client;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::home::bundle::Bundle;
use crate::home::key::TenantKey;
use crate::render::text::{clean_short, hex};
use crate::render::time;
use crate::trust::follow::{self, Tenancies, walk};
use crate::trust::ledger::Ledger;
use halfkey_evidence::signed_document;
use halfkey_protocol::Reason;
use halfkey_protocol::document::{Deployment, Kind, Opened, Place, Scope, next};
use halfkey_protocol::wire::operator::ServerInfo;
use halfkey_protocol::wire::{Document, SignedDocument};

/// Compares what a server says of itself with the pin, and pins it at the first use.
///
/// # Errors
/// `Untrusted` when it is another deployment.
pub fn pinned(home: &Home, bundle: &Bundle, info: &ServerInfo) -> Result<Deployment> {
    let found = Deployment::parse(&info.deployment).ok_or_else(|| {
        Error::untrusted(format!(
            "expected the UUID of a deployment, the server says {}",
            clean_short(&info.deployment, 40)
        ))
    })?;
    let ca = bundle.ca_fingerprint()?;
    match home.deployment(&ca)? {
        None => home.pin_deployment(&ca, &found.to_string())?,
        Some(before) if before == found.to_string() => {}
        Some(before) => {
            return Err(Error::untrusted(format!(
                "the server is another deployment than before\n  before  {}\n  now     {found}",
                clean_short(&before, 40)
            ))
            .hint("a verifier that was set up anew has a new bundle: import it with `halfkey login`; else its files were exchanged"));
        }
    }
    Ok(found)
}

/// How often a document is signed in all, each time for the place after what others have submitted meanwhile.
const TRIES: u32 = 10;

/// Where the next document has its place.
pub struct SequenceHead<'a> {
    context: &'a Context,
    bundle: &'a Bundle,
    client: &'a Client,
    ledger: Ledger<'a>,
    head: Place,
    /// What is signed here is written with the newest document of this scope as well.
    beside: Option<Scope>,
}

impl<'a> SequenceHead<'a> {
    /// Asks the server where its sequence ends, and checks that it goes on from where this workstation last saw it. At the first look it is
    /// followed from its beginning.
    ///
    /// # Errors
    /// `Untrusted` when the server has gone back, or what comes after is not one sequence; as every request.
    pub fn fetch(context: &'a Context, bundle: &'a Bundle, client: &'a Client) -> Result<Self> {
        for _ in 0..TRIES {
            let (ledger, found) = Self::announced(&context.home, bundle, client)?;
            let mut part = Vec::new();
            let before = ledger.not_before(&found)?;
            // At the first look with this key all of it: another workstation may have signed with it before.
            let key = context.home.tenant_key()?;
            let known = match &before {
                Some((number, sha256)) if ledger.is_of(&key)? => follow::From::Known(*number, sha256),
                Some(_) | None => follow::From::First,
            };
            let mut tenancies = Tenancies::of(key);
            let note = |opened: &Opened| {
                tenancies.note(opened);
                part.push(opened.place);
            };
            walk(client, &ledger, known, &found, note)?;
            // First: what was seen is not looked at again.
            tenancies.remember(context, client, &ledger, known, &[])?;
            let head = part.last().copied().unwrap_or_default();
            if ledger.saw(&part)? {
                return Ok(Self { context, bundle, client, ledger, head, beside: None });
            }
        }
        Err(Error::failed(format!(
            "other commands at this workstation saw more {TRIES} times meanwhile: try again"
        )))
    }

    /// What is signed here is written with the newest document of this scope as well: one that comes first is not signed over.
    pub fn written_with(&mut self, scope: &Scope) {
        self.beside = Some(scope.clone());
    }

    /// What the server says of itself, compared with the pin; and where it says that its sequence ends.
    ///
    /// # Errors
    /// `Untrusted` when it is another deployment; as every request.
    pub fn announced(home: &'a Home, bundle: &Bundle, client: &Client) -> Result<(Ledger<'a>, Place)> {
        let info = client.info()?;
        let deployment = pinned(home, bundle, &info)?;
        let sha256 = info.head.sha256.array().filter(|_| info.head.number < u64::MAX);
        let sha256 =
            sha256.ok_or_else(|| Error::untrusted("the server does not say where its sequence ends"))?;
        Ok((Ledger::new(home, deployment), Place { number: info.head.number, sha256 }))
    }

    /// What was signed here, as far as it counts at this place.
    pub const fn ledger(&self) -> &Ledger<'a> {
        &self.ledger
    }

    /// The envelope of the next document.
    pub fn next(&self, kind: Kind, scope: &Scope, body: String) -> Document {
        next(kind, scope, self.ledger.deployment(), &self.head, time::now(), body)
    }

    /// The server has taken what was signed: the next one comes after it.
    ///
    /// # Errors
    /// When the home folder can't be written.
    pub fn took(&mut self, scope: &Scope, signed: &SignedDocument) -> Result<()> {
        let opened =
            signed_document::open(signed).map_err(|flaw| Error::failed(format!("our bug: {flaw}")))?;
        let before = std::mem::replace(&mut self.head, opened.place);
        self.ledger.held(scope, &before, &opened.place)
    }

    /// Signs the next document and remembers it when `submit` says that the server has it. If others came first, it is signed again
    /// for the place after theirs, unless one of these concerns it: then it was written without knowing of that one.
    ///
    /// # Errors
    /// Those of `submit`; `Failed` when another document of the scope came first, or others always do; as [`SequenceHead::fetch`]; when the
    /// home folder can't be written.
    pub fn sign<T>(
        &mut self,
        key: &TenantKey,
        kind: Kind,
        scope: &Scope,
        body: &str,
        submit: impl Fn(&SignedDocument) -> Result<T>,
    ) -> Result<T> {
        // What the server took and this workstation could not remember would be missed at nothing.
        self.ledger.require_room(scope)?;
        let mut tries = 0;
        loop {
            tries += 1;
            self.ledger.require_of(key)?;
            let signed = key.sign(&self.next(kind, scope, body.to_owned()));
            match submit(&signed) {
                Ok(answer) => {
                    self.took(scope, &signed)?;
                    return Ok(answer);
                }
                Err(refused) if refused.reason != Some(Reason::Sequence) => return Err(refused),
                Err(refused) if tries == TRIES => {
                    return Err(refused
                        .hint(format!("others submitted documents {TRIES} times meanwhile: try again")));
                }
                Err(refused) => self.after_others(scope, &signed, refused)?,
            }
        }
    }

    /// Goes on to where the sequence ends by now.
    fn after_others(&mut self, scope: &Scope, signed: &SignedDocument, refused: Error) -> Result<()> {
        let (ledger, found) = Self::announced(&self.context.home, self.bundle, self.client)?;
        ledger.not_before(&found)?;
        if found.number <= self.head.number {
            return Err(refused);
        }
        let hash = hex(&self.head.sha256);
        let known = match self.head.number {
            0 => follow::From::First,
            number => follow::From::Known(number, &hash),
        };
        let key = self.context.home.tenant_key()?;
        ledger.require_of(&key)?;
        let mut tenancies = Tenancies::of(key);
        let (mut part, mut others) = (Vec::new(), Vec::new());
        let beside = self.beside.as_ref();
        let head = walk(self.client, &ledger, known, &found, |opened| {
            tenancies.note(opened);
            part.push(opened.place);
            let concerned = concerns(&opened.scope, scope) || beside == Some(&opened.scope);
            if opened.place.number > self.head.number && concerned {
                others.push((opened.place, opened.scope.clone()));
            }
        })?;
        tenancies.remember(self.context, self.client, &ledger, known, &[])?;
        // Not where another command has seen more: the next one compares it.
        ledger.saw(&part)?;
        let ours = signed_document::open(signed).map(|opened| opened.place);
        if others.iter().any(|(place, _)| ours.as_ref() == Ok(place)) {
            self.took(scope, signed)?;
            return Err(Error::failed(format!(
                "the server has taken document {} for {scope} before, and its answer got lost",
                self.head.number
            ))
            .hint("nothing has to be signed again: look at what is there"));
        }
        if let Some((other, of)) = others.last() {
            return Err(Error::failed(format!(
                "another document for {of} came first: number {}. This one was written without it, and was not submitted again",
                other.number
            ))
            .hint("look at what is there now, then run the command again"));
        }
        self.head = head;
        Ok(())
    }
}

/// Whether a document that came first is one that ours had to be written with.
fn concerns(first: &Scope, ours: &Scope) -> bool {
    match (first, ours) {
        // The machine is done with the challenge that ours answers.
        (Scope::Proof(proved), Scope::Enrollment(node)) => proved == node,
        // Together they say what the node may boot.
        (
            Scope::Node(one) | Scope::Additions(one) | Scope::Membership(one),
            Scope::Node(node) | Scope::Additions(node) | Scope::Membership(node),
        ) => one == node,
        _ => first == ours,
    }
}

impl<'a> From<SequenceHead<'a>> for Ledger<'a> {
    fn from(head: SequenceHead<'a>) -> Self {
        head.ledger
    }
}
