//! Signing a document and handing it in: one place, whoever wrote the document.

use crate::ask::confirm;
use crate::cli::ApplyTarget;
use crate::client::{Client, resolve, scope};
use crate::context::App;
use crate::documents::governed::Governed;
use crate::documents::signed::{self, Own, Source};
use crate::documents::trial;
use crate::error::{Error, Exit, Result};
use crate::home::bundle::Bundle;
use crate::home::key::TenantKey;
use crate::render::text::clean_short;
use crate::render::{self, time};
use crate::trust::ledger::Ledger;
use crate::trust::sequence::Line;
use halfkey_evidence::document::open_enrollment;
use halfkey_evidence::policy::{self, Change, Policy};
use halfkey_protocol::NodeId;
use halfkey_protocol::document::Kind;
use halfkey_protocol::wire::policies::{MAX_POLICY, PolicyRecord, Scope};
use std::path::Path;

/// What signing needs.
pub struct Desk<'a> {
    /// The program.
    pub app: &'a App,
    /// The verifier.
    pub client: Client,
    /// The tenant key.
    pub key: TenantKey,
    bundle: Bundle,
}

impl<'a> Desk<'a> {
    /// Logged in, with a tenant key.
    ///
    /// # Errors
    /// When one is missing.
    pub fn open(app: &'a App) -> Result<Self> {
        let bundle = app.home.bundle()?;
        let (client, key) = (app.client(&bundle)?, app.home.tenant_key()?);
        Ok(Self { app, client, key, bundle })
    }

    /// The node that `typed` means, for what is signed. Whose a label is, is the server's word and any operator's: it counts where an
    /// enrollment by this desk's key says so, for this deployment, and the newest that the desk knows of: a machine may have had the
    /// label in a laboratory, and be another one today.
    ///
    /// # Errors
    /// As [`resolve::resolve`] and [`Desk::ledger`]; `Untrusted` when no such enrollment has this label.
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
            return Err(unnamed("no enrollment by this desk's tenant key says so"));
        };
        match self.ledger()?.check_place(&scope, Some((opened.deployment, &opened.place))) {
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
    /// As [`Line::fetch`].
    pub fn ledger(&self) -> Result<Ledger<'_>> {
        Ok(self.line()?.into())
    }

    /// Where the next document has its place.
    ///
    /// # Errors
    /// As [`Line::fetch`].
    pub fn line(&self) -> Result<Line<'_>> {
        Line::fetch(self.app, &self.bundle, &self.client)
    }
}

/// `halfkey policy apply`.
///
/// # Errors
/// With every problem of the document; `Failed` when the answer is no or the server refuses.
pub fn run(app: &App, file: &Path, target: &ApplyTarget, yes: bool) -> Result<()> {
    let source = Source::file(file)?;
    // Before anything is asked of a server, and with the file's own name.
    match target.additions {
        Some(_) => drop(source.additions()?),
        None => drop(source.policy()?),
    }
    let desk = Desk::open(app)?;
    let scope = match (&target.group, &target.node, &target.additions) {
        (Some(name), ..) => Scope::Group(scope::group(name)?),
        (_, Some(node), _) => Scope::Node(desk.node(node)?),
        (.., Some(node)) => Scope::Additions(desk.node(node)?),
        _ => return Err(Error::usage("none of --group, --node and --additions is given")),
    };
    let line = desk.line()?;
    // A whole document from the operator: the remedy when the server shows an old one, so that is only said.
    let present = match signed::current(&desk.client, &scope, &desk.key, line.ledger()) {
        Ok(present) => present,
        Err(error) if error.exit == Exit::Untrusted => {
            app.out.note(&format!("warning: {error}"));
            signed::newest(&desk.client, &scope, &desk.key).unwrap_or(None)
        }
        Err(error) => return Err(error),
    };
    let change = Proposed::new(&desk, scope, present, source.text)?;
    app.out.note(&change.summary());
    let trials = trial::of_scope(&desk, &change.scope, &change.replaced)?;
    trial::warn(app, &trials);
    if !yes {
        confirm(&format!("Sign this as {}?", change.scope))?;
    }
    let record = change.hand_in(&desk, line)?;
    app.out.value(&record, || applied(&record))
}

