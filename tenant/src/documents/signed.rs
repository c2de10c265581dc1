//! Documents that this workstation signed, as a server shows them.

use crate::client::Client;
use crate::documents::signing::SigningContext;
use crate::documents::source::Source;
use crate::error::{Error, Exit, Result};
use crate::home::key::TenantKey;
use crate::render::text::clean_short;
use crate::trust::ledger::Ledger;
use halfkey_evidence::policy::{Unfit, signed_for};
use halfkey_evidence::signed_document;
use halfkey_protocol::document::{Deployment, Flaw, Kind, Opened, Place, Scope};
use halfkey_protocol::identity;
use halfkey_protocol::wire::SignedDocument;
use halfkey_protocol::wire::policies::PolicyRecord;

/// Proof: the tenant key of this workstation signed this document, and for the scope that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedByUs {
    document: Opened,
}

impl SignedByUs {
    /// Checks what a server shows.
    ///
    /// # Errors
    /// `Untrusted` when the signature is not valid, not by `key`, or for another scope.
    pub fn check(signed: &SignedDocument, scope: &Scope, key: &TenantKey) -> Result<Self> {
        let opened = signed_document::open(signed).map_err(|flaw| match flaw {
            Flaw::Signature(_) => Error::untrusted(format!(
                "the signature of the policy of {scope} that the server shows is not valid"
            ))
            .hint("somebody altered it; nodes with it wait for an operator. Apply your own copy with `halfkey policy apply`"),
            Flaw::TooLarge(_) | Flaw::Form(_) => Error::untrusted(format!(
                "the policy of {scope} is signed, but not in a form that is known here ({})",
                clean_short(&flaw.to_string(), 120)
            ))
            .hint("this may need a newer version of halfkey"),
        })?;
        signed_for(&opened, scope, key.public()).map_err(|unfit| match unfit {
            Unfit::Signer { expected, found } => Error::untrusted(format!(
                "the policy of {scope} is not signed by the tenant key of this workstation\n  expected  {expected}\n  found     {}",
                found.unwrap_or_else(|| "no signature".to_owned())
            ))
            .hint("a policy counts only for nodes that the same tenant key enrolled; use the workstation that has that key"),
            Unfit::Scope { .. } | Unfit::Kind { .. } | Unfit::NotMember(_) => Error::untrusted(format!(
                "asked the server for the policy of {scope}, and it shows one that was signed for {}",
                opened.scope
            )),
        })?;
        Ok(Self { document: opened })
    }

    /// What it is for.
    pub fn scope(&self) -> &Scope {
        &self.document.scope
    }

    /// Its version: its number in the sequence of the deployment.
    pub fn version(&self) -> u64 {
        self.document.place.number
    }

    /// When it was signed, by the clock of the workstation that did: seconds since 1970, UTC.
    pub fn created(&self) -> u64 {
        self.document.created
    }

    /// TOML of a policy or additions; the name of a group; empty for a withdrawal.
    pub fn text(&self) -> &str {
        &self.document.body
    }

    /// Whether it says that the scope has no policy any more.
    pub fn withdrawn(&self) -> bool {
        self.document.kind == Kind::Withdrawal
    }

    /// It, if it is a policy, and not a withdrawal.
    pub fn in_force(&self) -> Option<&Self> {
        (!self.withdrawn()).then_some(self)
    }

    /// For which deployment it is, and its place there: what a [`Ledger`] compares.
    pub fn at(&self) -> (Deployment, &Place) {
        (self.document.deployment, &self.document.place)
    }

    /// The document, as it was opened.
    pub fn document(&self) -> &Opened {
        &self.document
    }
}

impl From<&SignedByUs> for Source {
    fn from(own: &SignedByUs) -> Self {
        Self { name: format!("{} version {}", own.scope(), own.version()), text: own.text().to_owned() }
    }
}

/// The newest policy of a scope, if there is one.
///
/// # Errors
/// As [`SignedByUs::check`] and every request.
pub fn newest(client: &Client, scope: &Scope, key: &TenantKey) -> Result<Option<SignedByUs>> {
    match client.policy(scope, None) {
        Ok(record) => SignedByUs::check(&record.signed, scope, key).map(Some),
        Err(error) if error.exit == Exit::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same, and not older than what this workstation knows: what may be extended.
///
/// # Errors
/// As [`newest`] and [`Ledger::check`].
pub fn current(
    client: &Client,
    scope: &Scope,
    key: &TenantKey,
    ledger: &Ledger<'_>,
) -> Result<Option<SignedByUs>> {
    let own = newest(client, scope, key)?;
    ledger.check(scope, own.as_ref().map(SignedByUs::at))?;
    Ok(own)
}

/// What the server shows for a scope, to be looked at; without a version the newest, which is not older than what this workstation knows.
///
/// # Errors
/// As [`SignedByUs::check`]; `Untrusted` when it is another version, or of another deployment; as [`Ledger::check`].
pub fn shown(
    signing: &SigningContext<'_>,
    signed: &SignedDocument,
    scope: &Scope,
    version: Option<u64>,
) -> Result<SignedByUs> {
    let own = SignedByUs::check(signed, scope, &signing.key)?;
    if let Some(asked) = version.filter(|asked| *asked != own.version()) {
        return Err(Error::untrusted(format!(
            "the server shows version {} in place of version {asked} of {scope}",
            own.version()
        )));
    }
    match version {
        None => signing.ledger()?.check(scope, Some(own.at()))?,
        Some(_) => signing.ledger()?.check_deployment(scope, own.at().0)?,
    }
    Ok(own)
}

/// What a record of the server is worth, in words.
///
/// # Errors
/// As [`shown`].
pub fn standing(
    record: &PolicyRecord,
    scope: &Scope,
    version: Option<u64>,
    signing: Option<&SigningContext<'_>>,
) -> Result<String> {
    let whose = identity::fingerprint(record.signed.tenant_key());
    match signing.map(|signing| shown(signing, &record.signed, scope, version)) {
        Some(Ok(_)) => Ok(format!("signed by this workstation's tenant key {whose}")),
        Some(Err(error)) => Err(error),
        None if signed_document::open(&record.signed).is_ok_and(|opened| opened.scope == *scope) => {
            Ok(format!("signed by tenant key {whose}; this workstation has none to compare with"))
        }
        None => Err(Error::untrusted(format!("the signature of the policy of {scope} is not valid"))),
    }
}
