//! What a node is judged by, checked against the tenant key of this workstation.

use crate::client::Client;
use crate::documents::signed::{self, SignedByUs};
use crate::documents::signing::SigningContext;
use crate::documents::source::Source;
use crate::documents::trial;
use crate::error::{Error, Result};
use crate::render::text::clean_short;
use crate::trust::boot::Attester;
use halfkey_evidence::policy::{Effective, TenantNode, Unfit};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::policies::{NodePolicy, ProposalRecord, Scope};

/// What an answer that contradicts another may come from.
const AGAIN: &str = "somebody may be applying one at this moment: try again";

/// The documents that govern a node, each signed by this workstation.
pub struct Governed {
    /// Its group.
    pub group: Option<String>,
    /// What says so.
    membership: Option<SignedByUs>,
    /// Its own policy, else its group's.
    pub policy: Option<SignedByUs>,
    /// What it may boot besides.
    pub additions: Option<SignedByUs>,
    /// Proposals that count without an operator. The server's word: shown, never signed.
    pub trusted: Vec<ProposalRecord>,
}

impl Governed {
    /// Asks the server, and checks what it says: that each document is this workstation's, the newest that the workstation knows of, and
    /// that none is kept back.
    ///
    /// # Errors
    /// `Untrusted` as [`SignedByUs::check`] and [`signed::current`]; as every request.
    pub fn fetch(signing: &SigningContext<'_>, id: NodeId) -> Result<Self> {
        let ledger = signing.ledger()?;
        let governed = Self::as_served(signing, id)?;
        let Self { policy, additions, .. } = &governed;
        for own in [policy, additions].into_iter().flatten() {
            ledger.check(own.scope(), Some(own.at()))?;
        }
        ledger.check(&Scope::Membership(id), governed.membership.as_ref().map(SignedByUs::at))?;
        // A policy of the node's own outranks its group's; what it may boot besides would be missed as well.
        for (scope, own) in [(Scope::Node(id), policy), (Scope::Additions(id), additions)] {
            if own.as_ref().is_some_and(|own| *own.scope() == scope) {
                continue;
            }
            if let Some(own) = signed::current(&signing.client, &scope, &signing.key, &ledger)?
                && !own.withdrawn()
            {
                return Err(Error::untrusted(format!(
                    "the server has version {} of {scope}, and says that it does not govern the node",
                    own.version()
                ))
                .hint(AGAIN));
            }
        }
        // Else a policy of the node's own would be signed in its place.
        if let (None, Some(group)) = (policy, &governed.group) {
            let scope = Scope::Group(group.clone());
            if let Some(own) = signed::current(&signing.client, &scope, &signing.key, &ledger)?
                && !own.withdrawn()
            {
                return Err(Error::untrusted(format!(
                    "the server has version {} of {scope}, and says that the node, which is in that group, has no policy",
                    own.version()
                ))
                .hint(AGAIN));
            }
        }
        Ok(governed)
    }

    /// The same, but older documents than the workstation knows of pass: to apply a whole one is the remedy for these.
    ///
    /// # Errors
    /// `Untrusted` as [`SignedByUs::check`]; as every request.
    pub fn as_served(signing: &SigningContext<'_>, id: NodeId) -> Result<Self> {
        let (client, key) = (&signing.client, &signing.key);
        let NodePolicy { group, membership, policy, additions, trusted } = client.node_policy(id)?;
        let membership =
            membership.map(|signed| SignedByUs::check(&signed, &Scope::Membership(id), key)).transpose()?;
        let node = TenantNode { id, tenant_key: key.public() };
        let named = membership.as_ref().map(|own| node.group(own.document())).transpose();
        let named = named.map_err(|unfit| ungoverned(&unfit))?.flatten();
        if named != group.as_deref() {
            return Err(Error::untrusted(format!(
                "the server says that the node is in {}, and this workstation has signed that it is in {}",
                group
                    .as_deref()
                    .map_or("no group".to_owned(), |name| format!("group {}", clean_short(name, 64))),
                named.map_or("no group".to_owned(), |name| format!("group {name}")),
            ))
            .hint("`halfkey group set NODE` signs where it belongs"));
        }
        let policy = policy.map(|record| {
            let own = Scope::Node(id);
            // The scope is the record's word; that it is one of these two is checked here.
            let scope = match &group {
                Some(group) if record.summary.scope != own.to_string() => Scope::Group(group.clone()),
                _ => own,
            };
            SignedByUs::check(&record.signed, &scope, key)
        });
        let policy = policy.transpose()?;
        let additions = additions
            .map(|record| SignedByUs::check(&record.signed, &Scope::Additions(id), key))
            .transpose()?;
        if let Some(own) = [&policy, &additions].into_iter().flatten().find(|own| own.withdrawn()) {
            return Err(Error::untrusted(format!(
                "the server says that {} version {} governs the node, which was withdrawn",
                own.scope(),
                own.version()
            )));
        }
        // The same rule as the verifier's.
        let policy_fits = policy.as_ref().map_or(Ok(()), |own| node.policy(own.document(), named));
        let additions_fit = additions.as_ref().map_or(Ok(()), |own| node.additions(own.document()));
        policy_fits.and(additions_fit).map_err(|unfit| ungoverned(&unfit))?;
        Ok(Self { group, membership, policy, additions, trusted })
    }