/// A document for a scope that was parsed, with what it changes.
pub struct Proposed {
    /// What it is for.
    pub scope: Scope,
    present: Option<Own>,
    text: String,
    changes: Vec<Change>,
    /// What governs the scope's nodes from then on.
    replaced: Policy,
    /// The policy of which group it goes by.
    beside: Option<Scope>,
}

impl Proposed {
    /// Parses the document. `present` is what this desk signed last for that scope.
    ///
    /// # Errors
    /// With every problem; `Failed` for additions to a policy that isn't there.
    pub fn new(desk: &Desk<'_>, scope: Scope, present: Option<Own>, text: String) -> Result<Self> {
        if text.len() > MAX_POLICY {
            return Err(Error::failed(format!(
                "expected at most {MAX_POLICY} bytes in a policy, found {}",
                text.len()
            )));
        }
        let source = Source { name: format!("the new policy of {scope}"), text };
        let before = present.as_ref().and_then(Own::in_force).map(Source::from);
        let mut beside = None;
        let (before, replaced) = match &scope {
            Scope::Additions(id) => {
                let additions = source.additions()?;
                let governed = Governed::shown(desk, *id)?;
                let extended = governed.to_extend(*id)?;
                beside = Some(extended.scope.clone());
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
    /// As [`Proposed::new`].
    pub fn extended(desk: &Desk<'_>, present: Own, block: &str) -> Result<Self> {
        let text = joined(&present.text, block);
        Self::new(desk, present.scope.clone(), Some(present), text)
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
        match self.present.as_ref().map(|own| (own, own.withdrawn)) {
            None => format!("{} has no policy yet: this is its first", self.scope),
            Some((present, true)) => {
                let when = time::rfc3339(present.created);
                format!("{} has no policy now: the last was withdrawn here {when}", self.scope)
            }
            Some((present, false)) => format!(
                "changes to version {} of {}, signed here {}\n{}",
                present.version,
                self.scope,
                time::rfc3339(present.created),
                render::changes(&self.changes)
            ),
        }
    }

    /// Signs the next version and hands it in. `line` is from before anything was read that the document, or the question that was
    /// answered, goes by: what somebody else has handed in since for the scope, or for the group whose policy it goes with, is not
    /// signed over.
    ///
    /// # Errors
    /// As every request; `Failed` if there is such a document; `Untrusted` when the server shows something else than it was
    /// given.
    pub fn hand_in(self, desk: &Desk<'_>, mut line: Line<'_>) -> Result<PolicyRecord> {
        if let Some(beside) = &self.beside {
            line.written_with(beside);
        }
        sign(desk, line, &self.scope, Some(self.text))
    }
}

/// Signs the next document and hands it in. Without a text it is a withdrawal.
///
/// # Errors
/// As [`Proposed::hand_in`].
pub fn sign(
    desk: &Desk<'_>,
    mut line: Line<'_>,
    scope: &Scope,
    text: Option<String>,
) -> Result<PolicyRecord> {
    let kind = match (scope, &text) {
        (_, None) => Kind::Withdrawal,
        (Scope::Additions(_), Some(_)) => Kind::Additions,
        (_, Some(_)) => Kind::Policy,
    };
    line.sign(&desk.key, kind, scope, text.as_deref().unwrap_or_default(), |signed| {
        let record = desk.client.apply(scope, signed)?;
        if record.signed != *signed {
            return Err(Error::untrusted(format!("the server took the policy, but shows another one for {scope}"))
                .hint("somebody else may have applied one at the same moment: look at `halfkey audit` and `halfkey policy show`"));
        }
        Ok(record)
    })
}

/// A document and a block after it, with one empty line between.
pub fn joined(document: &str, block: &str) -> String {
    format!("{}\n\n{}\n", document.trim_end(), block.trim())
}

/// The result of an apply.
pub fn applied(record: &PolicyRecord) -> String {
    let policy = &record.summary;
    let nodes = if policy.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", policy.nodes) };
    format!("applied {} version {}; it governs {nodes}", clean_short(&policy.scope, 80), policy.version)
}
