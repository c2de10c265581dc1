//! The one sequence of a deployment's documents, as this desk sees it: where the next one has its place.

use crate::bundle::Bundle;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::key::TenantKey;
use crate::policy::ledger::Ledger;
use crate::text::{clean_short, hex};
use crate::time;
use halfkey_evidence::document;
use halfkey_protocol::document::{Deployment, Kind, Place, Scope, follows, next};
use halfkey_protocol::wire::operator::ServerInfo;
use halfkey_protocol::wire::{Document, SignedDocument};

/// The deployment of the bundle's server, pinned at the first use.
///
/// # Errors
/// When the pin can't be read or written; as every request at the first use.
pub fn deployment(home: &Home, bundle: &Bundle, client: &Client) -> Result<Deployment> {
    match home.deployment(&bundle.ca_fingerprint()?)? {
        Some(pinned) => Deployment::parse(&pinned)
            .ok_or_else(|| Error::failed("deployments.json is damaged: expected UUIDs of deployments")),
        None => pinned(home, bundle, &client.info()?),
    }
}

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

/// Where the next document has its place.
pub struct Line<'a> {
    ledger: Ledger<'a>,
    head: Place,
}

impl<'a> Line<'a> {
    /// Asks the server where its sequence ends, and checks that it goes on from where this desk last saw it.
    ///
    /// # Errors
    /// `Untrusted` when the server has gone back, or what comes after is not one sequence; as every request.
    pub fn fetch(home: &'a Home, bundle: &Bundle, client: &Client) -> Result<Self> {
        let (ledger, found) = Self::shown(home, bundle, client)?;
        let Some((number, sha256)) = ledger.not_before(&found)? else {
            ledger.saw(&found)?;
            return Ok(Self { ledger, head: found });
        };
        let head = walk(client, ledger.deployment(), number, &sha256, &found)?;
        ledger.saw(&head)?;
        Ok(Self { ledger, head })
    }

    /// The same, wherever the sequence ends: after a restore, and only where the operator was told.
    ///
    /// # Errors
    /// `Untrusted` when it is another deployment; as every request.
    pub fn as_shown(home: &'a Home, bundle: &Bundle, client: &Client) -> Result<Self> {
        let (ledger, head) = Self::shown(home, bundle, client)?;
        Ok(Self { ledger, head })
    }

    fn shown(home: &'a Home, bundle: &Bundle, client: &Client) -> Result<(Ledger<'a>, Place)> {
        let info = client.info()?;
        let deployment = pinned(home, bundle, &info)?;
        let sha256 = info.head.sha256.array().filter(|_| info.head.number < u64::MAX);
        let sha256 =
            sha256.ok_or_else(|| Error::untrusted("the server does not say where its sequence ends"))?;
        Ok((Ledger::new(home, deployment), Place { number: info.head.number, sha256 }))
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
        let opened = document::open(signed).map_err(|flaw| Error::failed(format!("our bug: {flaw}")))?;
        self.head = opened.place;
        self.ledger.held(scope, &opened.place)
    }

    /// Signs the next document and remembers it when `hand_in` says that the server has it.
    ///
    /// # Errors
    /// Those of `hand_in`; when the home folder can't be written.
    pub fn sign<T>(
        &mut self,
        key: &TenantKey,
        kind: Kind,
        scope: &Scope,
        body: String,
        hand_in: impl FnOnce(&SignedDocument) -> Result<T>,
    ) -> Result<T> {
        let signed = key.sign(&self.next(kind, scope, body));
        let answer = hand_in(&signed)?;
        self.took(scope, &signed)?;
        Ok(answer)
    }
}

/// Follows the sequence from a document that is known to where the server says that it ends.
fn walk(client: &Client, deployment: Deployment, number: u64, sha256: &str, end: &Place) -> Result<Place> {
    let broken = |what: String| {
        Error::untrusted(format!("the documents that the server shows are not one sequence: {what}"))
            .hint("somebody changed its database, or put back a part of it")
    };
    let mut last: Option<Place> = None;
    while last.is_none_or(|last| last.number < end.number) {
        let part = client.sequence(last.map_or(number - 1, |last| last.number))?.documents;
        if part.is_empty() {
            return Err(broken(format!(
                "document {} is missing",
                last.map_or(number, |last| last.number + 1)
            )));
        }
        for signed in &part {
            let opened = document::open(signed).map_err(|flaw| broken(flaw.to_string()))?;
            if opened.deployment != deployment {
                return Err(broken(format!("document {} is for another deployment", opened.place.number)));
            }
            match &last {
                Some(before) => follows(&opened, before).map_err(broken)?,
                None if opened.place.number == number && hex(&opened.place.sha256) == sha256 => {}
                None => {
                    return Err(broken(format!(
                        "document {number} is another one than before\n  before  {sha256}\n  now     {}",
                        hex(&opened.place.sha256)
                    )));
                }
            }
            last = Some(opened.place);
        }
    }
    last.ok_or_else(|| broken("it is empty".to_owned()))
}
