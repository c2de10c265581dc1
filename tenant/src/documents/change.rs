//! A document that is to be signed: what it changes, and submitting it. One place, whoever wrote the document.

use crate::documents::draft::{Gain, joined};
use crate::documents::governed::Governed;
use crate::documents::signed::SignedByUs;
use crate::documents::signing::SigningContext;
use crate::documents::source::Source;
use crate::error::{Error, Result};
use crate::render::{self, time};
use crate::trust::sequence::SequenceHead;
use halfkey_evidence::policy::{self, Change, Policy};
use halfkey_protocol::document::Kind;
use halfkey_protocol::wire::policies::{MAX_POLICY, PolicyRecord, Scope};

/// A document for a scope that was parsed, with what it changes.
pub struct PolicyChange {
    /// What it is for.
    pub scope: Scope,
    present: Option<SignedByUs>,
    text: String,
    changes: Vec<Change>,
    /// What governs the scope's nodes from then on.
    replaced: Policy,
    /// The policy of which group it goes by.
    beside: Option<Scope>,
}

impl PolicyChange {
    /// Parses the document. `present` is what this workstation signed last for that scope.
    ///
    /// # Errors
    /// With every problem; `Failed` for additions to a policy that isn't there.
    pub fn new(
        signing: &SigningContext<'_>,
        scope: Scope,
        present: Option<SignedByUs>,
        text: String,
    ) -> Result<Self> {
        if text.len() > MAX_POLICY {
            return Err(Error::failed(format!(
                "expected at most {MAX_POLICY} bytes in a policy, found {}",
                text.len()
            )));
        }
        let source = Source { name: format!("the new policy of {scope}"), text };
        let before = present.as_ref().and_then(SignedByUs::in_force).map(Source::from);
        let mut beside = None;
        let (before, replaced) = match &scope {
            Scope::Additions(id) => {
                let additions = source.additions()?;
                let governed = Governed::as_served(signing, *id)?;
                let extended = governed.to_extend(*id)?;
                beside = Some(extended.scope().clone());
                let base = Source::from(extended).policy()?;
                let before = before.map(|before| before.additions()).transpose()?;
                let after = base.with(&additions);
                (Some(before.map_or(base.clone(), |before| base.with(&before))), after)
            }
            _ => (before.map(|before| before.policy()).transpose()?, source.policy()?),
        };
        let changes = before.map(|before| policy::diff(&before, &replaced)).unwrap_or_default();
        Ok(Self { scope, present, text: source.text, changes, replaced, beside })
    }

    /// A document that is extended by text at its end. It is parsed like any other before it is signed.
    ///
    /// # Errors
    /// As [`PolicyChange::new`].
    pub fn extended(signing: &SigningContext<'_>, present: SignedByUs, block: &str) -> Result<Self> {
        let text = joined(present.text(), block);
        Self::new(signing, present.scope().clone(), Some(present), text)
    }

    /// A document that gains what a boot has, or files will bring.
    ///
    /// # Errors
    /// As [`PolicyChange::new`] and [`Gain::put_into`].
    pub fn gaining(signing: &SigningContext<'_>, present: SignedByUs, gain: &Gain) -> Result<Self> {
        let text = gain.put_into(present.text(), present.scope())?;
        Self::new(signing, present.scope().clone(), Some(present), text)
    }

    /// It goes by what this group's policy was: one that comes first is not signed over.
    pub fn written_with(&mut self, group: Scope) {
        self.beside = Some(group);
    }

    /// The policy of the scope's nodes from then on.
    pub fn policy(&self) -> &Policy {
        &self.replaced
    }

    /// What changes, for people.
    pub fn summary(&self) -> String {
        match self.present.as_ref().map(|own| (own, own.withdrawn())) {
            None => format!("{} has no policy yet: this is its first", self.scope),
            Some((present, true)) => {
                let when = time::rfc3339(present.created());
                format!("{} has no policy now: the last was withdrawn here {when}", self.scope)
            }
            Some((present, false)) => format!(
                "changes to version {} of {}, signed here {}\n{}",
                present.version(),
                self.scope,
                time::rfc3339(present.created()),
                render::changes(&self.changes)
            ),
        }
    }

    /// Signs the next version and submits it. `head` is from before anything was read that the document, or the question that was
    /// answered, goes by: what somebody else has submitted since for the scope, or for the group whose policy it goes with, is not
    /// signed over.
    ///
    /// # Errors
    /// As every request; `Failed` if there is such a document; `Untrusted` when the server shows something else than it was
    /// given.
    pub fn submit(self, signing: &SigningContext<'_>, mut head: SequenceHead<'_>) -> Result<PolicyRecord> {
        if let Some(beside) = &self.beside {
            head.written_with(beside);
        }
        sign(signing, head, &self.scope, Some(self.text))
    }
}

/// Signs the next document and submits it. Without a text it is a withdrawal.
///
/// # Errors
/// As [`PolicyChange::submit`].
pub fn sign(
    signing: &SigningContext<'_>,
    mut head: SequenceHead<'_>,
    scope: &Scope,
    text: Option<String>,
) -> Result<PolicyRecord> {
    let kind = match (scope, &text) {
        (_, None) => Kind::Withdrawal,
        (Scope::Additions(_), Some(_)) => Kind::Additions,
        (_, Some(_)) => Kind::Policy,
    };
    head.sign(&signing.key, kind, scope, text.as_deref().unwrap_or_default(), |signed| {
        let record = signing.client.apply(scope, signed)?;
        if record.signed != *signed {
            return Err(Error::untrusted(format!("the server took the policy, but shows another one for {scope}"))
                .hint("somebody else may have applied one at the same moment: look at `halfkey audit` and `halfkey policy show`"));
        }
        Ok(record)
    })
}
