//! What this desk has signed: for each server and scope the last version, so that a server that forgets
//! one, or shows an old one, is noticed, and no version is signed twice.

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::home::{Existing, Home};
use crate::policy::document::Own;
use halfkey_protocol::wire::policies::Scope;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const FILE: &str = "policies.json";
/// Some ten thousand scopes.
const MAX_FILE: u64 = 4 << 20;

/// One server's scopes.
pub struct Ledger<'a> {
    home: &'a Home,
    /// Fingerprint of the server's CA.
    server: String,
}

/// What is known of one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The highest version that was ever signed here, whether or not the server took it.
    signed: u64,
    /// The newest version that the server is known to have had.
    held: u64,
    /// SHA-256 of that document, hex.
    sha256: String,
}

type Servers = BTreeMap<String, BTreeMap<String, Entry>>;

impl<'a> Ledger<'a> {
    /// The ledger of the bundle's server.
    ///
    /// # Errors
    /// When the bundle's CA can't be read.
    pub fn new(home: &'a Home, bundle: &Bundle) -> Result<Self> {
        Ok(Self { home, server: bundle.ca_fingerprint()? })
    }

    /// Compares the newest policy that the server shows (`None`: that there is none) with what it once had.
    ///
    /// # Errors
    /// `Untrusted` when it is older, or another one of the same version.
    pub fn check(&self, scope: &Scope, served: Option<&Own>) -> Result<()> {
        let entry = self.entry(scope)?;
        let (version, sha256) = served.map_or((0, ""), |own| (own.version, own.sha256()));
        let again = "if the verifier was restored from a backup, apply the whole policy again with `halfkey policy apply FILE`";
        if version < entry.held {
            let found = if served.is_some() { format!("version {version}") } else { "none".to_owned() };
            return Err(Error::untrusted(format!(
                "expected version {} of {scope} or a later one, the server shows {found}",
                entry.held
            ))
            .hint(again));
        }
        if version == entry.held && version != 0 && sha256 != entry.sha256 {
            return Err(Error::untrusted(format!(
                "the server shows another version {version} of {scope} than before\n  before  {}\n  now     {sha256}",
                entry.sha256
            ))
            .hint("two desks with this tenant key may have signed the same version; compare with the other, then apply the whole policy again with `halfkey policy apply FILE`"));
        }
        Ok(())
    }

    /// The version to sign next. It is used up from now on: a document that left this desk and that the
    /// server refused, or pretended to refuse, must not get a twin.
    ///
    /// # Errors
    /// When the home folder can't be written.
    pub fn next(&self, scope: &Scope, served: Option<u64>) -> Result<u64> {
        let mut next = 0;
        self.change(scope, |entry| {
            next = entry.signed.max(entry.held).max(served.unwrap_or(0)).saturating_add(1);
            entry.signed = next;
        })?;
        Ok(next)
    }

    /// Remembers what the server has taken.
    ///
    /// # Errors
    /// When the home folder can't be written.
    pub fn held(&self, own: &Own) -> Result<()> {
        self.change(&own.scope, |entry| {
            entry.held = own.version;
            entry.sha256 = own.sha256().to_owned();
        })
    }

    fn entry(&self, scope: &Scope) -> Result<Entry> {
        let mut servers = self.read()?;
        let entry = servers.get_mut(&self.server).and_then(|scopes| scopes.remove(&scope.to_string()));
        Ok(entry.unwrap_or_default())
    }

    fn change(&self, scope: &Scope, change: impl FnOnce(&mut Entry)) -> Result<()> {
        let mut servers = self.read()?;
        let scopes = servers.entry(self.server.clone()).or_default();
        change(scopes.entry(scope.to_string()).or_default());
        let json = serde_json::to_vec_pretty(&servers).expect("strings and numbers have a JSON form");
        self.home.write(FILE, &json, Existing::Replace)
    }

    fn read(&self) -> Result<Servers> {
        let Some(json) = self.home.read(FILE, MAX_FILE)? else { return Ok(Servers::new()) };
        serde_json::from_slice(&json).map_err(|_| {
            Error::failed(format!("{} is damaged", self.home.path().join(FILE).display()))
                .hint("restore it from a backup; without it an older policy would go unnoticed")
        })
    }
}