    /// What the tenant signed, as one policy; `None` if there is none.
    ///
    /// # Errors
    /// When a document of this workstation can't be read any more.
    pub fn effective(&self) -> Result<Option<Effective>> {
        let Some(own) = &self.policy else { return Ok(None) };
        let policy = Source::from(own).policy()?;
        let additions = match &self.additions {
            Some(additions) => Some(Source::from(additions).additions()?),
            None => None,
        };
        Ok(Some(Effective::new(&policy, additions.as_ref())))
    }

    /// The same, and with the proposals that the server says count.
    ///
    /// # Errors
    /// As [`Governed::effective`].
    pub fn with_trusted(&self, client: &Client, attester: &Attester) -> Result<Option<Effective>> {
        let Some(mut effective) = self.effective()? else { return Ok(None) };
        if !effective.trusts() {
            return Ok(Some(effective));
        }
        // Oldest first: a machine may have proposed while it ran what was trusted before.
        for record in self.trusted.iter().rev() {
            let base = base_boot(client, attester, record.from_evidence, &effective)?;
            // One that the policy's rules forbid by now counts for nothing.
            effective.trust(record.id, &record.proposal, base.as_deref());
        }
        Ok(Some(effective))
    }

    /// The document that a new `[[boot]]` belongs to: the policy that governs the node.
    ///
    /// # Errors
    /// `Failed` if there is none.
    pub fn to_extend(&self, id: NodeId) -> Result<&SignedByUs> {
        self.policy.as_ref().ok_or_else(|| {
            Error::failed(format!("node {id} has no policy that this could be added to"))
                .hint("make its first with `halfkey approve NODE --learn` or `halfkey policy learn NODE` and `policy apply`")
        })
    }
}

/// What the server shows is not what governs the node.
fn ungoverned(unfit: &Unfit) -> Error {
    Error::untrusted(format!("the server says that a document governs the node, which does not: {unfit}"))
}

/// The newest document of a scope, to be extended: not older than this workstation knows, and the one that the server showed
/// beside the node.
///
/// # Errors
/// `Untrusted` when it is not; as every request.
pub fn extendable(signing: &SigningContext<'_>, shown: &SignedByUs) -> Result<SignedByUs> {
    match signed::current(&signing.client, shown.scope(), &signing.key, &signing.ledger()?)? {
        Some(own) if own == *shown => Ok(own),
        _ => Err(Error::untrusted(format!("the server shows different policies for {}", shown.scope()))
            .hint("somebody may be applying one at this moment: try again")),
    }
}

/// The signed `[[boot]]` by which, or by a proposal upon which, a stored boot was released; `None` if none fits any more, or the boot
/// can't be checked here: the verifier has trimmed its logs, it is of an earlier enrollment (another SRK or bank), somebody altered it.
/// Then a proposal is based on what all boots of the policy have in common, and on none where they differ.
///
/// # Errors
/// As every request that is not about this boot alone.
pub fn base_boot(
    client: &Client,
    attester: &Attester,
    evidence: u64,
    effective: &Effective,
) -> Result<Option<String>> {
    match attester.boot(client, evidence).and_then(|boot| Ok(boot.by(effective.policy())?.boot)) {
        Ok(running) => Ok(running.and_then(|running| effective.base_of(&running).map(str::to_owned))),
        Err(error) => trial::about_one(client, error).map(|_| None),
    }
}
