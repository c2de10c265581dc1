//! What signing needs: a verifier, a tenant key, and where the next document has its place.

use crate::client::{Client, resolve};
use crate::context::Context;
use crate::error::{Error, Exit, Result};
use crate::home::bundle::Bundle;
use crate::home::key::TenantKey;
use crate::render::text::clean_short;
use crate::trust::ledger::Ledger;
use crate::trust::sequence::SequenceHead;
use halfkey_evidence::signed_document::open_enrollment;
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Scope;

/// What signing needs.
pub struct SigningContext<'a> {
    /// The program.
    pub context: &'a Context,
    /// The verifier.
    pub client: Client,
    /// The tenant key.
    pub key: TenantKey,
    bundle: Bundle,
}

impl<'a> SigningContext<'a> {
    /// Logged in, with a tenant key.
    ///
    /// # Errors
    /// When one is missing.
    pub fn open(context: &'a Context) -> Result<Self> {
        let bundle = context.home.bundle()?;
        let (client, key) = (context.client(&bundle)?, context.home.tenant_key()?);
        Ok(Self { context, client, key, bundle })
    }

    /// The node that `typed` means, for what is signed. Whose a label is, is the server's word and any operator's: it counts where an
    /// enrollment by this workstation's key says so, for this deployment, and the newest that the workstation knows of: a machine
    /// may have had the label in a laboratory, and be another one today.
    ///
    /// # Errors
    /// As [`resolve::resolve`] and [`SigningContext::ledger`]; `Untrusted` when no such enrollment has this label.
    pub fn node(&self, typed: &str) -> Result<NodeId> {
        const DIGITS: usize = 8;
        let id = resolve::resolve(&self.client, typed)?;
        // Few digits are a label as well: `cafe`.
        if typed.len() >= DIGITS && id.to_string().starts_with(&typed.to_ascii_lowercase()) {
            return Ok(id);
        }
        let record = self.client.node(id)?;
        let unnamed = |why: &str| {
            let typed = clean_short(typed, 64);
            Error::untrusted(format!("the server says that `{typed}` is node {id}, and {why}"))
                .hint("look at it (`halfkey node show`), and name it by its id, or the first 8 digits of it")
        };
        let scope = Scope::Enrollment(id);
        let mine = [&record.enrollment, &record.open].into_iter().flatten();
        let mine = mine.filter_map(|signed| open_enrollment(signed).ok());
        let mine = mine.filter(|(opened, _)| opened.scope == scope && opened.is_by(self.key.public()));
        let newest = mine.max_by_key(|(opened, _)| opened.place.number);
        let Some((opened, _)) = newest.filter(|(_, enrollment)| enrollment.label == typed) else {
            return Err(unnamed("no enrollment by this workstation's tenant key says so"));
        };
        match self.ledger()?.check(&scope, Some((opened.deployment, &opened.place))) {
            Ok(()) => Ok(id),
            Err(error) if error.exit == Exit::Untrusted => {
                Err(unnamed(&format!("an enrollment that does not count says so: {}", error.message)))
            }
            Err(error) => Err(error),
        }
    }

    /// What was signed here before for the deployment that the verifier is, as far as it counts by now.
    ///
    /// # Errors
    /// As [`SequenceHead::fetch`].
    pub fn ledger(&self) -> Result<Ledger<'_>> {
        Ok(self.head()?.into())
    }

    /// Where the next document has its place.
    ///
    /// # Errors
    /// As [`SequenceHead::fetch`].
    pub fn head(&self) -> Result<SequenceHead<'_>> {
        SequenceHead::fetch(self.context, &self.bundle, &self.client)
    }
}
